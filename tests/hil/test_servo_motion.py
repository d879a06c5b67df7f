"""What the drivers of servo buses measure and command: positions by name, and torque that goes off."""

from __future__ import annotations

import math
import time

import pytest

from landbridge.deploy.hardware import Reporting
from landbridge.deploy.hardware.servos import Servos

from .arm import AWAY, HOME, PATIENT_MS, at, connect, power, until
from .rig import Emulated

pytestmark = pytest.mark.filterwarnings("ignore:feetech")


@pytest.mark.real_servos
def test_positions_and_velocities_by_name(servos: Servos, arm_bus: Emulated) -> None:
    until(servos, lambda: at(AWAY, arm_bus, 4, 0.01), AWAY)
    position, velocity = servos.read()
    seen = arm_bus.order("status")
    assert position == pytest.approx(seen["position"], abs=0.01)
    assert velocity == pytest.approx(seen["velocity"], abs=0.1)
    until(servos, lambda: servos.read()[1][0] < -0.3, [-1.0, *AWAY[1:]])


@pytest.mark.real_servos
def test_torque_comes_with_a_goal_and_goes_when_it_is_told(servos: Servos, arm_bus: Emulated) -> None:
    assert not servos.torque
    until(servos, lambda: servos.torque and at(HOME, arm_bus), HOME)
    assert all(arm_bus.order("status")["torque"])
    servos.disable()
    until(servos, lambda: not servos.torque)
    assert not any(arm_bus.order("status")["torque"])


def test_it_reports_torque_watchdog_and_goals_in_effect(servos: Servos, kind: str, arm_bus: Emulated) -> None:
    assert isinstance(servos, Reporting)
    assert servos.watchdog == (PATIENT_MS / 1000 if kind == "dynamixel" else math.inf)
    assert "elbow" in servos.identity["servos"]
    until(servos, lambda: servos.torque, HOME)
    before = time.monotonic()
    assert not servos.in_effect(before)
    arm_bus.order("lost to_board 1")
    servos.write(AWAY)
    assert not servos.in_effect(before)
    servos.write(AWAY)
    assert servos.in_effect(before)
    servos.disable()
    until(servos, lambda: not servos.torque)


def test_a_torque_off_that_is_lost_is_repeated(servos: Servos, arm_bus: Emulated) -> None:
    power(servos, arm_bus)
    arm_bus.order("lost to_board 1")
    servos.disable()
    assert all(arm_bus.order("status")["torque"])
    until(servos, lambda: not any(arm_bus.order("status")["torque"]))


def test_a_torque_off_that_is_lost_is_repeated_by_close(servos: Servos, arm_bus: Emulated) -> None:
    power(servos, arm_bus)
    arm_bus.order("lost to_board 2")
    servos.disable()
    servos.close()
    assert not any(arm_bus.order("status")["torque"])
    servos.close()
    servos._open()


def test_a_torque_that_does_not_go_off_is_told_at_the_end(
    servos: Servos, arm_bus: Emulated, caplog: pytest.LogCaptureFixture
) -> None:
    power(servos, arm_bus)
    arm_bus.order("lost to_board")
    servos.disable()
    servos.close()
    assert all(arm_bus.order("status")["torque"])
    assert "not all servos say that torque is off: cut their power" in caplog.text
    arm_bus.order("clear")
    servos._open()


def test_a_torque_off_outlives_a_reset(servos: Servos, arm_bus: Emulated) -> None:
    power(servos, arm_bus)
    arm_bus.order("lost to_board 1")
    servos.disable()
    servos.recover()
    assert all(arm_bus.order("status")["torque"])
    until(servos, lambda: not any(arm_bus.order("status")["torque"]))
    assert servos.fault == ""


def test_servos_without_torque_are_given_no_goal_before_they_are_to_move(
    servos: Servos, kind: str, arm_bus: Emulated
) -> None:
    """There are servos that take a goal for an order to switch on."""
    until(servos, lambda: servos.torque, AWAY)
    servos.disable()
    until(servos, lambda: not servos.torque)
    goals = arm_bus.order("status")["goal"]
    servos.recover()
    assert arm_bus.order("status")["goal"] == goals
    servos.close()
    arm_bus.order("reset")
    connect(kind, arm_bus).close()
    assert arm_bus.order("status")["goal"] == goals
