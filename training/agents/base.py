"""What an agent is: it consumes packed rows with one weight each, and knows nothing of domains."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from landbridge.spec import Positive, Share
from landbridge.training.dataset import Batch, unpack
from landbridge.training.prior import Prior


@dataclass(frozen=True)
class AgentConfig:
    """Hyperparameters that all agents share.

    Attributes:
        hidden: Hidden layer widths of every network.
        gamma: Discount.
        polyak: Step of the target networks.
        lr: Adam's learning rate.
        averaging: Share of the run over which the policy that is deployed is averaged.
        weigh: Losses that the row weights apply to. Rows of weight 0 are in none.
        layer_norm: Networks whose hidden layers are normalised (docs/RESULTS.md says when).
    """

    hidden: tuple[PositiveInt, ...] = (128, 128)
    gamma: Share = 0.99
    polyak: Annotated[Share, Field(gt=0)] = 0.02
    lr: Positive = 1e-3
    averaging: Share = 0.1
    weigh: tuple[Literal["q", "v", "pi"], ...] = ("q",)
    layer_norm: tuple[Literal["q", "v", "pi"], ...] = ()


class Agent(nn.Module, ABC):
    """Base: networks and their losses; `landbridge.training.update` takes the gradient steps.

    A subclass builds its networks, among them `policy` whose `forward` is the deterministic action, and gives `losses`.
    Target networks are copies, named as {target: online}. What is deployed is `policy_average`, the average of the
    policy over the last part of the run (an exponential one, after Polyak and Juditsky 1992): a policy of the last step
    alone is one draw of a noisy process.

    Attributes:
        losses_of: Names of the losses, in the order in which `losses` returns them.
        metrics: Names of the figures of a step: the losses, then what `losses` shows besides.
        target_networks: Target network -> the network it follows.
        cosine: Whether the policy's learning rate decays to zero by a cosine over the run.
        steps: Gradient steps of the run, for its schedules.
        prior: What the policy is kept near to, where the alignment has one.
        generator: Of the noise that `losses` is given, on the device of the parameters.
    """

    losses_of: ClassVar[tuple[str, ...]]
    shows: ClassVar[tuple[str, ...]] = ()
    target_networks: ClassVar[dict[str, str]] = {}
    cosine: ClassVar[bool] = False
    policy: nn.Module
    policy_average: nn.Module

    def __init__(self, obs_size: int, action_size: int, config: Any, steps: int) -> None:
        super().__init__()
        self.obs_size, self.action_size, self.config, self.steps = obs_size, action_size, config, steps
        self.generator = torch.Generator()
        self.prior: Prior | None = None
        self.build()
        for target, online in (self.target_networks | {"policy_average": "policy"}).items():
            setattr(self, target, copy.deepcopy(getattr(self, online)).requires_grad_(False))

    @abstractmethod
    def build(self) -> None:
        """Create the networks, `policy` among them."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the figures of a step."""
        return (*(f"loss_{name}" for name in self.losses_of), *self.shows)

    @property
    def noise_size(self) -> int:
        """Standard normal numbers that `losses` needs per row."""
        return 0

    @property
    def total_noise_size(self) -> int:
        """Standard normal numbers that `forward` needs per row."""
        return self.noise_size + (0 if self.prior is None else self.prior.noise_size)

    def updates_policy(self, step: int) -> bool:
        """Whether the policy takes part in the update of this step."""
        return True

    @abstractmethod
    def value(self, obs: Tensor) -> Tensor:
        """V (N,) of normalised obs (N, n)."""

    @abstractmethod
    def losses(self, batch: Batch, weights: Tensor, noise: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The scalar losses `losses_of` and the scalar figures `shows`.

        Args:
            weights: (N,), never (N, 1): that would broadcast to N x N.
            noise: (N, `noise_size`) standard normal.
        """

    def weight_of(self, name: str, weights: Tensor) -> Tensor:
        """The row weights (N,) of the loss `name`.

        A row of weight 0 counts in no loss: a filter applies to all of them.
        """
        assert weights.ndim == 1
        return weights if name in self.config.weigh else (weights > 0).to(weights.dtype)

    def forward(self, rows: Tensor, weights: Tensor, noise: Tensor, policy: bool) -> tuple[Tensor, Tensor]:
        """Summed loss of packed rows (N, .) with weights (N,), and the `metrics` as one vector.

        `noise` is (N, `total_noise_size`): that of `losses`, then that of the prior.
        """
        batch, own = unpack(rows, self.obs_size, self.action_size), self.noise_size
        losses, shown = self.losses(batch, weights, noise[:, :own])
        if self.prior is not None:
            penalty = self.prior(batch.obs, self.policy(batch.obs), noise[:, own:])
            losses[self.losses_of.index("pi")] += ((weights > 0) * penalty).mean()
        counted = (
            losses if policy else [loss for name, loss in zip(self.losses_of, losses, strict=True) if name != "pi"]
        )
        return torch.stack(counted).sum(), torch.stack([*losses, *shown]).detach()

    @property
    def is_finite(self) -> bool:
        """Whether every trained parameter is a number."""
        return bool(parameters_to_vector(p for p in self.parameters() if p.requires_grad).isfinite().all())
