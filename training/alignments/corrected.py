"""Source transitions moved to where the robot would have gone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landbridge.training.alignments.base import Context, Diagnostics
from landbridge.training.alignments.modelled import Modelled, ModelledConfig
from landbridge.training.dataset import Transitions


@dataclass(frozen=True)
class CorrectedConfig(ModelledConfig):
    """Hyperparameters; one default for all robots. How far a row moves has none: it follows from the data."""


class Corrected(Modelled):
    """Moves the Bellman target of a source row, where the weights of `tabb` and `dynamics` only drop it.

    A row that the simulator gets wrong still says where the robot may be and what it may do there; only s' is wrong,
    and the model knows better. What is believed of the robot's next state is what the simulator says, N(s', D), and
    what the model says, N(m, e^2 + v) (`Modelled.estimate`); of every measured column j the backup uses the mean of
    both together,

        s'_j + K_j (m_j - s'_j),     K_j = D_j / (D_j + e_j^2 + v_j).

    D_j is the simulator's mean squared error by the method of moments (empirical Bayes; Efron, Morris 1973, JASA
    68:117-130): of all source rows the mean of (s'_j - m_j)^2 - e_j^2 - v_j, weighted by (e_j^2 + v_j)^-2, so that rows
    where the robot's data are silent do not count, and not below 0. A column in which the simulator agrees with the
    robot, as far as can be told, stays; so does a row where the members disagree. e^2 holds the robot's sensor noise
    too, which makes K rather too small. Reward follows from the task; a row that was terminal remains so, for whether a
    prediction falls just short of a limit is a matter of its resolution. All rows weigh 1.
    """

    config: CorrectedConfig

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        self.register_buffer("discrepancy", torch.zeros_like(self.error))
        self.discrepancy: Tensor  # D_j, in physical units

    def fit(self, source: Transitions, target: Transitions) -> None:
        """Train the model, measure its error, then the simulator's."""
        super().fit(source, target)
        mean, variance = self.estimate(source)
        excess = np.square(source.next_obs[:, self.measured] - mean) - variance
        excess = np.average(excess, axis=0, weights=variance**-2)
        self.discrepancy.copy_(torch.from_numpy(np.maximum(excess, 0)))

    def correct(self, source: Transitions) -> Transitions:
        """Next states moved, rewards and terminations by the task."""
        task = self.context.task
        mean, variance = self.estimate(source)
        prior = self.discrepancy.double().cpu().numpy()
        gain = prior / (prior + variance)
        step = gain * (mean - source.next_obs[:, self.measured])
        next_obs = source.next_obs.copy()
        next_obs[:, self.measured] += step.astype(np.float32)
        reward = task.reward(source.obs, source.action, next_obs).astype(np.float32)
        self._gain = gain.mean(0)
        self._moved = np.sqrt(np.mean(np.square(step) / self.error.double().cpu().numpy(), axis=1))
        return replace(
            source,
            next_obs=next_obs,
            reward=reward,
            terminated=source.terminated | task.terminated(source.obs, source.action, next_obs),
        )

    def diagnostics(self) -> Diagnostics:
        """Mean K of every column over the rows corrected last; how far each moved, rms over columns in units of e_j."""
        gains = {f"gain.{name}": float(k) for name, k in zip(self.measured_names, self._gain, strict=True)}
        return Diagnostics(self.model_figures | gains, {"moved": self._moved})
