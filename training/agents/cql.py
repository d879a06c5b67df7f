"""Conservative Q-learning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from landbridge.spec import NonNegative, Positive
from landbridge.training.agents.base import Agent, AgentConfig
from landbridge.training.dataset import Batch
from landbridge.training.networks import SquashedPolicy, least, twin_q


@dataclass(frozen=True)
class CQLConfig(AgentConfig):
    """Hyperparameters, named as in the paper.

    Attributes:
        alpha: Weight of the conservative term, without the Lagrange multiplier: half of `min_q_weight` in the authors'
            code, which does not halve the squared error. Tune it: 0.02 is right on `furuta`, 5 on `quadruped`.
        num_actions: Actions drawn per row and proposal for the log-sum-exp.
    """

    lr: Positive = 3e-4
    weigh: tuple[Literal["q", "pi"], ...] = ("q",)
    layer_norm: tuple[Literal["q", "pi"], ...] = ()
    alpha: NonNegative = 0.02
    num_actions: PositiveInt = 4


class CQL(Agent):
    """CQL(H) on SAC (Kumar et al. 2020, arXiv:2006.04779, eq. 4) with one weight w per row.

        L_Q  = mean_i mean w [ (Q_i(s, a) - r - gamma (1 - terminated) min_j Qbar_j(s', a'))^2 / 2
                               + alpha (log sum_a exp Q_i(s, a) - Q_i(s, a)) ]
        L_pi = mean w [ eta log pi(a~ | s) - min_i Q_i(s, a~) ],  a~ ~ pi(. | s)
        L_eta = -mean [w > 0] log eta (log pi(a~ | s) - m),  the entropy's target being -m

    The log-sum-exp is estimated by importance sampling from the uniform distribution, pi(. | s) and pi(. | s'), as in
    the authors' code (`min_q_version` 3). The policy reads Q as it was before this step's critic update.
    L_eta counts rows of w > 0 alike, whatever they weigh, and no others ([w > 0] is 1 or 0).
    """

    losses_of = ("q", "pi", "eta")
    shows = ("q", "conservative", "entropy")
    target_networks = {"q_target": "q"}  # noqa: RUF012 (a ClassVar of the base)
    config: CQLConfig
    q: nn.ModuleList
    q_target: nn.ModuleList
    policy: SquashedPolicy

    def build(self) -> None:
        """Two Q networks, the policy and the entropy's coefficient."""
        n, m, hidden, norm = self.obs_size, self.action_size, self.config.hidden, self.config.layer_norm
        self.q = twin_q(n, hidden, m, "q" in norm)
        self.policy = SquashedPolicy(n, hidden, m, "pi" in norm)
        self.log_eta = nn.Parameter(torch.zeros(()))

    @property
    def noise_size(self) -> int:
        """For a~, a' and `num_actions` from each of the three proposals."""
        return (2 + 3 * self.config.num_actions) * self.action_size

    def value(self, obs: Tensor) -> Tensor:
        """V(s) = min_i Q_i(s, pi(s)) at the deterministic action, (N,)."""
        return least(self.q, obs, self.policy(obs))

    def losses(self, batch: Batch, weights: Tensor, noise: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """L_Q, L_pi, L_eta; means of Q_1(s, a), of the conservative gap and of the policy's entropy."""
        c, m = self.config, self.action_size
        drawn = noise.view(len(noise), -1, m)
        with torch.no_grad():
            following, _ = self.policy.sample(batch.next_obs, drawn[:, 0])
            q_next = least(self.q_target, batch.next_obs, following)
            backup = batch.reward + c.gamma * batch.not_terminated * q_next
            proposals, log_densities = self._proposals(batch, drawn[:, 2:])
        w = self.weight_of("q", weights)
        sa = torch.cat([batch.obs, batch.action], 1)
        loss_q, gaps, values = torch.zeros((), device=w.device), [], []
        for q in self.q:
            value = q(sa)[:, 0]
            gap = self._log_sum_exp(q, batch.obs, proposals, log_densities) - value
            loss_q = loss_q + (w * ((value - backup).square() / 2 + c.alpha * gap)).mean() / 2
            gaps.append(gap.detach().mean())
            values.append(value.detach().mean())
        action, log_pi = self.policy.sample(batch.obs, drawn[:, 1])
        q_pi = least(self.q, batch.obs, action, frozen=True)
        eta = self.log_eta.exp().detach()
        loss_pi = (self.weight_of("pi", weights) * (eta * log_pi - q_pi)).mean()
        loss_eta = -((weights > 0) * self.log_eta * (log_pi.detach() - m)).mean()
        return [loss_q, loss_pi, loss_eta], [values[0], gaps[0], -log_pi.detach().mean()]

    def _proposals(self, batch: Batch, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (N, 3 k, m) of the three proposals and their log densities (N, 3 k)."""
        k, m = self.config.num_actions, self.action_size
        uniform = torch.erf(noise[:, :k] / math.sqrt(2))  # of a standard normal: uniform on (-1, 1)
        actions, densities = [uniform], [torch.full(uniform.shape[:2], -m * math.log(2), device=noise.device)]
        for obs, part in ((batch.obs, noise[:, k : 2 * k]), (batch.next_obs, noise[:, 2 * k :])):
            repeated = obs.repeat_interleave(k, 0)
            action, log_pi = self.policy.sample(repeated, part.reshape(-1, m))
            actions.append(action.view(-1, k, m))
            densities.append(log_pi.view(-1, k))
        return torch.cat(actions, 1), torch.cat(densities, 1)

    def _log_sum_exp(self, q: nn.Module, obs: Tensor, actions: Tensor, log_densities: Tensor) -> Tensor:
        """Log of the mean over proposals of exp(Q(s, a)) / density(a), (N,)."""
        n, count, m = actions.shape
        pairs = torch.cat([obs.repeat_interleave(count, 0), actions.reshape(-1, m)], 1)
        values = q(pairs).view(n, count)
        return torch.logsumexp(values - log_densities, 1) - math.log(count)
