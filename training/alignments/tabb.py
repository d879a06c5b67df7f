"""Target-aligned Bellman backup: source transitions weigh as much as their backup agrees with the target robot's."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landbridge.training.alignments.base import Alignment, Context, Diagnostics, Value, effective_sample_size
from landbridge.training.dataset import Batch, Transitions, pack, unpack
from landbridge.training.predictor import Predictor, PredictorConfig, split_episodes

PROBE = 4096  # source rows from which the temperature is set
BISECTIONS = 20


@dataclass(frozen=True)
class TabbConfig:
    """Hyperparameters of the alignment; one default for all robots.

    Attributes:
        temperature: tau of the weight.
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


class Tabb(Alignment):
    """Weights from the target Bellman mismatch (arXiv:2605.22376).

    An ensemble fitted to target transitions only predicts, for every source (s, a), the next state s^ that the target
    robot would reach; r^ and the termination follow from the task. With the agent's current V,

        TBM = mean_k | (r + gamma V(s')) - (r^_k + gamma V(s^_k)) |
        w   = exp(-(TBM - floor)_+ / (tau * spread))

    `floor` and `spread` are the median and the 50-90 % range of the same quantity on held-out target transitions, so a
    row counts fully while it disagrees no more than the predictor does with the robot itself. The predictions are
    cached; V is evaluated at every step. A terminal source row keeps gamma V out of both sides: whether the prediction
    falls just short of a limit is a matter of its resolution, not of the robot's dynamics.
    """

    def __init__(self, config: TabbConfig, context: Context) -> None:
        super().__init__(context)
        self.config = config
        observer = context.task.observer
        self.obs_size, self.action_size = observer.size, observer.num_actions
        self.predictor = Predictor(self.obs_size, self.action_size, int(observer.measured.sum()), config.predictor)
        for name, start in (("floor", 0.0), ("scale", 1.0), ("blend", 0.0)):
            self.register_buffer(name, torch.tensor(start))
        self.floor: Tensor
        self.scale: Tensor
        self.blend: Tensor
        self._figures: dict[str, float] = {}
        self._arrays: dict[str, Tensor] = {}

    def fit(self, target: Transitions) -> None:
        """Train the predictor on the target rows that are not held out."""
        training, _ = self._split(target)
        c = self.context
        self.predictor.fit(training, c.normaliser, c.task.observer.measured, c.seed)

    def cache(self, source: Transitions, target: Transitions) -> NDArray[np.float32]:
        """[r^_k, s^_k] of every member k (N, members (n + 1)): rewards scaled, states normalised."""
        c = self.context
        _, held = self._split(target)
        extra, held_extra = self._predict(source), self._predict(held)
        probe = np.random.default_rng(c.seed).permutation(len(source))[:PROBE]
        self._probe = pack(source[probe], c.normaliser, extra[probe], c.reward_scale).to(c.device)
        self._held = pack(held, c.normaliser, held_extra, c.reward_scale).to(c.device)
        self._measure_error(held)
        return extra

    def _split(self, target: Transitions) -> tuple[Transitions, Transitions]:
        return split_episodes(target, self.config.holdout, self.context.seed)

    def _predict(self, data: Transitions) -> NDArray[np.float32]:
        c = self.context
        columns: list[NDArray[np.float32]] = []
        for following in self.predictor.predict(data, c.normaliser, c.task):
            reward = c.task.reward(data.obs, data.action, following) * c.reward_scale
            columns += [reward[:, None].astype(np.float32), c.normaliser(following)]
        return np.concatenate(columns, axis=1)

    def _measure_error(self, held: Transitions) -> None:
        """Unexplained variance of the held-out change, per measured column, of the ensemble's mean."""
        c = self.context
        measured = c.task.observer.measured
        predicted = self.predictor.predict(held, c.normaliser, c.task).mean(0)
        error = np.square(predicted - held.next_obs)[:, measured].mean(0)
        unexplained = error / np.maximum((held.next_obs - held.obs)[:, measured].var(0), 1e-12)
        names = [name for name, m in zip(c.task.observer.names, measured, strict=True) if m]
        self._figures |= {f"heldout_unexplained.{name}": float(u) for name, u in zip(names, unexplained, strict=True)}

    def mismatch(self, batch: Batch, value: Value) -> Tensor:
        """TBM (N,) of rows with cached predictions."""
        n, members = self.obs_size, self.config.predictor.members
        predicted = batch.extra.view(len(batch.obs), members, n + 1)
        states = torch.cat([batch.next_obs[:, None], predicted[:, :, 1:]], 1).reshape(-1, n)
        values = value(states).view(-1, members + 1) * batch.not_terminated[:, None] * self.context.gamma
        backup = batch.reward + values[:, 0]
        return (predicted[:, :, 0] + values[:, 1:] - backup[:, None]).abs().mean(1)

    def refresh(self, value: Value, progress: float) -> None:
        """Set floor, scale and blend from the current V."""
        noise = self.mismatch(self._unpack(self._held), value)
        probe = self.mismatch(self._unpack(self._probe), value)
        floor, high = torch.quantile(noise, torch.tensor([0.5, 0.9], device=noise.device))
        spread = (high - floor).clamp(min=1e-6)
        excess = (probe - floor).clamp(min=0)
        self.floor.copy_(floor)
        self.scale.copy_(self._temperature(excess / spread) * spread)
        self.blend.fill_(min(1.0, progress / max(self.config.warmup, 1e-9)))
        weights = torch.exp(-excess / self.scale)
        self._figures |= {
            "ess": float(effective_sample_size(weights)),
            "kept": float((weights > 0.5).float().mean()),
            "weight_mean": float(weights.mean()),
            "temperature": float(self.scale / spread),
            "noise_floor": float(floor),
            "noise_spread": float(spread),
        }
        self._arrays = {"weight": weights, "tbm_source": probe, "tbm_heldout": noise}

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

    def _unpack(self, rows: Tensor) -> Batch:
        return unpack(rows, self.obs_size, self.action_size)

    def weights(self, batch: Batch, value: Value) -> Tensor:
        """W (N,), blended in from 1 during warm-up."""
        w = torch.exp(-(self.mismatch(batch, value) - self.floor).clamp(min=0) / self.scale)
        return 1 + self.blend * (w - 1)

    def diagnostics(self) -> Diagnostics:
        """Effective sample size, share kept, held-out error; weights and mismatches of the probe rows."""
        arrays = {k: np.asarray(v.cpu(), np.float64) for k, v in self._arrays.items()}
        return Diagnostics(dict(self._figures), arrays)
