"""The whole ROS graph on the emulated wire: a bridge with the back end `mcu`, a controller, the monitor."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from landbridge.deploy.supervisor import State
from landbridge.errors import InputError
from landbridge_nodes import bringup
from landbridge_nodes.operator import Operator
from landbridge_nodes.processes import Processes

from .rig import FURUTA, Emulated

pytestmark = pytest.mark.ros
SWING_UP_TICKS = 301  # a whole episode: 6 s at 50 Hz, and the last observation


@pytest.fixture
def running(emulated: Emulated, ros_domain: None) -> Iterator[tuple[Processes, Operator]]:
    """Bridge on the wire, classical controller and monitor, in STANDBY; without torque afterwards."""
    for words in ("plug", "clear", "reset"):
        emulated.order(words)
    specs = bringup.record("furuta", "none", 0, "", port=emulated.port)[1:]  # without the recorder
    with (
        Processes(specs) as processes,
        Operator(FURUTA, processes.check, lambda: emulated.order("reset")) as operator,
    ):
        operator.wait_ready(recorded=False)
        yield processes, operator


def test_the_furuta_swings_up_and_balances(emulated: Emulated, running: tuple[Processes, Operator]) -> None:
    _, operator = running
    outcomes = []
    while not any(outcome.success for outcome in outcomes):  # the exciting behaviour is made to fail at times
        outcomes.append(operator.episode(SWING_UP_TICKS))
        print(outcomes[-1])
        assert len(outcomes) <= 4
    operator.refresh_diagnostics()
    assert operator.diagnostics["fault"] == ""
    assert operator.diagnostics["hardware.board_refused"] == "0"


def test_a_pulled_plug_is_a_latched_fault_and_ends_with_plug_reset_and_arm(
    emulated: Emulated, running: tuple[Processes, Operator]
) -> None:
    processes, operator = running
    operator.call("/monitor/arm")
    operator.wait(lambda: operator.state is State.ACTIVE, 5)
    emulated.order("unplug")
    operator.wait(lambda: operator.state is State.FAULT, 2)
    assert operator.reason == "port_lost"
    operator.call("/monitor/reset")  # the bridge is well; its hardware is not
    operator.wait(lambda: operator.state is State.FAULT, 2)
    emulated.order("plug")
    emulated.order("reset")
    with pytest.raises(InputError):
        operator.call("/monitor/arm")

    def reset() -> bool:
        if operator.state is State.FAULT:
            operator.call("/monitor/reset")
        return operator.state is State.STANDBY

    operator.wait(reset, 5)
    assert operator.episode(20).ended == "STANDBY"
    os.kill(processes.pid("bridge"), signal.SIGKILL)
    struck = emulated.order("status")
    assert struck["torque"]
    operator._check = lambda: None
    operator.wait(lambda: emulated.order("status")["command"] != struck["command"], 2)
