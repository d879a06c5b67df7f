"""The limiter traps that other people's robots fell into, each by its name."""

from __future__ import annotations

import math
import time

import pytest
from virtual_rig import Rig

from landbridge.deploy.guard import Guard
from landbridge.deploy.limits import Limits
from landbridge.deploy.supervisor import Event, State
from landbridge.robot import load_robot
from landbridge.verdict import Reason

FURUTA, QUADRUPED = load_robot("furuta").spec, load_robot("quadruped").spec


def active(robot: str, seconds: float = 0.5) -> Rig:
    rig = Rig(robot)
    rig.run(0.5)
    rig.activate()
    rig.run(seconds)
    return rig


@pytest.mark.parametrize("robot", ["furuta", "quadruped"])
def test_nan_passes_no_comparison(robot: str) -> None:
    """`nan > limit` and `nan < limit` are both false: a limiter of comparisons hands it on."""
    rig = active(robot)
    healthy = rig.answer(0, rig.position)[0]
    for joint in range(len(healthy.values)):
        spoilt = list(healthy.values)
        spoilt[joint] = math.nan
        verdict = rig.guard.admit(rig.stamp(rig.step // 2 * 2), healthy.names, spoilt, rig.now)
        assert (verdict.reason, verdict.write) == (Reason.NOT_FINITE, False)
    assert all(map(math.isfinite, rig.guard.written))


def test_a_stop_after_a_fault_is_anchored_on_the_measured_state_not_on_the_last_command() -> None:
    """A leg that is blocked must not be pushed on against what blocks it."""
    rig = active("quadruped")
    rig.stuck = True  # the second joint
    rig.policy = lambda stamp, position: [
        c._replace(values=[v + 0.8 * (i == 1) for i, v in enumerate(c.values)]) for c in rig.answer(stamp, position)
    ]
    rig.run(0.2)
    asked = rig.guard.written[1]
    assert asked - rig.position[1] > 0.5
    rig.policy_runs = False
    rig.run(0.5)
    assert rig.supervisor.reason == "silent"
    assert rig.guard.written[1] == pytest.approx(rig.position[1], abs=0.01)


def test_a_stop_after_a_cancel_is_anchored_on_the_last_command_not_on_the_measured_state() -> None:
    """A leg under load lags behind its target; anchored where it is, it would sag on every disarm."""
    rig = active("quadruped")
    rig.load = -20.0  # 0.2 rad of lag at 100 N m/rad
    rig.run(0.5)
    asked = rig.guard.written
    assert abs(asked[1] - rig.position[1]) > 0.15
    rig.operate(Event.DISARM, 0.0)
    rig.run(0.01)
    first = rig.writes[-1][1]
    assert first.reason is Reason.NOT_ACTIVE
    assert max(abs(a - b) for a, b in zip(first.command, asked, strict=True)) < 0.05


@pytest.mark.parametrize("bad", [math.inf, -math.inf, 1e308, math.nan])
def test_an_infinite_command_is_not_remembered(bad: float) -> None:
    rig = active("furuta")
    rig.policy = lambda stamp, position: [c._replace(values=[bad]) for c in rig.answer(stamp, position)]
    rig.run(0.02)
    rig.heal()
    rig.run(0.06)
    assert rig.supervisor.state is State.ACTIVE
    healthy = rig.answer(0, rig.position)[0].values[0]
    assert rig.guard.written[0] == pytest.approx(healthy, abs=0.03)


def test_a_rate_limiter_is_not_initialised_by_the_command_it_should_limit() -> None:
    """The first command after each start of torque is limited from zero, or from where the joints are."""
    for spec, at in ((FURUTA, 0.0), (QUADRUPED, None)):
        guard, base = Guard(spec), [joint.default_joint_pos for joint in spec.joints]
        for again in range(3):
            guard.torque_is_off()
            guard.measure(10 * again, 1.0, base, [0.0] * len(base))
            guard.supervise(State.STANDBY, again, 1.0)  # after a reset, but for the first time
            guard.supervise(State.ARMED, again, 1.0)
            guard.supervise(State.ACTIVE, again, 1.0)
            far = [1e6] * len(spec.actuated)
            verdict = guard.admit(10 * again, spec.actuated, far, 1.0)
            assert verdict.reason is Reason.LIMITED
            for name, value in zip(spec.actuated, verdict.command, strict=True):
                joint = spec.joint(name)
                rate = joint.rate_limit if at == 0.0 else min(joint.rate_limit, joint.velocity_limit)
                start = joint.default_joint_pos if at is None else at
                assert value - start <= rate * spec.control_dt + 1e-12


def test_a_position_limit_is_approached_at_full_velocity() -> None:
    """The stop's target never leaves the range, however little of it is left."""
    for velocity in (30.0, -30.0):
        guard, base = Guard(QUADRUPED), [joint.default_joint_pos for joint in QUADRUPED.joints]
        lower, upper = QUADRUPED.joints[0].position_limit
        guard.measure(0, 1.0, base, [0.0] * 12)
        guard.supervise(State.ARMED, 0, 1.0)
        guard.tick(1.0)
        guard.supervise(State.ACTIVE, 0, 1.0)
        position, reached = 0.0, []
        for tick in range(1, 60):
            now = 1.0 + 0.02 * tick
            position = max(lower - 0.3, min(upper + 0.3, position + 0.02 * velocity))
            speed = velocity if abs(position) < 0.9 else 0.0
            guard.measure(tick, now, [position, *base[1:]], [speed] + [0.0] * 11)
            guard.supervise(State.HOLD, 0, now)
            reached.append(guard.tick(now).command[0])
        assert lower <= min(reached)
        assert max(reached) <= upper
        assert reached[-1] == pytest.approx(upper if velocity > 0 else lower, abs=0.21)


def test_effort_near_a_position_limit_at_full_velocity_is_reversed() -> None:
    limits, limit = Limits(FURUTA), FURUTA.joints[0].effort_limit
    command = limits.apply((limit,), (0.0,), 0.02, (2.39, 0.0), (30.0, 0.0))
    assert command[0] == pytest.approx(-limit, rel=0.02)


@pytest.mark.parametrize("robot", ["furuta", "quadruped"])
def test_no_jump_after_a_reset(robot: str) -> None:
    """Neither the reset nor the arm after it changes the command in effect by more than a slow move does."""
    rig = active(robot)
    rig.policy_runs = False
    rig.run(1.0)
    assert rig.supervisor.state is State.FAULT
    steps = []
    before = rig.guard.written
    for event in (Event.RESET, Event.ARM):
        assert rig.operate(event, 0.0)
        for _ in range(50):
            rig.run(0.01)
            steps.append(max(abs(a - b) for a, b in zip(rig.guard.written, before, strict=True)))
            before = rig.guard.written
    slow = rig.spec.safety.parking_speed * rig.spec.control_dt if robot == "quadruped" else 0.002
    assert max(steps) <= slow * 1.01


def test_no_jump_when_a_robot_was_moved_by_hand_while_it_was_off() -> None:
    rig = active("quadruped")
    rig.operate(Event.DISARM, 0.0)
    while rig.supervisor.state is State.PARK:
        rig.run(0.1)
    rig.position = [p + 0.3 * (i % 3 == 1) for i, p in enumerate(rig.position)]
    rig.run(0.2)
    rig.operate(Event.ARM, 0.01)
    while not rig.torque:
        rig.run(0.01)
    assert rig.guard.written == pytest.approx([rig.position[i] for i in rig.at], abs=0.01)


@pytest.mark.parametrize("robot", ["furuta", "quadruped"])
def test_no_torque_off_before_park(robot: str) -> None:
    for ending in (Event.ESTOP, Event.BRIDGE_FAULT, Event.FOREIGN_PUBLISHER, Event.BRIDGE_LOST):
        rig = active(robot, 0.1)
        assert rig.operate(ending, 1.0)
        assert rig.operate(Event.RESET, 0.5)
        assert rig.supervisor.state is State.STANDBY
        assert rig.torque
        assert not any(verdict.release for _, verdict, _ in rig.writes)
        assert rig.operate(Event.PARK, 0.0)
        while rig.supervisor.state is State.PARK:
            rig.run(0.1)
        assert rig.supervisor.state is State.STANDBY
        assert not rig.torque


def test_the_clock_of_ages_is_not_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The safety core reads no clock at all; `tests/faults` steps the bridge's wall clock by an hour."""

    def read() -> float:
        raise AssertionError("a clock was read")

    for clock in ("time", "time_ns", "monotonic", "perf_counter", "clock_gettime"):
        monkeypatch.setattr(time, clock, read)
    assert active("furuta").supervisor.state is State.ACTIVE
