"""What keeps a policy near the robot's own actions: a generative model of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from landbridge.spec import NonNegative, Positive
from landbridge.training.networks import MLP

LOG_STD_MIN, LOG_STD_MAX = -4.0, 15.0  # of the encoder, as SPOT's and OTDF's code clamp it


@dataclass(frozen=True)
class PriorConfig:
    """Hyperparameters; the values are those of OTDF's code, but for the width.

    Attributes:
        weight: Of the penalty in the policy's loss; 0 leaves it out.
        samples: M, latents per row.
        beta: Four times the variance of an action about its decoded mean.
        hidden: Width; 750 in the code, which is most of the time of its training.
        steps: Updates before the agent starts.
        batch: Target rows per update.
        lr: Adam's learning rate.
    """

    weight: NonNegative = 0.5
    samples: PositiveInt = 10
    beta: Positive = 0.4
    hidden: PositiveInt = 256
    steps: PositiveInt = 10_000
    batch: PositiveInt = 128
    lr: Positive = 1e-3


class Prior(nn.Module):
    """A conditional VAE of the robot's actions (SPOT, Wu et al. 2022, arXiv:2202.06239, section 4.2).

        L = mean (d(s, z) - a)^2 + 1/2 mean KL( q(z | s, a) || N(0, I) ),      z ~ q(z | s, a)
        log p(a | s) ~ log sum_m N(a; d(s, z_m), beta / 4),                    m = 1 .. M

    as OTDF's code estimates it: neither 1 / M nor p(z) / q(z) is in the sum.
    """

    def __init__(self, obs_size: int, action_size: int, config: PriorConfig) -> None:
        super().__init__()
        self.config, self.latent = config, 2 * action_size
        self.encoder = MLP([obs_size + action_size, config.hidden, config.hidden, 2 * self.latent])
        self.decoder = MLP([obs_size + self.latent, config.hidden, config.hidden, action_size])
        self.requires_grad_(False)  # but for `fit`

    @property
    def noise_size(self) -> int:
        """Standard normal numbers per row."""
        return self.config.samples * self.latent

    def encode(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-std (N, l) of q(z | s, a)."""
        mean, log_std = self.encoder(torch.cat([obs, action], 1)).chunk(2, dim=1)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def decode(self, obs: Tensor, latent: Tensor) -> Tensor:
        """d(s, z), actions (N, m) in [-1, 1]."""
        return torch.tanh(self.decoder(torch.cat([obs, latent], 1)))

    def loss(self, obs: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        """Loss of target rows, by `noise` (N, l)."""
        mean, log_std = self.encode(obs, action)
        wrong = self.decode(obs, mean + log_std.exp() * noise) - action
        divergence = 0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std
        return wrong.square().mean() + 0.5 * divergence.mean()

    def fit(self, obs: Tensor, action: Tensor, generator: torch.Generator) -> None:
        """Train on normalised target rows (N, n) and their actions (N, m)."""
        c = self.config
        self.requires_grad_(True)
        optimiser = torch.optim.Adam(self.parameters(), lr=c.lr)
        for _ in range(c.steps):
            pick = torch.randint(len(obs), (c.batch,), generator=generator).to(obs.device)
            noise = torch.randn((c.batch, self.latent), generator=generator).to(obs.device)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(self.loss(obs[pick], action[pick], noise))
            optimiser.step()
        self.requires_grad_(False)

    def forward(self, obs: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        """Penalty (N,) of actions (N, m), -weight log p(a | s), by `noise` (N, `noise_size`)."""
        samples, m = self.config.samples, action.shape[1]
        mean, log_std = (part.repeat_interleave(samples, 0) for part in self.encode(obs, action))
        latent = mean + log_std.exp() * noise.reshape(-1, self.latent)
        decoded = self.decode(obs.repeat_interleave(samples, 0), latent).reshape(-1, samples, m)
        variance = self.config.beta / 4
        log_p = -0.5 * ((action[:, None] - decoded).square() / variance + math.log(2 * math.pi * variance)).sum(2)
        return -self.config.weight * log_p.logsumexp(1)
