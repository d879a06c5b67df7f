"""`landbridge state`: what the supervisor of a running robot says."""

from __future__ import annotations

import time
from typing import Any

from landbridge.spec import require_positive
from landbridge_nodes.process import client, require_one_ros
from landbridge_nodes.transport import stay_on_this_machine


def state(seconds: float = 5.0) -> dict[str, Any]:
    """Say in which state the robot is, and what led to it; `unknown` if no monitor is heard.

    Example: landbridge state --json

    Args:
        seconds: How long to listen at most [s].
    """
    require_positive("--seconds", seconds)
    require_one_ros()
    stay_on_this_machine()
    from rclpy.executors import SingleThreadedExecutor

    from landbridge_nodes import topics

    heard: list[Any] = []
    with client("state") as node:
        executor = SingleThreadedExecutor(context=node.context)
        executor.add_node(node)
        topics.subscribe(node, topics.SAFETY_STATE, heard.append)
        deadline = time.monotonic() + seconds
        while not heard and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
        executor.shutdown()
    if not heard:
        return {"state": "unknown", "reason": f"no monitor was heard in {seconds:g} s"}
    return {"state": heard[-1].name, "reason": heard[-1].message}
