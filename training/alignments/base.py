"""What an alignment is: it fits on both domains once, then gives every source row a weight at every step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from landbridge.robot import Robot
from landbridge.task import Task
from landbridge.training.dataset import Batch, Normaliser, Transitions
from landbridge.training.prior import Prior

BLOCK = 256  # steps between two looks at the numbers: indices drawn, weights refreshed, metrics logged, NaN checked

Value = Callable[[Tensor], Tensor]  # normalised obs (N, n) -> V (N,)


@dataclass(frozen=True)
class Context:
    """What an alignment may use besides the data. Only those that ask a twin need a robot."""

    robot: Robot | None
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
    """Base: uses both domains and weighs every row 1, the naive mix.

    Parameters and buffers of a subclass go into the checkpoint. The order of calls is `fit` (not on resume), `correct`,
    `cache`, then `refresh` and `weights` by turns. Where the source is larger than memory, these see a sample of it;
    before `refresh` all of it then comes by chunks to `correct` and `extend`.

    Attributes:
        domains: The datasets it reads.
        whole_source: Whether it must see every source row at once.
    """

    domains: ClassVar[tuple[str, ...]] = ("source", "target")
    whole_source: ClassVar[bool] = False

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__()
        self.config, self.context = config, context

    def fit(self, source: Transitions, target: Transitions) -> None:
        """Learn from both domains before the agent starts."""

    def correct(self, source: Transitions) -> Transitions:
        """The source transitions that the agent trains on; an alignment may change their rewards or next states."""
        return source

    def cache(self, source: Transitions, target: Transitions) -> NDArray[np.float32]:
        """Columns (N, c) kept for every source row and given back as `batch.extra`."""
        return np.zeros((len(source), 0), np.float32)

    def extend(self, source: Transitions) -> NDArray[np.float32]:
        """The columns (N, c) of further source rows, after `cache` of others."""
        return np.zeros((len(source), 0), np.float32)

    def refresh(self, value: Value, progress: float) -> None:
        """Called every BLOCK steps with the current V and the share of the run that is done."""

    def weights(self, batch: Batch, value: Value) -> Tensor:
        """Weight (N,) of each row of a few source batches in one."""
        return torch.ones_like(batch.reward)

    def diagnostics(self) -> Diagnostics:
        """Figures as of the last `refresh`."""
        return Diagnostics()

    @property
    def prior(self) -> Prior | None:
        """What the policy is kept near to, if the alignment asks for that."""
        return None


class SourceOnly(Alignment):
    """Only the simulator's transitions: the zero-shot policy."""

    domains = ("source",)


class TargetOnly(Alignment):
    """Only the robot's transitions."""

    domains = ("target",)


class FixedWeights(Alignment, ABC):
    """Base of the alignments whose weights follow from the data alone, once and for all."""

    @abstractmethod
    def row_weights(self, source: Transitions, target: Transitions) -> NDArray[np.float32]:
        """Weight (N,) of every source row."""

    def cache(self, source: Transitions, target: Transitions) -> NDArray[np.float32]:
        """The weights as one column."""
        self._weights = self.row_weights(source, target)
        return self._weights[:, None]

    def weights(self, batch: Batch, value: Value) -> Tensor:
        """The cached column (N,)."""
        return batch.extra[:, 0]

    def diagnostics(self) -> Diagnostics:
        """Effective sample size, share kept and histogram of the weights of the source rows of `cache`."""
        return Diagnostics(
            weight_figures(torch.from_numpy(self._weights)), {"weight": self._weights.astype(np.float64)}
        )


def effective_sample_size(weights: Tensor) -> Tensor:
    """Kish's effective share of rows, (sum w)^2 / (N sum w^2), in (0, 1]."""
    return weights.sum().square() / (len(weights) * weights.square().sum()).clamp(min=1e-12)


def weight_figures(weights: Tensor) -> dict[str, float]:
    """What is always reported of weights (N,): effective sample size, share above half of the largest, mean."""
    return {
        "ess": float(effective_sample_size(weights)),
        "kept": float((weights > 0.5 * weights.max()).float().mean()),
        "weight_mean": float(weights.mean()),
    }
