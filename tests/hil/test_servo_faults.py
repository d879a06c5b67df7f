"""The drivers of servo buses against emulated ones: every fault named, the arm safe."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import pytest

from landbridge.deploy.clock import uptime
from landbridge.deploy.guard import Guard
from landbridge.deploy.hardware.servo_bus import Block, NoAnswerError
from landbridge.deploy.hardware.servo_poll import Poll
from landbridge.deploy.hardware.servo_port import SdkPort
from landbridge.deploy.hardware.servos import Servos
from landbridge.deploy.supervisor import State

from .arm import ARM, AWAY, DT, HOME, at, connect_patiently, power, recover, tell, until
from .rig import Emulated

pytestmark = pytest.mark.filterwarnings("ignore:feetech")

FAULTS = {  # order: the faults that it may be named
    "gone elbow": {"servo_silent:elbow"},
    "wrong_id elbow 77": {"servo_silent:elbow"},
    "torque_lost elbow": {"torque_lost:elbow"},
    "overload elbow": {"servo_overload:elbow"},
    "temperature elbow 75": {"servo_overheated:elbow"},
    "voltage elbow 5.5": {"servo_voltage:elbow"},
    "lost to_host": {f"servo_silent:{joint}" for joint in ARM.spec.joint_names},
    "flip to_host": {f"servo_silent:{joint}" for joint in ARM.spec.joint_names},
    "length to_host": {f"servo_silent:{joint}" for joint in ARM.spec.joint_names},
    "unplug": {"port_lost"},
}


@pytest.mark.parametrize("order", FAULTS)
def test_a_fault_is_named_and_left_by_a_reset(servos: Servos, arm_bus: Emulated, order: str) -> None:
    until(servos, lambda: at(AWAY, arm_bus), AWAY)
    arm_bus.order(order)
    until(servos, lambda: bool(servos.fault), AWAY)
    assert servos.fault in FAULTS[order]
    assert all(map(math.isnan, servos.read()[0]))
    arm_bus.order("plug" if order == "unplug" else "clear")
    recover(servos)
    until(servos, lambda: at(HOME, arm_bus), HOME)


@pytest.mark.parametrize("order", ["gone elbow", "temperature elbow 75"])
def test_a_reset_does_not_help_while_the_cause_lasts(servos: Servos, arm_bus: Emulated, order: str) -> None:
    arm_bus.order(order)
    until(servos, lambda: bool(servos.fault), HOME)
    servos.recover()
    until(servos, lambda: bool(servos.fault), HOME)
    assert servos.fault in FAULTS[order] | {"servo_silent:elbow"}  # while it restarts


@pytest.mark.parametrize("direction", ["to_board", "to_host"])
def test_one_damaged_packet_is_no_fault(servos: Servos, arm_bus: Emulated, direction: str) -> None:
    for i, damage in enumerate(["flip", "drop", "insert", "half", "length", "lost", "noise", "garbled"]):
        arm_bus.order(f"{damage} {direction} 1")
        pose = AWAY if i % 2 else HOME
        until(servos, lambda pose=pose: at(pose, arm_bus), pose)
        assert servos.fault == "", damage


def test_one_damaged_answer_is_asked_for_again_in_the_same_period(
    servos: Servos, arm_bus: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert servos._bus is not None
    until(servos, lambda: at(HOME, arm_bus), HOME)
    servos._spec = servos._spec.model_copy(update={"control_dt": 0.1})  # a busy machine finds time to ask again
    before, asked, ask = servos.counters["bad_answers"], list[float](), servos._bus.sync_read

    def sync_read(*arguments: Any) -> Any:
        asked.append(servos._clock())
        return ask(*arguments)

    monkeypatch.setattr(servos._bus, "sync_read", sync_read)
    arm_bus.order("flip to_host 1")
    servos.read()
    assert servos.counters["bad_answers"] > before
    assert asked[0] + 1e-4 < asked[1] - 1e-4 < servos.told_at <= asked[1]  # by whose answer it knows where the arm was


def test_a_lost_answer_or_an_old_firmware_does_not_cost_the_packed_answers(
    servos: Servos, kind: str, arm_bus: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert servos.readings["packed"] == (kind == "dynamixel")
    if kind == "feetech":
        pytest.skip("feetech servos do not pack")
    bus = servos._bus
    assert bus is not None
    bus.port.deadline = math.inf
    arm_bus.order("lost to_host 1")
    assert Poll(bus, list(servos._joints), uptime, servos.counters).packed
    read = bus.sync_read

    def without_fast(block: Block, ids: Sequence[int], fast: bool = False) -> dict[int, dict[str, int]]:
        if fast:  # older than 45
            raise NoAnswerError(ids[0])
        return read(block, ids)

    monkeypatch.setattr(bus, "sync_read", without_fast)
    assert Poll(bus, list(servos._joints), uptime, servos.counters).packed


def test_firmware_that_shows_its_packed_bytes_elsewhere_is_packed_too(kind: str, arm_bus: Emulated) -> None:
    """XL330 from firmware 52 on."""
    if kind == "feetech":
        pytest.skip("feetech servos do not pack")
    joints = ARM.spec.joint_names
    try:
        for joint in joints:
            arm_bus.order(f"shows_at {joint} 208")
        with closing(connect_patiently(kind, arm_bus)) as servos:
            until(servos, lambda: at(HOME, arm_bus), HOME)
            assert servos.readings["packed"] == 1
            assert servos.read()[0] == pytest.approx(arm_bus.order("status")["position"], abs=0.02)
            arm_bus.order(f"shows_at {joints[-1]} 224")
            until(servos, lambda: servos.counters["servo_restarted"] > 0, HOME)
            assert servos.readings["packed"] == 0 and servos.fault == ""
    finally:
        for joint in joints:
            arm_bus.order(f"shows_at {joint} 224")


def test_a_servo_that_jams_under_load_reports_its_overload(servos: Servos, arm_bus: Emulated) -> None:
    arm_bus.order("stuck gripper")
    until(servos, lambda: bool(servos.fault), [*HOME[:5], 1.4])
    assert servos.fault == "servo_overload:gripper"


def test_a_stop_brings_no_torque_to_servos_that_have_none(
    kind: str, arm_bus: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their port was full when the first goal came; it takes bytes again when somebody has carried the arm."""
    with closing(connect_patiently(kind, arm_bus)) as servos:
        until(servos, lambda: not servos.fault)
        with monkeypatch.context() as full:
            full.setattr(SdkPort, "writePort", lambda self, packet: 0)
            servos.write(HOME)
        assert servos.fault == "port_blocked"
        for _ in range(10):
            servos.read()
            servos.write(AWAY)
        assert not any(arm_bus.order("status")["torque"])
        recover(servos)
        power(servos, arm_bus)


def test_a_write_while_the_port_vanishes(servos: Servos, arm_bus: Emulated) -> None:
    until(servos, lambda: at(HOME, arm_bus), HOME)
    arm_bus.order("unplug")
    servos.write(HOME)
    servos.read()
    assert servos.fault == "port_lost"
    servos.write(HOME)
    servos.disable()


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("frozen shoulder_pan", {"frozen_encoder", "tracking_error"}),
        ("jump shoulder_pan 90", {"position_jump", "velocity_limit"}),
        ("wrap shoulder_pan", {"position_jump"}),
        ("stuck shoulder_pan", {"tracking_error"}),
    ],
)
def test_what_only_the_guard_can_see(
    servos: Servos,
    kind: str,
    arm_bus: Emulated,
    order: str,
    expected: set[str],
    record_property: Callable[[str, object], None],
) -> None:
    """Read and written as the bridge does it, while a policy swings the joint."""
    until(servos, lambda: max(map(abs, servos.read()[1])) < 0.3, HOME)  # it has begun to fall
    guard, stamp = Guard(servos._spec), 0  # as patient
    for state in (State.STANDBY, State.ARMED):
        guard.supervise(state, 1, uptime())
    started, struck = uptime(), math.inf
    next_tick = started
    while guard.fault is None and (age := uptime() - started) < 8:
        stamp, told, measured = stamp + 1, servos.told_at, servos.read()
        if servos.told_at > told:  # a busy machine may have no news in a period
            guard.measure(stamp, uptime(), *measured)
        if age > 0.6:
            guard.supervise(State.ACTIVE, 1, uptime())
            if age > 1.2 and struck == math.inf:
                struck = uptime()
                arm_bus.order(order)
            swing = [1.2 * math.sin(2 * (age - 0.6)), *HOME[1:]]
            guard.admit(stamp, ARM.spec.actuated, swing, uptime())
            servos.write(guard.written)
        else:
            guard.supervise(State.ARMED, 1, uptime())
        if (stop := guard.tick(uptime())) is not None and stop.write:
            servos.write(stop.command)
        next_tick += DT
        time.sleep(max(0.0, next_tick - uptime()))
    named = 1000 * (uptime() - struck)
    assert named > 0, f"{guard.fault} before anything was broken; {servos.fault} {servos.read()} {age}"
    assert guard.fault is not None and guard.fault.value in expected, servos.fault
    tell(record_property, kind, order, named)
