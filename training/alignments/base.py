"""What an alignment is: it fits on both domains once, then gives every source row a weight at every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from landbridge.task import Task
from landbridge.training.dataset import Batch, Normaliser, Transitions

Value = Callable[[Tensor], Tensor]  # normalised obs (N, n) -> V (N,)


@dataclass(frozen=True)
class Context:
    """What an alignment may use besides the data."""

    task: Task
    normaliser: Normaliser
    gamma: float
    reward_scale: float
    device: torch.device
    seed: int


@dataclass(frozen=True)
class Diagnostics:
    """What an alignment did: `figures` for a table, `arrays` for histograms."""

    figures: dict[str, float] = field(default_factory=dict)
    arrays: dict[str, NDArray[np.float64]] = field(default_factory=dict)


class Alignment(nn.Module):
    """Base: uses both domains and weighs every row 1. Parameters and buffers of a subclass go into the checkpoint."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context

    def fit(self, target: Transitions) -> None:
        """Learn from the target before the agent starts; called once, and not on resume."""

    def cache(self, source: Transitions, target: Transitions) -> NDArray[np.float32]:
        """Columns (N, c) kept for every source row and given back as `batch.extra`; called after `fit` or resume."""
        return np.zeros((len(source), 0), np.float32)

    def refresh(self, value: Value, progress: float) -> None:
        """Called every few hundred steps with the current V and the share of the run that is done."""

    def weights(self, batch: Batch, value: Value) -> Tensor:
        """Weight (N,) of each row of a source batch."""
        return torch.ones_like(batch.reward)

    def diagnostics(self) -> Diagnostics:
        """Figures as of the last `refresh`."""
        return Diagnostics()


def effective_sample_size(weights: Tensor) -> Tensor:
    """Kish's effective share of rows, (sum w)^2 / (N sum w^2), in (0, 1]."""
    return weights.sum().square() / (len(weights) * weights.square().sum()).clamp(min=1e-12)
