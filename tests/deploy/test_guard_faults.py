"""What the guard stops the robot for: silence, a lost monitor, measurements, each at its boundary."""

from __future__ import annotations

import math
from typing import Any

import pytest

from landbridge.deploy.guard import Guard
from landbridge.deploy.supervisor import STOPS, State
from landbridge.verdict import Reason

from .guarded import DT, ZEROS, Bench, beyond, spec


def test_silence_stops_after_the_stated_periods_and_stays_latched() -> None:
    bench = Bench(max_silence_periods=3)
    assert bench.answer(0.1, 0.1).write
    for period in (1, 2):
        bench.measure((period * 0.04, 0.0, 0.0), velocity=(2.0, 0.0, 0.0))
        assert bench.guard.tick(bench.now) is None
    bench.measure((0.12, 0.0, 0.0), velocity=(2.0, 0.0, 0.0))
    stop = bench.guard.tick(bench.now)
    assert stop is not None
    assert stop.command == pytest.approx((-0.2, 0.0))  # damping 0.1 * 2 rad/s against the motion
    assert (stop.reason, bench.guard.fault, stop.write, stop.release) == (Reason.SILENT, Reason.SILENT, True, False)
    bench.measure((0.12, 0.0, 0.0))
    assert bench.answer(0.1, 0.0).reason is Reason.LATCHED


def test_activation_starts_the_count_of_silence() -> None:
    bench = Bench("position", state=State.ARMED)
    for _ in range(5):
        bench.measure()
        bench.guard.tick(bench.now)
    bench.state = State.ACTIVE
    for _ in range(2):
        bench.measure()
        assert bench.guard.tick(bench.now) is None
    assert bench.answer(0.1, 0.1).write
    for count in range(3):
        assert bench.guard.tick(bench.now) is None, count
        bench.measure()
    assert bench.guard.tick(bench.now) is not None


def test_the_fault_names_the_refusal_that_made_the_silence() -> None:
    bench = Bench()
    bench.answer(0.1, 0.0)
    for _ in range(3):
        bench.measure()
        bench.answer(math.nan, 0.0)
        stop = bench.guard.tick(bench.now)
    assert stop is not None
    assert stop.reason is Reason.NOT_FINITE


def test_loss_of_the_heartbeat_is_a_latched_fault() -> None:
    bench = Bench(heartbeat_timeout_ms=250)  # exact in binary, as the clock's 100 s are
    bench.answer(0.1, 0.0)
    assert bench.guard.tick(bench.now + 0.25) is None
    stop = bench.guard.tick(bench.now + 0.2501)
    assert stop is not None
    assert stop.reason is Reason.MONITOR_LOST
    bench.measure(period=0.3)
    assert bench.answer(0.1, 0.0).reason is Reason.LATCHED


def test_a_command_after_the_loss_of_the_heartbeat_finds_it_lost() -> None:
    """Between two ticks too: a bridge whose timer is late must not follow a policy that nobody watches."""
    bench = Bench(heartbeat_timeout_ms=250, max_command_age_ms=5000)
    verdict = bench.answer(0.1, 0.0, age=0.2501)
    assert (verdict.reason, verdict.write, bench.guard.fault) == (Reason.LATCHED, False, Reason.MONITOR_LOST)


@pytest.mark.parametrize("state", [State.ARMED, State.ACTIVE, State.PARK])
@pytest.mark.parametrize(("seconds", "fault"), [(0.25, None), (0.2501, Reason.MONITOR_LOST)])
def test_a_heartbeat_that_comes_too_late_does_not_undo_that_one_was_missed(
    state: State, seconds: float, fault: Reason | None
) -> None:
    """A computer that wakes, or a bridge that was stopped, may hear the next one before its own timer runs."""
    bench = Bench(state=state, heartbeat_timeout_ms=250)
    bench.guard.supervise(state, bench.epoch, bench.now + seconds)
    assert bench.guard.fault is fault
    bench.guard.supervise(State.UNCONFIGURED, bench.epoch + 1, bench.now + 10.0)  # a reset, late itself
    assert bench.guard.fault is None


def test_torque_does_not_come_on_by_a_measurement_of_long_ago() -> None:
    """Sensors that are blind, or a bridge that stood still, while somebody carries the robot."""
    guard = Guard(spec("position"))
    guard.supervise(State.STANDBY, 0, 0.0)
    guard.measure(0, 0.0, ZEROS, ZEROS)
    guard.supervise(State.ARMED, 0, 3 * DT)
    assert guard.tick(3 * DT) is not None
    for stood in (math.nextafter(3 * DT, 1.0), 3600.0):
        guard = Guard(spec("position"))
        guard.measure(0, 0.0, ZEROS, ZEROS)
        guard.supervise(State.ARMED, 0, stood)
        assert guard.tick(stood) is None
        assert not guard.powered
        guard.measure(1, stood, (0.7, 0.0, 0.0), ZEROS)
        first = guard.tick(stood)
        assert first is not None
        assert first.command[0] == pytest.approx(0.7)


def test_a_robot_that_was_carried_while_its_sensors_were_blind_is_held_where_it_is() -> None:
    guard = Guard(spec("position"))
    guard.supervise(State.STANDBY, 0, 0.0)
    guard.measure(0, 0.0, ZEROS, ZEROS)
    guard.measure(1, DT, (math.nan, 0.0, 0.0), ZEROS)
    guard.supervise(State.ARMED, 0, DT)
    assert guard.tick(DT) is None
    guard.measure(2, 2 * DT, (0.7, 0.0, 0.0), ZEROS)
    held = guard.tick(2 * DT)
    assert held is not None
    assert (held.command[0], guard.fault) == (pytest.approx(0.7), None)


@pytest.mark.parametrize(
    ("position", "velocity", "fault"),
    [
        ((1.0, 0, 0), (30.0, 60.0, 10.0), None),
        ((beyond(1.0), 0, 0), ZEROS, Reason.POSITION_LIMIT),
        ((-2.0, 0, 0), (-30.0, -60.0, -10.0), None),
        ((beyond(-2.0), 0, 0), ZEROS, Reason.POSITION_LIMIT),
        ((0, 0, 0), (beyond(30.0), 0, 0), Reason.VELOCITY_LIMIT),
        ((0, 0, 0), (0, beyond(-60.0), 0), Reason.VELOCITY_LIMIT),
        ((0, 0, 0), (0, 0, beyond(10.0)), Reason.VELOCITY_LIMIT),
        ((0, math.nan, 0), ZEROS, Reason.MEASUREMENT_NOT_FINITE),
        (ZEROS, (0, 0, math.inf), Reason.MEASUREMENT_NOT_FINITE),
        ((0, 0), (0, 0), Reason.MEASUREMENT_INCOMPLETE),
        ((0, 0, 0, 0), (0, 0, 0, 0), Reason.MEASUREMENT_INCOMPLETE),
        (ZEROS, (0, 0), Reason.MEASUREMENT_INCOMPLETE),
        ((), (), Reason.MEASUREMENT_INCOMPLETE),
    ],
)
@pytest.mark.parametrize("state", [State.ARMED, State.ACTIVE, State.PARK])
def test_measured_faults_at_their_boundaries(position: Any, velocity: Any, fault: Reason | None, state: State) -> None:
    near = position if fault in (None, Reason.POSITION_LIMIT) else ZEROS
    bench = Bench(position=(min(max(near[0], -2.0), 1.0), near[1], near[2]))
    bench.answer(0.0, 0.0)
    if state is not State.ACTIVE:
        bench.epoch += 1
        bench.state = state
        bench.guard.supervise(state, 1, bench.now)
    bench.measure(position, velocity)
    assert bench.guard.fault is fault
    stop = bench.guard.tick(bench.now)
    assert (stop is None) == (fault is None and state is State.ACTIVE)
    assert stop is None or stop.reason is (fault or Reason.NOT_ACTIVE)


@pytest.mark.parametrize("state", [State.UNCONFIGURED, State.STANDBY, State.HOLD, State.DAMP, State.FAULT, State.ESTOP])
def test_what_is_measured_where_nothing_moves_is_no_fault(state: State) -> None:
    bench = Bench(state=state)
    bench.measure(velocity=(31.0, 0.0, 0.0))
    bench.measure((math.nan, 0.0, 0.0))
    assert bench.guard.fault is (Reason.STOPPED if state in STOPS else None)


FARTHEST = 30 / 32 + 2 * math.tau / 4096  # rad in 1/32 s at 30 rad/s, and two counts of a servo's encoder


@pytest.mark.parametrize(("way", "fault"), [(FARTHEST, None), (beyond(FARTHEST), Reason.POSITION_JUMP)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_an_encoder_that_jumps(way: float, fault: Reason | None, sign: int) -> None:
    bench = Bench("velocity")
    bench.measure((sign * way, 0.0, 0.0), period=1 / 32)
    assert bench.guard.fault is fault


def test_a_jump_is_the_speeds_fault_if_the_speed_is_over_its_limit_too() -> None:
    bench = Bench("velocity")
    bench.measure((0.7, 0.0, 0.0), (31.0, 0.0, 0.0))
    assert bench.guard.fault is Reason.VELOCITY_LIMIT


def test_an_encoder_that_freezes_while_the_joint_turns() -> None:
    bench = Bench()
    for count in range(3):
        assert bench.guard.fault is None, count
        bench.measure(velocity=(0.6, 0.0, 0.0))  # 2 % of 30 rad/s: rest
    for count in range(3):
        assert bench.guard.fault is None, count
        bench.measure(velocity=(beyond(0.6), 0.0, 0.0))
    assert bench.guard.fault is Reason.FROZEN_ENCODER


@pytest.mark.parametrize("kind", ["effort", "velocity", "position"])
def test_a_passive_joint_beyond_its_position_limit_is_a_fault_whatever_the_others_take(kind: str) -> None:
    """Its robot's targets say nothing of it, so that it cannot sag beneath one."""
    made = spec(kind)
    left, free, right = made.joints
    limited = free.model_copy(update={"position_limit": (-0.5, 0.5)})
    for position, fault in ((0.5, None), (beyond(0.5), Reason.POSITION_LIMIT)):
        guard = Guard(made.model_copy(update={"joints": (left, limited, right)}))
        for stamp, state in enumerate((State.STANDBY, State.ARMED, State.ACTIVE)):
            guard.measure(stamp, stamp * DT, (0.0, position, 0.0), ZEROS)
            guard.supervise(state, 0, stamp * DT)
            guard.tick(stamp * DT)
        assert guard.fault is fault


@pytest.mark.parametrize("side", [-1, 1])
def test_tracking_error_is_a_fault(side: int) -> None:
    bench = Bench("position", max_tracking_error=0.25)
    bench.answer(side * 0.125, 0.0)
    bench.measure((side * -0.125, 0.0, 0.0))  # exactly the limit
    assert bench.guard.fault is None
    bench.measure((side * -0.12500001, 0.0, 0.0))
    assert bench.guard.fault is Reason.TRACKING_ERROR


def test_torque_does_not_come_on_far_beyond_a_position_limit() -> None:
    for position, fault in (
        (1.05, None),
        (1.0501, Reason.POSITION_LIMIT),
        (-2.05, None),
        (-2.0501, Reason.POSITION_LIMIT),
    ):
        guard = Guard(spec("position"))
        guard.measure(0, 0.0, (position, 0.0, 0.0), ZEROS)
        guard.supervise(State.STANDBY, 0, 0.0)
        assert guard.fault is None
        guard.supervise(State.ARMED, 0, 0.0)
        assert guard.fault is fault
        assert (guard.tick(0.0) is None) == (fault is not None)
        guard.measure(1, 0.02, (position, 0.0, 0.0), ZEROS)
        assert guard.fault is fault


def test_a_powered_robot_may_sag_beyond_a_position_limit() -> None:
    bench = Bench("position", position=(1.0, 0.0, 0.0))
    bench.measure((1.2, 0.0, 0.0))
    assert bench.guard.fault is None
