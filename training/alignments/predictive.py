"""What the alignments that weigh source rows by a model of the robot share: cached predictions, noise floor, unit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from landbridge.spec import Positive, Share
from landbridge.training.alignments.base import (
    Context,
    Diagnostics,
    Value,
    effective_sample_size,
    weight_figures,
)
from landbridge.training.alignments.modelled import Modelled, ModelledConfig
from landbridge.training.dataset import Batch, Transitions, pack, unpack

PROBE = 2048  # source rows from which the temperature is set
BISECTIONS = 20


class Predictive(Modelled, ABC):
    """Base of the alignments that weigh a source row by how far it is from what the robot would have done.

    A subclass says by `mismatch` how far that is, and by `weigh` what it makes of it.
    """

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        self._figures: dict[str, float] = {}
        self._arrays: dict[str, Tensor] = {}

    @abstractmethod
    def mismatch(self, batch: Batch, value: Value) -> Tensor:
        """How far each row (N,) is from what the robot would have done."""

    @abstractmethod
    def weigh(self, mismatch: Tensor) -> Tensor:
        """The weights (N,) of rows with these mismatches."""

    @abstractmethod
    def extend(self, source: Transitions) -> NDArray[np.float32]:
        """What `mismatch` needs of every row, (N, c)."""

    def cache(self, source: Transitions, target: Transitions) -> NDArray[np.float32]:
        """`extend` of every source row; the mismatch is also to be told on held-out and on probe rows."""
        c = self.context
        _, held = self.split(target)
        held_extra, extra = self.extend(held), self.extend(source)
        probe = np.random.default_rng(c.seed).permutation(len(source))[:PROBE]
        self._probe = pack(source[probe], c.normaliser, extra[probe], c.reward_scale).to(c.device)
        self._held = pack(held, c.normaliser, held_extra, c.reward_scale).to(c.device)
        return extra

    def refresh(self, value: Value, progress: float) -> None:
        """Only what is told of the weights."""
        probe, held = (self.mismatch(self._unpack(rows), value) for rows in (self._probe, self._held))
        self._arrays = {"weight": self.weigh(probe), "mismatch_source": probe, "mismatch_heldout": held}
        self._figures |= weight_figures(self._arrays["weight"])

    def weights(self, batch: Batch, value: Value) -> Tensor:
        """See `Alignment`."""
        return self.weigh(self.mismatch(batch, value))

    def diagnostics(self) -> Diagnostics:
        """Effective sample size, share kept, held-out error; weights and mismatches of the probe rows."""
        arrays = {k: np.asarray(v.cpu(), np.float64) for k, v in self._arrays.items()}
        return Diagnostics(self.model_figures | self._figures, arrays)

    def _unpack(self, rows: Tensor) -> Batch:
        return unpack(rows, self.obs_size, self.action_size)


@dataclass(frozen=True)
class SoftConfig(ModelledConfig):
    """Hyperparameters; one default for all robots.

    Attributes:
        temperature: tau of the weight exp(-(mismatch - floor)_+ / (tau spread)).
        ess_floor: Least effective sample size of the source weights, as a share; the temperature rises to keep it.
        warmup: Share of the run over which the weights are blended in from 1.
    """

    temperature: Positive = 1.0
    ess_floor: Annotated[Share, Field(le=0.99)] = 0.2
    warmup: Share = 0.2


class Soft(Predictive):
    """Base of those whose weights fall with the mismatch.

    The mismatch on held-out target transitions is the noise floor (its median) and the unit (its 50-90 % range,
    `spread`):

        w = exp(-(mismatch - floor)_+ / (tau spread))

    so a row counts fully while it disagrees no more than the predictor does with the robot itself. Weights are blended
    in from 1 during warm-up, and no further than the predictor can be trusted: with too few target rows it explains
    little of the robot's held-out motion, and what it says of source rows is noise.
    """

    config: SoftConfig

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        for name, start in (("floor", 0.0), ("scale", 1.0), ("blend", 0.0)):
            self.register_buffer(name, torch.tensor(start))
        self.floor: Tensor
        self.scale: Tensor
        self.blend: Tensor

    def refresh(self, value: Value, progress: float) -> None:
        """Set floor, scale and blend from the current V."""
        noise = self.mismatch(self._unpack(self._held), value)
        probe = self.mismatch(self._unpack(self._probe), value)
        floor, high = torch.quantile(noise, torch.tensor([0.5, 0.9], device=noise.device))
        spread = (high - floor).clamp(min=1e-6)
        excess = (probe - floor).clamp(min=0)
        self.floor.copy_(floor)
        self.scale.copy_(self._temperature(excess / spread) * spread)
        self.blend.fill_(self.trust * (min(1.0, progress / self.config.warmup) if self.config.warmup else 1.0))
        weights = self.weigh(probe)
        self._figures |= weight_figures(weights) | {
            "temperature": float(self.scale / spread),
            "noise_floor": float(floor),
            "noise_spread": float(spread),
        }
        self._arrays = {"weight": weights, "mismatch_source": probe, "mismatch_heldout": noise}

    def weigh(self, mismatch: Tensor) -> Tensor:
        """w, blended in from 1, (N,)."""
        w = torch.exp(-(mismatch - self.floor).clamp(min=0) / self.scale)
        return 1 + self.blend * (w - 1)

    def _temperature(self, excess: Tensor) -> float:
        """The configured temperature, or the least one that keeps the effective sample size at its floor."""
        low, high = self.config.temperature, self.config.temperature
        while effective_sample_size(torch.exp(-excess / high)) < self.config.ess_floor:
            high *= 4
        for _ in range(BISECTIONS if high > low else 0):
            middle = (low * high) ** 0.5
            enough = effective_sample_size(torch.exp(-excess / middle)) >= self.config.ess_floor
            low, high = (low, middle) if enough else (middle, high)
        return high
