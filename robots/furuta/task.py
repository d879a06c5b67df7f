"""Swing the pendulum up and hold it there, with the arm near the middle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landbridge.observation import Observer
from landbridge.task import Floats, Task

UPRIGHT = 0.2  # rad
CENTRED = np.pi / 2  # rad
HOLD_SECONDS = 2.0


class SwingUp(Task):
    """Success: |pendulum| < 0.2 rad and |arm| < 90 deg during the last 2 s of a 6 s episode."""

    name = "swing_up"
    episode_seconds = 6.0

    def reward(self, obs: Floats, action: Floats, next_obs: Floats) -> NDArray[np.float64]:
        """Height of the pendulum times centredness, plus a bonus in the goal, less effort; in [-0.02, 2]."""
        alpha = self.observer.angle(next_obs, "pendulum")
        arm = self.observer.column(next_obs, "joint_pos.arm")
        height = 0.5 * (1 + np.cos(alpha))
        centred = 1 - 0.5 * np.clip(np.abs(arm) / 2.4, 0, 1)
        goal = (np.abs(alpha) < UPRIGHT) & (np.abs(arm) < CENTRED)
        return height * centred + goal - 0.02 * np.square(np.asarray(action, np.float64)).sum(-1)

    def terminated(self, obs: Floats, action: Floats, next_obs: Floats) -> NDArray[np.bool_]:
        """The arm has run into its limit."""
        lower, upper = self.observer.spec.joint("arm").position_limit or (-np.inf, np.inf)
        arm = self.observer.column(next_obs, "joint_pos.arm")
        return (arm <= lower) | (arm >= upper)

    def success(self, obs: Floats) -> bool:
        """Upright and centred at every step of the last two seconds."""
        if len(obs) < self.episode_steps + 1:
            return False
        last = obs[-round(HOLD_SECONDS * self.observer.spec.control_rate_hz) :]
        upright = np.abs(self.observer.angle(last, "pendulum")) < UPRIGHT
        centred = np.abs(self.observer.column(last, "joint_pos.arm")) < CENTRED
        return bool((upright & centred).all())

    def initial_state(self, rng: np.random.Generator, batch: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Hanging at rest, the arm within +-0.3 rad of the middle, the pendulum within +-0.1 rad of straight down."""
        arm = rng.uniform(-0.3, 0.3, batch)
        pendulum = np.pi + rng.uniform(-0.1, 0.1, batch)
        return np.stack([arm, pendulum], -1), rng.normal(0, 0.01, (batch, 2))

    def exploring_state(self, rng: np.random.Generator, batch: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The pendulum anywhere, at speeds (1 sigma) of half a full swing; the arm where a catch may find it."""
        arm, pendulum = rng.uniform(-1.2, 1.2, batch), rng.uniform(-np.pi, np.pi, batch)
        return np.stack([arm, pendulum], -1), rng.normal(0, [2.0, 6.0], (batch, 2))


def make_task(observer: Observer) -> Task:
    """Called by `landbridge.task.load_task`."""
    return SwingUp(observer)
