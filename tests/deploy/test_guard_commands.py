"""What the guard admits and what it refuses: boundaries by hand, and a property over adversarial input."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from landbridge.deploy.guard import Guard
from landbridge.deploy.limits import BRAKE_TIME
from landbridge.deploy.supervisor import STOPS, State
from landbridge.robot import RobotSpec
from landbridge.verdict import ADMITTED, Reason

from .guarded import DT, MS, ZEROS, Bench, beyond, spec


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


def test_after_torque_was_off_the_first_command_earns_one_period_of_change() -> None:
    bench = Bench()
    bench.answer(0.4, 0.1)
    bench.guard.torque_is_off()
    assert bench.guard.written == (0.0, 0.0)
    bench.measure((1.0, 0.0, 0.0), period=0.001)  # put elsewhere by hand: no jump
    assert bench.guard.fault is None
    assert bench.answer(-9.0, -9.0, age=0.0).command == pytest.approx((-0.4, -0.1))


def test_a_robot_without_torque_may_be_put_elsewhere_between_two_measurements() -> None:
    """As an emulated board does, whose free joint has turned often; in ARMED a jump is a fault again."""
    bench = Bench(state=State.STANDBY, position=(0.0, 100.0, 0.0))
    for _ in range(2):
        bench.measure()
    bench.state = State.ARMED
    bench.measure()
    assert bench.guard.fault is None
    bench.measure((0.0, 100.0, 0.0))
    assert bench.guard.fault is Reason.POSITION_JUMP


def test_position_starts_from_where_the_joints_are_and_cannot_jump() -> None:
    guard = Guard(spec("position", default=(0.5, -1.0)))
    guard.measure(1, 100.0, (0.5, 0.0, -1.0), ZEROS)
    guard.supervise(State.ARMED, 0, 100.0)
    stop = guard.tick(100.0)
    assert stop is not None
    assert stop.command == (0.5, -1.0)
    guard.supervise(State.ACTIVE, 0, 100.1)
    guard.measure(2, 100.1, (0.5, 0.0, -1.0), ZEROS)
    # left: min(rate 20, velocity 30) * 0.02 = 0.4; right: min(5, 10) * 0.02 = 0.1
    assert guard.admit(2, ("left", "right"), (-2.0, 3.0), 100.1).command == pytest.approx((0.1, -0.9))


@pytest.mark.parametrize(("kind", "step"), [("position", 10 * DT), ("effort", 20 * DT), ("velocity", 20 * DT)])
def test_a_position_target_moves_no_faster_than_the_joint_may(kind: str, step: float) -> None:
    robot = spec(kind).model_dump(mode="json")
    robot["joints"][0] |= {"velocity_limit": 10, "effort_limit": 5}  # rate_limit is 20
    guard = Guard(RobotSpec.model_validate(robot))
    guard.measure(1, 0.0, ZEROS, ZEROS)
    guard.supervise(State.ARMED, 0, 0.0)
    guard.supervise(State.ACTIVE, 0, 0.0)
    assert guard.admit(1, ("left", "right"), (1.0, 0.0), 0.001).command[0] == pytest.approx(step)


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
    rest = 0.02 * 30
    assert pushed(1.0, beyond(rest), 0.3) == pytest.approx(-0.4)  # at the limit and moving on: reversed, at its rate
    assert pushed(1.0, rest, 0.3) == pytest.approx(0.0)  # at rest there: not thrown back
    assert pushed(1.0, rest, -0.3) == pytest.approx(-0.3)
    assert pushed(1.0 - speed * BRAKE_TIME / 4, -speed, 0.3) == pytest.approx(0.3)  # leaving: free
    assert pushed(-2.0 + speed * BRAKE_TIME / 4, -speed, -0.3) == pytest.approx(0.25)
    assert pushed(1.0 - 1e-9, 0.0, 0.3) == pytest.approx(0.3)  # at rest beside it: free
    assert pushed(1.0 - 1e-9, rest, 0.3) == pytest.approx(0.0, abs=1e-6)  # at rest but for noise: not thrown back
    assert pushed(1.0 - rest * BRAKE_TIME / 4, rest, 0.3) == pytest.approx(0.125)


def test_a_velocity_is_eased_to_standstill_at_a_position_limit() -> None:
    def moved(position: float, velocity: float) -> float:
        bench = Bench("velocity", position=(position, 0.0, 0.0))
        bench.answer(0.0, 0.0)
        bench.measure((position, 0, 0), (velocity, 0, 0))
        return float(bench.answer(0.3, 0.0, age=0.01).command[0])

    speed = 2.0
    assert moved(1.0 - speed * BRAKE_TIME * 0.02, speed) == pytest.approx(0.3)  # a fiftieth of 30 rad/s is more
    assert moved(1.0 - speed * BRAKE_TIME * 0.005, speed) == pytest.approx(0.15)
    assert moved(1.0, speed) == pytest.approx(0.0)
    assert moved(1.0, 0.0) == pytest.approx(0.0)


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


def test_no_command_answers_a_measurement_that_is_no_good() -> None:
    bench = Bench(state=State.ARMED)
    for position in ((math.nan, 0, 0), (0, 0), (-1.9, 0, 0)):
        bench.measure(position)
        assert bench.answer(0.0, 0.0).reason is Reason.UNKNOWN_STAMP


def test_only_active_moves_and_armed_says_what_would_be_admitted() -> None:
    for state in State:
        verdict = Bench(state=state).answer(0.1, 0.0)
        expected = {State.ACTIVE: Reason.OK, State.ARMED: Reason.ARMED} | dict.fromkeys(STOPS, Reason.LATCHED)
        reason = expected.get(state, Reason.NOT_ACTIVE)
        assert (verdict.reason, verdict.write) == (reason, state is State.ACTIVE)
    assert Bench(state=State.ARMED).answer(0.1, names=("left",)).reason is Reason.WRONG_NAMES


def test_every_verdict_is_counted_by_reason() -> None:
    bench = Bench()
    bench.answer(0.1, 0.0)
    bench.answer(0.1, 0.0)
    bench.measure()
    bench.answer(9.0, 0.0)
    bench.measure(velocity=(31.0, 0, 0))
    assert dict(bench.guard.counters) == {"ok": 1, "duplicate": 1, "limited": 1, "fault.velocity_limit": 1}


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
            assert verdict.reason in ADMITTED
        else:
            assert verdict.reason not in ADMITTED
