"""The whole ROS graph on an emulated Dynamixel bus: a bridge with that back end, a controller, the monitor."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from landbridge.deploy.supervisor import State
from landbridge.errors import InputError
from landbridge_nodes import bringup
from landbridge_nodes.operator import Operator
from landbridge_nodes.processes import Processes

from .arm import ARM
from .conftest import altered
from .rig import Emulated

pytestmark = pytest.mark.ros
TICKS = 60
ALTERED = (
    ("max_command_age_ms: 30", "max_command_age_ms: 60"),  # patient: a busy machine is late at times
    ("parking_speed: 0.8", "parking_speed: 2.0"),  # rad/s; it parks and arms seven times
)


def test_the_arm_follows_parks_and_names_a_servo_that_is_lost(tmp_path: Path, ros_domain: None) -> None:
    def standby() -> bool:
        """An operator's resets, until one helps: a busy machine is late at times."""
        if operator.state is State.FAULT:
            with contextlib.suppress(InputError):
                operator.call("/monitor/reset")
        return operator.state is State.STANDBY

    def active() -> bool:
        if standby():
            with contextlib.suppress(InputError):
                operator.call("/monitor/arm")
        return operator.state is State.ACTIVE

    arm = altered(ARM, tmp_path / "arm", *ALTERED)
    emulated = Emulated(tmp_path / "bus", "--robot", str(arm.folder), "--hardware", "dynamixel")
    recorded = bringup.record(str(arm.folder), "none", 0, "", hardware="dynamixel", port=emulated.port)
    specs = recorded[1:]  # without the recorder
    with (
        Processes(specs) as processes,
        Operator(arm, processes.check, lambda words: emulated.order("clear")) as operator,
    ):
        operator.wait_ready(recorded=False)
        outcomes = []
        while not any(outcome.ended == "STANDBY" for outcome in outcomes):
            operator.wait(standby, 20)
            outcomes.append(operator.episode(TICKS))
            print(outcomes[-1])
            assert len(outcomes) <= 4
        seen = emulated.order("status")
        assert not any(seen["torque"])  # parked
        operator.refresh_diagnostics()
        assert operator.diagnostics["hardware.elbow.temperature_c"] == "35"
        operator.wait(active, 40)
        emulated.order("temperature elbow 68")
        operator.wait(lambda: (operator.state, operator.reason) == (State.STANDBY, "servo_temperature:elbow"), 20)
        assert not any(emulated.order("status")["torque"])
        with pytest.raises(InputError, match="arm refused while there is servo_temperature:elbow"):
            operator.call("/monitor/arm")
        emulated.order("clear")
        operator.wait(active, 40)
        emulated.order("torque_lost elbow")
        operator.wait(lambda: operator.state is State.FAULT, 10)
        emulated.order("clear")
        operator.wait(standby, 20)
        assert sum(emulated.order("status")["torque"]) == 5  # the others hold the arm
        operator.call("/monitor/park")
        operator.wait(lambda: not any(emulated.order("status")["torque"]), 5)
        operator.wait(active, 40)
        emulated.order("gone elbow")
        operator.wait(lambda: operator.state is State.FAULT, 10)
        assert operator.reason == "servo_silent:elbow"
        assert emulated.order("status")["torque"] == [True] * 6  # the others hold the arm
    assert emulated.end() == 0
