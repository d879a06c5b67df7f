"""Files: where they may be written, asked before anything is done for them; whole, or not there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from landbridge.errors import InputError
from landbridge.files import require_folder, require_new, write_atomic
from landbridge.page import write_page
from landbridge.robot import load_robot
from landbridge.simulation import tune
from landbridge.simulation.calibrated import Calibration

Full = Callable[[], AbstractContextManager[None]]


def test_a_new_place_leaves_no_trace_of_having_been_tried(tmp_path: Path) -> None:
    before = tmp_path.stat().st_mtime_ns
    require_new(tmp_path / "runs" / "first")
    require_folder(tmp_path)
    assert [*tmp_path.iterdir()] == []
    assert tmp_path.stat().st_mtime_ns == before


def test_what_is_there_already_or_where_nothing_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for path, problem in (
        (tmp_path / "file", "file: already exists"),
        (tmp_path / "link", "link: already exists"),
        (tmp_path / "file" / "run", "nothing can be made in .*file .Not a directory"),
        (Path("/proc/runs/first"), "/proc/runs: cannot be written: nothing can be made in /proc"),
    ):
        with pytest.raises(InputError, match=problem):
            require_new(path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, full_disk: Full) -> None:
    path = tmp_path / "a" / "b" / "file.yaml"
    with full_disk(), pytest.raises(InputError, match=r"file\.yaml: cannot be written: File too large\. free space"):
        write_atomic(path, 2000 * "x")
    assert list(tmp_path.iterdir()) == []  # nor are the folders that were made for it
    write_atomic(path, "old")
    with full_disk(), pytest.raises(InputError):
        write_atomic(path, 2000 * "x")
    assert path.read_text() == "old" and [*path.parent.iterdir()] == [path]


def test_calibrations_and_pages_name_the_file_that_a_full_disk_refuses(
    tmp_path: Path, full_disk: Full, calibration: Callable[..., Calibration]
) -> None:
    with full_disk(), pytest.raises(InputError, match=r"first/calibration\.yaml: cannot be written"):
        calibration(**{f"parameter {i}": 1.0 for i in range(9)}).write(tmp_path / "first" / "calibration.yaml")
    with full_disk(), pytest.raises(InputError, match=r"page\.html: cannot be written"):
        write_page(tmp_path / "page.html", "Page", ["<p>" + 2000 * "x"])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_parameters_that_were_there_before_tuning(
    tmp_path: Path, full_disk: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(load_robot("furuta").folder, tmp_path / "furuta")
    before = (folder / "behaviour.yaml").read_text()
    monkeypatch.setattr(tune, "search", lambda *_: ({f"p{i}": 1.0 for i in range(200)}, np.float64(0.0), 0.0))
    with full_disk(), pytest.raises(InputError, match=r"behaviour\.yaml: cannot be written"):
        tune.tune(str(folder), "tuned", ["none"])
    assert (folder / "behaviour.yaml").read_text() == before
