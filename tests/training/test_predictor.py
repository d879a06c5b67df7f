from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from landbridge.robot import load_robot
from landbridge.task import Task, load_task
from landbridge.training.dataset import Normaliser, Transitions
from landbridge.training.predictor import Predictor, PredictorConfig, split_episodes


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task(load_robot("furuta"))


def linear_rows(task: Task, rows: int, seed: int) -> Transitions:
    """Measured columns x' = 0.9 x + B a; the action history moves on by a."""
    rng = np.random.default_rng(seed)
    measured = task.observer.measured
    obs = rng.normal(0, 0.5, (rows, task.observer.size)).astype(np.float32)
    action = rng.uniform(-1, 1, (rows, 1)).astype(np.float32)
    following = task.observer.advance_history(obs, action)
    following[:, measured] = 0.9 * obs[:, measured] + action * np.linspace(0.5, -0.5, measured.sum())
    return Transitions(obs, action, np.zeros(rows, np.float32), following, np.zeros(rows, bool), np.zeros(rows, int))


def test_a_linear_system_is_recovered_and_the_history_is_exact(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    training, fresh = linear_rows(task, 1000, 0), linear_rows(task, 200, 1)
    normaliser = Normaliser.of([training], task.observer.names)
    measured = task.observer.measured
    torch.manual_seed(0)
    config = PredictorConfig(members=2, hidden=64, source_steps=0, steps=800)
    predictor = Predictor(task.observer.size, 1, int(measured.sum()), config)
    predictor.fit(training, training, normaliser, measured, seed=0)
    said = capsys.readouterr()
    assert said.err.startswith("predict the robot") and said.out == ""  # figures alone are on stdout
    predicted = predictor.predict(fresh, normaliser, task)
    assert predicted.shape == (2, 200, task.observer.size)
    for member in predicted:
        np.testing.assert_array_equal(member[:, ~measured], fresh.next_obs[:, ~measured])
    change = (fresh.next_obs - fresh.obs)[:, measured]
    error = (predicted.mean(0) - fresh.next_obs)[:, measured]
    assert (np.square(error).mean(0) / change.var(0)).max() < 0.02


def rows_of(lengths: list[int]) -> Transitions:
    n = sum(lengths)
    numbers = np.arange(n, dtype=np.float32)
    obs = numbers[:, None]
    return Transitions(obs, obs, numbers, obs, np.zeros(n, bool), np.repeat(np.arange(len(lengths)), lengths))


@given(st.lists(st.integers(1, 20), min_size=5, max_size=12), st.integers(0, 99))
def test_held_out_episodes_are_whole_and_nothing_is_lost(lengths: list[int], seed: int) -> None:
    data = rows_of(lengths)
    training, held = split_episodes(data, 0.2, seed)
    assert not set(training.episode) & set(held.episode)
    assert len(training) and len(held)
    assert abs(len(held) - 0.2 * len(data)) <= max(lengths)
    assert sorted([*training.reward, *held.reward]) == data.reward.tolist()


def test_of_a_single_episode_the_end_is_held_out() -> None:
    training, held = split_episodes(rows_of([100]), 0.2, 0)
    assert training.reward.tolist() == list(range(80))
    assert held.reward.tolist() == list(range(80, 100))


def test_of_many_scraps_a_share_of_the_rows_is_held_out() -> None:
    """As of a recording in which ticks were lost."""
    data = rows_of([299, 1, 299, 1, 219, 1, 180])
    for seed in range(40):
        _, held = split_episodes(data, 0.2, seed)
        assert 150 < len(held) < 450
    assert len(split_episodes(rows_of([100] * 7), 0.2, 0)[1]) == 100
