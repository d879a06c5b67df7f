"""Information-theoretic data filtering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from landbridge.spec import Finite, Positive, Share
from landbridge.training.alignments.base import Alignment, Context, Diagnostics, Value, weight_figures
from landbridge.training.alignments.vgdf import keep_top
from landbridge.training.dataset import Batch, Transitions
from landbridge.training.networks import MLP

ROWS = 65_536  # rows evaluated at once


@dataclass(frozen=True)
class IGDFConfig:
    """Hyperparameters, named as in the paper; the values are those of its code.

    Attributes:
        xi: Share of the source rows weighed at once that is kept.
        alpha: Importance coefficient of the weight exp(alpha h).
        hidden, embedding: Widths of the encoders.
        steps: Contrastive updates before the agent starts.
        batch: One positive against batch - 1 negatives.
        lr: Adam's learning rate.
    """

    xi: Annotated[Share, Field(gt=0)] = 0.25
    alpha: Finite = 1.0
    hidden: PositiveInt = 256
    embedding: PositiveInt = 64
    steps: PositiveInt = 7000
    batch: Annotated[int, Field(ge=2)] = 128
    lr: Positive = 3e-4


class IGDF(Alignment):
    """A contrastive score of how target-like a transition is (Wen et al. 2024, arXiv:2405.06192).

        z(s, a, s') = phi(s, a)^T psi(s'),   h(s, a, s') = cos(phi(s, a), psi(s'))
        L = -mean over K of [ log sigma(z(s, a, s'_T)), log sigma(-z(s, a, s'_S1)), ... log sigma(-z(s, a, s'_SK-1)) ],
            (s, a, s'_T) of the target, s'_Sj of the source

    as the authors' code has it: trained as a classifier on products, where the paper writes InfoNCE. The top `xi` of
    the rows weighed at once, by h, weigh exp(alpha h) in the Q loss, the others 0.
    """

    config: IGDFConfig

    def __init__(self, config: IGDFConfig, context: Context) -> None:
        super().__init__(config, context)
        n, m = context.task.observer.size, context.task.observer.num_actions
        self.phi = MLP([n + m, config.hidden, config.embedding])
        self.psi = MLP([n, config.hidden, config.embedding])

    def score(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        """`h` in [-1, 1] of normalised rows, (N,)."""
        return nn.functional.cosine_similarity(self.phi(torch.cat([obs, action], 1)), self.psi(next_obs), dim=1)

    def contrastive_loss(self, obs: Tensor, action: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Loss of target rows (B, .) against source next states (K - 1, n)."""
        query = self.phi(torch.cat([obs, action], 1))
        own = (query * self.psi(positive)).sum(1, keepdim=True)
        others = query @ self.psi(negative).T
        softplus = nn.functional.softplus  # -log sigma(z) = softplus(-z)
        return torch.cat([softplus(-own), softplus(others)], 1).mean()

    def fit(self, source: Transitions, target: Transitions) -> None:
        """Train both encoders."""
        c, norm = self.config, self.context.normaliser
        device = next(self.parameters()).device
        obs, action, following, other = (
            torch.from_numpy(x).to(device)
            for x in (norm(target.obs), target.action, norm(target.next_obs), norm(source.next_obs))
        )
        generator = torch.Generator().manual_seed(self.context.seed)
        optimiser = torch.optim.Adam(self.parameters(), lr=c.lr)
        for _ in range(c.steps):
            pick = torch.randint(len(obs), (c.batch,), generator=generator).to(device)
            negative = torch.randint(len(other), (c.batch - 1,), generator=generator).to(device)
            loss = self.contrastive_loss(obs[pick], action[pick], following[pick], other[negative])
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()

    def cache(self, source: Transitions, target: Transitions) -> NDArray[np.float32]:
        """`h` of every source row, (N, 1)."""
        h = self.extend(source)
        self._score = torch.from_numpy(h[:, 0])
        return h

    @torch.no_grad()
    def extend(self, source: Transitions) -> NDArray[np.float32]:
        """`h` of further source rows, (N, 1)."""
        norm, device = self.context.normaliser, next(self.parameters()).device
        rows = [
            torch.split(torch.from_numpy(x), ROWS) for x in (norm(source.obs), source.action, norm(source.next_obs))
        ]
        parts = [self.score(*(x.to(device) for x in chunk)).cpu() for chunk in zip(*rows, strict=True)]
        h: NDArray[np.float32] = torch.cat(parts)[:, None].numpy()
        return h

    def weights(self, batch: Batch, value: Value) -> Tensor:
        """See `Alignment`."""
        return self._weights(batch.extra[:, 0])

    def diagnostics(self) -> Diagnostics:
        """Figures of the weights over the source rows of `cache`; histogram of h."""
        weights = self._weights(self._score)
        arrays = {"weight": weights.double().numpy(), "score": self._score.double().numpy()}
        return Diagnostics(weight_figures(weights), arrays)

    def _weights(self, h: Tensor) -> Tensor:
        """`exp(alpha h)`, or 0 outside the top share, (N,)."""
        return keep_top(h, self.config.xi) * (self.config.alpha * h).exp()
