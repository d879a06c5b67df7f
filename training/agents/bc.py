"""Behaviour cloning: what every other agent must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from landbridge.training.agents.base import Agent, AgentConfig
from landbridge.training.dataset import Batch
from landbridge.training.networks import Policy


@dataclass(frozen=True)
class BCConfig(AgentConfig):
    """`gamma` and `polyak` do not matter; the one loss is the policy's, so that is what the weights apply to."""

    weigh: tuple[Literal["pi"], ...] = ("pi",)
    layer_norm: tuple[Literal["pi"], ...] = ()


class BC(Agent):
    """Maximum likelihood of the data's actions, L_pi = mean w (-log pi(a | s)); no value, no reward."""

    losses_of = ("pi",)
    shows = ("log_std",)
    cosine = True
    config: BCConfig
    policy: Policy

    def build(self) -> None:
        """The policy."""
        n, m, hidden, norm = self.obs_size, self.action_size, self.config.hidden, self.config.layer_norm
        self.policy = Policy(n, hidden, m, "pi" in norm)

    def value(self, obs: Tensor) -> Tensor:
        """Zero: cloning knows no value, so that a Bellman mismatch is a mismatch of rewards alone."""
        return torch.zeros(len(obs), device=obs.device)

    def losses(self, batch: Batch, weights: Tensor, noise: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """L_pi; mean log-std."""
        log_loss = self.policy.negative_log_likelihood(batch.obs, batch.action)
        return [(self.weight_of("pi", weights) * log_loss).mean()], [self.policy.log_std.mean()]
