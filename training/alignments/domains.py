"""Two classifiers that tell simulator from robot, and the ratio of dynamics that follows from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt
from torch import Tensor, nn

from landbridge.spec import NonNegative, Positive
from landbridge.training.dataset import Normaliser, Transitions, triples
from landbridge.training.networks import MLP

ROWS = 65_536  # rows evaluated at once


@dataclass(frozen=True)
class ClassifierConfig:
    """Attributes: hidden width, Adam steps, rows of each domain per step, learning rate, std of the input noise."""

    hidden: PositiveInt = 256
    steps: PositiveInt = 3000
    batch: PositiveInt = 128
    lr: Positive = 3e-4
    noise: NonNegative = 1.0


class DomainClassifiers(nn.Module):
    """Logits of q(target | s, a, s') and q(target | s, a), each trained on as many rows of either domain (Eysenbach et
    al. 2021, arXiv:2006.13916, eq. 3). With equal shares Bayes' rule gives

        log p_T(s' | s, a) / p_S(s' | s, a) = logit(s, a, s') - logit(s, a)

    Gaussian noise on the normalised inputs keeps the classifiers from saturating on what the behaviours differ in.
    """

    def __init__(self, obs_size: int, action_size: int, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.transition = MLP([2 * obs_size + action_size, config.hidden, config.hidden, 1])
        self.pair = MLP([obs_size + action_size, config.hidden, config.hidden, 1])
        self._pair = obs_size + action_size

    def fit(self, source: Transitions, target: Transitions, normaliser: Normaliser, seed: int) -> None:
        """Logistic regression of the domain."""
        device = next(self.parameters()).device
        rows = [triples(data, normaliser).to(device) for data in (source, target)]
        generator = torch.Generator().manual_seed(seed)
        noise = torch.Generator(device).manual_seed(seed)
        optimiser = torch.optim.Adam(self.parameters(), lr=self.config.lr)
        labels = torch.cat([torch.zeros(self.config.batch), torch.ones(self.config.batch)]).to(device)
        for _ in range(self.config.steps):
            picks = [torch.randint(len(r), (self.config.batch,), generator=generator).to(device) for r in rows]
            x = torch.cat([r[pick] for r, pick in zip(rows, picks, strict=True)])
            x = x + self.config.noise * torch.randn(x.shape, generator=noise, device=device)
            logits = torch.cat([self.transition(x), self.pair(x[:, : self._pair])], 1)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels[:, None].expand(-1, 2))
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()

    @torch.no_grad()
    def log_ratio(self, data: Transitions, normaliser: Normaliser) -> NDArray[np.float32]:
        """Log p_T(s' | s, a) / p_S(s' | s, a) of every row, (N,)."""
        device = next(self.parameters()).device
        inputs = triples(data, normaliser)
        parts = [self._log_ratio(chunk.to(device)).cpu() for chunk in torch.split(inputs, ROWS)]
        ratio: NDArray[np.float32] = torch.cat(parts).numpy()
        return ratio

    def _log_ratio(self, x: Tensor) -> Tensor:
        difference: Tensor = (self.transition(x) - self.pair(x[:, : self._pair]))[:, 0]
        return difference
