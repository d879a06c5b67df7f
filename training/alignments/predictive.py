"""What the alignments with a model of the robot share: the ensemble, its cached predictions, its noise floor."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landbridge.training.alignments.base import (
    Alignment,
    Context,
    Diagnostics,
    Value,
    effective_sample_size,
    weight_figures,
)
from landbridge.training.dataset import Batch, Transitions, pack, unpack
from landbridge.training.predictor import Predictor, PredictorConfig, split_episodes

PROBE = 4096  # source rows from which the temperature is set
BISECTIONS = 20
TRUSTED = 0.8  # explained share of held-out motion below which a run warns


@dataclass(frozen=True)
class PredictiveConfig:
    """Hyperparameters; one default for all robots.

    Attributes:
        temperature: tau of the weight exp(-(mismatch - floor)_+ / (tau spread)).
        ess_floor: Least effective sample size of the source weights, as a share; the temperature rises to keep it.
        warmup: Share of the run over which the weights are blended in from 1.
        holdout: Share of the target data kept from the predictor, to measure its error.
        predictor: The ensemble.
    """

    temperature: float = 1.0
    ess_floor: float = 0.2
    warmup: float = 0.2
    holdout: float = 0.2
    predictor: PredictorConfig = field(default_factory=PredictorConfig)


class Predictive(Alignment, ABC):
    """Base of the alignments that compare a source transition with what the robot would have done.

    An ensemble predicts, for every source (s, a), the next state s^_k that the robot would reach; r^_k follows from the
    task. A subclass says by `mismatch` how far a row is from that; the same quantity on held-out target transitions is
    the noise floor (its median) and the unit (its 50-90 % range, `spread`):

        w = exp(-(mismatch - floor)_+ / (tau spread))

    so a row counts fully while it disagrees no more than the predictor does with the robot itself. Weights are blended
    in from 1 during warm-up, and no further than the predictor can be trusted: with too few target rows it explains
    little of the robot's held-out motion, and what it says of source rows is noise.

    Attributes:
        trust: Share of the held-out motion that the predictor explains, mean over the measured columns, in [0, 1].
    """

    config: PredictiveConfig

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        observer = context.task.observer
        self.obs_size, self.action_size = observer.size, observer.num_actions
        self.predictor = Predictor(self.obs_size, self.action_size, int(observer.measured.sum()), config.predictor)
        for name, start in (("floor", 0.0), ("scale", 1.0), ("blend", 0.0), ("trust", 1.0)):
            self.register_buffer(name, torch.tensor(start))
        self.floor: Tensor
        self.scale: Tensor
        self.blend: Tensor
        self.trust: Tensor
        self._figures: dict[str, float] = {}
        self._arrays: dict[str, Tensor] = {}

    @abstractmethod
    def mismatch(self, batch: Batch, value: Value) -> Tensor:
        """How far each row (N,) is from what the robot would have done; not negative."""

    @abstractmethod
    def columns(self, data: Transitions, predicted: NDArray[np.float32]) -> NDArray[np.float32]:
        """What `mismatch` needs of every row, (N, c), from next observations (members, N, n) in physical units."""

    def calibrate(self, held: Transitions, predicted: NDArray[np.float32]) -> None:
        """Learn from the predictor's error on held-out target transitions, before any `columns`."""

    def fit(self, source: Transitions, target: Transitions) -> None:
        """Train the predictor on the target rows that are not held out, after source rows as the first guess."""
        training, _ = self._split(target)
        c = self.context
        self.predictor.fit(source, training, c.normaliser, c.task.observer.measured, c.seed)

    def predict(self, data: Transitions) -> NDArray[np.float32]:
        """Next observations (members, N, n) of the robot after each row, in physical units."""
        return self.predictor.predict(data, self.context.normaliser, self.context.task)

    def cache(self, source: Transitions, target: Transitions) -> NDArray[np.float32]:
        """`columns` of every source row."""
        c = self.context
        _, held = self._split(target)
        predicted = self.predict(held)
        self.calibrate(held, predicted)
        self._measure_error(held, predicted)
        held_extra, extra = self.columns(held, predicted), self.extend(source)
        probe = np.random.default_rng(c.seed).permutation(len(source))[:PROBE]
        self._probe = pack(source[probe], c.normaliser, extra[probe], c.reward_scale).to(c.device)
        self._held = pack(held, c.normaliser, held_extra, c.reward_scale).to(c.device)
        return extra

    def extend(self, source: Transitions) -> NDArray[np.float32]:
        """`columns` of further source rows."""
        return self.columns(source, self.predict(source))

    def refresh(self, value: Value, progress: float) -> None:
        """Set floor, scale and blend from the current V."""
        noise = self.mismatch(self._unpack(self._held), value)
        probe = self.mismatch(self._unpack(self._probe), value)
        floor, high = torch.quantile(noise, torch.tensor([0.5, 0.9], device=noise.device))
        spread = (high - floor).clamp(min=1e-6)
        excess = (probe - floor).clamp(min=0)
        self.floor.copy_(floor)
        self.scale.copy_(self._temperature(excess / spread) * spread)
        self.blend.copy_(self.trust * min(1.0, progress / max(self.config.warmup, 1e-9)))
        weights = torch.exp(-excess / self.scale)
        self._figures |= weight_figures(weights) | {
            "temperature": float(self.scale / spread),
            "noise_floor": float(floor),
            "noise_spread": float(spread),
        }
        self._arrays = {"weight": weights, "mismatch_source": probe, "mismatch_heldout": noise}

    def weights(self, batch: Batch, value: Value) -> Tensor:
        """W (N,), blended in from 1."""
        w = torch.exp(-(self.mismatch(batch, value) - self.floor).clamp(min=0) / self.scale)
        return 1 + self.blend * (w - 1)

    def diagnostics(self) -> Diagnostics:
        """Effective sample size, share kept, held-out error; weights and mismatches of the probe rows."""
        arrays = {k: np.asarray(v.cpu(), np.float64) for k, v in self._arrays.items()}
        return Diagnostics(dict(self._figures), arrays)

    def _split(self, target: Transitions) -> tuple[Transitions, Transitions]:
        return split_episodes(target, self.config.holdout, self.context.seed)

    def _unpack(self, rows: Tensor) -> Batch:
        return unpack(rows, self.obs_size, self.action_size)

    def _measure_error(self, held: Transitions, predicted: NDArray[np.float32]) -> None:
        """Unexplained variance of the held-out change, per measured column, of the ensemble's mean; sets `trust`."""
        task = self.context.task
        measured = task.observer.measured
        error = np.square(predicted.mean(0) - held.next_obs)[:, measured].mean(0)
        unexplained = error / np.maximum((held.next_obs - held.obs)[:, measured].var(0), 1e-12)
        names = [name for name, m in zip(task.observer.names, measured, strict=True) if m]
        self._figures |= {f"heldout_unexplained.{name}": float(u) for name, u in zip(names, unexplained, strict=True)}
        trust = float(1 - np.minimum(unexplained, 1.0).mean())
        self.trust.fill_(trust)
        self._figures["trust"] = trust
        if trust < TRUSTED:
            warnings.warn(
                f"the predictor explains {trust:.0%} of the robot's motion on {len(held)} held-out rows: weights are "
                "damped as much; record more of the robot",
                stacklevel=2,
            )

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
