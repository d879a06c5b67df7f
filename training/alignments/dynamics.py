"""Weights from the next state alone, whatever it is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from landbridge.spec import Share
from landbridge.training.alignments.base import Value
from landbridge.training.alignments.predictive import Soft, SoftConfig
from landbridge.training.dataset import Batch, Transitions


@dataclass(frozen=True)
class DynamicsConfig(SoftConfig):
    """Hyperparameters; one default for all robots."""

    warmup: Share = 0.0  # the weight does not depend on V, so there is nothing to wait for


class Dynamics(Soft):
    """Weights from the predictor's next-state error in units of its own uncertainty.

    With mean m_j and variance e_j^2 + v_j of what the model says of measured column j (`Modelled.estimate`),

        mismatch = sqrt( mean_j (s'_j - m_j)^2 / (e_j^2 + v_j) )

    Where the robot's data are silent v is large, and a row is not held against the simulator.
    """

    config: DynamicsConfig

    def extend(self, source: Transitions) -> NDArray[np.float32]:
        """The mismatch itself, (N, 1)."""
        mean, variance = self.estimate(source)
        z = np.square(source.next_obs[:, self.measured] - mean) / variance
        return np.sqrt(z.mean(1, keepdims=True)).astype(np.float32)

    def mismatch(self, batch: Batch, value: Value) -> Tensor:
        """The cached column (N,)."""
        return batch.extra[:, 0]
