"""The guard in virtual time: boundaries by hand, and properties over adversarial input."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from landbridge.deploy.guard import Guard
from landbridge.deploy.limits import BRAKE_TIME
from landbridge.deploy.supervisor import STOPS, State
from landbridge.deploy.verdict import Reason
from landbridge.robot import RobotSpec

DT = 0.02
ZEROS = (0.0, 0.0, 0.0)
MS = 1_000_000


def beyond(value: float) -> float:
    """The next float away from zero."""
    return math.nextafter(value, math.copysign(math.inf, value))


def spec(kind: str = "effort", default: tuple[float, float] = (0.0, 0.0), **safety: Any) -> RobotSpec:
    return RobotSpec.model_validate(
        {
            "schema_version": 1,
            "name": "two",
            "urdf": "two.urdf",
            "control_rate_hz": 1 / DT,
            "decimation": 1,
            "latency_budget_ms": 10,
            "joints": [
                {
                    "name": "left",
                    "position_limit": [-2.0, 1.0],
                    "velocity_limit": 30,
                    "effort_limit": 0.5,
                    "rate_limit": 20,
                    "default_joint_pos": default[0],
                    "acceleration_limit": 100,
                    "jerk_limit": 4000,
                    "damping": 0.1,
                },
                {"name": "free", "actuated": False, "velocity_limit": 60},
                {
                    "name": "right",
                    "velocity_limit": 10,
                    "effort_limit": 2.0,
                    "rate_limit": 5,
                    "default_joint_pos": default[1],
                    "acceleration_limit": 100,
                    "jerk_limit": 4000,
                    "damping": 0.2,
                },
            ],
            "observation": [{"kind": "joint_pos", "joints": ["left"]}],
            "action": {"kind": kind, "scale": {"left": 1.0, "right": 1.0}},
            "safety": {"max_command_age_ms": 30, **safety},
        }
    )


class Bench:
    """A guard with a clock: measure, then answer. It has been armed where `position` is."""

    def __init__(self, kind: str = "effort", state: State = State.ACTIVE, position: Any = ZEROS, **safety: Any) -> None:
        self.guard = Guard(spec(kind, **safety))
        self.now, self.stamp, self.state, self.epoch = 100.0, 0, state, 0
        self.guard.measure(0, self.now - 1.0, position, ZEROS)
        if state in (State.ACTIVE, State.ARMED):
            self.guard.supervise(State.ARMED, 0, self.now - 1.0)
            self.guard.tick(self.now - 1.0)
        self.measure(position, period=0.0)

    def measure(self, position: Any = ZEROS, velocity: Any = ZEROS, period: float = DT) -> int:
        self.now += period
        self.stamp += 20 * MS
        self.guard.supervise(self.state, self.epoch, self.now)
        self.guard.measure(self.stamp, self.now, position, velocity)
        return self.stamp

    def answer(
        self, *values: float, names: Any = ("left", "right"), stamp: int | None = None, age: float = 0.002
    ) -> Any:
        return self.guard.admit(self.stamp if stamp is None else stamp, names, values, self.now + age)


def test_admits_what_is_inside_the_limits_unchanged() -> None:
    bench = Bench()
    verdict = bench.answer(0.25, -0.1)
    assert (verdict.command, verdict.reason, verdict.write) == ((0.25, -0.1), Reason.OK, True)


def test_clamps_effort_and_rate_by_hand() -> None:
    bench = Bench()
    verdict = bench.answer(9.0, 9.0)
    # left: min(0.5, 0 + 20 * 0.02 = 0.4); right: 0 + 5 * 0.02 = 0.1
    assert verdict.command == pytest.approx((0.4, 0.1))
    assert verdict.reason is Reason.LIMITED
    bench.measure()
    assert bench.answer(9.0, 9.0).command == pytest.approx((0.5, 0.2))


def test_rate_counts_from_the_last_write_not_from_the_last_period() -> None:
    bench = Bench()
    bench.answer(0.0, 0.0)
    bench.measure(period=0.01)
    assert bench.answer(0.0, 9.0).command[1] == pytest.approx(5 * 0.01)
    for _ in range(2):
        bench.measure(period=0.02)
    assert bench.answer(0.0, 9.0).command[1] == pytest.approx(0.05 + 5 * 0.02)  # a pause earns no more than one period


def test_permuted_names_are_harmless() -> None:
    assert Bench().answer(-0.05, 0.2, names=("right", "left")).command == (0.2, -0.05)


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (("left",), (0.1,)),
        (("left", "right", "free"), (0.1, 0.1, 0.1)),
        (("left", "left"), (0.1, 0.1)),
        (("left", "right", "right"), (0.1, 0.1, 0.1)),
        ((), ()),
        (("left", "right"), (0.1,)),
        (("left", "up"), (0.1, 0.1)),
    ],
)
def test_wrong_names_are_refused(names: tuple[str, ...], values: tuple[float, ...]) -> None:
    verdict = Bench().answer(*values, names=names)
    assert (verdict.reason, verdict.write, verdict.command) == (Reason.WRONG_NAMES, False, (0.0, 0.0))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_is_refused_before_anything_else(bad: float) -> None:
    bench = Bench(state=State.ESTOP)
    assert bench.answer(bad, 0.0, names=("nobody",), stamp=7).reason is Reason.NOT_FINITE


@pytest.mark.parametrize("age_ms", [0.0, 31.25, 31.26, 1000.0])
def test_age_is_measured_on_the_monotonic_clock(age_ms: float) -> None:
    bench = Bench(max_command_age_ms=31.25, heartbeat_timeout_ms=5000)  # 1/32 s: exact in binary
    expected = Reason.OK if age_ms <= 31.25 else Reason.STALE
    assert bench.answer(0.1, 0.0, age=age_ms / 1000).reason is expected


def test_unknown_duplicate_and_overtaken_stamps_are_refused() -> None:
    bench = Bench()
    first = bench.stamp
    assert bench.answer(0.1, 0.0, stamp=first + 3_600_000 * MS).reason is Reason.UNKNOWN_STAMP
    second = bench.measure(period=0.01)
    assert bench.answer(0.1, 0.0, stamp=second).reason is Reason.OK
    assert bench.answer(0.3, 0.0, stamp=second).reason is Reason.DUPLICATE
    assert bench.answer(0.3, 0.0, stamp=first).reason is Reason.STALE
    assert bench.guard.written == (0.1, 0.0)


def test_a_wall_clock_step_back_changes_nothing() -> None:
    bench = Bench()
    bench.answer(0.1, 0.0)
    bench.stamp -= 3_600_000 * MS
    bench.measure()
    assert bench.answer(0.2, 0.0).reason is Reason.OK


def test_only_active_moves_and_armed_says_what_would_be_admitted() -> None:
    for state in State:
        verdict = Bench(state=state).answer(0.1, 0.0)
        expected = {State.ACTIVE: Reason.OK, State.ARMED: Reason.ARMED} | dict.fromkeys(STOPS, Reason.LATCHED)
        reason = expected.get(state, Reason.NOT_ACTIVE)
        assert (verdict.reason, verdict.write) == (reason, state is State.ACTIVE)
    assert Bench(state=State.ARMED).answer(0.1, names=("left",)).reason is Reason.WRONG_NAMES


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


def test_after_a_reset_only_armed_leads_to_active() -> None:
    bench = Bench()
    bench.measure(velocity=(31.0, 0.0, 0.0))
    assert bench.guard.fault is Reason.VELOCITY_LIMIT
    bench.epoch += 1
    bench.measure()
    assert bench.guard.fault is Reason.NOT_ARMED
    bench.epoch += 1
    for state, reason in ((State.STANDBY, Reason.NOT_ACTIVE), (State.ARMED, Reason.ARMED), (State.ACTIVE, Reason.OK)):
        bench.state = state
        bench.measure()
        bench.guard.tick(bench.now)
        assert bench.answer(0.0, 0.0).reason is reason


@pytest.mark.parametrize("stop", [State.ESTOP, State.HOLD])
def test_after_a_reset_a_stop_of_the_supervisors_is_no_place_to_go_either(stop: State) -> None:
    """The e-stop, and what only the monitor has seen: the robot may have moved as well."""
    bench = Bench("position")
    bench.state = stop
    for _ in range(5):
        bench.measure()
        bench.guard.tick(bench.now)
    assert bench.guard.fault is Reason.STOPPED
    bench.measure((math.nan,) * 3)  # hardware that has a fault; meanwhile the joint sags
    bench.epoch += 1
    bench.state = State.UNCONFIGURED
    bench.guard.supervise(bench.state, bench.epoch, bench.now)
    assert bench.guard.tick(bench.now) is None
    bench.measure((0.4, 0.0, 0.0))
    held = bench.guard.tick(bench.now)
    assert held is not None
    assert held.command == pytest.approx((0.4, 0.0))


def test_a_reset_while_active_needs_armed_again() -> None:
    bench = Bench()
    bench.epoch += 1
    bench.measure()
    assert bench.guard.fault is Reason.NOT_ARMED


def test_active_without_armed_before_it_is_a_fault_and_brings_no_torque() -> None:
    guard = Guard(spec())
    guard.supervise(State.ACTIVE, 0, 1.0)
    guard.measure(1, 1.0, ZEROS, ZEROS)
    assert guard.fault is Reason.NOT_ARMED
    assert guard.admit(1, ("left", "right"), (0.1, 0.1), 1.0).reason is Reason.LATCHED
    assert guard.tick(1.0) is None
    assert not guard.powered


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


def test_nothing_is_written_before_the_first_heartbeat_and_the_first_measurement() -> None:
    for kind in ("effort", "position"):
        guard = Guard(spec(kind))
        assert guard.tick(0.0) is None
        guard.supervise(State.ARMED, 0, 0.0)
        assert guard.tick(0.0) is None
        guard.measure(0, 0.0, ZEROS, ZEROS)
        stop = guard.tick(0.0)
        assert stop is not None
        assert guard.powered


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


def test_arming_leads_a_powered_robot_slowly_from_its_target_to_the_default_pose() -> None:
    bench = Bench("position", state=State.ARMED, position=(0.5, 0.0, 0.5), parking_speed=0.5)
    for bench.state, bench.epoch in ((State.HOLD, 0), (State.STANDBY, 1)):  # held there after some stop
        bench.measure((0.5, 0.0, 0.5))
        for _ in range(50):
            bench.measure((0.5, 0.0, 0.5))
            bench.guard.tick(bench.now)
        assert bench.guard.written == pytest.approx((0.5, 0.5))
    bench.state = State.ARMED
    begun = bench.now + DT
    duration = 15 / 8 * 0.5 / 0.5
    while bench.now < begun + duration:
        bench.measure((0.5, 0.0, 0.5))
        bench.guard.tick(bench.now)
        ready = bench.now + 0.002 >= begun + duration
        assert bench.answer(0.0, 0.0).reason is (Reason.ARMED if ready else Reason.NOT_READY)
    assert ready
    assert bench.guard.written == pytest.approx((0.0, 0.0), abs=1e-3)


def test_park_goes_on_from_the_last_target() -> None:
    bench = Bench("position")
    bench.answer(0.1, 0.1)
    bench.state = State.PARK
    bench.measure((0.05, 0.0, 0.05))
    stop = bench.guard.tick(bench.now)
    assert stop is not None
    assert (stop.reason, stop.command) == (Reason.NOT_ACTIVE, pytest.approx((0.1, 0.1)))


def test_the_last_256_measurements_are_remembered_by_stamp() -> None:
    bench = Bench()
    first, taken = bench.stamp, bench.now
    assert bench.guard.measured_at(first) == taken
    assert bench.guard.measured_at(first + 1) is None
    for _ in range(255):
        bench.measure()
    assert bench.guard.measured_at(first) == taken
    bench.measure()
    assert bench.guard.measured_at(first) is None
    assert bench.guard.measured_at(bench.stamp) == bench.now


def test_a_stamp_that_comes_again_names_the_newest_measurement() -> None:
    bench = Bench()
    bench.answer(0.0, 0.0)
    bench.now += DT
    bench.guard.measure(bench.stamp, bench.now, ZEROS, ZEROS)
    assert bench.guard.measured_at(bench.stamp) == bench.now
    assert bench.answer(0.0, 0.0).reason is Reason.OK
    again = bench.stamp
    for _ in range(10):
        bench.measure()
    bench.guard.measure(again, bench.now, ZEROS, ZEROS)
    for _ in range(250):
        bench.measure()
    assert bench.guard.measured_at(again) is not None


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


def test_an_old_epoch_does_not_unlatch() -> None:
    bench = Bench()
    bench.epoch = 4
    for state in (State.ARMED, State.ACTIVE):
        bench.state = state
        bench.measure()
    bench.measure(velocity=(31.0, 0.0, 0.0))
    assert bench.guard.fault is Reason.VELOCITY_LIMIT
    for epoch in (0, 4):  # a restarted monitor; the epoch of the fault itself
        bench.epoch = epoch
        bench.measure()
        assert bench.answer(0.1, 0.0).reason is Reason.LATCHED
        assert (bench.guard.fault, bench.guard.epoch) == (Reason.VELOCITY_LIMIT, 4)


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("before", [State.STANDBY, State.ARMED, State.ACTIVE, State.PARK])
def test_a_stop_of_a_supervisor_that_died_is_still_a_stop_for_the_next_one(stop: State, before: State) -> None:
    """The reason for it was known to the supervisor alone; the new one begins where nothing is wrong."""
    bench = Bench("position", state=State.ARMED, parking_pose={"left": 0.5})
    for bench.state in (before, stop):
        bench.measure()
        bench.guard.tick(bench.now)
    held = bench.guard.written
    for bench.state in (State.UNCONFIGURED, State.STANDBY, State.ARMED, State.ACTIVE, State.PARK):
        bench.measure((0.01, 0.0, 0.0))
        stopped = bench.guard.tick(bench.now)
        assert bench.guard.fault is Reason.STOPPED
        assert stopped is not None
        assert (stopped.command, stopped.reason, stopped.release) == (held, Reason.STOPPED, False)
        assert bench.answer(0.1, 0.0).reason is Reason.LATCHED
    assert bench.guard.counters["fault.stopped"] == 1
    bench.epoch += 1
    bench.state = State.STANDBY
    bench.measure()
    assert bench.guard.fault is None


def test_a_stop_says_first_what_made_it() -> None:
    bench = Bench()
    bench.measure(velocity=(31.0, 0.0, 0.0))
    for bench.state in (State.DAMP, State.FAULT, State.ESTOP):
        bench.measure()
        assert bench.guard.fault is Reason.VELOCITY_LIMIT
    bench.epoch += 1  # with the news of another stop in the same message
    bench.measure()
    assert bench.guard.fault is Reason.STOPPED


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


@pytest.mark.parametrize(("way", "fault"), [(0.9375, None), (beyond(0.9375), Reason.POSITION_JUMP)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_an_encoder_that_jumps(way: float, fault: Reason | None, sign: int) -> None:
    bench = Bench("velocity")
    bench.measure((sign * way, 0.0, 0.0), period=1 / 32)  # at 30 rad/s: 0.9375 rad
    assert bench.guard.fault is fault


def test_a_jump_is_the_speeds_fault_if_the_speed_is_over_its_limit_too() -> None:
    bench = Bench("velocity")
    bench.measure((0.7, 0.0, 0.0), (31.0, 0.0, 0.0))
    assert bench.guard.fault is Reason.VELOCITY_LIMIT


def test_no_command_answers_a_measurement_that_is_no_good() -> None:
    bench = Bench(state=State.ARMED)
    for position in ((math.nan, 0, 0), (0, 0), (-1.9, 0, 0)):
        bench.measure(position)
        assert bench.answer(0.0, 0.0).reason is Reason.UNKNOWN_STAMP


def test_an_encoder_that_freezes_while_the_joint_turns() -> None:
    bench = Bench()
    for count in range(3):
        assert bench.guard.fault is None, count
        bench.measure(velocity=(0.6, 0.0, 0.0))  # 2 % of 30 rad/s: rest
    for count in range(3):
        assert bench.guard.fault is None, count
        bench.measure(velocity=(beyond(0.6), 0.0, 0.0))
    assert bench.guard.fault is Reason.FROZEN_ENCODER


def test_effort_is_taken_back_near_a_position_limit() -> None:
    def pushed(position: float, velocity: float, effort: float) -> float:
        bench = Bench(position=(position, 0.0, 0.0))
        bench.answer(0.0, 0.0)
        bench.measure((position, 0, 0), (velocity, 0, 0))
        return float(bench.answer(effort, 0.0, age=0.01).command[0])

    speed = 2.0
    assert pushed(1.0 - speed * BRAKE_TIME, speed, 0.3) == pytest.approx(0.3)  # just outside the zone
    assert pushed(1.0 - speed * BRAKE_TIME / 2, speed, 0.3) == pytest.approx(0.0)  # half-way: no effort outwards
    assert pushed(1.0 - speed * BRAKE_TIME / 4, speed, 0.3) == pytest.approx(-0.25)  # pushed back inside
    assert pushed(1.0, 0.0, 0.3) == pytest.approx(-0.5)  # at the limit: full reversal
    assert pushed(1.0 - speed * BRAKE_TIME / 4, -speed, 0.3) == pytest.approx(0.3)  # leaving: free
    assert pushed(-2.0 + speed * BRAKE_TIME / 4, -speed, -0.3) == pytest.approx(0.25)
    assert pushed(1.0 - 1e-9, 0.0, 0.3) == pytest.approx(0.3)  # at rest beside it: free


@pytest.mark.parametrize("state", [State.HOLD, State.FAULT, State.ESTOP, State.STANDBY])
def test_a_stop_starts_from_where_the_joints_are(state: State) -> None:
    bench = Bench("position")
    bench.answer(0.1, 0.1)
    bench.measure((0.05, 0.0, 0.05))
    bench.state = state
    bench.measure((0.05, 0.0, 0.05))
    stop = bench.guard.tick(bench.now + DT)
    assert stop is not None
    assert stop.command == pytest.approx((0.05, 0.05))


def test_a_stop_after_a_fault_starts_from_where_the_joints_are_and_goes_on_when_the_supervisor_follows() -> None:
    bench = Bench("position")
    bench.answer(0.1, 0.1)
    bench.measure((0.05, 0.0, 0.05), (0.0, 61.0, 0.0))
    for state in (State.ACTIVE, State.HOLD, State.FAULT):
        stop = bench.guard.tick(bench.now)
        assert stop is not None
        assert stop.command == pytest.approx((0.05, 0.05)), state
        bench.state = state
        bench.measure((0.04, 0.0, 0.04))  # what the joints do meanwhile does not matter


def test_a_moving_joint_is_stopped_within_its_acceleration_and_jerk() -> None:
    bench = Bench("position")
    bench.measure((0.04, 0.0, 0.0), (2.0, 0.0, 0.0))
    bench.state = State.HOLD
    targets = []
    for _ in range(5):
        bench.measure((0.08, 0.0, 0.0), (2.0, 0.0, 0.0))
        stop = bench.guard.tick(bench.now)
        assert stop is not None
        targets.append(stop.command[0])
    # T = max(1.5 * 2 / 100, sqrt(6 * 2 / 4000)) = 0.0548 s; the way is 2 * T / 2
    assert targets == pytest.approx([0.08, 0.11564, 0.13291, 0.13477, 0.13477], abs=1e-5)


def test_position_starts_from_where_the_joints_are_and_cannot_jump() -> None:
    guard = Guard(spec("position", default=(0.5, -1.0)))
    guard.measure(1, 100.0, (0.5, 0.0, -1.0), ZEROS)
    guard.supervise(State.ARMED, 0, 100.0)
    stop = guard.tick(100.0)
    assert stop is not None
    assert stop.command == (0.5, -1.0)
    guard.supervise(State.ACTIVE, 0, 101.0)
    guard.measure(2, 101.0, (0.5, 0.0, -1.0), ZEROS)
    # left: min(rate 20, velocity 30) * 0.02 = 0.4; right: min(5, 10) * 0.02 = 0.1
    assert guard.admit(2, ("left", "right"), (-2.0, 3.0), 101.0).command == pytest.approx((0.1, -0.9))


@pytest.mark.parametrize(("kind", "step"), [("position", 10 * DT), ("effort", 20 * DT), ("velocity", 20 * DT)])
def test_a_position_target_moves_no_faster_than_the_joint_may(kind: str, step: float) -> None:
    robot = spec(kind).model_dump(mode="json")
    robot["joints"][0] |= {"velocity_limit": 10, "effort_limit": 5}  # rate_limit is 20
    guard = Guard(RobotSpec.model_validate(robot))
    guard.measure(1, 0.0, ZEROS, ZEROS)
    guard.supervise(State.ARMED, 0, 0.0)
    guard.supervise(State.ACTIVE, 0, 0.0)
    assert guard.admit(1, ("left", "right"), (1.0, 0.0), 0.001).command[0] == pytest.approx(step)


@pytest.mark.parametrize("kind", ["effort", "velocity"])
def test_park_ends_with_torque_off_once_every_actuated_joint_rests(kind: str) -> None:
    bench = Bench(kind)
    bench.answer(0.0, 0.0)
    bench.state = State.PARK
    for velocity in ((0.61, 0, 0), (0, 0, 0.21), (0.6, 60, 0.2), (-0.6, -60, -0.2)):
        bench.measure((0.001 * bench.stamp / MS, 0.0, 0.0), velocity)
        stop = bench.guard.tick(bench.now)
        assert stop is not None
        assert (stop.reason, stop.write, stop.release) == (Reason.NOT_ACTIVE, True, False)
        assert bench.guard.powered
        assert not bench.guard.settled(bench.now)
    bench.measure((0.0, 0.0, 0.0), (0.0, 0.0, 0.2))
    end = bench.guard.tick(bench.now)
    assert end is not None
    assert (end.reason, end.write, end.release) == (Reason.PARKED, False, True)
    assert not bench.guard.powered
    assert bench.guard.settled(bench.now)
    assert bench.guard.tick(bench.now + DT) == end  # what has not been heard is said again


@pytest.mark.parametrize("kind", ["effort", "position"])
def test_park_takes_torque_off_drives_that_this_guard_never_commanded(kind: str) -> None:
    """A bridge restarted over powered drives; drives that hold beside one that has lost its torque."""
    guard = Guard(spec(kind))
    guard.supervise(State.STANDBY, 0, 0.0)
    assert guard.tick(0.0) is None
    guard.supervise(State.PARK, 0, 0.0)
    for count in range(2):  # before any measurement, and after one
        off = guard.tick(0.0)
        assert off is not None
        assert (off.command, off.reason, off.write, off.release) == ((0.0, 0.0), Reason.PARKED, False, True)
        guard.measure(count, 0.0, ZEROS, ZEROS)
    guard.measure(2, DT, ZEROS, (31.0, 0.0, 0.0))
    assert guard.fault is Reason.VELOCITY_LIMIT
    assert guard.tick(DT) is None


def test_park_ends_no_sooner_than_its_way_does() -> None:
    bench = Bench("position", parking_pose={"left": 0.5}, parking_speed=1.0)
    bench.answer(0.0, 0.0)
    bench.state = State.PARK
    begun = bench.now + DT
    while bench.guard.powered:
        bench.measure()
        stop = bench.guard.tick(bench.now)
        assert stop is not None
        assert stop.release == (bench.now >= begun + 15 / 8 * 0.5)
    assert stop.command == pytest.approx((0.5, 0.0))


@pytest.mark.parametrize(("kind", "state"), [("effort", State.DAMP), ("velocity", State.HOLD)])
def test_a_stop_is_settled_when_it_has_come_to_rest_and_keeps_its_torque(kind: str, state: State) -> None:
    bench = Bench(kind)
    bench.answer(0.0, 0.0)
    bench.measure((0.05, 0.0, 0.0), (2.5, 0.0, 0.0))
    bench.state = state
    for count in range(6):
        assert bench.guard.settled(bench.now) == (count > 3)  # 3 measurements at rest, after one in motion
        bench.measure((0.1, 0.0, 0.0), (2.5 if count == 0 else 0.0, 0.0, 0.0))
        bench.guard.tick(bench.now)
    assert bench.guard.powered


def test_a_measurement_that_is_no_good_does_not_count_as_rest() -> None:
    bench = Bench(state=State.ARMED)
    bench.state = State.DAMP
    for _ in range(4):
        bench.measure()
        bench.guard.tick(bench.now)
    assert bench.guard.settled(bench.now)
    bench.measure((math.nan, 0.0, 0.0))
    assert not bench.guard.settled(bench.now)


def test_a_stop_is_not_settled_before_its_way_has_ended() -> None:
    bench = Bench("position")
    bench.measure((0.2, 0.0, 0.0), (9.0, 0.0, 0.0))
    bench.state = State.HOLD
    bench.guard.supervise(State.HOLD, 0, bench.now)
    assert bench.guard.tick(bench.now) is not None
    ends = bench.now + 1.5 * 9 / 100
    for _ in range(12):
        bench.measure((0.2, 0.0, 0.0))
        bench.guard.tick(bench.now)
        assert bench.guard.settled(bench.now) == (bench.now >= ends)


def test_after_torque_was_off_the_first_command_earns_one_period_of_change() -> None:
    bench = Bench()
    bench.answer(0.4, 0.1)
    bench.guard.release()
    assert bench.guard.written == (0.0, 0.0)
    bench.measure((1.0, 0.0, 0.0), period=0.001)  # put elsewhere by hand: no jump
    assert bench.guard.fault is None
    assert bench.answer(-9.0, -9.0, age=0.0).command == pytest.approx((-0.4, -0.1))


def test_a_stop_damps_by_the_smaller_of_the_two_speeds() -> None:
    def damped(way: float, speed: float) -> float:
        bench = Bench(state=State.ARMED)
        bench.measure((way, 0.0, 0.0), (speed, 0.0, 0.0))
        stop = bench.guard.tick(bench.now)
        assert stop is not None
        return stop.command[0]

    assert damped(0.04, 3.0) == pytest.approx(-0.2)  # 2 rad/s of the positions
    assert damped(0.04, 1.0) == pytest.approx(-0.1)
    assert damped(-0.04, -1.0) == pytest.approx(0.1)
    assert damped(-0.04, 1.0) == 0.0
    assert damped(0.0, 1.0) == 0.0
    assert damped(0.04, 0.0) == 0.0


@pytest.mark.parametrize("side", [-1, 1])
def test_tracking_error_is_a_fault(side: int) -> None:
    bench = Bench("position", max_tracking_error=0.25)
    bench.answer(side * 0.125, 0.0)
    bench.measure((side * -0.125, 0.0, 0.0))  # exactly the limit
    assert bench.guard.fault is None
    bench.measure((side * -0.12500001, 0.0, 0.0))
    assert bench.guard.fault is Reason.TRACKING_ERROR


wild = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 0.0, 1.0, -2.0]),
)
three = st.tuples(wild, wild, wild)
step = st.fixed_dictionaries(
    {
        "period": st.floats(0.0, 0.3),
        "position": st.one_of(three, st.just((0.5, 0.0, 0.0))),
        "velocity": st.one_of(three, st.just((0.0, 0.0, 0.0))),
        "state": st.sampled_from([*State, State.ACTIVE, State.ACTIVE, State.ACTIVE]),
        "epoch": st.integers(0, 2),
        "heartbeat": st.booleans(),
        "names": st.lists(st.sampled_from(["left", "right", "free", "x"]), max_size=3) | st.just(["left", "right"]),
        "values": st.lists(wild, max_size=3) | st.lists(wild, min_size=2, max_size=2),
        "age": st.floats(-0.01, 0.05),
        "late": st.integers(0, 2),
    }
)


@pytest.mark.parametrize("kind", ["effort", "velocity", "position"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(step, min_size=1, max_size=12))
def test_nothing_outside_the_limits_is_ever_emitted(kind: str, steps: list[dict[str, Any]]) -> None:
    robot = spec(kind)
    guard = Guard(robot)
    high = {"effort": (0.5, 2.0), "velocity": (30.0, 10.0), "position": (1.0, math.inf)}[kind]
    low = {"effort": (-0.5, -2.0), "velocity": (-30.0, -10.0), "position": (-2.0, -math.inf)}[kind]
    now, written = 0.0, None
    for number, s in enumerate(steps):
        now += s["period"]
        if s["heartbeat"]:
            guard.supervise(s["state"], s["epoch"], now)
        guard.measure(number, now, s["position"], s["velocity"])
        ticked = guard.tick(now)
        before = guard.written
        verdict = guard.admit(number - s["late"], s["names"], s["values"], now + s["age"])
        if not verdict.write:
            assert verdict.command == before
        for emitted in (ticked, verdict if verdict.write else None):
            if emitted is None:
                continue
            assert all(math.isfinite(value) for value in emitted.command)
            assert all(a <= value <= b for a, value, b in zip(low, emitted.command, high, strict=True))
            if written is not None:
                for value, last, rate in zip(emitted.command, written, (20.0, 5.0), strict=True):
                    assert abs(value - last) <= rate * DT + 1e-9 + 2 * math.ulp(last)
            written = emitted.command
        valid = sorted(s["names"]) == ["left", "right"] and len(s["values"]) == 2
        if verdict.write:
            assert valid
            assert all(math.isfinite(v) for v in s["values"])
            assert guard.fault is None
            assert verdict.reason in (Reason.OK, Reason.LIMITED)
        else:
            assert verdict.reason not in (Reason.OK, Reason.LIMITED)


def test_every_verdict_is_counted_by_reason() -> None:
    bench = Bench()
    bench.answer(0.1, 0.0)
    bench.answer(0.1, 0.0)
    bench.measure()
    bench.answer(9.0, 0.0)
    bench.measure(velocity=(31.0, 0, 0))
    assert dict(bench.guard.counters) == {"ok": 1, "duplicate": 1, "limited": 1, "fault.velocity_limit": 1}
