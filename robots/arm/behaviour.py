"""Behaviours of the arm: the reference ahead of time with a correction, noisy, and random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landbridge.observation import Observer, command_to_action
from landbridge.robot import load_robot
from landbridge.simulation.behaviour import Behaviour, OrnsteinUhlenbeck, Policy, perturbed
from landbridge.task import load_task

SOURCE_MIX = {"random": 0.1, "tuned": 0.2, "noisy": 0.7}  # shares of a source dataset

Floats = NDArray[np.float64]


class Follow:
    """command = reference(phase + lead) + pull (reference - position); the gain of each row may be scaled."""

    def __init__(self, observer: Observer, parameters: dict[str, float]) -> None:
        self.observer, self.p = observer, parameters
        self.task: Any = load_task(load_robot(Path(__file__).parent))

    def __call__(self, obs: NDArray[np.float32], gain: Floats | float = 1.0) -> Floats:
        """Action (B, 6) for obs (B, n); `gain` (B, 1) scales the correction."""
        ahead = self.task.reference(self.task.phase(obs) + self.p["lead"])
        return np.clip(
            command_to_action(self.observer.spec, ahead + gain * self.p["pull"] * self.task.error(obs)), -1, 1
        )


def make_behaviours(observer: Observer, parameters: dict[str, dict[str, float]]) -> dict[str, Behaviour]:
    """Called by `landbridge.simulation.behaviour.load_behaviours`."""
    follow, gently = Follow(observer, parameters["tuned"]), Follow(observer, parameters["excite"])

    def random(batch: int, rng: np.random.Generator) -> Policy:
        noise = OrnsteinUhlenbeck((batch, observer.num_actions), tau_steps=10, rng=rng)
        size = rng.uniform(0.1, 0.5, (batch, 1))
        return lambda obs: np.clip(follow(obs) + size * noise(), -1, 1)

    return {
        "random": random,
        "tuned": lambda batch, rng: follow,
        "noisy": lambda batch, rng: perturbed(follow, batch, rng, noise=0.3, spread=0.5),
        # A robot's guard limits what is faster than its rate limits: here 1 tick in 20, on any rung.
        "excite": lambda batch, rng: perturbed(gently, batch, rng, noise=0.03, spread=0.3),
    }
