"""Networks of the agents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


class MLP(nn.Module):
    """Fully connected layers with ReLU between them: (N, sizes[0]) -> (N, sizes[-1]).

    With `norm` each hidden layer is normalised over its units before its ReLU (Ba, Kiros, Hinton 2016,
    arXiv:1607.06450), without gain and bias: no input, however far from the data, makes it larger.
    """

    def __init__(self, sizes: Sequence[int], norm: bool = False) -> None:
        super().__init__()
        self.norm = norm
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """Last layer linear. `frozen`: gradients flow to `x` but not to the parameters."""
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            weight, bias = (layer.weight.detach(), layer.bias.detach()) if frozen else (layer.weight, layer.bias)
            if i and self.norm:
                x = nn.functional.layer_norm(x, x.shape[-1:])
            x = nn.functional.linear(x if i == 0 else x.relu(), weight, bias)
        return x


def twin_q(obs_size: int, hidden: Sequence[int], action_size: int, norm: bool = False) -> nn.ModuleList:
    """Two networks for Q(s, a), of which `least` takes the smaller."""
    return nn.ModuleList(MLP([obs_size + action_size, *hidden, 1], norm) for _ in range(2))


def least(q: nn.ModuleList, obs: Tensor, action: Tensor, **frozen: bool) -> Tensor:
    """min_i Q_i(s, a), (N,), of two Q networks; `frozen=True` as in `MLP.forward`."""
    sa = torch.cat([obs, action], 1)
    return torch.minimum(q[0](sa, **frozen), q[1](sa, **frozen))[:, 0]


class Policy(nn.Module):
    """A Gaussian with mean tanh(f(s)) and a log-std that does not depend on s; the mean acts."""

    def __init__(self, obs_size: int, hidden: Sequence[int], action_size: int, norm: bool = False) -> None:
        super().__init__()
        self.net = MLP([obs_size, *hidden, action_size], norm)
        self.log_std = nn.Parameter(torch.zeros(action_size))

    def forward(self, obs: Tensor) -> Tensor:
        """Mean action (N, m) in [-1, 1] for normalised obs (N, n)."""
        return torch.tanh(self.net(obs))

    def negative_log_likelihood(self, obs: Tensor, action: Tensor) -> Tensor:
        """-log pi(a | s), (N,)."""
        log_std = self.log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        z = (action - self(obs)) * torch.exp(-log_std)
        return (0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(1)


class SquashedPolicy(nn.Module):
    """tanh of a Gaussian whose mean and log-std both depend on s (SAC); tanh of the mean acts."""

    def __init__(self, obs_size: int, hidden: Sequence[int], action_size: int, norm: bool = False) -> None:
        super().__init__()
        self.net = MLP([obs_size, *hidden, 2 * action_size], norm)

    def forward(self, obs: Tensor) -> Tensor:
        """Deterministic action (N, m) in [-1, 1] for normalised obs (N, n)."""
        out = self.net(obs)
        return torch.tanh(out[:, : out.shape[1] // 2])  # exported as Slice; chunk's Split is newer than TensorRT 8.6

    def sample(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Action (N, m) and log pi (N,) from standard normal `noise` (N, m); gradients flow to the policy.

        log(1 - tanh(x)^2) is computed as 2 (log 2 - x - softplus(-2 x)), which does not lose digits at large x.
        """
        mean, log_std = self.net(obs).chunk(2, dim=1)
        log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        x = mean + log_std.exp() * noise
        gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        squash = 2 * (math.log(2) - x - nn.functional.softplus(-2 * x))
        return torch.tanh(x), (gaussian - squash).sum(1)
