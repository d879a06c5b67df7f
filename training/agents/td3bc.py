"""TD3 with behaviour cloning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from landbridge.spec import NonNegative
from landbridge.training.agents.base import Agent, AgentConfig
from landbridge.training.dataset import Batch
from landbridge.training.networks import Policy, least, twin_q


@dataclass(frozen=True)
class TD3BCConfig(AgentConfig):
    """Hyperparameters, named as in the paper.

    Attributes:
        alpha: Weight of the value against the cloning.
        policy_noise: Standard deviation of the target policy's smoothing noise.
        noise_clip: Its bound.
        policy_freq: Critic updates per policy update.
    """

    weigh: tuple[Literal["q", "pi"], ...] = ("q",)
    layer_norm: tuple[Literal["q", "pi"], ...] = ()
    alpha: NonNegative = 2.5
    policy_noise: NonNegative = 0.2
    noise_clip: NonNegative = 0.5
    policy_freq: PositiveInt = 2


class TD3BC(Agent):
    """TD3+BC (Fujimoto, Gu 2021, arXiv:2106.06860) with one weight w per row.

        L_Q  = mean_i mean w (Q_i(s, a) - r - gamma (1 - terminated) min_j Qbar_j(s', a'))^2,
               a' = clip(pibar(s') + clip(eps, -c, c), -1, 1),  eps ~ N(0, policy_noise^2)
        L_pi = mean w [ -lambda Q_1(s, pi(s)) + mean_j (pi_j(s) - a_j)^2 ],                                 (eq. 5)
               lambda = alpha / mean |Q_1(s, pi(s))|, rows weighted by w

    The policy and the targets move every `policy_freq` steps. L_pi reads Q_1 as it was before this step's critic
    update, not after it as in the authors' code: one gradient pass for both.
    """

    losses_of = ("q", "pi")
    shows = ("q",)
    target_networks = {"q_target": "q", "policy_target": "policy"}  # noqa: RUF012 (a ClassVar of the base)
    config: TD3BCConfig
    q: nn.ModuleList
    q_target: nn.ModuleList
    policy: Policy
    policy_target: Policy

    def build(self) -> None:
        """Two Q networks and the policy."""
        n, m, hidden, norm = self.obs_size, self.action_size, self.config.hidden, self.config.layer_norm
        self.q = twin_q(n, hidden, m, "q" in norm)
        self.policy = Policy(n, hidden, m, "pi" in norm)
        self.policy.log_std.requires_grad_(False)  # a deterministic policy

    @property
    def noise_size(self) -> int:
        """One number per action."""
        return self.action_size

    def updates_policy(self, step: int) -> bool:
        """Every `policy_freq` steps."""
        return step % self.config.policy_freq == 0

    def value(self, obs: Tensor) -> Tensor:
        """V(s) = min_i Q_i(s, pi(s)), (N,)."""
        return least(self.q, obs, self.policy(obs))

    def losses(self, batch: Batch, weights: Tensor, noise: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """L_Q, L_pi; mean of Q_1(s, a)."""
        c = self.config
        with torch.no_grad():
            smooth = (c.policy_noise * noise).clamp(-c.noise_clip, c.noise_clip)
            following = (self.policy_target(batch.next_obs) + smooth).clamp(-1, 1)
            q_next = least(self.q_target, batch.next_obs, following)
            backup = batch.reward + c.gamma * batch.not_terminated * q_next
        sa = torch.cat([batch.obs, batch.action], 1)
        q1, q2 = self.q[0](sa)[:, 0], self.q[1](sa)[:, 0]
        loss_q = (self.weight_of("q", weights) * ((q1 - backup).square() + (q2 - backup).square())).mean() / 2
        action = self.policy(batch.obs)
        q = self.q[0](torch.cat([batch.obs, action], 1), frozen=True)[:, 0]
        w = self.weight_of("pi", weights)
        scale = c.alpha * w.sum() / (w * q.detach().abs()).sum().clamp(min=1e-6)
        cloning = (action - batch.action).square().mean(1)
        loss_pi = (w * (cloning - scale * q)).mean()
        return [loss_q, loss_pi], [q1.detach().mean()]
