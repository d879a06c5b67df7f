"""Driver, guard and supervisor on an emulated arm, as the bridge has them: what a strained joint leads to."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator

import pytest

from landbridge.deploy.hardware.servos import Servos
from landbridge.deploy.hil.loop import Failed, Loop
from landbridge.deploy.supervisor import Event, State
from landbridge.robot import Robot

from .arm import ARM, PATIENT_MS, SETTINGS
from .rig import Emulated, real_time

SECONDS = 10.0


@pytest.fixture(scope="module")
def opened(bus: tuple[str, Emulated]) -> Iterator[Loop]:
    """In STANDBY; afterwards parked without torque."""
    kind, arm_bus = bus
    for words in ("plug", "clear", "reset"):
        arm_bus.order(words)
    safety = ARM.spec.safety.model_copy(update={"max_command_age_ms": PATIENT_MS, "parking_speed": 2.0})
    spec = ARM.spec.model_copy(update={"safety": safety})
    watchdog = {"watchdog_ms": PATIENT_MS} if kind == "dynamixel" else {}
    with warnings.catch_warnings(action="ignore"), real_time():
        servos = Servos(Robot(spec, ARM.folder), SETTINGS[kind](port=arm_bus.port, **watchdog))
        made = Loop(spec, servos)
        try:
            until(made, lambda: made.state is State.STANDBY)
            yield made
            made.park()
            assert not any(arm_bus.order("status")["torque"])
        finally:
            servos.close()


@pytest.fixture
def loop(opened: Loop, bus: tuple[str, Emulated]) -> Iterator[Loop]:
    """ACTIVE in the default pose; afterwards a reset leads back to it."""
    if opened.state is not State.ACTIVE:
        opened.arm()
    yield opened
    bus[1].order("clear")
    opened.reset()
    opened.arm()
    assert all(bus[1].order("status")["torque"])


def until(loop: Loop, condition: Callable[[], bool], wanted: list[float] | None = None) -> None:
    """Control periods that command `wanted` until `condition` holds."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{loop.state}, {loop.fault!r}, {loop.last}"
        loop.tick(wanted)


def test_an_overload_stops_the_arm_and_is_left_by_a_reset(loop: Loop, bus: tuple[str, Emulated]) -> None:
    bus[1].order("overload elbow")
    until(loop, lambda: loop.state is State.FAULT, list(loop.idle()))
    assert loop.fault == "servo_overload:elbow"
    powered = bus[1].order("status")["torque"]
    assert powered == [joint != "elbow" or bus[0] == "feetech" for joint in ARM.spec.joint_names]
    with pytest.raises(Failed, match="arm refused in FAULT"):
        loop._handle(Event.ARM)


def test_torque_that_one_joint_has_lost_comes_back_in_armed_only(loop: Loop, bus: tuple[str, Emulated]) -> None:
    bus[1].order("torque_lost elbow")
    until(loop, lambda: loop.state is State.FAULT, list(loop.idle()))
    assert loop.fault == "torque_lost:elbow"
    loop.reset()
    count = len(loop.ticks)
    until(loop, lambda: len(loop.ticks) > count + 10)
    assert loop.state is State.STANDBY
    assert bus[1].order("status")["torque"] == [joint != "elbow" for joint in ARM.spec.joint_names]


def test_a_hot_servo_has_the_arm_parked_and_not_armed_again(loop: Loop, bus: tuple[str, Emulated]) -> None:
    bus[1].order("temperature elbow 68")
    until(loop, lambda: loop.state is State.PARK, list(loop.idle()))
    until(loop, lambda: loop.state is State.STANDBY)
    parked = [ARM.spec.parking[name] for name in ARM.spec.actuated]
    assert loop.last.position == pytest.approx(parked, abs=0.1)  # led there, not fallen
    until(loop, lambda: not any(bus[1].order("status")["torque"]))  # a packet that was late is said again
    assert bus[1].order("status")["error"] == [0] * 6
    with pytest.raises(Failed, match="arm refused while there is servo_temperature:elbow"):
        loop.arm()


def test_an_arm_that_gets_hot_while_it_is_stopped_can_be_parked(loop: Loop, bus: tuple[str, Emulated]) -> None:
    loop.stop()
    bus[1].order("temperature elbow 68")
    until(loop, lambda: loop.hardware.warning == "servo_temperature:elbow")
    assert loop.state is State.FAULT
    loop.park()
    assert not any(bus[1].order("status")["torque"])


def test_a_fault_while_an_arm_comes_to_rest_is_named_at_once(loop: Loop, bus: tuple[str, Emulated]) -> None:
    bus[1].order("torque_lost elbow")
    until(loop, lambda: loop.state is State.FAULT, list(loop.idle()))
    loop.reset()  # the elbow falls
    bus[1].order("gone elbow")
    with pytest.raises(Failed, match="stopped by servo_silent:elbow"):
        loop.arm()


def test_a_stuck_joint_stops_the_arm_before_its_servo_is_overloaded(loop: Loop, bus: tuple[str, Emulated]) -> None:
    bus[1].order("stuck shoulder_pan")
    stuck = loop.last.position[0]
    until(loop, lambda: loop.state is State.FAULT, [1.5, *loop.idle()[1:]])
    assert loop.fault == "tracking_error"
    assert loop.last.position[0] == pytest.approx(stuck, abs=0.01)
    servo = bus[1].order("status")
    assert servo["error"] == [0] * 6 and all(servo["torque"])  # HOLD pulls at it no more


def test_a_joint_too_weak_for_its_load_is_off_its_target(loop: Loop, bus: tuple[str, Emulated]) -> None:
    for joint in ("shoulder_lift", "elbow"):
        bus[1].order(f"weak {joint} 0.05")
    until(loop, lambda: loop.state is State.FAULT, [0.0, -1.2, *loop.idle()[2:]])
    assert loop.fault in ("tracking_error", "velocity_limit")
