from __future__ import annotations

import numpy as np
import pytest

from landbridge.robot import load_robot
from landbridge.task import Task, load_task


@pytest.fixture
def task() -> Task:
    return load_task(load_robot("furuta"))


def observe(task: Task, arm: float | np.ndarray, pendulum: float | np.ndarray) -> np.ndarray:
    joint_pos = np.stack(np.broadcast_arrays(np.atleast_1d(arm), np.atleast_1d(pendulum)), -1)
    return task.observer(joint_pos, np.zeros_like(joint_pos), task.observer.initial_history(len(joint_pos)))


def test_reward_is_vectorised_and_highest_upright_in_the_middle(task: Task) -> None:
    next_obs = observe(task, np.array([0.0, 0.0, 2.0]), np.array([0.0, np.pi, 0.0]))
    reward = task.reward(next_obs, np.zeros((3, 1)), next_obs)
    assert reward.shape == (3,)
    assert reward[0] == pytest.approx(2.0)
    assert reward[1] == pytest.approx(0.0, abs=1e-9)
    assert 0 < reward[2] < 1
    assert task.reward(next_obs, np.ones((3, 1)), next_obs) == pytest.approx(reward - 0.02)


def test_the_episode_ends_where_the_arm_meets_its_limit(task: Task) -> None:
    lower, upper = task.observer.spec.joint("arm").position_limit or (0.0, 0.0)
    obs = observe(task, np.array([0.0, upper + 1e-3, lower - 1e-3, upper - 1e-3]), 0.0)
    assert task.terminated(obs, np.zeros((4, 1)), obs).tolist() == [False, True, True, False]


def test_success_asks_for_the_whole_of_the_last_two_seconds(task: Task) -> None:
    steps = task.episode_steps
    assert steps == 300
    alpha = np.full(steps + 1, np.pi)
    alpha[-100:] = 0.19
    assert task.success(observe(task, 1.5, alpha))
    assert not task.success(observe(task, 1.6, alpha))
    alpha[-100] = 0.21
    assert not task.success(observe(task, 1.5, alpha))
    assert not task.success(observe(task, 0.0, np.zeros(steps)))


def test_start_states_hang(task: Task) -> None:
    joint_pos, joint_vel = task.initial_state(np.random.default_rng(0), 100)
    assert joint_pos.shape == joint_vel.shape == (100, 2)
    assert np.abs(joint_pos[:, 0]).max() <= 0.3
    assert np.abs(joint_pos[:, 1] - np.pi).max() <= 0.1
