"""The equations of each alignment by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from landbridge.task import load_task
from landbridge.training.alignments.corrected import Corrected
from landbridge.training.alignments.dara import DARA
from landbridge.training.alignments.density_ratio import DensityRatio
from landbridge.training.alignments.domains import ClassifierConfig
from landbridge.training.alignments.dynamics import Dynamics
from landbridge.training.alignments.igdf import IGDF
from landbridge.training.alignments.otdf import OTDF, sinkhorn
from landbridge.training.alignments.tabb import Tabb
from landbridge.training.alignments.vgdf import VGDF, VGDFConfig, keep_top
from landbridge.training.dataset import Batch, Normaliser, Transitions, load_domains, unpack

from .conftest import Data
from .small import PREDICTOR, ROBOT, made, value


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


def test_the_best_rows_to_transport_are_kept_and_the_nearest_weighs_most(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    alignment, source, _ = made("otdf", data)
    assert isinstance(alignment, OTDF)
    monkeypatch.setattr(alignment, "deviation", lambda x, y: torch.tensor([-3.0, -1.0, -5.0, -2.0, -4.0]))
    weights = alignment.row_weights(source[:5], source[:5])
    # normalised: -1/2, 0, -1, -1/4, -3/4; four fifths are kept
    assert weights.tolist() == pytest.approx([np.exp(-0.5), 1.0, 0.0, np.exp(-0.25), np.exp(-0.75)])


def test_density_ratios_are_clipped_and_divided_by_their_mean(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    alignment, source, _ = made("density_ratio", data)
    assert isinstance(alignment, DensityRatio)
    ratios = np.array([1.0, 4.0, 100.0, 0.5])
    monkeypatch.setattr(alignment.classifiers, "log_ratio", lambda *_: np.log(ratios))
    assert alignment.row_weights(source[:4], source).tolist() == pytest.approx([w / 3.875 for w in (1, 4, 10, 0.5)])


def test_weights_are_blended_in_over_a_fifth_of_the_run(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    alignment, _, packed = made("tabb", data)
    assert isinstance(alignment, Tabb)
    monkeypatch.setattr(Tabb, "trust", 0.5)
    batch, found = unpack(packed, 8, 1), []
    for progress in (0.0, 0.1, 0.2, 0.9):
        alignment.refresh(value, progress)
        found.append(1 - alignment.weights(batch, value).mean().item())
        assert alignment.blend.item() == pytest.approx(0.5 * min(1.0, progress / 0.2))
    assert found[0] == 0.0 < found[1] < found[2]


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
