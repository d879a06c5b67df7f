"""What an agent is: it consumes packed rows with one weight each, and knows nothing of domains."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from landbridge.spec import Positive, Share
from landbridge.training import ranks
from landbridge.training.dataset import Batch, unpack


@dataclass(frozen=True)
class AgentConfig:
    """Hyperparameters that all agents share.

    Attributes:
        hidden: Hidden layer widths of every network.
        gamma: Discount.
        polyak: Step of the target networks.
        lr: Adam's learning rate.
        averaging: Share of the run over which the policy that is deployed is averaged.
        weigh: Losses that the row weights apply to; the others see every row alike.
    """

    hidden: tuple[PositiveInt, ...] = (128, 128)
    gamma: Share = 0.99
    polyak: Annotated[Share, Field(gt=0)] = 0.02
    lr: Positive = 1e-3
    averaging: Share = 0.1
    weigh: tuple[Literal["q", "v", "pi"], ...] = ("q",)


class Agent(nn.Module, ABC):
    """Base: one summed loss, one backward pass, one Adam step, then the target networks.

    A subclass builds its networks, among them `policy` whose `forward` is the deterministic action, and gives `losses`.
    Target networks are copies, named as {target: online}. What is deployed is `policy_average`, the average of the
    policy over the last part of the run (an exponential one, after Polyak and Juditsky 1992): a policy of the last step
    alone is one draw of a noisy process.

    Attributes:
        losses_of: Names of the losses, in the order in which `losses` returns them.
        metrics: Names of the figures of `update`: the losses, then what `losses` shows besides.
        target_networks: Target network -> the network it follows.
        cosine: Whether the policy's learning rate decays to zero by a cosine over the run.
        policy_weights: Of the rows of a step in the policy's loss, (N,), besides the alignment's; None: all alike.
    """

    losses_of: ClassVar[tuple[str, ...]]
    shows: ClassVar[tuple[str, ...]] = ()
    target_networks: ClassVar[dict[str, str]] = {}
    cosine: ClassVar[bool] = False
    policy: nn.Module
    policy_average: nn.Module
    policy_weights: Tensor | None = None

    def __init__(self, obs_size: int, action_size: int, config: Any, steps: int, compiled: bool = False) -> None:
        super().__init__()
        self.obs_size, self.action_size, self.config = obs_size, action_size, config
        self._steps, self._compiled = steps, compiled
        self.generator = torch.Generator()
        self.build()
        for target, online in (self.target_networks | {"policy_average": "policy"}).items():
            setattr(self, target, copy.deepcopy(getattr(self, online)).requires_grad_(False))

    @abstractmethod
    def build(self) -> None:
        """Create the networks, `policy` among them."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the figures that `update` returns."""
        return (*(f"loss_{name}" for name in self.losses_of), *self.shows)

    @property
    def noise_size(self) -> int:
        """Standard normal numbers that `losses` needs per row."""
        return 0

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

    def build_optimiser(self, device: torch.device, seed: int) -> None:
        """Create Adam and the noise generator on the device of the parameters; once, after moving the module."""
        self._trained: dict[str, Tensor] = {name: p for name, p in self.named_parameters() if p.requires_grad}
        policy = {name: p for name, p in self._trained.items() if name.startswith("policy.")}
        rest = {name: p for name, p in self._trained.items() if name not in policy}
        self._groups = [(_flatten(group), list(group)) for group in (policy, rest) if group]
        self._gradients = [torch.zeros_like(flat) for flat, _ in self._groups]
        groups = [{"params": [flat]} for flat, _ in self._groups]
        self.optimiser = torch.optim.Adam(groups, lr=self.config.lr, fused=True)
        self.generator = torch.Generator(device).manual_seed(seed)
        self._followed: dict[str, tuple[list[Tensor], list[Tensor]]] = {
            target: ([*self.get_submodule(target).parameters()], [*self.get_submodule(online).parameters()])
            for target, online in (self.target_networks | {"policy_average": "policy"}).items()
        }
        gradient = torch.func.grad(self._loss, has_aux=True)
        self._gradient = torch.compile(gradient, dynamic=False) if self._compiled else gradient

    def weight_of(self, name: str, weights: Tensor) -> Tensor:
        """The row weights (N,) of the loss `name`."""
        assert weights.ndim == 1
        rows = weights if name in self.config.weigh else torch.ones_like(weights)
        return rows if name != "pi" or self.policy_weights is None else rows * self.policy_weights

    def _loss(
        self, trained: dict[str, Tensor], rows: Tensor, weights: Tensor, noise: Tensor, policy: bool
    ) -> tuple[Tensor, Tensor]:
        """`forward` as a function of the parameters, so that it compiles together with its gradient."""
        answer: tuple[Tensor, Tensor] = torch.func.functional_call(self, trained, (rows, weights, noise, policy))
        return answer

    def forward(self, rows: Tensor, weights: Tensor, noise: Tensor, policy: bool) -> tuple[Tensor, Tensor]:
        """Summed loss of packed rows (N, .) with weights (N,), and the `metrics` as one vector."""
        losses, shown = self.losses(unpack(rows, self.obs_size, self.action_size), weights, noise)
        counted = (
            losses if policy else [loss for name, loss in zip(self.losses_of, losses, strict=True) if name != "pi"]
        )
        return torch.stack(counted).sum(), torch.stack([*losses, *shown]).detach()

    def update(self, rows: Tensor, weights: Tensor, step: int) -> Tensor:
        """One gradient step on the packed rows of all ranks; returns this one's `metrics` vector, still on the device.

        A loss that is a mean over rows has the gradient of the global batch; TD3+BC's lambda is of this rank's rows.
        """
        size = (len(rows) * ranks.count(), self.noise_size)
        noise = ranks.share(torch.randn(size, generator=self.generator, device=rows.device))
        turn = self.updates_policy(step)
        with torch.no_grad():  # no gradient of the gradient
            gradients, shown = self._gradient(self._trained, rows, weights, noise, turn)
        for (flat, names), buffer in zip(self._groups, self._gradients, strict=True):
            flat.grad = None  # Adam leaves one without gradient, and its moments, alone
            if turn or not names[0].startswith("policy."):
                flat.grad = torch.cat([gradients[name].flatten() for name in names], out=buffer)
                ranks.average_(buffer)
        if self.cosine:
            self.optimiser.param_groups[0]["lr"] = self.config.lr * 0.5 * (1 + math.cos(math.pi * step / self._steps))
        self.optimiser.step()
        if turn:
            for target in self.target_networks:
                self._follow(target, self.config.polyak)
        horizon = min(step + 1.0, self.config.averaging * self._steps)  # the plain mean at first
        self._follow("policy_average", 1 / max(1.0, horizon))
        return shown

    @property
    def is_finite(self) -> bool:
        """Whether every trained parameter is a number."""
        return all(bool(flat.isfinite().all()) for flat, _ in self._groups)

    @torch.no_grad()
    def _follow(self, target: str, rate: float) -> None:
        followers, leaders = self._followed[target]
        torch._foreach_lerp_(followers, leaders, rate)


def _flatten(parameters: dict[str, Tensor]) -> nn.Parameter:
    """One vector of all `parameters`, which become views of it: one Adam step, or one reduction, for all of them."""
    flat = nn.Parameter(parameters_to_vector(parameters.values()).detach().clone())
    vector_to_parameters(flat, parameters.values())
    return flat
