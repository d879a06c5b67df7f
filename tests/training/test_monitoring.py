"""The live monitors from trainer to robot: same numbers on both sides, limits that hold, alarms that come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from landbridge.bundle import Bundle, npz, read_bundle, write_bundle
from landbridge.deploy.drift import Alarm, Distance, TargetMismatch, Watch, Written
from landbridge.errors import InputError
from landbridge.inspection import inspect
from landbridge.manifest import Threshold
from landbridge.robot import load_robot
from landbridge.simulation.behaviour import load_behaviours
from landbridge.simulation.calibrated import Calibration
from landbridge.simulation.collect import collect
from landbridge.simulation.compensation import Compensation
from landbridge.simulation.plant import make_plant
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import Scenario, load_scenario
from landbridge.task import load_task
from landbridge.training.agents.bc import BC, BCConfig
from landbridge.training.agents.iql import IQLConfig
from landbridge.training.alignments.base import Alignment
from landbridge.training.alignments.tabb import TabbConfig
from landbridge.training.config import TrainConfig
from landbridge.training.dataset import Transitions, load_domains
from landbridge.training.export import export
from landbridge.training.monitoring import MARGIN, QUANTILE, TargetModel, watch, window_means
from landbridge.training.policy import Trained, load_trained
from landbridge.training.predictor import PredictorConfig, split_episodes
from landbridge.training.train import train

from .conftest import Data

ROBOT = load_robot("furuta")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 s of the twin in eight rollouts, so that two can be held out."""
    out = tmp_path_factory.mktemp("data") / "target"
    about = {"engine": "bullet", "scenario": "severe", "domain": "target", "mix": {"excite": 1.0}}
    collect(out, steps=2400, batch=8, seed=5, **about)  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Data, recorded: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tabb"
    tabb = TabbConfig(predictor=PredictorConfig(hidden=32, source_steps=200, steps=500))
    config = TrainConfig(alignment="tabb", steps=300, rows=64, iql=IQLConfig(hidden=(32,)), tabb=tabb)
    train(folder, data.source, recorded, config=config)
    return folder


@pytest.fixture(scope="module")
def trained(run: Path) -> Trained:
    return load_trained(run)


@pytest.fixture(scope="module")
def bundle(run: Path) -> Bundle:
    assert export(run, run.parent / "b")["live_mismatch"] == "alignment.onnx"
    return read_bundle(run.parent / "b")


@pytest.fixture(scope="module")
def target(recorded: Path) -> Transitions:
    return load_domains(ROBOT, {"target": recorded})["target"]


def model_of(trained: Trained) -> TargetModel:
    parts = trained.alignment.predictor, trained.agents[0], trained.normaliser, load_task(ROBOT).observer
    return TargetModel(*parts).eval()


def test_the_graph_on_the_robot_computes_what_the_alignment_trained_with(
    trained: Trained, bundle: Bundle, target: Transitions
) -> None:
    """Predictions as `Predictor.predict` makes them for the weights, values as the agent gives them."""
    on_robot, rows = TargetMismatch(bundle), target[np.arange(0, len(target), 40)]
    predicted = trained.alignment.predictor.predict(rows, trained.normaliser, load_task(ROBOT))
    gamma = trained.config.agent_config.gamma
    with torch.no_grad():
        ours, theirs = (
            trained.agents[0].value(torch.from_numpy(trained.normaliser(x.reshape(-1, 8)))).numpy()
            for x in (rows.next_obs, predicted)
        )
    expected = gamma * np.abs(theirs.reshape(len(predicted), -1) - ours).mean(0)
    for i in range(len(rows)):
        found = on_robot(rows.obs[i], rows.action[i], rows.next_obs[i])
        assert found == pytest.approx(expected[i], abs=1e-4)
        np.testing.assert_allclose(on_robot.predicted, predicted[:, i], atol=1e-4)


def test_a_perfect_prediction_has_no_mismatch_and_history_is_not_predicted(bundle: Bundle, target: Transitions) -> None:
    mismatch, row = TargetMismatch(bundle), target[np.array([5])]
    mismatch(row.obs[0], row.action[0], row.next_obs[0])
    known = ~load_task(ROBOT).observer.measured
    np.testing.assert_array_equal(mismatch.predicted[:, known], np.repeat(row.next_obs[:, known], 3, axis=0))
    shifted = row.next_obs[0] + np.where(known, 0, 0.5)
    assert mismatch(row.obs[0], row.action[0], shifted) > mismatch(row.obs[0], row.action[0], row.next_obs[0])


def test_an_agent_without_a_value_has_no_mismatch_monitor(trained: Trained, target: Transitions) -> None:
    """It would be 0 on any robot, and never alarm."""
    observer = load_task(ROBOT).observer
    cloned = BC(observer.size, observer.num_actions, BCConfig(hidden=(8,)), steps=1)
    found, model, reason = watch(replace(trained, agents=(cloned,)), {"target": target})
    assert found is not None and found.mismatch is None and found.envelope.limit > 0
    assert model is None and reason.endswith("train iql, cql or td3bc")


def test_a_policy_of_an_alignment_that_learns_nothing_of_the_robot_is_watched_as_one_of_tabb(
    trained: Trained, target: Transitions, data: Data
) -> None:
    """Its predictor is fitted at export, to the rows that are not held out, and each time to the same."""
    none = Alignment(None, trained.alignment.context)
    domains = load_domains(ROBOT, {"source": data.source}) | {"target": target}
    (limits, model, _), (_, again, _) = (watch(replace(trained, alignment=none), domains) for _ in range(2))
    assert limits is not None and limits.mismatch is not None and model is not None and again is not None
    own = watch(trained, domains).limits
    assert own is not None and own.envelope == limits.envelope
    _, held = split_episodes(target, trained.config.tabb.holdout, trained.config.seed)
    np.testing.assert_array_equal(model.mismatch(held), again.mismatch(held))
    assert model.mismatch(held).mean() == pytest.approx(model_of(trained).mismatch(held).mean(), rel=0.3)
    elsewhere = replace(held, next_obs=held.next_obs + np.float32(0.1))
    assert model.mismatch(elsewhere).mean() > 2 * model.mismatch(held).mean()


def test_limits_are_quantiles_of_heldout_windows_and_hold_there(
    trained: Trained, bundle: Bundle, target: Transitions
) -> None:
    """The stated rate by construction, and the alarm of the robot's own class stays down on those rollouts."""
    drift = bundle.manifest.drift
    assert drift is not None and drift.mismatch is not None
    assert (drift.window, drift.quantile, drift.margin) == (100, QUANTILE, MARGIN)
    _, held = split_episodes(target, trained.config.alignment_config.holdout, trained.config.seed)
    scores = model_of(trained).mismatch(held)
    episodes = [scores[held.episode == e] for e in np.unique(held.episode)]
    means = np.concatenate([window_means(s, drift.window) for s in episodes])
    assert (means > drift.mismatch.limit / MARGIN).mean() <= 1 - QUANTILE + 1 / len(means)
    assert drift.mismatch.floor == pytest.approx(np.median(scores))
    alarm = Alarm(drift.window, drift.mismatch)
    for episode in episodes:
        alarm.restart()
        assert not any(alarm.update(score) for score in episode)
        assert alarm.mean == pytest.approx(episode[-drift.window :].mean(), rel=1e-6)


def test_another_robot_is_noticed_and_a_healthy_one_is_not(bundle: Bundle) -> None:
    """Half the gain doubles the mismatch at least; benchmarks/drift.py has the rates after a whole training."""
    severe = load_scenario(ROBOT, "severe")
    healthy, weak = (
        watched(bundle, severe.model_copy(update={"actuator_gain": severe.actuator_gain * k})) for k in (1.0, 0.5)
    )
    assert not any(alarm.raised for alarm in healthy)
    assert np.mean([alarm.mean for alarm in weak]) > 2 * np.mean([alarm.mean for alarm in healthy])


def test_velocities_in_degrees_raise_the_alarm(bundle: Bundle) -> None:
    unit = np.ones(8)
    unit[3:5] = np.rad2deg(1.0)
    assert all(alarm.raised for alarm in watched(bundle, load_scenario(ROBOT, "severe"), unit))


def watched(bundle: Bundle, scenario: Scenario, unit: np.ndarray | None = None) -> list[Alarm]:
    """The mismatch's alarm after rollouts of the behaviour that recorded the target data, observed in these units."""
    rng, task = np.random.default_rng(8), load_task(ROBOT)
    plants = [make_plant(ROBOT, "bullet", scenario, np.random.default_rng(i)) for i in range(3)]
    found = []
    for episode in lockstep(plants, task, load_behaviours(ROBOT)["excite"](3, rng), rng):
        watch = Watch(bundle)
        for obs, action in zip(episode.obs, episode.actions, strict=False):
            watch.update(obs if unit is None else obs * unit, action)
        found.append(watch.mismatch.alarm)
    for plant in plants:
        plant.close()
    return found


def test_a_compensated_robot_is_judged_by_what_was_written(
    bundle: Bundle, calibration: Callable[..., Calibration]
) -> None:
    """The robot is healthy, whatever is compensated on board; the model is wrong of it by what the policy asked for."""
    compensation = Compensation(ROBOT, calibration(actuator_gain=0.4, **{"friction.arm.frictionloss": 0.01}))
    rng, sent = np.random.default_rng(8), list[np.ndarray]()

    class Noting(Compensation):
        def __call__(self, *measured: np.ndarray) -> np.ndarray:
            sent.append(compensation(*measured))
            return sent[-1]

    noting = Noting(ROBOT, calibration())
    plant = make_plant(ROBOT, "bullet", load_scenario(ROBOT, "severe"), rng)
    (episode,) = lockstep([plant], load_task(ROBOT), load_behaviours(ROBOT)["excite"](1, rng), rng, compensation=noting)
    plant.close()
    watch, written = Watch(bundle), Written(load_task(ROBOT).observer)
    ticks = [written(obs, command) for obs, command in zip(episode.obs, sent, strict=False)]
    assert not any(watch.update(*tick) for tick in ticks)
    asked = [*zip(episode.obs, episode.actions, strict=False)]
    measured, errors = load_task(ROBOT).observer.measured, []
    for rows in (ticks, asked):
        missed = []
        for (obs, action), (later, _) in pairwise(rows):
            watch.mismatch(obs, action, later)
            missed.append(np.abs(watch.mismatch.predicted.mean(0) - later)[measured].mean())
        errors.append(np.mean(missed))
    assert errors[1] > 1.4 * errors[0]
    written.restart()
    seen, action = written(episode.obs[5], np.array([0.05]))
    np.testing.assert_array_equal(seen[-3:], np.zeros(3))
    assert action == pytest.approx([0.5])


def test_an_alarm_is_latched_until_reset_and_not_a_number_raises_it() -> None:
    alarm = Alarm(3, Threshold(floor=0.0, limit=1.0))
    assert [alarm.update(s) for s in (1.0, 1.0, 1.0, 1.0, 1.1, 0.0, 0.0)] == [False] * 4 + [True] * 3
    alarm.restart()
    assert alarm.raised
    assert np.isnan(alarm.mean)
    alarm.reset()
    assert [alarm.update(s) for s in (5.0, 5.0)] == [False, False]  # no whole window yet
    assert alarm.update(5.0)
    alarm.reset()
    assert alarm.update(float("nan"))


def test_a_new_stretch_of_motion_follows_no_tick(bundle: Bundle, target: Transitions) -> None:
    watch = Watch(bundle)
    watch.update(target.obs[0], target.action[0])
    watch.restart()
    watch.update(target.obs[50], target.action[50])
    assert watch.mismatch.alarm._count == 0
    watch.update(target.obs[51], target.action[51])
    assert watch.mismatch.alarm._count == 1


def test_a_measurement_that_is_no_number_is_no_drift(bundle: Bundle, target: Transitions) -> None:
    """It is the guard's to stop that; an alarm would stay, and say of a robot that is well what is not true."""
    watch = Watch(bundle)
    for obs in (target.obs[0], np.full_like(target.obs[0], np.nan), target.obs[1], target.obs[2]):
        assert not watch.update(obs, target.action[0])
    assert watch.mismatch.alarm._count == 1


def test_what_cannot_be_watched_is_refused(tmp_path: Path, bundle: Bundle, linear_bundle: type[Path]) -> None:
    plain = read_bundle(linear_bundle(tmp_path / "plain", np.ones((8, 1), np.float32)))
    with pytest.raises(InputError, match=r"manifest\.json: drift: has no limits"):
        Distance(plain)
    files = {name: bundle.files[name] for name in ("policy.onnx", "golden.npz", "envelope.npz")}
    less = write_bundle(tmp_path / "less", bundle.manifest, bundle.robot, files)
    with pytest.raises(InputError, match=r"alignment\.onnx is missing.*target data, of an agent that has a value"):
        TargetMismatch(less)
    golden = bundle.arrays("golden.npz")
    golden["alignment_mismatch"] = golden["alignment_mismatch"] + 1
    files |= {"alignment.onnx": bundle.files["alignment.onnx"], "golden.npz": npz(**golden)}
    wrong = write_bundle(tmp_path / "wrong", bundle.manifest, bundle.robot, files)
    with pytest.raises(InputError, match="mismatches differ by 1 on CPUExecutionProvider"):
        TargetMismatch(wrong)


def test_too_short_rollouts_give_no_limits_and_that_is_said(trained: Trained, target: Transitions) -> None:
    few = replace(target, episode=np.arange(len(target)) // 50)
    limits, model, reason = watch(trained, {"target": few})
    assert (limits, model) == (None, None)
    assert reason.startswith("0 windows of 2 s in 500 held-out rows of the robot, and limits need 100; record more")


def test_a_robot_whose_episodes_are_short_is_watched_in_windows_of_half_an_episode(
    trained: Trained, target: Transitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = SimpleNamespace(episode_seconds=1.0)
    monkeypatch.setattr("landbridge.training.monitoring.load_task", lambda robot: short)
    limits, _, _ = watch(trained, {"target": replace(target, episode=np.arange(len(target)) // 50)})
    assert limits is not None and limits.window == 25


def test_whether_a_robot_is_watched_is_no_matter_of_a_seeds_luck(trained: Trained, target: Transitions) -> None:
    """Of rollouts short and long, some seeds hold out short ones only."""
    rows = np.arange(len(target))
    mixed = replace(target, episode=np.where(rows < 1200, rows // 50, 100 + rows // 300))
    held = {seed: split_episodes(mixed, trained.alignment.config.holdout, seed)[1].episode for seed in range(50, 99)}
    unlucky = next(seed for seed, episodes in held.items() if episodes.max() < 100)
    found = watch(replace(trained, config=replace(trained.config, seed=unlucky)), {"target": mixed})
    assert found.limits is not None and found.model is not None and found.reason == ""
    assert found.model.predictor is not trained.alignment.predictor  # which has seen what is held out now


def test_a_bundle_that_nothing_watches_says_why(tmp_path: Path, data: Data) -> None:
    config = TrainConfig(alignment="source_only", steps=2, rows=16, iql=IQLConfig(hidden=(8,)))
    train(tmp_path / "run", data.source, config=config)
    with pytest.warns(UserWarning, match="nothing will watch for drift on board: the run was given no target dataset"):
        assert export(tmp_path / "run", tmp_path / "b")["live_mismatch"] == "none"
    shown = inspect(str(tmp_path / "b"))
    assert shown["live monitors"].startswith("none: the run was given no target dataset; train with --target")
    assert "no target dataset" not in shown["made"]
