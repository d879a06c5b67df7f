"""One gradient step: of several agents as of each alone, and compiled or captured as eager."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from landbridge.training import loop
from landbridge.training.agents import AGENTS
from landbridge.training.agents.base import Agent
from landbridge.training.config import TrainConfig
from landbridge.training.prior import Prior, PriorConfig
from landbridge.training.train import train
from landbridge.training.trainer import read_checkpoint
from landbridge.training.update import Rows, Update

from .conftest import BLOCK, Data

OBS, ACTION, ROWS, STEPS = 3, 2, 16, 12
CONFIG = TrainConfig()


def made(name: str, seed: int, device: str = "cpu", norm: tuple[str, ...] = (), prior: bool = False) -> Agent:
    torch.manual_seed(seed)
    config = dataclasses.replace(getattr(CONFIG, name), hidden=(8, 8), layer_norm=norm)
    agent = AGENTS[name](OBS, ACTION, config, STEPS).to(device)
    if prior:
        agent.prior = Prior(OBS, ACTION, PriorConfig(samples=2, hidden=8)).to(device)
    agent.generator = torch.Generator(device).manual_seed(seed)
    return agent


def batch(seed: int, device: str = "cpu") -> Rows:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(ROWS, 2 * OBS + ACTION + 2, generator=generator).tanh()
    return rows.to(device), torch.rand(ROWS, generator=generator).to(device)


def assert_alike(one: Agent, other: Agent, atol: float) -> None:
    for (name, value), found in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(value.cpu(), found.cpu(), rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize(("norm", "prior"), [((), False), (("q", "v", "pi"), False), ((), True)])
def test_agents_together_are_as_each_alone(name: str, norm: tuple[str, ...], prior: bool) -> None:
    apart, together = ([made(name, seed, norm=norm, prior=prior) for seed in range(3)] for _ in range(2))
    alone, crew = [Update([agent]) for agent in apart], Update(together)
    for step in range(STEPS):
        batches = [batch(10 * step + i) for i in range(3)]
        shown = crew(batches, step)
        for i, update in enumerate(alone):
            torch.testing.assert_close(shown[i], update([batches[i]], step)[0], rtol=1e-4, atol=1e-5)
    for one, other in zip(apart, together, strict=True):
        assert_alike(one, other, atol=2e-5)
    assert not torch.equal(
        together[0].state_dict()["policy.net.layers.0.weight"], made(name, 0).policy.net.layers[0].weight
    )  # type: ignore[union-attr, index]


def test_the_moments_of_one_agent_go_on_among_others() -> None:
    whole, cut = [made("iql", seed) for seed in range(2)], [made("iql", seed) for seed in range(2)]
    through, before = Update(whole), [Update([agent]) for agent in cut]
    for step in range(STEPS):
        batches = [batch(10 * step + i) for i in range(2)]
        through(batches, step)
        if step == STEPS // 2:
            states = [update.state_dict(0) for update in before]
            after = Update(cut)
            for place, state in enumerate(states):
                after.load_state_dict(place, state)
        if step < STEPS // 2:
            for update, rows in zip(before, batches, strict=True):
                update([rows], step)
        else:
            after(batches, step)
    for one, other in zip(whole, cut, strict=True):
        assert_alike(one, other, atol=2e-5)


def test_moments_of_other_networks_are_refused() -> None:
    small, large = Update([made("bc", 0)]), made("bc", 0)
    small([batch(0)], 0)
    large.policy.net.layers[0] = torch.nn.Linear(OBS, 8, bias=False)  # type: ignore[union-attr, index]
    with pytest.raises(ValueError, match="moments of"):
        Update([large]).load_state_dict(0, small.state_dict(0))


@pytest.mark.usefixtures("short_blocks")
def test_seeds_trained_together_are_the_runs_of_each(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(CONFIG, steps=3 * BLOCK, rows=16, alignment="none")
    config = dataclasses.replace(config, iql=dataclasses.replace(config.iql, hidden=(8,)))
    run = loop.block

    def until_killed(trainers: Any, until: int, on_block: Any) -> None:
        """Killed while the second block's checkpoints were being written: the first seed's is ahead."""
        if trainers[0].step == 2 * BLOCK:
            raise ConnectionAbortedError
        run(trainers, until, on_block)
        trainers[0].save()

    for seed in (3, 5):
        train(tmp_path / f"alone{seed}", data.source, data.target, config=dataclasses.replace(config, seed=seed))
    with monkeypatch.context() as patched:
        patched.setattr(loop, "block", until_killed)
        with pytest.raises(ConnectionAbortedError):
            train(tmp_path / "both", data.source, data.target, config=config, seeds=(3, 5))
    assert [read_checkpoint(tmp_path / f"both/seed{seed}")["step"] for seed in (3, 5)] == [2 * BLOCK, 0]
    figures = train(tmp_path / "both", resume=True)
    assert [(Path(row["run"]).name, row["step"]) for row in figures["runs"]] == [
        (f"seed{s}", 3 * BLOCK) for s in (3, 5)
    ]
    for seed in (3, 5):
        one, other = (read_checkpoint(tmp_path / folder)["agent"] for folder in (f"alone{seed}", f"both/seed{seed}"))
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=0, atol=1e-4, msg=name)


@pytest.mark.gpu
@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("agents", [1, 3])
def test_a_graph_replayed_is_the_eager_step_on_the_cpu(monkeypatch: pytest.MonkeyPatch, name: str, agents: int) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU, and torch finds none")
    eager, replayed = ([made(name, seed, device) for seed in range(agents)] for device in ("cpu", "cuda"))
    for one, other in zip(eager, replayed, strict=True):
        other.load_state_dict(one.state_dict())
    updates = {"cpu": Update(eager), "cuda": Update(replayed, compiled=True)}
    generator = torch.Generator()  # the two devices would draw different noise

    def noise(self: Update, agent: Agent, rows: int) -> torch.Tensor:
        drawn = torch.randn((rows, agent.total_noise_size), generator=generator)
        return drawn.to(agent.generator.device)

    monkeypatch.setattr(Update, "_noise", noise)
    for step in range(STEPS):
        for device, update in updates.items():
            generator.manual_seed(step)
            shown = update([batch(10 * step + i, device) for i in range(agents)], step)
            assert all(bool(metrics.isfinite().all()) for metrics in shown)
    for one, other in zip(eager, replayed, strict=True):
        assert_alike(one, other, atol=1e-4)


@pytest.mark.usefixtures("short_blocks")
def test_matrix_products_are_rounded_where_that_is_asked_and_only_in_the_loop(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no bfloat16")
    config = dataclasses.replace(CONFIG, steps=2 * BLOCK, rows=16, alignment="none")
    config = dataclasses.replace(config, iql=dataclasses.replace(config.iql, hidden=(64, 64)))
    whole = Update.__call__
    seen: set[str] = set()

    def step(self: Update, *given: Any) -> Any:
        seen.add(torch.get_float32_matmul_precision())
        return whole(self, *given)

    monkeypatch.setattr(Update, "__call__", step)
    weights = {}
    for name, matmul in (("exact", "highest"), ("rounded", "medium"), ("again", "medium")):
        asked = dataclasses.replace(config, matmul=matmul)  # type: ignore[arg-type]
        train(tmp_path / name, data.source, data.target, config=asked)
        weights[name] = read_checkpoint(tmp_path / name)["agent"]["policy.net.layers.0.weight"]
    assert seen == {"highest", "medium"}
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.equal(weights["rounded"], weights["again"])
    assert 0 < float((weights["rounded"] - weights["exact"]).abs().max()) < 0.01
