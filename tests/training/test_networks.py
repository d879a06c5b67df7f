from __future__ import annotations

import dataclasses

import pytest
import torch

from landbridge.training.agents import AGENTS
from landbridge.training.config import TrainConfig
from landbridge.training.networks import MLP


def test_a_normalised_hidden_layer_by_hand() -> None:
    net = MLP([1, 2, 1], norm=True)
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), ([[3.0], [1.0]], [0.0, 0.0], [[2.0, 5.0]], [0.5]), strict=True):
            parameter.copy_(torch.tensor(value))
    # (3 x, x) has mean 2 x and standard deviation |x|: normalised (1, -1) for x > 0, (-1, 1) for x < 0
    assert net(torch.tensor([[1.0], [-7.0], [1e6]])).flatten().tolist() == pytest.approx([2.5, 5.5, 2.5], abs=1e-3)


NETWORKS = {"q": "q.0", "v": "v", "pi": "policy.net"}


@pytest.mark.parametrize(
    ("name", "has"), [("iql", ("q", "v", "pi")), ("cql", ("q", "pi")), ("td3bc", ("q", "pi")), ("bc", ("pi",))]
)
def test_layers_are_normalised_in_the_networks_that_are_named(name: str, has: tuple[str, ...]) -> None:
    for chosen in has:
        config = dataclasses.replace(getattr(TrainConfig(), name), layer_norm=(chosen,))
        agent = AGENTS[name](3, 2, config, steps=1)
        assert [short for short in has if agent.get_submodule(NETWORKS[short]).norm] == [chosen]
