"""A process that is ended parks the robot first, and an e-stop is heard meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from landbridge.deploy.supervisor import State
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge_nodes import bringup, topics
from landbridge_nodes.operator import START_TIMEOUT, Operator
from landbridge_nodes.processes import Processes

pytestmark = pytest.mark.ros
ARM = load_robot("arm")  # folds in seconds; the furuta rests at once


def test_an_estop_is_heard_while_the_robot_parks_at_the_end(tmp_path: Path, ros_domain: None) -> None:
    """First the monitor is ended, then the bridge alone."""

    def end(name: str, started: Processes, number: signal.Signals) -> None:
        """End a process in ACTIVE, and e-stop once the robot is on its way to the parking pose."""
        reasons.clear()
        operator.call("/monitor/arm")
        operator.wait(lambda: operator.state is State.ACTIVE, 20)
        process = psutil.Process(started.pid(name))
        os.kill(process.pid, number)
        operator.wait(lambda: reasons[-5:] == ["not_active"] * 5, 5)
        operator.call("/monitor/estop")
        operator.wait(lambda: process.status() == psutil.STATUS_ZOMBIE, 10)
        operator.wait(lambda: reasons[-1] == "stopped", 5)
        assert "parked" not in reasons

    def resets() -> bool:
        with suppress(InputError):
            operator.call("/monitor/reset")
            return True
        return False

    def keep(message: Any) -> None:
        reasons.append(message.header.frame_id)

    reasons: list[str] = []
    specs = bringup.record("arm", "none", 0, "")[1:]
    with Processes(specs) as processes, Operator(ARM, lambda: None) as operator:
        topics.subscribe(operator.node, topics.GUARD_COMMAND, keep)
        operator.wait_ready(recorded=False)
        end("monitor", processes, signal.SIGINT)
        with Processes([specs[-1]]):
            operator.wait(lambda: (operator.state, operator.reason) == (State.FAULT, "estop"), START_TIMEOUT)
            operator.wait(resets, 5)  # once the new monitor has heard a measurement
            operator.wait(lambda: operator.state is State.STANDBY, 5)
            end("bridge", processes, signal.SIGTERM)
        said = "".join(log.read_text() for log in (tmp_path / "ros_log").iterdir())
        assert "torque is left on (estop): support the robot and cut its power" in said


@pytest.fixture
def terminal() -> Iterator[None]:
    """The tests themselves may run under nohup, which would have the processes ignore that a terminal is closed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_processes_that_are_all_ended_at_once_park_the_robot_first(
    tmp_path: Path, ros_domain: None, terminal: None, number: signal.Signals
) -> None:
    """As at the end of a machine, of who started them, or of a terminal: none waits for another to hear its signal."""
    reasons: list[str] = []
    specs = bringup.record("arm", "none", 0, "")[1:]
    with Processes(specs) as processes, Operator(ARM, lambda: None) as operator:
        topics.subscribe(operator.node, topics.GUARD_COMMAND, lambda message: reasons.append(message.header.frame_id))
        operator.wait_ready(recorded=False)
        operator.call("/monitor/arm")
        operator.wait(lambda: operator.state is State.ACTIVE, 20)
        every = [psutil.Process(processes.pid(spec.name)) for spec in specs]
        for process in every:
            process.send_signal(number)
        operator.wait(lambda: all(process.status() == psutil.STATUS_ZOMBIE for process in every), 15)
    assert "parked" in reasons
    said = "".join(log.read_text() for log in (tmp_path / "ros_log").iterdir())
    assert "torque is left on" not in said
    assert "controller_lost" not in said
