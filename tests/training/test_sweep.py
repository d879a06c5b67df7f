"""A sweep whose worker is killed finds what an undisturbed one finds."""

from __future__ import annotations

import csv
import json
import signal
import threading
from pathlib import Path

import psutil
import pytest

from landbridge.cli import main
from landbridge.errors import InputError
from landbridge.training.log import last_step
from landbridge.training.sweep import sweep
from landbridge.training.trial import Trial

from .conftest import Data

OPTIONS = ("agent=bc", "alignment=target_only", "bc.lr=0.001,0.01", "bc.hidden=16", "rows=16", "steps=2560")


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

    thread = threading.Thread(target=kill)
    thread.start()
    assert main([*arguments, str(tmp_path / "cut")]) == 0
    thread.join()
    assert killed == [True]
    figures = json.loads(capsys.readouterr().out)
    assert (figures["trials"], figures["failed"]) == ("2 of 2", [])
    assert [row["setting"] for row in figures["settings"]] == ["bc.lr=0.001", "bc.lr=0.01"]
    table = (tmp_path / "cut/sweep.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert [(row["bc.lr"], row["seed"], row["scenario"]) for row in rows] == [
        ("0.001", "0", "none"),
        ("0.01", "0", "none"),
    ]
    assert rows[0]["return"] != rows[1]["return"]

    def here(trials: list[Trial], *_: object) -> list[dict[str, str]]:
        assert [trial.work() for trial in trials] == [""] * len(trials)
        return []

    monkeypatch.setattr("landbridge.training.sweep._run", here)
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    assert (tmp_path / "whole/sweep.csv").read_text() == table
    # The same again has nothing to do; another scenario is scored without training anew
    before = (cut / "checkpoint.pt").stat().st_mtime_ns
    monkeypatch.setattr("landbridge.training.trial.train", None)
    assert main([*arguments, str(tmp_path / "cut"), "--scenarios", "none", "severe"]) == 0
    assert (cut / "checkpoint.pt").stat().st_mtime_ns == before
    assert (tmp_path / "cut/sweep.csv").read_text().count("\n") == 5


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, data: Data) -> None:
    settings = {"target": str(data.target), "seeds": (0,), "episodes": 2}
    for options, message in (
        (("alignment",), "--options: 'alignment': write NAME=VALUE"),
        (("rows=8", "rows=16"), "once for each name"),
        (("seed=1",), "seeds go to --seeds"),
        (("alignment=target_only,none",), "needs a source dataset"),
    ):
        with pytest.raises(InputError, match=message):
            sweep(tmp_path / "new", options=options, **settings)  # type: ignore[arg-type]
    with pytest.raises(SystemExit, match="2"):
        sweep(tmp_path / "new", options=("no_such=1",), **settings)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not a readable Minari dataset"):
        sweep(tmp_path / "new", target=str(tmp_path / "{seed}"), options=("alignment=target_only",), seeds=(3,))
    assert not (tmp_path / "new").exists()


def test_a_folder_of_another_sweep_is_refused(tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("landbridge.training.sweep._run", lambda *_: [])
    sweep(tmp_path / "one", target=str(data.target), options=("alignment=target_only",), seeds=(0,))
    with pytest.raises(InputError, match="is a sweep of another options"):
        sweep(tmp_path / "one", target=str(data.target), options=("alignment=target_only", "rows=8"), seeds=(0,))
    with pytest.raises(InputError, match="already exists, and is no sweep"):
        sweep(data.source, target=str(data.target), options=("alignment=target_only",), seeds=(0,))
