"""Implicit Q-learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from landbridge.spec import NonNegative, Share
from landbridge.training.agents.base import Agent, AgentConfig
from landbridge.training.dataset import Batch
from landbridge.training.networks import MLP, Policy, least, twin_q

MAX_POLICY_WEIGHT = 100.0  # CORL's and the authors' clip of exp(beta A)


@dataclass(frozen=True)
class IQLConfig(AgentConfig):
    """Hyperparameters, named as in the paper.

    Attributes:
        expectile: tau of the value loss.
        weight_temp: beta of the policy weight exp(beta A).
    """

    expectile: Annotated[Share, Field(gt=0, lt=1)] = 0.7
    weight_temp: NonNegative = 3.0


class IQL(Agent):
    """Implicit Q-learning (Kostrikov, Nair, Levine 2021, arXiv:2110.06169) with one weight w per row.

        L_V  = mean |tau - 1(u < 0)| u^2,        u = min_i Qbar_i(s, a) - V(s)                    (eq. 5)
        L_Q  = mean_i mean w (Q_i(s, a) - r - gamma (1 - terminated) V(s'))^2                     (eq. 6)
        L_pi = mean min(exp(beta u), 100) (-log pi(a | s))                                        (eq. 7)

    CORL updates V, then Q, then the policy, each from values computed before the V step; no loss reads a parameter that
    an earlier one of the same step has changed. So the gradient of L_V + L_Q + L_pi, taken once, is the same algorithm.
    """

    losses_of = ("v", "q", "pi")
    shows = ("v", "advantage", "log_std")
    target_networks = {"q_target": "q"}  # noqa: RUF012 (a ClassVar of the base)
    cosine = True
    config: IQLConfig
    q: nn.ModuleList
    q_target: nn.ModuleList
    policy: Policy

    def build(self) -> None:
        """Two Q networks, V and the policy."""
        n, m, hidden, norm = self.obs_size, self.action_size, self.config.hidden, self.config.layer_norm
        self.q = twin_q(n, hidden, m, "q" in norm)
        self.v = MLP([n, *hidden, 1], "v" in norm)
        self.policy = Policy(n, hidden, m, "pi" in norm)

    def value(self, obs: Tensor) -> Tensor:
        """V (N,) of normalised obs (N, n)."""
        v: Tensor = self.v(obs)[:, 0]
        return v

    def losses(self, batch: Batch, weights: Tensor, noise: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """L_V, L_Q, L_pi; means of V(s), the advantage u and the policy's log-std."""
        c = self.config
        sa = torch.cat([batch.obs, batch.action], 1)
        with torch.no_grad():
            q_target = least(self.q_target, batch.obs, batch.action)
            backup = batch.reward + c.gamma * batch.not_terminated * self.value(batch.next_obs)
        v = self.value(batch.obs)
        u = q_target - v
        loss_v = (self.weight_of("v", weights) * expectile_loss(u, c.expectile)).mean()
        q1, q2 = self.q[0](sa)[:, 0], self.q[1](sa)[:, 0]
        loss_q = (self.weight_of("q", weights) * ((q1 - backup).square() + (q2 - backup).square())).mean() / 2
        advantage = u.detach()
        policy_weight = (c.weight_temp * advantage).exp().clamp(max=MAX_POLICY_WEIGHT)
        log_loss = self.policy.negative_log_likelihood(batch.obs, batch.action)
        loss_pi = (self.weight_of("pi", weights) * policy_weight * log_loss).mean()
        return [loss_v, loss_q, loss_pi], [v.mean(), advantage.mean(), self.policy.log_std.mean()]


def expectile_loss(u: Tensor, expectile: float) -> Tensor:
    """|expectile - 1(u < 0)| u^2, elementwise."""
    return torch.where(u < 0, 1 - expectile, expectile) * u.square()
