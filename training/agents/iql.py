"""Implicit Q-learning."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landbridge.training.dataset import Batch, unpack
from landbridge.training.networks import MLP

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
MAX_POLICY_WEIGHT = 100.0  # CORL's and the authors' clip of exp(beta A)


@dataclass(frozen=True)
class IQLConfig:
    """Hyperparameters, named as in the paper.

    Attributes:
        hidden: Hidden layer widths of every network.
        gamma: Discount.
        expectile: tau of the value loss.
        weight_temp: beta of the policy weight exp(beta A).
        polyak: Step of the target Q networks.
        lr: Adam's learning rate; the policy's decays to zero by a cosine over the run.
        weigh: Losses that the row weights apply to.
    """

    hidden: tuple[int, ...] = (128, 128)
    gamma: float = 0.99
    expectile: float = 0.7
    weight_temp: float = 10.0
    polyak: float = 0.005
    lr: float = 1e-3
    weigh: tuple[str, ...] = ("q",)


class IQL(nn.Module):
    """Implicit Q-learning (Kostrikov, Nair, Levine 2021, arXiv:2110.06169) with one weight w per row.

        L_V  = mean |tau - 1(u < 0)| u^2,        u = min_i Qbar_i(s, a) - V(s)                    (eq. 5)
        L_Q  = mean_i mean w (Q_i(s, a) - r - gamma (1 - terminated) V(s'))^2                     (eq. 6)
        L_pi = mean min(exp(beta u), 100) (-log pi(a | s))                                        (eq. 7)

    pi is a Gaussian with mean tanh(f(s)) and a log-std that does not depend on s; the mean acts.

    CORL updates V, then Q, then the policy, each from values computed before the V step; no loss reads a parameter that
    an earlier one of the same step has changed. So the gradient of L_V + L_Q + L_pi, taken once, is the same algorithm.
    """

    metrics = ("loss_v", "loss_q", "loss_pi", "v", "advantage", "log_std")

    def __init__(self, obs_size: int, action_size: int, config: IQLConfig, steps: int, compiled: bool = False) -> None:
        super().__init__()
        self.obs_size, self.action_size, self.config = obs_size, action_size, config
        self.q = nn.ModuleList(MLP([obs_size + action_size, *config.hidden, 1]) for _ in range(2))
        self.q_target = copy.deepcopy(self.q).requires_grad_(False)
        self.v = MLP([obs_size, *config.hidden, 1])
        self.policy = MLP([obs_size, *config.hidden, action_size])
        self.log_std = nn.Parameter(torch.zeros(action_size))
        self._steps, self._compiled = steps, compiled

    def build_optimiser(self) -> None:
        """Create Adam on the device the parameters are on now; call once after moving the module."""
        policy = [*self.policy.parameters(), self.log_std]
        critics = [*self.q.parameters(), *self.v.parameters()]
        groups = [{"params": critics}, {"params": policy}]
        self.optimiser = torch.optim.Adam(groups, lr=self.config.lr, fused=True)
        self._forward = torch.compile(self.forward, dynamic=False) if self._compiled else self.forward

    def value(self, obs: Tensor) -> Tensor:
        """V (N,) of normalised obs (N, n)."""
        v: Tensor = self.v(obs)[:, 0]
        return v

    def act(self, obs: Tensor) -> Tensor:
        """Deterministic action (N, m) for normalised obs (N, n)."""
        return torch.tanh(self.policy(obs))

    def forward(self, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Summed loss of packed rows (N, .) with weights (N,), and the `metrics` as one vector."""
        batch = unpack(rows, self.obs_size, self.action_size)
        losses, advantage, v = self.losses(batch, weights)
        shown = torch.stack([*losses, v.mean(), advantage.mean(), self.log_std.mean()])
        return sum(losses, start=torch.zeros(())), shown.detach()

    def losses(self, batch: Batch, weights: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
        """(L_V, L_Q, L_pi), the advantage u (N,) and V(s) (N,).

        Args:
            weights: (N,), never (N, 1): that would broadcast to N x N.
        """
        c = self.config
        assert weights.shape == batch.reward.shape
        ones = torch.ones_like(weights)
        w_v, w_q, w_pi = (weights if name in c.weigh else ones for name in ("v", "q", "pi"))
        sa = torch.cat([batch.obs, batch.action], 1)
        with torch.no_grad():
            q_target = torch.minimum(self.q_target[0](sa), self.q_target[1](sa))[:, 0]
            backup = batch.reward + c.gamma * batch.not_terminated * self.value(batch.next_obs)
        v = self.value(batch.obs)
        u = q_target - v
        loss_v = (w_v * expectile_loss(u, c.expectile)).mean()
        q1, q2 = self.q[0](sa)[:, 0], self.q[1](sa)[:, 0]
        loss_q = (w_q * ((q1 - backup).square() + (q2 - backup).square())).mean() / 2
        advantage = u.detach()
        policy_weight = (c.weight_temp * advantage).exp().clamp(max=MAX_POLICY_WEIGHT)
        loss_pi = (w_pi * policy_weight * self._negative_log_likelihood(batch)).mean()
        return (loss_v, loss_q, loss_pi), advantage, v.detach()

    def _negative_log_likelihood(self, batch: Batch) -> Tensor:
        log_std = self.log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        z = (batch.action - self.act(batch.obs)) * torch.exp(-log_std)
        return (0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(1)

    def update(self, rows: Tensor, weights: Tensor, step: int) -> Tensor:
        """One gradient step on packed rows; returns the `metrics` vector, still on the device."""
        loss, shown = self._forward(rows, weights)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimiser.param_groups[1]["lr"] = self.config.lr * 0.5 * (1 + math.cos(math.pi * step / self._steps))
        self.optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.q_target.parameters()), list(self.q.parameters()), self.config.polyak)
        return shown


def expectile_loss(u: Tensor, expectile: float) -> Tensor:
    """|expectile - 1(u < 0)| u^2, elementwise."""
    return torch.where(u < 0, 1 - expectile, expectile) * u.square()
