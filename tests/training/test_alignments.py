"""One tester that every agent and every alignment passes, and the equations of each alignment by hand."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.task import load_task
from landbridge.training.agents import AGENTS
from landbridge.training.agents.base import AgentConfig
from landbridge.training.agents.bc import BCConfig
from landbridge.training.agents.cql import CQLConfig
from landbridge.training.agents.iql import IQLConfig
from landbridge.training.agents.td3bc import TD3BCConfig
from landbridge.training.alignments import ALIGNMENTS
from landbridge.training.alignments.base import Alignment, Context
from landbridge.training.alignments.corrected import Corrected, CorrectedConfig
from landbridge.training.alignments.dara import DARA, DARAConfig
from landbridge.training.alignments.density_ratio import DensityRatioConfig
from landbridge.training.alignments.domains import ClassifierConfig
from landbridge.training.alignments.dynamics import Dynamics, DynamicsConfig
from landbridge.training.alignments.igdf import IGDF, IGDFConfig
from landbridge.training.alignments.oracle import Oracle, OracleConfig
from landbridge.training.alignments.otdf import OTDF, OTDFConfig, sinkhorn
from landbridge.training.alignments.tabb import TabbConfig
from landbridge.training.alignments.vgdf import VGDF, VGDFConfig, keep_top
from landbridge.training.config import AgentName, AlignmentName, TrainConfig
from landbridge.training.dataset import Batch, Normaliser, Transitions, load_domains, pack, unpack
from landbridge.training.onnx_graph import beyond_tensorrt, to_onnx
from landbridge.training.policy import load_actor
from landbridge.training.predictor import PredictorConfig
from landbridge.training.prior import PriorConfig
from landbridge.training.train import train
from landbridge.training.trainer import Block, Trainer, read_checkpoint

from .conftest import BLOCK, Data

ROBOT = load_robot("furuta")
PREDICTOR = PredictorConfig(members=2, hidden=16, source_steps=20, steps=60, batch=32)
CLASSIFIERS = ClassifierConfig(hidden=16, steps=60, batch=32)
SMALL = TrainConfig(
    steps=BLOCK + 11,
    rows=16,
    iql=IQLConfig(hidden=(16,)),
    cql=CQLConfig(hidden=(16,), num_actions=2),
    td3bc=TD3BCConfig(hidden=(16,)),
    bc=BCConfig(hidden=(16,)),
    dara=DARAConfig(classifiers=CLASSIFIERS),
    density_ratio=DensityRatioConfig(classifiers=CLASSIFIERS),
    igdf=IGDFConfig(hidden=16, embedding=4, steps=60, batch=32),
    otdf=OTDFConfig(iterations=5, chunk=500, prior=PriorConfig(samples=2, hidden=16, steps=60, batch=32)),
    vgdf=VGDFConfig(predictor=PREDICTOR),
    dynamics=DynamicsConfig(predictor=PREDICTOR),
    corrected=CorrectedConfig(predictor=PREDICTOR),
    tabb=TabbConfig(predictor=PREDICTOR),
)


def value(obs: Tensor) -> Tensor:
    """V(s) = s_0, so that backups can be computed in the head."""
    return obs[:, 0]


def state(run: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = read_checkpoint(run)["agent"]
    return found


def made(name: str, data: Data, **changes: Any) -> tuple[Alignment, Transitions, Tensor]:
    """The fitted alignment, the source that it corrected, and its packed rows."""
    config = dataclasses.replace(SMALL, alignment=name, **changes)
    domains = load_domains(ROBOT, {"source": data.source, "target": data.target})
    task = load_task(ROBOT)
    normaliser = Normaliser.of(list(domains.values()), task.observer.names)
    torch.manual_seed(0)
    alignment = ALIGNMENTS[name](
        config.alignment_config, Context(ROBOT, task, normaliser, 0.99, 0.1, torch.device("cpu"), 0)
    )
    alignment.fit(domains["source"], domains["target"])
    source = alignment.correct(domains["source"])
    return alignment, source, pack(source, normaliser, alignment.cache(source, domains["target"]), 0.1)


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


PAIRS = {*itertools.product(["iql"], ALIGNMENTS), *itertools.product(AGENTS, ["tabb"])}


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


def test_dynamics_weighs_by_the_error_in_units_of_the_ensembles_uncertainty(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    alignment, source, _ = made("dynamics", data)
    assert isinstance(alignment, Dynamics)
    alignment.error.fill_(0.5)
    rows = source[:2]
    # mean error 2, variance of the members 1
    monkeypatch.setattr(alignment, "predict", lambda rows: predicted(rows, [1.0, 3.0]))
    expected = [0.0, np.sqrt(4.0 / (0.5 + 1.0) / alignment.error.numel())]
    np.testing.assert_allclose(alignment.extend(rows)[:, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["dynamics", "oracle"])
def test_an_alignment_without_a_warm_up_weighs_from_the_first_step_on(name: str, data: Data) -> None:
    alignment, _, packed = made(name, data)
    alignment.refresh(value, 0.0)
    assert alignment.weights(unpack(packed, 8, 1), value).min() < 1.0


def predicted(rows: Transitions, beside: list[float]) -> NDArray[np.float32]:
    """Two members that agree with the simulator, except on the first measured column of the second row."""
    found = np.stack([rows.next_obs, rows.next_obs])
    found[:, 1, np.flatnonzero(load_task(ROBOT).observer.measured)[0]] += beside
    return found


def test_a_row_moves_as_far_as_the_model_is_surer_than_the_simulator(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    alignment, source, _ = made("corrected", data)
    assert isinstance(alignment, Corrected)
    task, rows = load_task(ROBOT), source[:2]
    first = int(np.flatnonzero(task.observer.measured)[0])
    alignment.error.fill_(0.5)
    alignment.discrepancy.fill_(4.5)
    monkeypatch.setattr(alignment, "predict", lambda rows: predicted(rows, [1.0, 3.0]))
    moved = alignment.correct(rows)
    expected = rows.next_obs.copy()
    expected[1, first] += 4.5 / (4.5 + 0.5 + 1.0) * 2.0  # prior 4.5, model's error 0.5, variance of the members 1
    np.testing.assert_allclose(moved.next_obs, expected, rtol=1e-5)
    np.testing.assert_allclose(moved.reward, task.reward(rows.obs, rows.action, moved.next_obs), rtol=1e-5)
    limit = ROBOT.spec.joint("arm").position_limit
    assert limit is not None
    monkeypatch.setattr(alignment, "predict", lambda rows: predicted(rows, [2.0 * limit[1]] * 2))
    assert alignment.correct(rows).terminated.tolist() == [False, True]
    fallen = dataclasses.replace(rows, terminated=np.array([True, False]))
    assert alignment.correct(fallen).terminated.tolist() == [True, True]


def test_nothing_moves_where_the_model_cannot_tell_the_simulator_from_the_robot(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    alignment, source, _ = made("corrected", data)
    assert isinstance(alignment, Corrected)
    # of one size, so that few held-out rows measure it as well as many
    noise = np.random.default_rng(0).choice([-1e-3, 1e-3], source.next_obs.shape).astype(np.float32)
    monkeypatch.setattr(alignment, "learn", lambda *_: None)
    monkeypatch.setattr(alignment, "predict", lambda rows: (rows.next_obs + noise[: len(rows)])[None])
    alignment.fit(source, source)  # the simulator is the robot
    assert alignment.discrepancy.sqrt().max() < 1e-4
    moved = np.abs(alignment.correct(source).next_obs - source.next_obs)
    assert moved.max() < 0.02 * np.abs(noise).mean()


def test_rows_where_the_robots_data_are_silent_neither_move_nor_tell_of_the_simulator(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On every second row the model is off by 1, and its members by 0 and 2; elsewhere all agree to 1e-3."""
    alignment, source, _ = made("corrected", data)
    assert isinstance(alignment, Corrected)
    silent = np.arange(len(source)) % 2 == 1
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1e-3, (2, *source.next_obs.shape)).astype(np.float32)
    noise[:, silent] = np.array([0.0, 2.0]).reshape(2, 1, 1)

    def predict(rows: Transitions) -> NDArray[np.float32]:
        return rows.next_obs + (noise[:1, ~silent][:, : len(rows)] if len(rows) < len(source) else noise)

    monkeypatch.setattr(alignment, "learn", lambda *_: None)
    monkeypatch.setattr(alignment, "predict", predict)
    alignment.fit(source, source)
    assert alignment.discrepancy.sqrt().max() < 0.05
    assert np.abs(alignment.correct(source).next_obs - source.next_obs)[silent].max() < 0.05


def test_vgdf_keeps_the_rows_whose_backup_is_likely(data: Data) -> None:
    alignment, _, _ = made("vgdf", data, vgdf=VGDFConfig(xi=0.5, predictor=PREDICTOR))
    assert isinstance(alignment, VGDF)

    def row(reward: float, predicted: list[float]) -> Batch:
        states = torch.cat([torch.tensor([r, *[0.0] * 8]) for r in predicted])
        return Batch(
            torch.zeros(1, 8), torch.zeros(1, 1), torch.zeros(1, 8), torch.tensor([reward]), torch.ones(1), states[None]
        )

    # fictitious values 0 and 2: mu 1, sigma sqrt(2); and 0 and 0.2: mu 0.1, sigma 0.141
    rows = [row(1.5, [0.0, 2.0]), row(1.5, [0.0, 0.2])]
    batch = Batch(*(torch.cat(columns) for columns in zip(*rows, strict=True)))
    assert alignment.weights(batch, value).tolist() == [2.0, 0.0]
    assert keep_top(torch.tensor([3.0, 1.0, 2.0, 0.0]), 0.5).tolist() == [1.0, 0.0, 1.0, 0.0]
    alignment.refresh(value, 0.0)
    figures = alignment.diagnostics().figures  # of the weights that it uses: no warm-up, 1 / xi or nothing
    assert (figures["kept"], figures["weight_mean"]) == pytest.approx((0.5, 1.0), abs=1e-3)


def test_dara_adds_the_clipped_log_ratio(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    alignment, _, _ = made("dara", data)
    assert isinstance(alignment, DARA)
    source = load_domains(ROBOT, {"source": data.source})["source"][:3]
    monkeypatch.setattr(alignment.classifiers, "log_ratio", lambda *_: np.array([-50.0, 2.0, 50.0], np.float32))
    corrected = alignment.correct(source).reward - source.reward
    assert corrected.tolist() == pytest.approx([-1.0, 0.2, 1.0], abs=1e-5)


def test_the_log_ratio_is_that_of_the_dynamics_not_of_the_behaviour() -> None:
    """Two Gaussians a' ~ N(+-mu, 1) of the next state, and behaviours that differ besides."""
    from landbridge.training.alignments.domains import DomainClassifiers

    rng = np.random.default_rng(0)

    def rows(n: int, shift: float, behaviour: float) -> Transitions:
        obs = rng.normal(behaviour, 1, (n, 1)).astype(np.float32)
        following = rng.normal(shift, 1, (n, 1)).astype(np.float32)
        zeros = np.zeros(n)
        return Transitions(obs, np.zeros((n, 1), np.float32), zeros, following, zeros > 0, zeros.astype(int))

    source, target = rows(4000, -0.5, -0.5), rows(4000, 0.5, 0.5)
    plain = Normaliser(np.zeros(1), np.ones(1))
    torch.manual_seed(0)
    classifiers = DomainClassifiers(1, 1, ClassifierConfig(hidden=32, steps=1500, batch=256, lr=1e-3, noise=0.0))
    classifiers.fit(source, target, plain, seed=0)
    probe = rows(400, 0.0, 0.0)
    # log N(x; 0.5, 1) / N(x; -0.5, 1) = x
    error = classifiers.log_ratio(probe, plain) - probe.next_obs[:, 0]
    assert np.sqrt(np.square(error).mean()) < 0.35


def test_igdf_by_hand(data: Data) -> None:
    alignment, _, _ = made("igdf", data)
    assert isinstance(alignment, IGDF)

    class Two(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :2]

    alignment.phi, alignment.psi = Two(), Two()  # type: ignore[assignment]
    obs, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0], [-2.0, 0.0]])
    # products: own 2, others 0 and -2
    expected = (np.log(1 + np.exp(-2)) + np.log(2) + np.log(1 + np.exp(-2))) / 3
    loss = alignment.contrastive_loss(obs, torch.zeros(1, 1), torch.tensor([[2.0, 0.0]]), other)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    batch = Batch(
        torch.zeros(4, 8),
        torch.zeros(4, 1),
        torch.zeros(4, 8),
        torch.zeros(4),
        torch.ones(4),
        torch.tensor([[0.9], [0.1], [-0.5], [0.3]]),
    )
    assert alignment.weights(batch, value).tolist() == pytest.approx([np.exp(0.9), 0.0, 0.0, 0.0])


def test_the_transport_plan_has_its_marginals_and_prefers_near_rows(data: Data) -> None:
    cost = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.9]])
    plan = sinkhorn(cost, 0.05, 200)
    torch.testing.assert_close(plan.sum(0), torch.full((2,), 0.5), rtol=1e-3, atol=0)
    torch.testing.assert_close(plan.sum(1), torch.full((3,), 1 / 3), rtol=1e-3, atol=1e-3)
    alignment, _, _ = made("otdf", data)
    assert isinstance(alignment, OTDF)
    y = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1]]), dim=1)
    x = torch.nn.functional.normalize(torch.tensor([[1.0, 0.05], [-1.0, 0.0]]), dim=1)
    near, far = alignment.deviation(x, y).tolist()
    assert near > -0.01
    assert far < -1.9


def test_no_chunk_of_rows_to_transport_is_a_scrap(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row left over would have to reach all of the target, and set the scale for every other."""
    alignment, source, _ = made("otdf", data)
    assert isinstance(alignment, OTDF)
    sizes: list[int] = []

    def deviation(x: Tensor, y: Tensor) -> Tensor:
        sizes.append(len(x))
        return -x[:, 0]

    monkeypatch.setattr(alignment, "deviation", deviation)
    rows = source[:501]
    assert alignment.row_weights(rows, rows).shape == (501,)
    assert sizes == [251, 250]


def test_shuffled_weights_are_the_same_on_other_rows(data: Data) -> None:
    tabb, _, packed = made("tabb", data)
    shuffled, _, _ = made("shuffled", data)
    batch = unpack(packed, 8, 1)
    for alignment in (tabb, shuffled):
        alignment.refresh(value, 1.0)
    a, b = tabb.weights(batch, value), shuffled.weights(batch, value)
    assert sorted(a.tolist()) == sorted(b.tolist())
    assert not torch.equal(a, b)
    assert torch.equal(a.roll(1), b)


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
