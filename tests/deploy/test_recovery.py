"""HOLD and PARK trajectories: by hand, and their bounds by finite differences over random joints."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from landbridge.deploy.recovery import Hold, Move, Stop
from landbridge.joint import Joint


def joint(**limits: Any) -> Joint:
    given = {"velocity_limit": 10, "acceleration_limit": 100, "jerk_limit": 4000, "effort_limit": 1, "rate_limit": 20}
    return Joint.model_validate({"name": "a"} | given | limits)


def test_a_stop_by_hand() -> None:
    stop = Stop(joint(), 0.5, -2.0)
    assert stop.duration == pytest.approx(math.sqrt(6 * 2 / 4000))  # of the jerk; the acceleration asks for 0.03 s
    assert stop.end == pytest.approx(0.5 - 2 * stop.duration / 2)
    assert stop.at(0.0) == stop.at(-1.0) == 0.5
    assert stop.at(stop.duration / 2) == pytest.approx(0.5 - 2 * stop.duration * (1 / 2 - 1 / 8 + 1 / 32))
    assert stop.at(stop.duration) == stop.at(9.0) == stop.end
    assert Stop(joint(jerk_limit=1e6), 0.0, 8.0).duration == pytest.approx(1.5 * 8 / 100)
    slow = Stop(joint(), 0.0, 0.5)
    assert (slow.duration, slow.end) == pytest.approx((math.sqrt(3 / 4000), 0.25 * math.sqrt(3 / 4000)))


@pytest.mark.parametrize("velocity", [2.0, -2.0])
def test_a_stop_of_a_joint_that_was_pushed_is_no_way_for_its_rate_to_creep(velocity: float) -> None:
    """The target would lag behind a way that is planned at the joint's own speed, and follow it for seconds."""
    slow = joint(rate_limit=0.2, acceleration_limit=2)
    stop = Stop(slow, 0.5, velocity)
    assert stop.end == pytest.approx(0.5 + math.copysign(0.2 * stop.duration / 2, velocity))
    assert stop.duration == pytest.approx(1.5 * 0.2 / 2)
    steps = np.diff([stop.at(t) for t in np.arange(0, 1, 0.02)])
    assert np.abs(steps).max() <= 0.2 * 0.02 + 1e-12


@pytest.mark.parametrize("velocity", [12.0, -12.0])
def test_no_stop_begins_faster_than_the_joint_may_move(velocity: float) -> None:
    limited = Stop(joint(), 0.0, velocity)
    assert limited.end == Stop(joint(), 0.0, math.copysign(10, velocity)).end
    assert limited.duration == Stop(joint(), 0.0, 10.0).duration


def test_a_position_limit_comes_before_the_way_to_rest() -> None:
    one = joint(position_limit=(-0.2, 0.1))
    for velocity, limit in ((10.0, 0.1), (-10.0, -0.2)):
        stop = Stop(one, 0.0, velocity)
        assert stop.end == pytest.approx(limit)
        assert stop.duration == pytest.approx(2 * abs(limit) / 10)
        assert all(-0.2 <= stop.at(t) <= 0.1 for t in np.linspace(0, 0.1, 101))
    for velocity, limit in ((0.5, 0.1), (-0.5, -0.2)):
        near = limit - math.copysign(0.001, limit)
        assert Stop(one, near, velocity).end == pytest.approx(limit)
        assert Stop(one, near, velocity).duration == pytest.approx(2 * 0.001 / 0.5)
    at_the_limit = Stop(one, 0.1, 3.0)
    assert (at_the_limit.duration, at_the_limit.end, at_the_limit.at(0.0)) == (0.0, 0.1, 0.1)
    assert Stop(one, 0.3, 0.0).end == 0.1
    assert Stop(one, -0.3, 0.0).end == -0.2


def test_hold_stops_each_joint_on_its_own() -> None:
    hold = Hold([joint(), joint()], (0.0, 1.0), (2.0, 0.0), 50.0)
    slower = Stop(joint(), 0.0, 2.0)
    assert hold.ends == 50.0 + slower.duration
    assert hold.end == (slower.end, 1.0)
    assert hold.at(50.01) == (pytest.approx(slower.at(0.01)), 1.0)
    assert hold.at(hold.ends) == hold.at(99.0) == hold.end


def test_a_move_by_hand() -> None:
    hold = Hold([joint(), joint()], (0.0, 1.0), (0.0, 0.0), 50.0)
    move = Move([joint(), joint()], hold, (0.5, 0.9), 0.25)
    duration = 15 / 8 * 0.5 / 0.25  # s: the longer way at 0.25 rad/s decides for both
    assert move.ends == pytest.approx(50.0 + duration)
    assert move.at(50.0) == (0.0, 1.0)
    assert move.at(50.0 + duration / 2) == pytest.approx((0.25, 0.95))
    assert move.at(50.0 + duration / 4) == pytest.approx((0.5 * 0.103515625, 1 - 0.1 * 0.103515625))
    assert move.at(move.ends) == move.at(99.0) == (0.5, 0.9)


@pytest.mark.parametrize(
    ("limits", "speed", "duration"),
    [
        ({"acceleration_limit": 1e4, "jerk_limit": 1e6}, 20.0, 15 / 8 * 1.0 / 10),
        ({"acceleration_limit": 1e4, "jerk_limit": 1e6, "rate_limit": 5}, 20.0, 15 / 8 * 1.0 / 5),
        ({"acceleration_limit": 2}, 9.0, math.sqrt(10 / math.sqrt(3) / 2)),
        ({"jerk_limit": 480}, 9.0, 0.5),
    ],
)
def test_a_move_keeps_every_limit_of_the_joint(limits: dict[str, float], speed: float, duration: float) -> None:
    one = joint(**limits)
    assert Move([one], Hold([one], (1.0,), (0.0,), 0.0), (0.0,), speed).ends == pytest.approx(duration)


def test_a_move_follows_the_stop() -> None:
    hold = Hold([joint()], (0.0,), (2.0,), 0.0)
    move = Move([joint()], hold, (0.5,), 0.25)
    assert move.at(0.02) == hold.at(0.02)
    assert move.at(hold.ends) == hold.end
    assert move.ends == pytest.approx(hold.ends + 15 / 8 * (0.5 - hold.end[0]) / 0.25)


def test_a_robot_that_is_there_already_need_not_move() -> None:
    hold = Hold([joint()], (0.5,), (0.0,), 7.0)
    move = Move([joint()], hold, (0.5,), 0.25)
    assert move.ends == hold.ends == 7.0
    assert move.at(7.0) == (0.5,)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.floats(-3, 3), st.floats(-12, 12), st.floats(5, 300), st.floats(50, 1e4), st.floats(-3, 3), st.floats(0.05, 2)
)
def test_speed_acceleration_and_jerk_stay_within_the_joints_limits(
    position: float, velocity: float, acceleration: float, jerk: float, goal: float, speed: float
) -> None:
    one = joint(acceleration_limit=acceleration, jerk_limit=jerk)
    hold = Hold([one], (position,), (velocity,), 0.0)
    move = Move([one], hold, (goal,), speed)
    for begin, end, top in ((0.0, hold.ends, 10.0), (hold.ends, move.ends, speed)):
        if end - begin < 1e-3:
            continue
        times, h = np.linspace(begin, end, 400, retstep=True)
        way = np.array([move.at(t)[0] for t in times])
        noise = 16 * np.spacing(np.abs(way).max())
        for order, limit in ((1, top), (2, acceleration), (3, jerk)):
            slope = np.abs(np.diff(way, order)).max() / h**order
            assert slope <= limit * (1 + 1e-6) + noise * 2**order / h**order
    assert move.at(0.0)[0] == position
    assert move.at(move.ends)[0] == goal
