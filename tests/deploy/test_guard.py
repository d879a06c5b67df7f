"""The guard in virtual time: boundaries by hand, and properties over adversarial input."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landbridge.deploy.guard import BRAKE_TIME, Guard, Reason
from landbridge.deploy.supervisor import State
from landbridge.robot import RobotSpec

DT = 0.02
MS = 1_000_000


def spec(kind: str = "effort", **safety: Any) -> RobotSpec:
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
                    "damping": 0.1,
                },
                {"name": "free", "actuated": False, "velocity_limit": 60},
                {"name": "right", "velocity_limit": 10, "effort_limit": 2.0, "rate_limit": 5, "damping": 0.2},
            ],
            "observation": [{"kind": "joint_pos", "joints": ["left"]}],
            "action": {"kind": kind, "scale": {"left": 1.0, "right": 1.0}},
            "safety": {"max_command_age_ms": 30, **safety},
        }
    )


class Bench:
    """A guard with a clock: measure, then answer."""

    def __init__(self, kind: str = "effort", state: State = State.ACTIVE, **safety: Any) -> None:
        self.guard = Guard(spec(kind, **safety))
        self.now, self.stamp, self.state, self.epoch = 100.0, 0, state, 0
        self.measure(period=0.0)

    def measure(self, position: Any = (0.0, 0.0, 0.0), velocity: Any = (0.0, 0.0, 0.0), period: float = DT) -> int:
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
        expected = {State.ACTIVE: Reason.OK, State.ARMED: Reason.ARMED}.get(state, Reason.NOT_ACTIVE)
        assert (verdict.reason, verdict.write) == (expected, state is State.ACTIVE)
    assert Bench(state=State.ARMED).answer(0.1, names=("left",)).reason is Reason.WRONG_NAMES


def test_silence_stops_after_the_stated_periods_and_stays_latched() -> None:
    bench = Bench(max_silence_periods=3)
    assert bench.answer(0.1, 0.1).write
    for _ in range(2):
        bench.measure(velocity=(2.0, 0.0, 0.0))
        assert bench.guard.tick(bench.now) is None
    bench.measure(velocity=(2.0, 0.0, 0.0))
    stop = bench.guard.tick(bench.now)
    assert stop is not None
    assert stop.command == pytest.approx((-0.2, 0.0))  # damping 0.1 * 2 rad/s against the motion
    assert (stop.reason, bench.guard.fault) == (Reason.SILENT, Reason.SILENT)
    bench.measure()
    assert bench.answer(0.1, 0.0).reason is Reason.LATCHED
    bench.epoch += 1
    bench.measure()
    assert bench.answer(0.1, 0.0).reason is Reason.OK


def test_activation_starts_the_count_of_silence_and_forgets_the_held_position() -> None:
    bench = Bench("position", state=State.STANDBY)
    for _ in range(5):
        bench.measure()
        bench.guard.tick(bench.now)  # holds 0
    bench.state = State.ACTIVE
    bench.measure()
    assert bench.guard.tick(bench.now) is None
    assert bench.answer(0.1, 0.1).write
    bench.state = State.STANDBY
    bench.measure()
    stop = bench.guard.tick(bench.now)
    assert stop is not None
    assert stop.command == pytest.approx((0.1, 0.1))


def test_measurements_are_remembered_by_stamp() -> None:
    bench = Bench()
    assert bench.guard.measured_at(bench.stamp) == bench.now
    assert bench.guard.measured_at(bench.stamp + 1) is None


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


def test_an_old_epoch_does_not_unlatch() -> None:
    bench = Bench()
    bench.epoch = 4
    bench.measure(position=(1.5, 0.0, 0.0))
    assert bench.guard.fault is Reason.POSITION_LIMIT
    bench.epoch = 0  # a restarted monitor
    bench.measure()
    assert bench.answer(0.1, 0.0).reason is Reason.LATCHED


@pytest.mark.parametrize(
    ("position", "velocity", "fault"),
    [
        ((1.0, 0, 0), (30.0, 60.0, 10.0), None),
        ((1.0001, 0, 0), (0, 0, 0), Reason.POSITION_LIMIT),
        ((-2.0, 0, 0), (-30.0, -60.0, -10.0), None),
        ((-2.0001, 0, 0), (0, 0, 0), Reason.POSITION_LIMIT),
        ((0, 0, 0), (0, -60.1, 0), Reason.VELOCITY_LIMIT),
        ((0, 0, 0), (0, 0, 10.1), Reason.VELOCITY_LIMIT),
        ((0, math.nan, 0), (0, 0, 0), Reason.MEASUREMENT_NOT_FINITE),
        ((0, 0, 0), (0, 0, math.inf), Reason.MEASUREMENT_NOT_FINITE),
    ],
)
def test_measured_faults_at_their_boundaries(position: Any, velocity: Any, fault: Reason | None) -> None:
    bench = Bench()
    bench.measure(position, velocity)
    assert bench.guard.fault is fault
    assert (bench.guard.tick(bench.now) is None) == (fault is None)


def test_effort_is_taken_back_near_a_position_limit() -> None:
    def pushed(position: float, velocity: float, effort: float) -> float:
        bench = Bench()
        bench.answer(0.0, 0.0)
        bench.measure((position, 0, 0), (velocity, 0, 0))
        return float(bench.answer(effort, 0.0, age=0.01).command[0])

    speed = 2.0
    assert pushed(1.0 - speed * BRAKE_TIME, speed, 0.3) == pytest.approx(0.3)  # just outside the zone
    assert pushed(1.0 - speed * BRAKE_TIME / 2, speed, 0.3) == pytest.approx(0.0)  # half-way: no effort outwards
    assert pushed(1.0 - speed * BRAKE_TIME / 4, speed, 0.3) == pytest.approx(-0.25)  # pushed back inside
    assert pushed(1.0, 0.0, 0.3) == pytest.approx(-0.4)  # at the limit: full reversal, as fast as the rate allows
    assert pushed(1.0 - speed * BRAKE_TIME / 4, -speed, 0.3) == pytest.approx(0.3)  # leaving: free
    assert pushed(-2.0 + speed * BRAKE_TIME / 4, -speed, -0.3) == pytest.approx(0.25)


def test_position_hold_is_the_measured_state_after_a_fault_and_the_last_target_after_a_disarm() -> None:
    for ending, expected in (("fault", 0.05), ("disarm", 0.1)):
        bench = Bench("position")
        bench.answer(0.1, 0.1)
        bench.measure((0.05, 0.0, 0.05))
        if ending == "fault":
            bench.measure((0.05, 0.0, 0.05), (0.0, 61.0, 0.0))
        else:
            bench.state = State.STANDBY
            bench.measure((0.05, 0.0, 0.05))
        stop = bench.guard.tick(bench.now + DT)
        assert stop is not None
        assert stop.command[0] == pytest.approx(expected)


def test_position_starts_from_where_the_joints_are_and_cannot_jump() -> None:
    bench = Bench("position")
    bench.guard.measure(1, bench.now, (0.5, 0.0, -1.0), (0.0, 0.0, 0.0))
    verdict = bench.answer(-2.0, 3.0, stamp=1)
    # left: min(rate 20, velocity 30) * 0.02 = 0.4; right: min(5, 10) * 0.02 = 0.1
    assert verdict.command == pytest.approx((0.1, -0.9))


@pytest.mark.parametrize(("kind", "step"), [("position", 10 * DT), ("effort", 20 * DT), ("velocity", 20 * DT)])
def test_a_position_target_moves_no_faster_than_the_joint_may(kind: str, step: float) -> None:
    robot = spec(kind).model_dump(mode="json")
    robot["joints"][0] |= {"velocity_limit": 10, "effort_limit": 5}  # rate_limit is 20
    guard = Guard(RobotSpec.model_validate(robot))
    guard.supervise(State.ACTIVE, 0, 0.0)
    guard.measure(1, 0.0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    assert guard.admit(1, ("left", "right"), (1.0, 0.0), 0.001).command[0] == pytest.approx(step)


def test_tracking_error_is_a_fault() -> None:
    bench = Bench("position", max_tracking_error=0.25)
    bench.answer(0.125, 0.0)
    bench.measure((-0.125, 0.0, 0.0))  # exactly the limit
    assert bench.guard.fault is None
    bench.measure((-0.126, 0.0, 0.0))
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
@settings(max_examples=150, deadline=None)
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
    bench.measure((1.5, 0, 0))
    assert dict(bench.guard.counters) == {"ok": 1, "duplicate": 1, "limited": 1, "fault.position_limit": 1}
