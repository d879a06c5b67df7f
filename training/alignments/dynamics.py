"""Weights from the next state alone, whatever it is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landbridge.training.alignments.base import Context, Value
from landbridge.training.alignments.predictive import Predictive, PredictiveConfig
from landbridge.training.dataset import Batch, Transitions


@dataclass(frozen=True)
class DynamicsConfig(PredictiveConfig):
    """Hyperparameters; one default for all robots."""

    warmup: float = 0.0  # the weight does not depend on V, so there is nothing to wait for


class Dynamics(Predictive):
    """Weights from the predictor's next-state error in units of its own uncertainty.

    With mean m_j and variance v_j of the members' predictions of measured column j, and e_j^2 the mean squared error on
    held-out target transitions,

        mismatch = sqrt( mean_j (s'_j - m_j)^2 / (e_j^2 + v_j) )

    The members disagree where the robot's data are silent; there a row is not held against the simulator.
    """

    config: DynamicsConfig

    def __init__(self, config: DynamicsConfig, context: Context) -> None:
        super().__init__(config, context)
        self.register_buffer("error", torch.ones(int(context.task.observer.measured.sum())))
        self.error: Tensor  # e_j^2, in physical units

    def calibrate(self, held: Transitions, predicted: NDArray[np.float32]) -> None:
        """Set e^2."""
        residual = (predicted.mean(0) - held.next_obs)[:, self.context.task.observer.measured]
        error = np.maximum(np.square(residual).mean(0), 1e-12)
        self.error.copy_(torch.from_numpy(error).to(self.error))

    def columns(self, data: Transitions, predicted: NDArray[np.float32]) -> NDArray[np.float32]:
        """The mismatch itself, (N, 1)."""
        measured = self.context.task.observer.measured
        mean, variance = predicted.mean(0)[:, measured], predicted.var(0)[:, measured]
        z = np.square(data.next_obs[:, measured] - mean) / (self.error.cpu().numpy() + variance)
        return np.sqrt(z.mean(1, keepdims=True)).astype(np.float32)

    def mismatch(self, batch: Batch, value: Value) -> Tensor:
        """The cached column (N,)."""
        return batch.extra[:, 0]
