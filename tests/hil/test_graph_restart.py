"""A bridge that is killed over powered servos and started anew: it says so, and leads nothing that it does not hold."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from landbridge.deploy.supervisor import State
from landbridge.errors import InputError
from landbridge_nodes import bringup, topics
from landbridge_nodes.operator import START_TIMEOUT, Operator
from landbridge_nodes.processes import Processes

from .arm import ARM
from .conftest import altered
from .rig import Emulated

pytestmark = pytest.mark.ros
SAG = 0.1  # rad that a loaded joint may give when its servo is told to hold it where it is: at the start, at a reset
PATIENT = {  # a busy machine is late at times
    kind: (
        ("max_command_age_ms: 30", "max_command_age_ms: 400"),
        ("heartbeat_timeout_ms: 200", "heartbeat_timeout_ms: 1000"),
        ("hardware: {kind: twin}", f"hardware: {{kind: {kind}{watchdog}}}"),
    )
    for kind, watchdog in (("dynamixel", ", watchdog_ms: 400"), ("feetech", ""))
}


@pytest.mark.parametrize("kind", ["dynamixel", "feetech"])
def test_a_bridge_is_killed_over_powered_servos_and_started_anew(kind: str, tmp_path: Path, ros_domain: None) -> None:
    def has_moved() -> bool:
        now = emulated.order("status")["position"]
        return max(abs(a - b) for a, b in zip(now, stood, strict=True)) > SAG

    def rests() -> bool:
        return len(measured) > 10 and all(max(map(abs, message.velocity)) < 0.05 for message in measured[-10:])

    robot = altered(ARM, tmp_path / "arm", *PATIENT[kind])
    emulated = Emulated(tmp_path / "bus", "--robot", str(robot.folder), "--hardware", kind)
    specs = bringup.record(str(robot.folder), "none", 0, "", port=emulated.port)[1:]
    measured: list[Any] = []
    verdicts: list[str] = []
    with Processes(specs) as processes, Operator(robot, lambda: None) as operator:
        topics.subscribe(operator.node, topics.JOINT_STATES, measured.append)
        topics.subscribe(operator.node, topics.GUARD_COMMAND, lambda message: verdicts.append(message.header.frame_id))
        operator.wait_ready(recorded=False)
        operator.wait(rests, 20)  # the arm falls from where the servos were switched on
        operator.call("/monitor/arm")
        operator.wait(lambda: len(verdicts) > 30, 20)  # on the way to the default pose
        os.kill(processes.pid("bridge"), signal.SIGKILL)
        operator.wait(lambda: (operator.state, operator.reason) == (State.FAULT, "bridge_lost"), 5)
        if kind == "dynamixel":
            operator.wait(lambda: all(units < 0 for units in emulated.order("status")["watchdog"]), 5)
        stood = emulated.order("status")["position"]
        measured.clear()
        verdicts.clear()
        with Processes([specs[0]]):
            operator.wait(lambda: len(measured) > 20, START_TIMEOUT)
            operator.refresh_diagnostics()
            assert operator.diagnostics["torque"] == "on"
            assert operator.diagnostics["fault"] == (
                "bus_watchdog:shoulder_pan" if kind == "dynamixel" else "bridge_lost"
            )
            with pytest.raises(InputError, match="arm refused in FAULT"):
                operator.call("/monitor/arm")
            operator.wait(lambda: operator.accepted("/monitor/reset"), 5)  # once the stop has had its time
            operator.wait(lambda: operator.state is State.STANDBY, 5)
            measured.clear()
            operator.wait(lambda: len(measured) > 20, 5)
            held = emulated.order("status")
            assert all(held["torque"])
            assert not has_moved()
            operator.call("/monitor/park")
            operator.wait(lambda: (operator.state, operator.reason) == (State.STANDBY, "park"), 5)
            operator.wait(lambda: not any(emulated.order("status")["torque"]), 5)
            assert emulated.order("status")["goal"] == held["goal"]  # led nowhere
            assert set(verdicts) == {"parked"}
    said = "".join(log.read_text() for log in (tmp_path / "ros_log").iterdir())
    assert "torque is on that this bridge has not given" in said
    assert emulated.end() == 0
