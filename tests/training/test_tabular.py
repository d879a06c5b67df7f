"""A chain of five states where the simulator lies about one action: what each alignment's backup converges to.

On the robot, action +1 moves right and -1 left, and the right end pays 1 per step. The simulator agrees, except that
going right from the middle throws one back to the left end. With one-hot observations and a table for Q the fixed point
of a weighted backup can be computed, and the robot's own value function is known exactly.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from landbridge.training.alignments import ALIGNMENTS
from landbridge.training.alignments.base import Context
from landbridge.training.alignments.corrected import CorrectedConfig
from landbridge.training.alignments.density_ratio import DensityRatioConfig
from landbridge.training.alignments.domains import ClassifierConfig
from landbridge.training.alignments.dynamics import DynamicsConfig
from landbridge.training.alignments.tabb import TabbConfig
from landbridge.training.dataset import Normaliser, Transitions, pack, unpack
from landbridge.training.predictor import PredictorConfig

STATES, GAMMA, SWEEPS = 5, 0.9, 200
LIE = 2  # the state from which the simulator's +1 leads to state 0
ROWS = {"source": 3000, "target": 400}
PREDICTOR = PredictorConfig(members=3, hidden=32, source_steps=300, steps=800, batch=64)
CONFIGS: dict[str, Any] = {
    "none": None,
    "tabb": TabbConfig(warmup=0.0, ess_floor=0.05, predictor=PREDICTOR),
    "dynamics": DynamicsConfig(ess_floor=0.05, predictor=PREDICTOR),
    "corrected": CorrectedConfig(predictor=PREDICTOR),
    "density_ratio": DensityRatioConfig(classifiers=ClassifierConfig(hidden=32, steps=1500, lr=3e-3, noise=0.1)),
}


def step(state: NDArray[np.int64], action: NDArray[np.float32], lies: bool) -> NDArray[np.int64]:
    following = np.clip(state + np.sign(action[:, 0]).astype(int), 0, STATES - 1)
    return np.where(lies & (state == LIE) & (action[:, 0] > 0), 0, following)


def reward(obs: Any, action: Any, next_obs: Any) -> NDArray[np.float64]:
    paid: NDArray[np.float64] = np.asarray(next_obs, np.float64)[..., -1]
    return paid


def rows(domain: str) -> tuple[Transitions, NDArray[np.int64]]:
    n = ROWS[domain]
    rng = np.random.default_rng(n)
    state, action = rng.integers(STATES, size=n), rng.choice([-1.0, 1.0], (n, 1)).astype(np.float32)
    hot = np.eye(STATES, dtype=np.float32)
    following = hot[step(state, action, lies=domain == "source")]
    paid = reward(None, None, following).astype(np.float32)
    data = Transitions(hot[state], action, paid, following, np.zeros(n, bool), np.arange(n) // 20)
    return data, 2 * state + (action[:, 0] > 0)


def true_value() -> NDArray[np.float64]:
    """V* of the robot, by value iteration on its exact dynamics."""
    states, value = np.arange(STATES), np.zeros(STATES)
    for _ in range(SWEEPS):
        backups = []
        for sign in (-1.0, 1.0):
            following = step(states, np.full((STATES, 1), sign, np.float32), lies=False)
            backups.append((following == STATES - 1) + GAMMA * value[following])
        value = np.max(backups, axis=0)
    return value


def fixed_point(name: str) -> NDArray[np.float64]:
    """V of the weighted backup Q(s, a) = sum w (r + gamma max Q(s', .)) / sum w over both domains' rows."""
    observer = SimpleNamespace(
        size=STATES,
        num_actions=1,
        measured=np.ones(STATES, bool),
        names=[f"state.{i}" for i in range(STATES)],
        advance_history=lambda obs, action: np.array(obs, np.float32),
    )
    plain = Normaliser(np.zeros(STATES), np.ones(STATES))
    task: Any = SimpleNamespace(
        observer=observer, reward=reward, terminated=lambda obs, action, next_obs: np.zeros(len(obs), bool)
    )
    context = Context(None, task, plain, GAMMA, 1.0, torch.device("cpu"), 0)
    torch.manual_seed(0)
    alignment = ALIGNMENTS[name](CONFIGS[name], context)
    (source, source_pair), (target, target_pair) = rows("source"), rows("target")
    alignment.fit(source, target)
    source = alignment.correct(source)
    batch = unpack(pack(source, plain, alignment.cache(source, target)), STATES, 1)
    q = torch.zeros(2 * STATES)
    pair = torch.from_numpy(np.concatenate([source_pair, target_pair]))
    paid = torch.from_numpy(np.concatenate([source.reward, target.reward]))
    following = torch.from_numpy(np.concatenate([source.next_obs, target.next_obs]))

    def value(obs: Tensor) -> Tensor:
        return obs @ q.view(STATES, 2).max(1).values

    for _ in range(SWEEPS):
        alignment.refresh(value, 1.0)
        weights = torch.cat([alignment.weights(batch, value), torch.ones(len(target))])
        backup = weights * (paid + GAMMA * value(following))
        q = torch.zeros(2 * STATES).index_add(0, pair, backup) / torch.zeros(2 * STATES).index_add(0, pair, weights)
    found: NDArray[np.float64] = q.view(STATES, 2).max(1).values.double().numpy()
    return found


@pytest.mark.parametrize("name", ["tabb", "density_ratio", "dynamics", "corrected"])
def test_an_aligned_backup_converges_to_the_robots_value_function(name: str) -> None:
    np.testing.assert_allclose(fixed_point(name), true_value(), rtol=0.03)


def test_the_naive_mix_does_not() -> None:
    error = np.abs(fixed_point("none") - true_value()) / true_value()
    assert error[:3].min() > 0.15
