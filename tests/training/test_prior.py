"""The generative model that keeps OTDF's policy near the robot's actions."""

from __future__ import annotations

import math

import pytest
import torch

from landbridge.training.agents.iql import IQL, IQLConfig
from landbridge.training.prior import Prior, PriorConfig

SMALL = PriorConfig(samples=2, hidden=32, steps=1500, batch=64)


def constant(mean: float, log_std: float, action: float) -> Prior:
    """A prior whose latents have that mean and deviation, and whose decoded action is that, whatever goes in."""
    prior = Prior(3, 1, SMALL)
    for parameter in prior.parameters():
        parameter.zero_()
    prior.encoder.layers[-1].bias[:2], prior.encoder.layers[-1].bias[2:] = mean, log_std
    prior.decoder.layers[-1].bias.fill_(math.atanh(action))
    return prior


def test_loss_and_penalty_by_hand() -> None:
    prior, obs = constant(mean=0.5, log_std=math.log(2.0), action=0.2), torch.zeros(2, 3)
    divergence = 0.5 * (0.5**2 + 2.0**2 - 1) - math.log(2.0)  # of N(0.5, 2) from N(0, 1)
    loss = prior.loss(obs, torch.tensor([[0.5], [-0.1]]), torch.zeros(2, prior.latent))
    assert loss.item() == pytest.approx(0.3**2 + 0.5 * divergence)
    penalty = prior(obs, torch.tensor([[0.2], [0.5]]), torch.zeros(2, prior.noise_size))
    density = [math.exp(-(wrong**2) / (2 * 0.1)) / math.sqrt(2 * math.pi * 0.1) for wrong in (0.0, 0.3)]
    assert penalty.tolist() == pytest.approx([-0.5 * math.log(2 * p) for p in density])  # both latents say the same


def test_what_the_robot_does_costs_least() -> None:
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn((2000, 3), generator=generator)
    side = torch.randint(0, 2, (2000, 1), generator=generator) * 2.0 - 1
    action = 0.6 * side + 0.05 * torch.randn((2000, 1), generator=generator)  # to either side, never straight on
    prior = Prior(3, 1, SMALL)
    prior.fit(obs, action, generator)
    assert not any(parameter.requires_grad for parameter in prior.parameters())
    noise = torch.randn((2000, prior.noise_size), generator=generator)
    cost = {at: prior(obs, torch.full((2000, 1), at), noise).mean().item() for at in (-0.6, 0.6, 1.0, -1.0)}
    assert max(cost[0.6], cost[-0.6]) < min(cost[1.0], cost[-1.0]) - 0.1


def test_the_policy_alone_is_drawn_to_it() -> None:
    torch.manual_seed(0)
    agent, rows = IQL(3, 1, IQLConfig(hidden=(8,)), steps=10), torch.randn(4, 2 * 3 + 1 + 2)
    rows[:, 3] = rows[:, 3].tanh()
    weights, gradients = torch.tensor([1.0, 1.0, 1.0, 0.0]), []
    for prior in (None, constant(0.0, 0.0, 0.9)):
        agent.prior = prior
        agent.zero_grad()
        loss, _ = agent(rows, weights, torch.zeros(4, agent.total_noise_size), True)
        loss.backward()
        gradients.append({name: p.grad.clone() for name, p in agent.named_parameters() if p.grad is not None})
    plain, drawn = gradients
    changed = {name for name in plain if not torch.equal(plain[name], drawn[name])}
    assert changed == {name for name in plain if name.startswith("policy.net")}
    obs = rows[:3, :3]  # the last row is filtered out
    pull = 0.5 * ((agent.policy(obs) - 0.9) / 0.1 * (1 - agent.policy(obs).square())).sum() / 4  # d penalty / d bias
    difference = drawn["policy.net.layers.1.bias"] - plain["policy.net.layers.1.bias"]
    assert difference.item() == pytest.approx(pull.item(), rel=1e-4)
