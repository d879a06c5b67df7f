"""Where files may be written, asked before anything is done for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from landbridge.errors import InputError
from landbridge.spec import require_folder, require_new


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
