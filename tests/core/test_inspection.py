"""One screen that says everything: each fact is looked up in what the bundle itself holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from landbridge.bundle import npz, read_bundle, write_bundle
from landbridge.cli import main
from landbridge.errors import InputError
from landbridge.inspection import inspect
from landbridge.manifest import Drift, Threshold
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge.simulation.calibrated import Calibration
from landbridge.simulation.collect import collect
from landbridge.training.agents.iql import IQLConfig
from landbridge.training.config import TrainConfig
from landbridge.training.train import train

VERSION_1 = Path(__file__).parent / "data" / "bundle_v1.zip"
WEIGHT = np.ones((8, 1), np.float32)


@pytest.fixture
def complete(tmp_path: Path, linear_bundle: Callable[..., Path]) -> Path:
    """A bundle with every optional part."""
    plain = read_bundle(linear_bundle(tmp_path / "plain", WEIGHT))
    drift = Drift(
        window=100,
        quantile=0.99,
        margin=1.25,
        heldout_ticks=600,
        mismatch=Threshold(floor=0.018, limit=0.0917),
        envelope=Threshold(floor=2.65, limit=4.25),
    )
    manifest = plain.manifest.model_copy(
        update={
            "drift": drift,
            "scores": {"success on severe": 0.9},
            "dataset_hashes": {"data/source": "ab" * 32},
            "provenance": {"commit": "cafe", "seed": "3"},
        }
    )
    quantiles = np.linspace(-2, 2, 5)[:, None] * np.ones(9)
    files = {name: plain.files[name] for name in ("policy.onnx", "golden.npz")}
    write_bundle(tmp_path / "b", manifest, plain.robot, {**files, "envelope.npz": npz(target_quantiles=quantiles)})
    (tmp_path / "b" / "model.sig").write_bytes(b"{}")
    return tmp_path / "b"


def test_everything_a_person_needs(complete: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(complete)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for fact in (
        read_bundle(complete).digest[:40],
        "version 3",
        "success on severe 0.9",
        "16, allowed difference 1e-05",
        "mismatch up to 0.0917 (floor 0.018), distance up to 4.25",
        "means of 100 ticks",
        "data/source (abababababab)",
        "commit cafe",
        "as it is installed here",
        "50 Hz, latency budget 10 ms",
        "effort x 0.1",
        "joint_vel.pendulum",
        "-1 .. 1",
    ):
        assert fact in shown, fact
    assert "checks it" in inspect(str(complete))["signature"]


def test_it_fits_on_one_screen(
    complete: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    main(["inspect", str(complete)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("robot", ["arm", "quadruped"])
def test_many_columns_are_shown_by_term(
    robot: str,
    tmp_path: Path,
    linear_bundle: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = load_robot(robot).spec
    names = Observer(spec).names
    plain = read_bundle(linear_bundle(tmp_path / "b", np.zeros((len(names), len(spec.actuated))), robot=robot))
    numbers = tuple(float(i) for i in range(len(names)))
    manifest = plain.manifest.model_copy(update={"obs_mean": numbers})
    files = {name: plain.files[name] for name in ("policy.onnx", "golden.npz")}
    quantiles = np.array([-9, -1, 0, 1, 9])[:, None] * np.arange(1.0, 1 + len(names) + len(spec.actuated))
    write_bundle(tmp_path / "c", manifest, plain.robot, {**files, "envelope.npz": npz(target_quantiles=quantiles)})
    monkeypatch.setenv("COLUMNS", "120")
    main(["inspect", str(tmp_path / "c")])
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) <= 40
    count = len(spec.joints)
    assert f"joint_pos ({count} columns) 0 .. {count - 1} 1 -{count} .. {count}" in " ".join(shown.split())


def test_an_old_bundle_says_that_it_was_migrated_and_has_no_monitors() -> None:
    shown = inspect(str(VERSION_1))
    assert shown["schema"] == "version 1, read as 3"
    assert shown["signature"] == "none"
    assert shown["live monitors"].startswith("none")
    assert list(shown["normaliser"][0]) == ["observation", "mean", "std"]


def test_another_robot_yaml_is_pointed_out(tmp_path: Path, complete: Path) -> None:
    bundle = read_bundle(complete)
    robot = bundle.robot.model_copy(update={"latency_budget_ms": 12.0})
    manifest = bundle.manifest.model_copy(update={"robot_hash": robot.digest()})
    files = {name: bundle.files[name] for name in ("policy.onnx", "golden.npz", "envelope.npz")}
    write_bundle(tmp_path / "changed", manifest, robot, files)
    assert inspect(str(tmp_path / "changed"))["robot"].endswith("NOT as it is installed here")


def test_a_dataset_a_run_and_what_is_left_of_a_bag_say_what_reads_them(tmp_path: Path) -> None:
    data, runs = tmp_path / "data", tmp_path / "runs"
    collect(data, steps=100, batch=1)
    config = TrainConfig(alignment="source_only", steps=2, rows=16, iql=IQLConfig(hidden=(8,)))
    train(runs, data, config=config, seeds=(3, 4))
    assert inspect(str(data))["read by"].startswith("diagnose, train --source")
    for place, steps in {runs: "2 of seed 3, 2 of seed 4", runs / "seed4": "2 of seed 4"}.items():
        shown = inspect(str(place))
        assert (shown["policy"], shown["robot"]) == ("iql with source_only", "furuta")
        assert shown["steps"] == f"{steps}; 2 were asked for"
        assert shown["trained on"].startswith(f"{data} (")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "cut_0.mcap").touch()
    assert "repair makes it whole" in inspect(str(tmp_path / "cut"))["cut off"]


def test_a_bag_shows_its_topics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    topics = [{"topic_metadata": {"name": "/joint_states", "type": "sensor_msgs/msg/JointState"}, "message_count": 7}]
    held = {"duration": {"nanoseconds": 1500000000}, "message_count": 7, "topics_with_message_count": topics}
    held["custom_data"] = {"robot": "furuta"}
    (tmp_path / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": held}))
    (tmp_path / "b_0.mcap").touch()
    for place in (tmp_path, tmp_path / "b_0.mcap"):
        shown = inspect(str(place))
        assert (shown["seconds"], shown["messages"], shown["topics"][0]["topic"]) == (1.5, 7, "/joint_states")
        assert shown["robot"] == "furuta"
    assert main(["inspect", str(tmp_path)]) == 0
    assert "sensor_msgs/msg/JointState" in capsys.readouterr().out
    (tmp_path / "metadata.yaml").write_text("rosbag2_bagfile_information: {}")
    with pytest.raises(InputError, match=r"metadata\.yaml: not the metadata of a bag: 'topics_with_message_count'"):
        inspect(str(tmp_path))


def test_a_calibration_shows_its_parameters_and_other_things_are_named(
    tmp_path: Path, calibration: Callable[..., Calibration]
) -> None:
    calibration(latency_ms=26.0).write(file := tmp_path / "calibration.yaml")
    named = tmp_path / "of_tuesday.yaml"
    named.write_bytes(file.read_bytes())
    for place in (tmp_path, file, named):
        assert inspect(str(place))["parameters"][0]["parameter"] == "latency_ms"
    (tmp_path / "shaking.yaml").write_text("frequencies_hz: [0.5]\n")
    assert inspect(str(tmp_path / "shaking.yaml"))["read by"] == "record --excitation"
    (tmp_path / "notes.yaml").write_text("of: tuesday\n")
    with pytest.raises(InputError, match="nothing that landbridge would have written"):
        inspect(str(tmp_path / "notes.yaml"))
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").touch()
    assert inspect(str(tmp_path / "sweep"))["read by"].startswith("sweep with the same --out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="nothing that landbridge would have written"):
        inspect(str(tmp_path / "empty"))
    (tmp_path / "several" / "one").mkdir(parents=True)
    file.rename(tmp_path / "several" / "one" / file.name)
    with pytest.raises(InputError, match="name what it holds: one"):
        inspect(str(tmp_path / "several"))
