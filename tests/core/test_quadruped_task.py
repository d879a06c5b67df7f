"""The quadruped's task, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from landbridge.observation import Base
from landbridge.robot import load_robot
from landbridge.task import load_task

TASK = load_task(load_robot("quadruped"))
SPEC = TASK.observer.spec
DEFAULT = np.array([joint.default_joint_pos for joint in SPEC.joints])


def observe(
    lin_vel: tuple[float, float] = (0.5, 0.0), tilt: float = 0.0, turn: float = 0.0, joints: np.ndarray = DEFAULT
) -> np.ndarray:
    base = Base(
        np.array([[np.cos(tilt / 2), np.sin(tilt / 2), 0, 0]]),
        np.array([[0.0, 0.0, turn]]),
        np.array([[*lin_vel, 0.0]]),
    )
    return TASK.observer(joints[None], np.zeros((1, 12)), TASK.observer.initial_history(1), base)


def test_reward_by_hand() -> None:
    still, moved = np.zeros((1, 12)), np.full((1, 12), 0.5)
    best = observe()
    assert TASK.reward(best, still, best) == pytest.approx(1.5)
    assert TASK.reward(best, moved, best) == pytest.approx(1.5 - 0.05 * 0.25)
    off = observe(lin_vel=(0.3, 0.1), turn=0.5)
    assert TASK.reward(best, still, off) == pytest.approx(np.exp(-0.5) + 0.3 * np.exp(-0.5) + 0.2, rel=1e-6)


def test_height_by_hand() -> None:
    """Default: both segments 0.75 rad off the vertical. Straight legs: 0.4 m, below the foot's radius of 0.02 m."""
    assert TASK.height(observe()) == pytest.approx(0.4 * np.cos(0.75) + 0.02, abs=1e-6)
    assert TASK.height(observe(joints=np.zeros(12))) == pytest.approx(0.42, abs=1e-6)
    one_leg = np.tile([0.0, 1.3, -2.6], 4)
    one_leg[:3] = 0
    assert TASK.height(observe(joints=one_leg)) == pytest.approx(0.42, abs=1e-6)


def test_a_fall_is_a_tilt_or_a_low_trunk() -> None:
    action = np.zeros((1, 12))
    for tilt, fallen in [(0.0, False), (0.9, False), (0.95, True), (-0.95, True), (3.0, True)]:
        obs = observe(tilt=tilt)
        assert TASK.terminated(obs, action, obs).tolist() == [fallen], tilt
    stopped = observe(tilt=load_robot("quadruped").spec.safety.max_tilt or 0.0)  # by the guard
    assert TASK.terminated(stopped, action, stopped).tolist() == [True]
    folded = observe(joints=np.tile([0.0, 1.3, -2.6], 4))  # 0.4 cos(1.3) + 0.02 = 0.127 m
    assert TASK.terminated(folded, action, folded).tolist() == [True]


@pytest.mark.parametrize(
    ("lin_vel", "steps", "good"),
    [
        ((0.5, 0.0), 300, True),
        ((0.69, 0.0), 300, True),
        ((0.5, -0.21), 300, False),
        ((0.29, 0.0), 300, False),
        ((0.5, 0.0), 299, False),
    ],
)
def test_success_is_the_mean_velocity_at_the_end(lin_vel: tuple[float, float], steps: int, good: bool) -> None:
    obs = np.repeat(observe(lin_vel), steps + 1, axis=0)
    obs[:100] = observe((0.0, 0.3))  # how it began does not matter
    assert TASK.success(obs) is good


def test_a_fall_at_the_last_step_is_no_success() -> None:
    obs = np.repeat(observe(), 301, axis=0)
    obs[-1] = observe(tilt=1.2)
    assert not TASK.success(obs)


def test_start_states_stand() -> None:
    joint_pos, joint_vel = TASK.initial_state(np.random.default_rng(0), 100)
    assert np.abs(joint_pos - DEFAULT).max() <= 0.05
    assert (joint_vel == 0).all()
    assert SPEC.base_height is not None
    lowest = max(TASK.height(observe(joints=joints))[0] for joints in joint_pos)
    assert lowest < SPEC.base_height + 0.01, "feet start in the ground"
