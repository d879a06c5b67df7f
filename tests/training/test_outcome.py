"""A recording that mostly shows the robot failing is told of where somebody can act."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import pytest

from landbridge.episode import open_dataset
from landbridge.robot import load_robot
from landbridge.simulation.collect import collect
from landbridge.task import load_task
from landbridge.training import diagnose as diagnosis
from landbridge.training.config import TrainConfig
from landbridge.training.dataset import open_domains, read_whole
from landbridge.training.outcome import Outcome, warn_of_failures
from landbridge.training.train import train

from .conftest import Data

WARNING = r"(\d+) of (\d+) episodes ended in a failure, mean length [\d.]+ s of 6 s"


@pytest.fixture(scope="module")
def falling(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """A quadruped that trots in the simulator, and mostly falls on the twin."""
    folder = tmp_path_factory.mktemp("falling")
    trot = {"robot": "quadruped", "batch": 1, "exploring": 0.0, "mix": {"excite": 1.0}}
    collect(folder / "source", steps=600, **trot)  # type: ignore[arg-type]
    collect(folder / "target", steps=300, engine="bullet", scenario="extreme", domain="target", **trot)  # type: ignore[arg-type]
    return Data(folder / "source", folder / "target")


def outcomes(robot: str, data: Data) -> dict[str, Outcome]:
    machine = load_robot(robot)
    datasets = open_domains(machine, data._asdict())
    rows = {name: read_whole(machine, name, dataset) for name, dataset in datasets.items()}
    return {name: Outcome.of(datasets[name], found, load_task(machine)) for name, found in rows.items()}


def test_failures_are_counted_by_time_and_not_by_where_a_recording_was_cut() -> None:
    ten = Outcome(episodes=10, failed=4, seconds=30.0, reward=1.0, whole=6.0)
    # 0.8 failures in the time of an episode: exp(-0.8) = 0.45 of the task's episodes would reach their end
    assert ten.mostly_failed and ten.length == 3.0
    assert dataclasses.replace(ten, episodes=40).mostly_failed  # lost ticks
    assert not dataclasses.replace(ten, seconds=35.0).mostly_failed  # 0.69: just more than half
    assert not dataclasses.replace(ten, episodes=1, failed=1).mostly_failed  # a long walk that ended in a fall


def test_worse_than_the_simulator_is_who_fails_more_often_or_earns_far_less() -> None:
    robot = Outcome(episodes=10, failed=4, seconds=30.0, reward=10.0, whole=6.0)
    assert robot.worse_than(dataclasses.replace(robot, failed=3))
    assert robot.worse_than(dataclasses.replace(robot, failed=8, reward=21.0))
    assert not robot.worse_than(dataclasses.replace(robot, reward=19.0))
    costs = dataclasses.replace(robot, reward=-10.0)
    assert costs.worse_than(dataclasses.replace(robot, reward=-6.0))
    assert not costs.worse_than(dataclasses.replace(robot, reward=-9.0))


def test_a_robot_that_falls_is_told_of_before_training(
    falling: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = outcomes("quadruped", falling)
    falls = [bool(episode.terminated[-1]) for episode in open_dataset(falling.target)]
    assert (found["target"].failed, found["target"].episodes) == (sum(falls), len(falls))
    assert not found["source"].mostly_failed
    config = TrainConfig(alignment="none", steps=1, rows=8)
    with pytest.warns(UserWarning, match=WARNING + r" \(simulator: 0 of 2, 6.0 s\).*--target-share"):
        train(tmp_path / "run", falling.source, falling.target, "quadruped", config)
    monkeypatch.setattr(diagnosis, "compare", lambda *others: [])
    with pytest.warns(UserWarning, match=WARNING):
        diagnosis.diagnose(falling.source, falling.target, "quadruped")
    with warnings.catch_warnings(record=True) as told:  # it uses no row of the robot's
        only = dataclasses.replace(config, alignment="source_only")
        train(tmp_path / "only", falling.source, falling.target, "quadruped", only)
    assert not any("failure" in str(warning.message) for warning in told)


def test_an_ordinary_recording_is_not_told_of(data: Data) -> None:
    robot = load_robot("furuta")
    datasets = open_domains(robot, {"target": data.target})
    rows = {"target": read_whole(robot, "target", datasets["target"])}
    assert open_dataset(data.target).metadata.controllers == {"excite": 900}
    with warnings.catch_warnings():  # around the call alone: others' warnings may come when their fixtures end
        warnings.simplefilter("error")
        warn_of_failures(datasets, rows, load_task(robot))
