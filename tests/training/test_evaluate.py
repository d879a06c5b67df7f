from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from landbridge.bundle import read_bundle, write_bundle
from landbridge.errors import InputError
from landbridge.joint import Friction
from landbridge.manifest import CALIBRATION
from landbridge.robot import load_robot
from landbridge.simulation.behaviour import Behaviour, Policy
from landbridge.simulation.calibrated import digest_of
from landbridge.simulation.compensation import load_compensation
from landbridge.simulation.scenario import Scenario, load_scenario
from landbridge.task import load_task
from landbridge.training.config import TrainConfig
from landbridge.training.evaluate import evaluate, shown_name
from landbridge.training.run import CONFIG
from landbridge.training.scoring import score, summary
from landbridge.training.train import train

from .conftest import Data

ROBOT = load_robot("furuta")

Make = Callable[..., Any]


def first_seen(into: list[NDArray[np.float32]], action: float) -> Behaviour:
    """A constant action, noting the first observation of every batch; draws from its generator as it likes."""

    def behaviour(batch: int, rng: np.random.Generator) -> Policy:
        rng.standard_normal(round(10 * abs(action)))
        seen: list[int] = []

        def policy(obs: NDArray[np.float32]) -> NDArray[np.float64]:
            if not seen:
                into.append(obs.copy())
            seen.append(1)
            return np.full((batch, 1), action)

        return policy

    return behaviour


def test_policies_meet_the_same_starts_whatever_they_do_and_draw() -> None:
    starts: list[NDArray[np.float32]] = []
    returns = []
    for action, seed in ((0.0, 0), (0.7, 0), (0.0, 0), (0.0, 1)):
        returns.append(score(first_seen(starts, action), ROBOT, "bullet", load_scenario(ROBOT, "severe"), 2, seed)[1])
    assert all(start.shape == (2, 8) for start in starts)
    np.testing.assert_array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], starts[3])
    assert not np.array_equal(starts[0][0], starts[0][1])
    np.testing.assert_array_equal(returns[0], returns[2])
    assert not np.array_equal(returns[0], returns[1])


def test_exploring_policies_begin_where_the_task_explores() -> None:
    seen: list[NDArray[np.float32]] = []
    for exploring in (False, True):
        score(first_seen(seen, 0.0), ROBOT, "mujoco", Scenario(), 25, 0, exploring=exploring)
    hanging, anywhere = (load_task(ROBOT).observer.angle(obs, "pendulum") for obs in seen)
    assert np.abs(np.abs(hanging) - np.pi).max() <= 0.1
    assert np.ptp(anywhere) > np.pi
    with pytest.raises(InputError, match="--exploring: quadruped's task has no exploring states"):
        evaluate(["behaviour:trot"], robot="quadruped", exploring=True)


def test_policies_are_scored_compensated(tmp_path: Path, calibration: Make, linear_bundle: Make) -> None:
    """As on the robot whose friction they know; none that learned of a calibrated one."""
    file, bundle = tmp_path / "calibration.yaml", linear_bundle(tmp_path / "b", np.zeros((8, 1), np.float32))
    calibration(**{"friction.arm.frictionloss": 0.004}).write(file)
    hidden = Scenario(friction={"arm": Friction(frictionloss=0.004, viscous=0.0008)})
    swing = first_seen([], 0.5)
    nominal, bare, compensated = (
        score(swing, ROBOT, "mujoco", scenario, 1, 0, compensation=compensation)[1][0]
        for scenario, compensation in (
            (Scenario(), None),
            (hidden, None),
            (hidden, load_compensation(file, ROBOT)),
        )
    )
    assert abs(compensated - nominal) < 0.1 * abs(bare - nominal)
    found = evaluate([str(bundle)], episodes=1, scenario="none", compensate=file)
    assert found["compensation"] == digest_of(file)
    read = read_bundle(bundle)
    manifest = read.manifest.model_copy(update={"provenance": {"source_calibration": "f" * 64}})
    files = {name: read.files[name] for name in ("policy.onnx", "golden.npz", "envelope.npz")}
    twice = str(write_bundle(tmp_path / "calibrated", manifest, read.robot, files).path)
    with pytest.raises(InputError, match=r"calibrated: learned from logs .* it would be compensated twice"):
        evaluate([str(bundle), twice], compensate=file)


def test_runs_are_pooled_that_differ_in_their_seeds_alone(tmp_path: Path, data: Data) -> None:
    config = TrainConfig(steps=2, rows=16, alignment="target_only", agent="bc")
    for name, changed in (("a", {}), ("b", {"seed": 1}), ("c", {"rows": 17})):
        train(tmp_path / name, target=data.target, config=replace(config, **changed))  # type: ignore[arg-type]
    found = evaluate([str(tmp_path / name) for name in "abc"], episodes=1)
    assert [group["runs"] for group in found["groups"]] == [2]
    once_more = tmp_path / "elsewhere" / "a"  # of the same seed: what differs is something else
    train(once_more, target=data.target, config=config)
    assert evaluate([str(tmp_path / "a"), str(once_more)], episodes=1)["groups"] == []
    plain = json.loads((tmp_path / "b" / CONFIG).read_text())
    plain["provenance"][f"source{CALIBRATION}"] = "f" * 64
    (tmp_path / "b" / CONFIG).write_text(json.dumps(plain))
    assert evaluate([str(tmp_path / name) for name in "ab"], episodes=1)["groups"] == []
    with pytest.raises(InputError, match=r"--policies: names .*/a twice"):
        evaluate([str(tmp_path / "a"), str(tmp_path / "a" / ".." / "a")], episodes=1)


def test_a_run_that_has_not_ended_is_told_of(tmp_path: Path, data: Data) -> None:
    train(tmp_path / "run", target=data.target, config=TrainConfig(steps=2, rows=16, alignment="target_only"))
    (tmp_path / "run" / "diagnostics.json").unlink()
    with pytest.warns(UserWarning, match=r"run: stopped before step 2"):
        evaluate([str(tmp_path / "run")], episodes=1)


def test_of_what_all_runs_do_in_every_episode_no_mean_is_certain() -> None:
    figures = summary(np.ones((4, 50)), np.ones((4, 50)))
    assert figures["success_low"] == figures["success_iqm_low"] == pytest.approx(0.929, abs=0.001)


def test_several_runs_are_summarised_by_hand() -> None:
    success = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    figures = summary(success, np.full((4, 2), 5.0))
    assert figures["success"] == pytest.approx(5 / 8)
    assert figures["success_iqm"] == pytest.approx(0.75)  # runs 0, 0.5, 1, 1: the middle two
    assert (figures["return"], figures["return_low"], figures["return_high"]) == (5.0, 5.0, 5.0)
    assert "success_iqm" not in summary(success[:3], success[:3])


def test_one_run_that_always_succeeds_is_not_certain_to() -> None:
    """Wilson's score interval: 50 of 50 are at least n / (n + z^2), z = 1.96 (1927, JASA 22:209)."""
    figures = summary(np.ones((1, 50)), np.full((1, 50), 5.0))
    assert figures["success_low"] == pytest.approx(50 / (50 + 1.96**2), abs=1e-4)
    assert figures["success_high"] == pytest.approx(1.0)
    several = summary(np.ones((3, 50)), np.full((3, 50), 5.0))  # a bootstrap of them would be certain
    assert (several["success_low"], several["success_high"]) == (figures["success_low"], figures["success_high"])
    half = summary(np.array([[0.0, 1.0] * 50]), np.zeros((1, 100)))
    assert (half["success_low"], half["success_high"]) == pytest.approx((0.404, 0.596), abs=1e-3)


def test_policies_of_one_name_are_told_apart() -> None:
    names = ["a/first", "b/first", "b/other", "b/other", "behaviour:tuned"]
    assert [shown_name(name, names) for name in names] == ["a/first", "b/first", "other", "other", "behaviour:tuned"]
