"""What alignments ask of a task, for Gymnasium's locomotion environments: columns, reward and termination.

The data keep the rewards that the environment gave. An alignment needs the reward of a transition that it predicts, and
that is a function of (obs, action, next_obs) but for the forward speed: the environment divides the way that it went by
the time, and obs has no position. Its mean at both ends stands for it here.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from numpy.typing import NDArray
from shifts import IDS, OPTIONS, make_env

Floats = NDArray[np.floating]
SPEED = {"hopper": 5, "walker2d": 8, "halfcheetah": 8, "ant": 13}  # column of the forward velocity [m/s]


@dataclass(frozen=True)
class Columns:
    """An observer of that many observations and actions, all of which the plant decides."""

    size: int
    num_actions: int

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return [f"obs.{i}" for i in range(self.size)]

    @property
    def measured(self) -> NDArray[np.bool_]:
        """All of them (size,)."""
        return np.ones(self.size, bool)

    def advance_history(self, obs: Floats, action: Floats) -> NDArray[np.float32]:
        """There is no history."""
        return np.array(obs, np.float32)


class Locomotion:
    """Stands for `landbridge.task.Task` where an alignment asks for one."""

    def __init__(self, name: str) -> None:
        env = make_env(name)
        self.observer = Columns(env.observation_space.shape[0], env.action_space.shape[0])
        env.close()
        self.speed = SPEED[name]
        kind: Any = load_env_creator(str(gym.spec(IDS[name]).entry_point))
        defaults = {key: p.default for key, p in inspect.signature(kind.__init__).parameters.items()}
        self.settings = defaults | OPTIONS.get(name, {})

    def reward(self, obs: Floats, action: Floats, next_obs: Floats) -> NDArray[np.float64]:
        """Forward speed, less the cost of control, plus what being healthy pays; (N,)."""
        s = self.settings
        forward = s["forward_reward_weight"] * (obs[:, self.speed] + next_obs[:, self.speed]) / 2
        control = s["ctrl_cost_weight"] * np.square(action).sum(1)
        return forward - control + s.get("healthy_reward", 0.0) * ~self.terminated(obs, action, next_obs)

    def terminated(self, obs: Floats, action: Floats, next_obs: Floats) -> NDArray[np.bool_]:
        """Whether height or pitch, where it counts, has left the healthy range; (N,)."""
        ended = np.zeros(len(next_obs), bool)
        for column, name in enumerate(("healthy_z_range", "healthy_angle_range")):
            low, high = self.settings.get(name, (-np.inf, np.inf))
            ended |= (next_obs[:, column] < low) | (next_obs[:, column] > high)
        return ended
