"""An ensemble of one-step predictors of the robot, learned from its few recorded transitions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from landbridge.observation import Observer
from landbridge.spec import NonNegative, Positive
from landbridge.task import Task
from landbridge.training import ranks
from landbridge.training.dataset import Normaliser, Transitions

ROWS = 8192  # rows predicted at once
RESAMPLE = 1_000_000  # rows a member's bootstrap resample holds at most
ONWARDS = 3e-4  # learning rate of what is trained on beside the agent, whose own it is
STILL = 0.1  # of the source's spread: a label with less of it in the target is scaled as if it had as much
UNEVEN = 2.0  # times more or less than was asked for: a share of whole episodes that is further off is not taken


@dataclass(frozen=True)
class PredictorConfig:
    """The ensemble.

    Attributes:
        members: How many.
        hidden: Width of the two hidden layers.
        source_steps: Adam steps on source rows, the first guess of how such a robot moves; 0 starts from nothing.
        steps: Adam steps on target rows.
        batch: Rows per step and member.
        lr: Peak learning rate of either phase.
        weight_decay: Of AdamW.
    """

    members: PositiveInt = 3
    hidden: PositiveInt = 128
    source_steps: NonNegativeInt = 3000
    steps: NonNegativeInt = 1500
    batch: PositiveInt = 256
    lr: Positive = 1e-3
    weight_decay: NonNegative = 1e-4


class Predictor(nn.Module):
    """Predicts how the measured columns of the observation change in one step; the action history follows exactly.

    Each member is a two-layer SiLU network on normalised (obs, action), evaluated together by one `baddbmm` per layer,
    fitted to bootstrap resamples of the same rows (after Lakshminarayanan et al. 2017, arXiv:1612.01474).
    """

    def __init__(self, obs_size: int, action_size: int, measured: int, config: PredictorConfig) -> None:
        super().__init__()
        self.config = config
        sizes = [obs_size + action_size, config.hidden, config.hidden, measured]
        self.kernels = nn.ParameterList(torch.randn(config.members, i, o) / np.sqrt(i) for i, o in pairwise(sizes))
        self.biases = nn.ParameterList(torch.zeros(config.members, 1, o) for o in sizes[1:])
        self.register_buffer("mean", torch.zeros(measured))
        self.register_buffer("std", torch.ones(measured))
        self.mean: Tensor
        self.std: Tensor

    @classmethod
    def seeded(cls, observer: Observer, config: PredictorConfig, seed: int) -> Predictor:
        """One for this observation, whose first weights follow from `seed` alone."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(observer.size, observer.num_actions, int(observer.measured.sum()), config)

    def forward(self, x: Tensor, members: slice = slice(None)) -> Tensor:
        """Standardised change (members, N, measured) for inputs (members, N, n + m), by all members or some."""
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            x = torch.baddbmm(bias[members], x, kernel[members])
            if i < len(self.kernels) - 1:
                x = nn.functional.silu(x)
        return x

    def fit(
        self,
        source: Transitions,
        target: Transitions,
        normaliser: Normaliser,
        measured: NDArray[np.bool_],
        seed: int,
    ) -> None:
        """Least squares on the target, each member on its own bootstrap resample, starting from a fit of the source."""
        changes = [torch.from_numpy(_change(data, normaliser, measured)) for data in (source, target)]
        self.mean.copy_(changes[1].mean(0))
        # A joint that stands still in the target must not make the source's labels huge: nothing else would be fitted.
        self.std.copy_(torch.maximum(changes[1].std(0), STILL * changes[0].std(0)).clamp(min=1e-6))
        generator = torch.Generator().manual_seed(seed)
        members = self.config.members
        phases = ("simulator", self.config.source_steps), ("robot", self.config.steps)
        for data, change, (name, steps) in zip((source, target), changes, phases, strict=True):
            resample = torch.randint(len(data), (members, min(len(data), RESAMPLE)), generator=generator)
            self._descend(_inputs(data, normaliser), change, resample, steps, generator, f"predict the {name}")

    def go_on(
        self, target: Transitions, normaliser: Normaliser, measured: NDArray[np.bool_], steps: int, seed: int
    ) -> None:
        """Further steps on the target at the constant rate ONWARDS, every member on rows of its own from all of it."""
        generator = torch.Generator().manual_seed(seed)
        inputs = _inputs(target, normaliser).to(self.mean.device)
        labels = (torch.from_numpy(_change(target, normaliser, measured)).to(self.mean.device) - self.mean) / self.std
        optimiser = torch.optim.AdamW(self.parameters(), lr=ONWARDS, weight_decay=self.config.weight_decay)
        for _ in range(steps):
            rows = torch.randint(len(target), (self.config.members, self.config.batch), generator=generator)
            self._step(optimiser, inputs, labels, rows.to(inputs.device))

    def _step(self, optimiser: torch.optim.Optimizer, inputs: Tensor, labels: Tensor, rows: Tensor) -> None:
        """One, each member on its `rows` (members, batch)."""
        loss = (self(inputs[rows]) - labels[rows]).square().mean((1, 2)).sum()
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()

    def _descend(
        self, inputs: Tensor, change: Tensor, resample: Tensor, steps: int, generator: torch.Generator, name: str
    ) -> None:
        if steps == 0:
            return
        device = self.mean.device
        inputs, labels, resample = inputs.to(device), (change.to(device) - self.mean) / self.std, resample.to(device)
        members, rows_each = resample.shape
        picks = torch.randint(rows_each, (steps, members, self.config.batch), generator=generator).to(device)
        optimiser = torch.optim.AdamW(self.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.config.lr, steps)
        for pick in track(picks, name, console=Console(stderr=True), disable=not ranks.leads()):
            self._step(optimiser, inputs, labels, resample.gather(1, pick))
            schedule.step()

    @torch.no_grad()
    def predict(self, data: Transitions, normaliser: Normaliser, task: Task) -> NDArray[np.float32]:
        """Next observations (members, N, n) in physical units; history columns advanced by the action sent."""
        measured = task.observer.measured
        inputs = _inputs(data, normaliser)
        following = task.observer.advance_history(data.obs, data.action)
        out = np.repeat(following[None], self.config.members, axis=0)
        for start in range(0, len(data), ROWS):
            rows = slice(start, start + ROWS)
            x = inputs[rows].to(self.mean.device).expand(self.config.members, -1, -1)
            change = (self(x) * self.std + self.mean).cpu().numpy()
            out[:, rows, measured] = data.obs[rows][:, measured] + change * normaliser.std[measured]
        return out


def _inputs(data: Transitions, normaliser: Normaliser) -> Tensor:
    return torch.from_numpy(np.concatenate([normaliser(data.obs), data.action], axis=1))


def _change(data: Transitions, normaliser: Normaliser, measured: NDArray[np.bool_]) -> NDArray[np.float32]:
    change: NDArray[np.float32] = (normaliser(data.next_obs) - normaliser(data.obs))[:, measured]
    return change


def split_episodes(data: Transitions, share: float, seed: int) -> tuple[Transitions, Transitions]:
    """(training, held-out) rows: whole episodes where there are at least five, else the last rows of one stretch.

    Neighbouring rows of one rollout are nearly equal, so rows drawn at random would not be held out at all. The share
    is one of rows: a recording in which ticks were lost has episodes of a few rows. Where these leave no choice near
    the share, because most rows are one episode's, the last rows are held out there, too.
    """
    episodes, lengths = np.unique(data.episode, return_counts=True)
    if len(episodes) >= 5:
        order = np.random.default_rng(seed).permutation(len(episodes))
        rows = np.cumsum(lengths[order])
        held = np.isin(data.episode, episodes[order[: 1 + np.abs(rows - share * len(data)).argmin()]])
        if share / UNEVEN <= held.mean() <= UNEVEN * share and not held.all():
            return data[~held], data[held]
    cut = min(max(round(len(data) * (1 - share)), 1), len(data) - 1)
    return data[:cut], data[cut:]
