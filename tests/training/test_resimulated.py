"""Source rows simulated again in the calibrated simulator."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.simulation.calibrated import Calibration, Error, Estimate
from landbridge.simulation.collect import collect
from landbridge.task import load_task
from landbridge.training.agents.iql import IQLConfig
from landbridge.training.config import TrainConfig
from landbridge.training.dataset import Transitions, load_domains
from landbridge.training.resimulated import calibrated, resimulated
from landbridge.training.train import train
from landbridge.training.trainer import Trainer, read_checkpoint

from .conftest import Data

ROBOT = load_robot("furuta")
CONFIG = TrainConfig(alignment="none", rows=16, steps=300, iql=IQLConfig(hidden=(16,)))


def calibration(path: Path, robot: str = "furuta", **values: float) -> Path:
    """A file that says these values of these parameters."""
    unknown = Error(joint_pos={}, joint_vel={})
    Calibration(
        robot=robot,
        robot_hash=load_robot(robot).spec.digest(),
        dataset="",
        dataset_hash="",
        known=(),
        estimates={name: Estimate(value=v, low=v, high=v, identifiable=True) for name, v in values.items()},
        covariance=tuple((0.0,) * len(values) for _ in values),
        undetermined=(),
        inflation=1.0,
        joint_pos_noise=0.0,
        joint_vel_noise=0.0,
        windows=0,
        horizon_s=1.0,
        nominal_error=unknown,
        calibrated_error=unknown,
        commit="",
        created="",
    ).write(path)
    return path


def rows(path: Path) -> Transitions:
    return load_domains(ROBOT, {"source": path})["source"]


def test_rows_of_the_calibrated_simulator_stay_and_others_become_its_own(tmp_path: Path) -> None:
    there = calibration(tmp_path / "there.yaml", actuator_gain=0.9, latency_ms=27.0)
    here = calibration(tmp_path / "here.yaml", actuator_gain=1.0, latency_ms=0.0)
    collect(tmp_path / "data", steps=400, batch=2, calibration=there, mix={"noisy": 1.0})
    made = rows(tmp_path / "data")
    again = resimulated(made, ROBOT, calibrated(ROBOT, there))
    np.testing.assert_allclose(again.next_obs, made.next_obs, atol=1e-5)  # float32 states of 10 rad/s
    np.testing.assert_allclose(again.reward, made.reward, atol=1e-5)
    moved = resimulated(made, ROBOT, calibrated(ROBOT, here))
    assert np.abs(moved.next_obs - made.next_obs).max() > 0.1
    back = resimulated(moved, ROBOT, calibrated(ROBOT, there))
    np.testing.assert_allclose(back.next_obs, made.next_obs, atol=1e-5)  # of the state and action of a row, no more
    expected = load_task(ROBOT).reward(made.obs, made.action, moved.next_obs)
    np.testing.assert_allclose(moved.reward, expected, rtol=1e-6)


def test_a_run_with_a_calibration_resumes_with_it(tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    file = calibration(tmp_path / "calibration.yaml", latency_ms=27.0)
    train(tmp_path / "whole", data.source, data.target, config=CONFIG, calibration=file)
    train(tmp_path / "plain", data.source, data.target, config=CONFIG)
    block = Trainer.block

    def killed(self: Trainer, steps: int) -> dict[str, float]:
        figures = block(self, steps)
        self.save()
        raise KeyboardInterrupt(figures)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "block", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", data.source, data.target, config=CONFIG, calibration=file)
    train(tmp_path / "cut", resume=True)
    whole, cut, plain = (read_checkpoint(tmp_path / name)["agent"] for name in ("whole", "cut", "plain"))
    assert all((value == cut[name]).all() for name, value in whole.items())
    assert any((value != plain[name]).any() for name, value in whole.items())
    calibration(file, latency_ms=26.0)
    with pytest.raises(InputError, match="have changed since the run began"):
        train(tmp_path / "cut", resume=True)


def test_what_cannot_have_a_calibration_is_refused_before_anything_is_written(tmp_path: Path, data: Data) -> None:
    file, out = calibration(tmp_path / "calibration.yaml", latency_ms=27.0), tmp_path / "run"

    def refused(message: str, alignment: str = "none", file: Path = file, scratch: Path | None = None) -> None:
        config = dataclasses.replace(CONFIG, alignment=alignment)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=message):
            train(out, data.source, data.target, config=config, calibration=file, scratch=scratch)
        assert not out.exists()

    refused("--calibration: alignment 'target_only' reads no source", alignment="target_only")
    refused("--calibration: rows that do not fit in memory", scratch=tmp_path)
    refused("absent.yaml: no such file. make it with `landbridge calibrate identify`", file=tmp_path / "absent.yaml")
    legged = calibration(tmp_path / "legged.yaml", robot="quadruped", latency_ms=10.0)
    refused("calibrates another 'quadruped' than 'furuta'", file=legged)
    with pytest.raises(InputError, match="the base of 'quadruped' is floating"):
        calibrated(load_robot("quadruped"), legged)
