"""What a policy does in simulation: success and return of the same episodes for every policy, and their intervals."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landbridge.files import write_atomic
from landbridge.robot import Robot
from landbridge.simulation.behaviour import Behaviour
from landbridge.simulation.compensation import Compensation
from landbridge.simulation.plant import Engine, opened
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import Scenario
from landbridge.task import load_task
from landbridge.training.statistics import TRIMMED, bootstrap, interquartile_mean, success_interval

LOCKSTEP = 25  # plants stepped together
EPISODE_SEED = 10_000  # evaluation seeds are offset by it: no dataset of a seed below has its start states


def score(
    behaviour: Behaviour,
    robot: Robot,
    engine: Engine,
    scenario: Scenario,
    episodes: int,
    seed: int,
    *,
    write_after: float = 0.0,
    exploring: bool = False,
    compensation: Compensation | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Success (E,) of 0 or 1 and return (E,) of each episode; the same seed gives every policy the same episodes."""
    task = load_task(robot)
    success, returns = [], []
    for group, done in enumerate(range(0, episodes, LOCKSTEP)):
        batch = min(LOCKSTEP, episodes - done)
        streams = np.random.SeedSequence([EPISODE_SEED + seed, group]).spawn(batch + 2)
        *noises, drawn, start = (np.random.default_rng(stream) for stream in streams)
        with opened(robot, engine, [scenario] * batch, noises) as plants:
            policy = behaviour(batch, drawn)
            for episode in lockstep(plants, task, policy, start, exploring, write_after, compensation):
                success.append(task.success(episode.obs))
                returns.append(episode.rewards.sum())
    return np.array(success, np.float64), np.array(returns, np.float64)


def write_scores(path: Path, found: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    """Write what `score` found as one array (2, episodes), whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, np.stack(found))
    write_atomic(path, buffer.getvalue())


def summary(
    success: NDArray[np.float64], returns: NDArray[np.float64], same_episodes: bool = False
) -> dict[str, float]:
    """Means with 95 % intervals of scores (runs, episodes), of four runs or more their interquartile mean too.

    Args:
        same_episodes: As `bootstrap` has it.
    """
    figures: dict[str, float] = {}
    for name, scores, interval in (("success", success, success_interval), ("return", returns, bootstrap)):
        low, high = interval(scores, same_episodes=same_episodes)
        figures |= {name: float(scores.mean()), f"{name}_low": low, f"{name}_high": high}
        if len(scores) >= TRIMMED:
            low, high = interval(scores, interquartile_mean, same_episodes=same_episodes)
            iqm = interquartile_mean(scores)
            figures |= {f"{name}_iqm": iqm, f"{name}_iqm_low": low, f"{name}_iqm_high": high}
    return figures
