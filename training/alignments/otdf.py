"""Optimal-transport data filtering."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from landbridge.spec import Share
from landbridge.training.alignments.base import Context, FixedWeights
from landbridge.training.dataset import Transitions, triples
from landbridge.training.prior import Prior, PriorConfig


@dataclass(frozen=True)
class OTDFConfig:
    """Hyperparameters.

    Attributes:
        keep: Share of the source rows that are kept.
        epsilon: Entropic regularisation of the transport; see `sinkhorn` for its bound.
        iterations: Sinkhorn iterations.
        chunk: Source rows transported at once, at most; the number is that of the paper's code.
        max_target: Target rows used; more are drawn at random, since the cost matrix has chunk x target entries.
        prior: Of the policy's regularisation.
    """

    keep: Annotated[Share, Field(gt=0)] = 0.8
    epsilon: Annotated[float, Field(ge=0.03, allow_inf_nan=False)] = 0.05
    iterations: PositiveInt = 50
    chunk: PositiveInt = 10_000
    max_target: PositiveInt = 3_000
    prior: PriorConfig = field(default_factory=PriorConfig)


class OTDF(FixedWeights):
    """Weights from the cost of transporting a source transition to the target's (Lyu et al. 2025, ICLR, eqs. 5-8).

    With x = [s, a, s'] normalised and the entropic plan mu between source and target rows under the cosine cost C,

        d_i = -sum_j C_ij mu_ij,  normalised to [-1, 0] over the source;   w_i = exp(d_i) for the best `keep`, else 0

    (the authors' code normalises and keeps within each batch of 128),

    and the policy is kept near the target's actions: `Prior` adds -weight mean log p(pi(s) | s) to its loss. The code
    of the paper does so for a sampled action, next to a squared error where our IQL has a log-likelihood.
    """

    config: OTDFConfig
    whole_source = True

    def __init__(self, config: OTDFConfig, context: Context) -> None:
        super().__init__(config, context)
        n, m = context.task.observer.size, context.task.observer.num_actions
        self._prior = Prior(n, m, config.prior) if config.prior.weight else None

    @property
    def prior(self) -> Prior | None:
        """A model of the target's actions."""
        return self._prior

    def fit(self, source: Transitions, target: Transitions) -> None:
        """Train it."""
        if self._prior is not None:
            obs, action = (
                torch.from_numpy(x).to(self.context.device)
                for x in (self.context.normaliser(target.obs), target.action)
            )
            self._prior.fit(obs, action, torch.Generator().manual_seed(self.context.seed))

    def row_weights(self, source: Transitions, target: Transitions) -> NDArray[np.float32]:
        """`w` of every source row, (N,)."""
        c, device = self.config, self.context.device
        rng = np.random.default_rng(self.context.seed)
        rows = rng.permutation(len(target))[: c.max_target]
        y = self._features(target[rows]).to(device)
        # Chunks alike: a few rows left over would each have to reach many target rows, and set the scale for all.
        chunks = torch.tensor_split(self._features(source), -(-len(source) // c.chunk))
        parts = [self.deviation(x.to(device), y).cpu() for x in chunks]
        d = torch.cat(parts).numpy()
        d = (d - d.max()) / max(float(d.max() - d.min()), 1e-12)  # [-1, 0]
        kept = d >= np.quantile(d, 1 - c.keep)
        weights: NDArray[np.float32] = np.where(kept, np.exp(d), 0.0).astype(np.float32)
        return weights

    def deviation(self, x: Tensor, y: Tensor) -> Tensor:
        """-sum_j C_ij mu_ij of unit rows x (N, d) against y (M, d), times N: (N,)."""
        cost = 1 - x @ y.T
        plan = sinkhorn(cost, self.config.epsilon, self.config.iterations)
        return -(cost * plan).sum(1) * len(x)

    def _features(self, data: Transitions) -> Tensor:
        return nn.functional.normalize(triples(data, self.context.normaliser), dim=1)


def sinkhorn(cost: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Entropic transport plan (N, M) between uniform marginals (Cuturi 2013, algorithm 1).

    Costs lie in [0, 2], so exp(-cost / epsilon) stays above the smallest float32 for epsilon >= 0.03.
    """
    kernel = torch.exp(-cost / epsilon)
    n, m = cost.shape
    u = torch.full((n,), 1.0 / n, device=cost.device)
    for _ in range(iterations):
        v = (1.0 / m) / (kernel.T @ u).clamp(min=1e-30)
        u = (1.0 / n) / (kernel @ v).clamp(min=1e-30)
    return u[:, None] * kernel * v[None, :]
