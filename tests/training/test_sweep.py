"""A sweep whose worker is killed finds what an undisturbed one finds."""

from __future__ import annotations

import csv
import json
import signal
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil
import pytest

from landbridge.cli import main
from landbridge.errors import InputError
from landbridge.training.config import TrainConfig
from landbridge.training.log import last_step
from landbridge.training.run import NEEDED
from landbridge.training.sweep import sweep
from landbridge.training.trial import Trial

from .conftest import Data

OPTIONS = ("agent=bc", "alignment=target_only", "bc.lr=0.001,0.01", "bc.hidden=16", "rows=16", "steps=768")


def kill_the_worker_of(run: Path) -> None:
    """SIGKILL to whoever trains `run`, in the middle of it."""
    pause = threading.Event()
    while last_step(run) == 0:
        pause.wait(0.01)
    for process in psutil.Process().children(recursive=True):
        try:
            if any(file.path == str(run / "metrics.csv") for file in process.open_files()):
                process.send_signal(signal.SIGKILL)
                return
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    raise AssertionError(f"nobody trains {run}")


def test_a_killed_worker_changes_nothing(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sweep", "--target", str(data.target), "--options", *OPTIONS, "--seeds", "0"]
    arguments += ["--scenarios", "none", "--episodes", "2", "--json", "--out"]
    cut = tmp_path / "cut" / "bc.lr=0.01_seed=0"
    killed: list[bool] = []

    def kill() -> None:
        kill_the_worker_of(cut)
        killed.append(not (cut / "diagnostics.json").exists())

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    assert main([*arguments, str(tmp_path / "cut")]) == 0
    thread.join()
    assert killed == [True]
    figures = json.loads(capsys.readouterr().out)
    assert (figures["trials"], figures["failed"]) == ("2 of 2", [])
    assert [row["setting"] for row in figures["settings"]] == ["bc.lr=0.001", "bc.lr=0.01"]
    table = (tmp_path / "cut/sweep.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert [[*row.values()][:5] for row in rows] == [[rate, "0", "bullet", "none", "2"] for rate in ("0.001", "0.01")]
    assert rows[0]["return"] != rows[1]["return"]

    def undisturbed(trials: list[Trial], retries: int) -> Generator[list[Trial]]:
        assert [trial.work() for trial in trials] == [0] * len(trials)
        yield trials

    monkeypatch.setattr("landbridge.training.sweep.here", undisturbed)
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    assert (tmp_path / "whole/sweep.csv").read_text() == table
    # The same again has nothing to do; another scenario is scored without training anew
    before = (cut / "checkpoint.pt").stat().st_mtime_ns
    monkeypatch.setattr("landbridge.training.trial.train", None)
    arguments.insert(arguments.index("none") + 1, "severe")
    assert main([*arguments, str(tmp_path / "cut")]) == 0
    assert (cut / "checkpoint.pt").stat().st_mtime_ns == before
    assert (tmp_path / "cut/sweep.csv").read_text().count("\n") == 5
    # Without that scenario its lines stay
    arguments.remove("severe")
    assert main([*arguments, str(tmp_path / "cut")]) == 0
    both = [(row["bc.lr"], row["scenario"]) for row in csv.DictReader((tmp_path / "cut/sweep.csv").open())]
    assert sorted(both) == [(rate, scenario) for rate in ("0.001", "0.01") for scenario in ("none", "severe")]


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, data: Data) -> None:
    settings = {"target": str(data.target), "seeds": (0,), "episodes": 2}
    for options, message in (
        (("alignment",), "--options: 'alignment'. write NAME=VALUE"),
        (("rows=8", "rows=16"), "once for each name"),
        (("seed=1",), "seeds go to --seeds"),
        (("alignment=target_only,none",), "needs a source dataset"),
        (("alignment=target_only", "cql.alpha=1,5"), "--options: cql.alpha is of no use to any setting. those of iql"),
    ):
        with pytest.raises(InputError, match=message):
            sweep(tmp_path / "new", options=options, **settings)  # type: ignore[arg-type]
    with pytest.raises(SystemExit, match="2"):
        sweep(tmp_path / "new", options=("no_such=1",), **settings)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no such target dataset"):
        sweep(tmp_path / "new", target=str(tmp_path / "{seed}"), options=("alignment=target_only",), seeds=(3,))
    for given, message in (
        ({"seeds": (0, 1, 0)}, "--seeds: names 0 twice"),
        ({"scenarios": ("none", "none")}, "--scenarios: names none twice"),
        ({"gpus": 0.5}, "--gpus: 0.5 without --address"),
        ({"gpus": -1.0}, "--gpus: is -1. give 0 or more"),
        ({"gpus": 1.5, "address": "here"}, "--gpus: is 1.5. give a share of one, or a whole number"),
        ({"retries": -1}, "--retries: is -1. give 0 or more"),
    ):
        with pytest.raises(InputError, match=message):
            sweep(tmp_path / "new", options=("alignment=target_only",), **(settings | given))  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_a_folder_of_another_sweep_is_refused(tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("landbridge.training.sweep.here", lambda *_: (each for each in []))
    sweep(tmp_path / "one", target=str(data.target), options=("alignment=target_only",), seeds=(0,))
    with pytest.raises(InputError, match="is a sweep of another options"):
        sweep(tmp_path / "one", target=str(data.target), options=("alignment=target_only", "rows=8"), seeds=(0,))
    with pytest.raises(InputError, match="already exists, and is no sweep"):
        sweep(data.source, target=str(data.target), options=("alignment=target_only",), seeds=(0,))


def test_what_was_made_of_other_data_or_by_another_configuration_is_not_taken_for_the_same(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("landbridge.training.sweep.here", lambda *_: (each for each in []))

    def again(**changed: Any) -> None:
        sweep(
            tmp_path / "one", target=str(data.target), options=("alignment=target_only",), **{"seeds": (0,)} | changed
        )

    again()
    again(seeds=(1,), scenarios=("none",))  # more of the same
    run = tmp_path / "one" / "seed=0"
    run.mkdir()
    (run / "config.json").write_text(
        json.dumps(dict.fromkeys(NEEDED) | {"train": TrainConfig(alignment="target_only", rows=7).to_json()})
    )
    with pytest.raises(InputError, match="was trained with another rows"):
        again()
    plan = tmp_path / "one" / "sweep.json"
    content = json.loads(plan.read_text())
    assert set(content["scenarios"]) == {"none", "severe"}
    content["datasets"] = dict.fromkeys(content["datasets"], "yesterday")
    plan.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"is a sweep of another {data.target.resolve()}"):
        again()


def test_a_ray_cluster_does_the_same(tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: extra [sweep]")
    begin = ray.init

    def begun(*arguments: object, **options: object) -> None:
        """A cluster of this machine, small."""
        try:
            begin(*arguments, **options, num_cpus=1, object_store_memory=100 * 2**20, include_dashboard=False)
        except Exception as error:
            if "timed out during startup" in str(error):
                pytest.skip("this machine is too busy for Ray, which gives its own start 30 s")
            raise

    monkeypatch.setattr(ray, "init", begun)
    thread = threading.Thread(target=kill_the_worker_of, args=(tmp_path / "ray" / "seed=0",), daemon=True)
    thread.start()
    settings = {"target": str(data.target), "seeds": (0,), "episodes": 2, "scenarios": ("none",)}
    options = tuple(option for option in OPTIONS if "," not in option)
    figures = sweep(tmp_path / "ray", options=options, address="local", **settings)  # type: ignore[arg-type]
    thread.join()
    assert (figures["trials"], figures["failed"]) == ("1 of 1", [])
