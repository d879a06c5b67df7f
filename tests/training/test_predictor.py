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


def test_a_joint_that_stands_still_on_the_robot_leaves_the_others_to_be_learned(task: Task) -> None:
    source, fresh, still = (linear_rows(task, rows, seed) for rows, seed in ((1000, 0), (200, 1), (1000, 2)))
    column = int(np.flatnonzero(task.observer.measured)[0])
    for data in (fresh, still):
        data.next_obs[:, column] = data.obs[:, column] = 0.3
    normaliser = Normaliser.of([source, still], task.observer.names)
    config = PredictorConfig(members=1, hidden=64, source_steps=400, steps=400)
    predictor = Predictor.seeded(task.observer, config, seed=0)
    predictor.fit(source, still, normaliser, task.observer.measured, seed=0)
    others = task.observer.measured & (np.arange(task.observer.size) != column)
    error = (predictor.predict(fresh, normaliser, task)[0] - fresh.next_obs)[:, others]
    assert (np.square(error).mean(0) / (fresh.next_obs - fresh.obs)[:, others].var(0)).max() < 0.03


def rows_of(lengths: list[int]) -> Transitions:
    n = sum(lengths)
    numbers = np.arange(n, dtype=np.float32)
    obs = numbers[:, None]
    return Transitions(obs, obs, numbers, obs, np.zeros(n, bool), np.repeat(np.arange(len(lengths)), lengths))


@given(st.lists(st.integers(1, 20), min_size=5, max_size=12), st.integers(0, 99))
def test_a_share_is_held_out_of_whole_episodes_or_the_end_and_nothing_is_lost(lengths: list[int], seed: int) -> None:
    data = rows_of(lengths)
    training, held = split_episodes(data, 0.2, seed)
    assert not set(training.episode) & set(held.episode) or training.reward.max() < held.reward.min()
    assert 0.1 * len(data) - 0.5 <= len(held) <= 0.4 * len(data) + 0.5
    assert sorted([*training.reward, *held.reward]) == data.reward.tolist()


@pytest.mark.parametrize("lengths", [[400], [20] * 5, [2900, 40, 30, 20, 10]])
@pytest.mark.parametrize("share", [0.001, 0.99])
def test_neither_part_is_empty(lengths: list[int], share: float) -> None:
    assert all(map(len, split_episodes(rows_of(lengths), share, 0)))


def test_of_one_long_episode_and_scraps_the_end_is_held_out() -> None:
    """None of the ways to choose whole ones comes near: they are a thirtieth of the rows, or nearly all."""
    for seed in range(40):
        _, held = split_episodes(rows_of([40, 30, 20, 10, 2900]), 0.2, seed)
        assert held.reward.tolist() == list(range(2400, 3000))


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
