"""What a reset of servos brings back, and what not: joints that hold, torque that is lost, a bus plugged in again."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from landbridge.deploy.hardware.servo_joints import to_position
from landbridge.deploy.hardware.servos import Servos

from .arm import ARM, AWAY, HOME, PATIENT_MS, at, recover, until
from .rig import Emulated

pytestmark = pytest.mark.filterwarnings("ignore:feetech")


def test_a_reset_does_not_drop_a_joint_that_goes_on_in_spite_of_its_error(
    servos: Servos, kind: str, arm_bus: Emulated
) -> None:
    """A Dynamixel keeps what was wrong with its voltage until it reboots, which would let the joint fall."""
    until(servos, lambda: all(arm_bus.order("status")["torque"]), HOME)
    arm_bus.order("voltage elbow 5.5")
    until(servos, lambda: servos.fault == "servo_voltage:elbow", HOME)
    servos.recover()
    assert all(arm_bus.order("status")["torque"])
    until(servos, lambda: "servo_voltage:elbow" in (servos.fault, servos.warning), HOME)  # it is still too low
    assert bool(servos.fault) == (kind == "feetech")
    arm_bus.order("voltage elbow 12")
    recover(servos)
    until(servos, lambda: servos.readings["elbow.voltage_mv"] == 12_000 and at(AWAY, arm_bus), AWAY)
    assert all(arm_bus.order("status")["torque"])
    assert servos.fault == ""
    arm_bus.order("torque_lost elbow")
    until(servos, lambda: bool(servos.fault), AWAY)
    assert servos.fault in ("servo_voltage:elbow", "torque_lost:elbow")


def test_a_reset_does_not_bring_torque_back_to_a_joint_that_has_lost_it(servos: Servos, arm_bus: Emulated) -> None:
    until(servos, lambda: all(arm_bus.order("status")["torque"]), HOME)
    arm_bus.order("torque_lost elbow")
    until(servos, lambda: bool(servos.fault), HOME)
    recover(servos)
    assert list(servos.limp) == ["elbow"]
    assert arm_bus.order("status")["torque"] == [name != "elbow" for name in ARM.spec.joint_names]


def test_joints_that_held_on_through_a_reset_are_missed_when_they_fall_too(servos: Servos, arm_bus: Emulated) -> None:
    until(servos, lambda: all(arm_bus.order("status")["torque"]), HOME)
    arm_bus.order("torque_lost elbow")
    until(servos, lambda: bool(servos.fault), HOME)
    recover(servos)
    arm_bus.order("torque_lost shoulder_lift")
    until(servos, lambda: servos.fault == "torque_lost:shoulder_lift")
    recover(servos)
    assert sorted(servos.limp) == ["elbow", "shoulder_lift"]
    servos.disable()  # what has no torque because nobody wants it to is no fault
    servos.read()
    assert servos.fault == ""


def test_a_reset_holds_a_joint_that_sags_beyond_its_limit_at_the_limit(
    servos: Servos, monkeypatch: pytest.MonkeyPatch
) -> None:
    until(servos, lambda: bool(servos.torque), HOME)
    joint, written = ARM.spec.joints[1], []
    assert joint.position_limit is not None and servos._bus is not None
    with monkeypatch.context() as patched:
        patched.setitem(servos._position, 2, joint.position_limit[1] + 0.1)
        patched.setattr(servos._bus, "sync_write", lambda *packet: written.append(packet))
        servos._begin_here(servos._bus)
    (goals,) = (values for register, values in written if register == "goal_position")
    assert to_position(joint, goals[2]) == pytest.approx(joint.position_limit[1], abs=0.002)


@pytest.mark.real_servos
def test_a_servo_that_forgot_how_to_move_is_told_again_by_a_reset(servos: Servos) -> None:
    assert servos._bus is not None
    register, told = next(iter(servos._bus.family.prepared.items()))
    servos._bus.sync_write(register, {3: 20})
    servos.read()
    servos.recover()
    servos._bus.port.deadline = math.inf
    assert servos._bus.read(3, register) == told


def test_a_watchdog_that_was_not_armed_is_armed_again(servos: Servos, kind: str, arm_bus: Emulated) -> None:
    if kind == "feetech":
        pytest.skip("feetech servos have no bus watchdog")
    until(servos, lambda: all(arm_bus.order("status")["torque"]), HOME)
    arm_bus.order("unwatched elbow")
    until(servos, lambda: min(arm_bus.order("status")["watchdog"]) == PATIENT_MS / 20, HOME)
    assert servos.counters["watchdog_rearmed"] >= 1


def test_servos_that_have_restarted_are_not_misread(servos: Servos, kind: str, arm_bus: Emulated) -> None:
    """Dynamixel then shows zeros, -pi rad, where it was told to show what is measured, until it is told again."""
    until(servos, lambda: all(arm_bus.order("status")["torque"]), HOME)
    servos._stale = 1.0  # s, for they are silent for 0.2 s
    arm_bus.order("reboot")
    seen: list[Sequence[float]] = []
    while not servos.fault:
        seen.append(servos.read()[0])
        assert len(seen) < 1000
    assert servos.fault.startswith("torque_lost")
    assert min(min(position) for position in seen if not math.isnan(position[0])) > -2
    if kind == "dynamixel":
        assert servos.counters["servo_restarted"] == 1
    recover(servos)
    until(servos, lambda: all(arm_bus.order("status")["torque"]) and not servos.fault, HOME)


def test_a_bus_plugged_in_again_does_not_move_before_a_reset(servos: Servos, arm_bus: Emulated) -> None:
    until(servos, lambda: at(AWAY, arm_bus), AWAY)
    arm_bus.order("unplug")
    until(servos, lambda: servos.fault == "port_lost", AWAY)
    arm_bus.order("latency 3")  # slow, but within what an attempt may take
    arm_bus.order("plug")
    until(servos, lambda: servos._reopened, HOME, seconds=15)
    arm_bus.order("latency 0")
    opened = servos.told_at
    until(servos, lambda: servos.told_at > opened + 0.05, HOME)
    goals = arm_bus.order("status")["goal"]
    for _ in range(5):
        servos.write(HOME)
        servos.read()
    assert servos.fault == "port_lost"
    assert arm_bus.order("status")["goal"] == goals
    recover(servos)
    until(servos, lambda: at(HOME, arm_bus), HOME)
