"""One tester that every agent and every alignment passes."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.task import load_task
from landbridge.training.agents import AGENTS
from landbridge.training.agents.base import AgentConfig
from landbridge.training.agents.iql import IQLConfig
from landbridge.training.alignments import ALIGNMENTS
from landbridge.training.alignments.base import Context
from landbridge.training.alignments.oracle import Oracle, OracleConfig
from landbridge.training.config import AgentName, AlignmentName, TrainConfig
from landbridge.training.dataset import Normaliser, Transitions, unpack
from landbridge.training.onnx_graph import beyond_tensorrt, to_onnx
from landbridge.training.policy import load_actor
from landbridge.training.train import train
from landbridge.training.trainer import Block, Trainer, read_checkpoint

from .conftest import BLOCK, Data
from .small import PREDICTOR, SMALL, made, value


def state(run: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = read_checkpoint(run)["agent"]
    return found


def test_an_oracle_of_a_floating_robot_is_refused() -> None:
    robot = load_robot("quadruped")
    task = load_task(robot)
    n, m = task.observer.size, task.observer.num_actions
    context = Context(robot, task, Normaliser(np.zeros(n), np.ones(n)), 0.99, 0.1, torch.device("cpu"), 0)
    obs = np.zeros((2, n), np.float32)
    rows = Transitions(obs, np.zeros((2, m), np.float32), obs[:, 0], obs, np.zeros(2, bool), np.zeros(2, np.int64))
    with pytest.raises(InputError, match="an oracle cannot put the base of quadruped where a row has it"):
        Oracle(OracleConfig(predictor=PREDICTOR), context).predict(rows)


def test_the_names_on_the_command_line_are_the_registries() -> None:
    assert list(get_args(AgentName)) == list(AGENTS)
    assert list(get_args(AlignmentName)) == list(ALIGNMENTS)


OTHERS = [agent for agent in AGENTS if agent != "iql"]
PAIRS = {  # every agent with a third of the alignments, every alignment with two agents
    *itertools.product(["iql"], ALIGNMENTS),
    *itertools.product(AGENTS, ["tabb"]),
    *((agent, name) for i, agent in enumerate(OTHERS) for name in list(ALIGNMENTS)[i :: len(OTHERS)]),
}


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize(("agent", "alignment"), sorted(PAIRS))
def test_every_agent_and_alignment_trains_and_resumes_to_the_bit(
    tmp_path: Path, data: Data, agent: Any, alignment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(SMALL, agent=agent, alignment=alignment)
    _resumes_to_the_bit(tmp_path, data, config, monkeypatch)


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize("schedule", ["every", 64])
def test_a_predictor_that_is_trained_on_resumes_to_the_bit(
    tmp_path: Path, data: Data, schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tabb = dataclasses.replace(SMALL.tabb, schedule=schedule)
    _resumes_to_the_bit(tmp_path, data, dataclasses.replace(SMALL, alignment="tabb", tabb=tabb), monkeypatch)


def _resumes_to_the_bit(tmp_path: Path, data: Data, config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "whole", data.source, data.target, config=config)
    block = Trainer.block

    def until_killed(self: Trainer, until: int) -> Block:
        if self.step > 0:
            raise ConnectionAbortedError
        return block(self, until)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "block", until_killed)
        patched.setattr("landbridge.training.loop.CHECKPOINT_SECONDS", 0.0)
        with pytest.raises(ConnectionAbortedError):
            train(tmp_path / "cut", data.source, data.target, config=config)
    assert read_checkpoint(tmp_path / "cut")["step"] == BLOCK
    train(tmp_path / "cut", resume=True)
    whole, cut = state(tmp_path / "whole"), state(tmp_path / "cut")
    assert all(torch.equal(tensor, cut[name]) and bool(tensor.isfinite().all()) for name, tensor in whole.items())


def test_runs_of_a_seed_begin_with_the_same_networks_under_every_alignment(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Trainer, until: int) -> Block:
        raise ConnectionAbortedError

    monkeypatch.setattr(Trainer, "block", killed)
    for alignment in ("none", "tabb", "otdf"):
        config = dataclasses.replace(SMALL, alignment=alignment)
        with pytest.raises(ConnectionAbortedError):
            train(tmp_path / alignment, data.source, data.target, config=config)
    for name, tensor in state(tmp_path / "none").items():
        assert torch.equal(tensor, state(tmp_path / "tabb")[name])
        assert torch.equal(tensor, state(tmp_path / "otdf")[name])


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("norm", [(), ("pi",)])
def test_every_agent_exports(tmp_path: Path, data: Data, agent: Any, norm: tuple[str, ...]) -> None:
    """Whatever weighed its rows: the graph is that of the agent's policy."""
    networks = {agent: dataclasses.replace(getattr(SMALL, agent), layer_norm=norm)}
    config = dataclasses.replace(SMALL, agent=agent, alignment="source_only", **networks)
    train(tmp_path / "run", data.source, config=config)
    actor, _ = load_actor(tmp_path / "run")
    obs = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    graph = to_onnx(actor, {"obs": obs[:1]}, ["action"])
    assert not beyond_tensorrt(graph)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    ran = np.concatenate([session.run(["action"], {"obs": row[None]})[0] for row in obs])
    np.testing.assert_allclose(ran, actor.numpy(obs), atol=1e-5)
    assert ran.std() > 0


@pytest.mark.parametrize("name", [name for name in ALIGNMENTS if len(ALIGNMENTS[name].domains) == 2])
def test_every_weight_is_finite_and_one_per_row(data: Data, name: str) -> None:
    alignment, source, packed = made(name, data)
    assert np.isfinite(source.reward).all()
    for progress in (0.0, 1.0):
        alignment.refresh(value, progress)
        weights = alignment.weights(unpack(packed, 8, 1), value)
        assert weights.shape == (len(source),)
        assert bool(weights.isfinite().all())
        assert bool((weights >= 0).all())
    assert weights.sum() > 0
    assert all(np.isfinite(v) for v in alignment.diagnostics().figures.values())


@pytest.mark.parametrize("weigh", [AgentConfig.weigh, ("q", "v", "pi")])
@pytest.mark.parametrize("name", AGENTS)
def test_a_row_of_weight_zero_has_no_influence(name: str, weigh: tuple[Literal["q", "v", "pi"], ...]) -> None:
    config: AgentConfig = dataclasses.replace(getattr(SMALL, name), weigh=weigh)
    torch.manual_seed(0)
    agent = AGENTS[name](3, 2, config, steps=10)
    rows = torch.randn(8, 2 * 3 + 2 + 2)
    rows[:, 3:5] = rows[:, 3:5].tanh()
    weights, noise = torch.tensor([1.0, 2.0, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0]), torch.randn(8, agent.noise_size)
    gradients = []
    for change in (0.0, 5.0):
        changed = rows.clone()
        changed[4:] += change
        changed[4:, 3:5] = changed[4:, 3:5].clamp(-1, 1)
        agent.zero_grad()
        batch = unpack(changed, 3, 2)
        losses, _ = agent.losses(batch, weights, noise)
        torch.stack([*losses]).sum().backward()
        gradients.append([p.grad.clone() for p in agent.parameters() if p.grad is not None])
    assert len(gradients[0]) > 3
    for before, after in zip(*gradients, strict=True):
        torch.testing.assert_close(before, after)


def test_a_configuration_survives_its_json(data: Data) -> None:
    for agent, alignment in itertools.product(AGENTS, ALIGNMENTS):
        config = TrainConfig(agent=agent, alignment=alignment, iql=IQLConfig(hidden=(7,)), seed=3)  # type: ignore[arg-type]
        back = TrainConfig.from_json(config.to_json())
        assert (back.agent_config, back.alignment_config) == (config.agent_config, config.alignment_config)
        assert back.seed == 3
    with pytest.raises(TypeError, match="speed"):
        TrainConfig.from_json(TrainConfig().to_json() | {"speed": 1})


def test_an_alignment_without_its_data_is_refused(tmp_path: Path, data: Data) -> None:
    for name in ("dara", "igdf", "otdf", "vgdf", "dynamics", "corrected", "density_ratio", "shuffled"):
        with pytest.raises(InputError, match=f"alignment '{name}' needs a target dataset"):
            train(tmp_path / "run", data.source, None, config=dataclasses.replace(SMALL, alignment=name))  # type: ignore[arg-type]
