"""A policy that dies and is started anew, again and again: does the graph arm, and does the bridge go on measuring?

    python benchmarks/restarts.py [--restarts 20] [--rounds 2]

Over UDP, as landbridge sets ROS up, and over Fast DDS's shared memory, as ROS does by itself, in turns on one machine.
Every second policy is killed at once, the others hang before it. Counted are the arms that did not lead to ACTIVE, by
what stopped the robot, and how long the bridge took no measurement: it waits where the middleware holds a publisher up.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import record
import tyro
from latency import random_bundle
from rich.console import Console
from rich.table import Table

from landbridge.deploy.supervisor import State
from landbridge.robot import load_robot
from landbridge_nodes import bringup, topics
from landbridge_nodes.operator import START_TIMEOUT, Operator
from landbridge_nodes.processes import Processes
from landbridge_nodes.transport import PROFILES, RANGE

RESULTS = Path(__file__).parent / "results" / "restarts.json"
ROBOT = load_robot("furuta")
ACTIVE_SECONDS = 0.5  # of each episode that a kill ends
STRIKES = signal.SIGKILL, signal.SIGSTOP
LATE_MS = 2000 * ROBOT.spec.control_dt  # a period was missed


class Graph:
    """A bring-up whose policy can be killed; a context manager."""

    def __init__(self, bundle: Path) -> None:
        self.gaps_ms: list[float] = []
        self._last = 0
        self._specs = {spec.name: spec for spec in bringup.deploy("furuta", "none", 0, str(bundle))}
        self._stack, self._operator = ExitStack(), Operator(ROBOT, lambda: None)

    def __enter__(self) -> Graph:
        self._running = {name: self._stack.enter_context(Processes([spec])) for name, spec in self._specs.items()}
        self._stack.enter_context(self._operator)
        topics.subscribe(self._operator.node, topics.JOINT_STATES, self._on_measurement, depth=100)
        self._operator.wait_ready(recorded=False)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _on_measurement(self, message: Any) -> None:
        stamp = topics.to_ns(message.header.stamp)
        if self._last:
            self.gaps_ms.append((stamp - self._last) / 1e6)
        self._last = stamp

    def restart(self, number: signal.Signals) -> str:
        """Arm, strike the policy, and be in STANDBY with a new one; returns what stopped the robot before, or ""."""
        operator, stopped = self._operator, ""
        operator.call("/monitor/arm")
        operator.wait(lambda: operator.state not in (State.STANDBY, State.ARMED), START_TIMEOUT)
        until = time.monotonic() + ACTIVE_SECONDS
        operator.wait(lambda: operator.state is not State.ACTIVE or time.monotonic() > until, START_TIMEOUT)
        if operator.state is not State.ACTIVE:
            operator.wait(lambda: operator.state is State.FAULT, START_TIMEOUT)
            stopped = operator.reason
        policy = self._running["policy"].pid("policy")
        os.kill(policy, number)
        operator.wait(lambda: operator.state is State.FAULT, START_TIMEOUT)
        if number is not signal.SIGKILL:
            os.kill(policy, signal.SIGKILL)
        self._running["policy"].__exit__(None, None, None)
        self._running["policy"] = self._stack.enter_context(Processes([self._specs["policy"]]))
        operator.wait(lambda: operator.accepted("/monitor/reset"), START_TIMEOUT)
        operator.wait(lambda: operator.state is State.STANDBY, START_TIMEOUT)
        return stopped


def measure(transport: str, restarts: int) -> dict[str, Any]:
    """Figures of one graph over one transport."""
    with tempfile.TemporaryDirectory() as scratch, patch.dict(os.environ):
        if transport == "shared memory":
            other = Path(scratch) / "profiles.xml"
            other.write_text('<dds xmlns="http://www.eprosima.com"/>\n')
            os.environ |= {PROFILES[0]: str(other), RANGE: "LOCALHOST"}  # leaves rmw_fastrtps to itself
        random_bundle(ROBOT, Path(scratch) / "bundle")
        with Graph(Path(scratch) / "bundle") as graph:
            stopped = Counter(graph.restart(STRIKES[i % 2]) for i in range(restarts))
    late = [gap for gap in graph.gaps_ms if gap > LATE_MS]
    return {
        "transport": transport,
        "arms": restarts,
        "stopped": {reason: count for reason, count in sorted(stopped.items()) if reason},
        "longest_gap_ms": round(max(graph.gaps_ms), 1),
        "late": len(late),
        "measurements": len(graph.gaps_ms),
    }


def main(restarts: int = 20, rounds: int = 2) -> None:
    """Measure, print a table, and write `benchmarks/results/restarts.json`.

    Args:
        restarts: Of the policy, in each round.
        rounds: Turns that the two transports take.
    """
    load = os.getloadavg()[0]
    rows = [measure(transport, restarts) for _ in range(rounds) for transport in ("udp", "shared memory")]
    table = Table("transport", "arms", "stopped by", "longest gap [ms]", f"gaps > {LATE_MS:g} ms", "measurements")
    for row in rows:
        stops = ", ".join(f"{count} {reason}" for reason, count in row["stopped"].items())
        table.add_row(*map(str, (row | {"stopped": stops}).values()))
    Console().print(table)
    record.write(RESULTS, load, rows=rows)


if __name__ == "__main__":
    tyro.cli(main)
