from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from minari.dataset.minari_storage import MinariStorage

from landbridge.bag import BagReader
from landbridge.episode import DatasetMetadata, Episode, open_dataset, write_dataset
from landbridge.errors import InputError
from landbridge.provenance import now

METADATA = DatasetMetadata(
    domain="source",
    robot="furuta",
    robot_hash="a",
    task="swing_up",
    task_hash="b",
    engine="mujoco",
    engine_version="3",
    scenario="none",
    controllers={"random": 7},
    control_rate_hz=50,
    measured_rate_hz=50,
    seed=1,
    commit="unknown",
    created=now(),
)


def episode(steps: int, seed: int) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        obs=rng.normal(size=(steps + 1, 8)).astype(np.float32),
        actions=rng.uniform(-1, 1, (steps, 1)).astype(np.float32),
        rewards=rng.normal(size=steps).astype(np.float32),
        terminated=np.arange(steps) == steps - 1,
        truncated=np.zeros(steps, bool),
        stamps=np.arange(steps + 1) * 0.02,
        written=rng.uniform(0.001, 0.002, steps),
    )


def test_round_trip_is_exact(tmp_path: Path) -> None:
    episodes = [episode(3, 0), episode(1, 1), episode(5, 2)]
    written = write_dataset(tmp_path / "d", episodes, METADATA)
    assert (len(written), written.transitions, written.metadata) == (3, 9, METADATA)
    for before, after in zip(episodes, open_dataset(tmp_path / "d"), strict=True):
        for field in ("obs", "actions", "rewards", "terminated", "truncated", "stamps"):
            np.testing.assert_array_equal(getattr(before, field), getattr(after, field))


def test_two_writers_do_not_mix_their_episodes(tmp_path: Path) -> None:
    """As when a `collect` that seems to hang is started again."""

    def slow() -> Iterator[Episode]:
        yield episode(3, 0)
        with pytest.raises(InputError, match=r"d: is being written by another process\. wait for it"):
            write_dataset(tmp_path / "d", [episode(1, 1)], METADATA)
        yield episode(5, 2)

    assert [len(each) for each in write_dataset(tmp_path / "d", slow(), METADATA)] == [3, 5]
    (tmp_path / "e.partial").mkdir()
    (tmp_path / "e.partial" / "main_data.hdf5").write_text("of a kill")
    assert [len(each) for each in write_dataset(tmp_path / "e", [episode(2, 3)], METADATA)] == [2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "e"]


def test_where_folders_have_no_locks_it_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_on_nfs(folder: int, operation: int) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("landbridge.episode.fcntl.flock", as_on_nfs)
    assert [len(each) for each in write_dataset(tmp_path / "d", [episode(2, 3)], METADATA)] == [2]


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: MinariStorage, episodes: object) -> None:
        raise RuntimeError(  # in the words of HDF5 on a full tmpfs; with a limit on file sizes HDF5 itself crashes
            "Disable slist on flush dest failure failed (file write failed: time = Fri Nov 27 11:53:52 2026\n"
            ", filename = 'd.partial/main_data.hdf5', file descriptor = 3, errno = 28, error message = "
            "'No space left on device', buf = 0x55dd25ad88d8, total write size = 9048, offset = 405504)"
        )

    monkeypatch.setattr("minari.dataset._storages.hdf5_storage.HDF5Storage.update_episodes", full)
    with pytest.raises(InputError, match=r"d: cannot be written: No space left on device\. free space"):
        write_dataset(tmp_path / "d", [episode(3, 0)], METADATA)
    assert list(tmp_path.iterdir()) == []


def test_hdf5_never_meets_a_limit_of_file_sizes(
    tmp_path: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    """It would end the process with a segmentation fault."""
    with full_disk(), pytest.raises(InputError, match=r"d: cannot be written: File too large"):
        write_dataset(tmp_path / "d", [episode(3, 0)], METADATA)
    assert list(tmp_path.iterdir()) == []


def test_hdf5_never_meets_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take the process with it. Space for one episode is there, and not for the second."""
    free = iter([2**21, 2**20])
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=next(free)))
    with pytest.raises(InputError, match=r"d: cannot be written: No space left on device\. free space"):
        write_dataset(tmp_path / "d", [episode(3, 0), episode(3, 1)], METADATA)
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_that_was_copied_in_part_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d", [episode(300, 0)], METADATA)
    file = tmp_path / "d/main_data.hdf5"
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(InputError, match=r"d: is damaged, or copied in part: .*truncated file.* copy it again"):
        open_dataset(tmp_path / "d")


def test_a_dataset_with_a_hole_is_refused_when_it_is_read(tmp_path: Path) -> None:
    """As a loss of power may leave it: the length is right."""
    write_dataset(tmp_path / "d", [episode(300, i) for i in range(8)], METADATA)
    file = tmp_path / "d/main_data.hdf5"
    whole = file.read_bytes()
    with h5py.File(file) as opened:  # only where the fourth episode begins
        start = h5py.h5o.get_info(opened["episode_3"].id).addr
    file.write_bytes(whole[:start] + bytes(64) + whole[start + 64 :])
    read = iter(open_dataset(tmp_path / "d"))
    for i in range(3):
        np.testing.assert_array_equal(next(read).obs, episode(300, i).obs)
    with pytest.raises(InputError, match=r"d: is damaged, or copied in part: .* copy it again"):
        next(read)


def test_another_version_and_another_projects_dataset_are_told_apart(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d", [episode(3, 0)], METADATA)
    path = tmp_path / "d/metadata.json"
    plain = json.loads(path.read_text())
    for ours, message in (
        (plain["landbridge"] | {"schema_version": 2}, "schema_version: 2, this landbridge reads 1"),
        (plain["landbridge"] | {"engine": 7}, r"metadata.json: engine: .*\(got 7\)"),
        (None, "a Minari dataset that landbridge did not write"),
    ):
        path.write_text(json.dumps(plain | {"landbridge": ours}))
        with pytest.raises(InputError, match=message):
            open_dataset(tmp_path / "d")


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Episode]:
        yield episode(3, 0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "d", interrupted(), METADATA)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_or_existing_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no episode"):
        write_dataset(tmp_path / "d", [], METADATA)
    write_dataset(tmp_path / "d", [episode(2, 0)], METADATA)
    with pytest.raises(InputError, match="already exists"):
        write_dataset(tmp_path / "d", [episode(2, 0)], METADATA)


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a readable Minari dataset"):
        open_dataset(tmp_path)
    write_dataset(tmp_path / "d", [episode(2, 0)], METADATA)
    with pytest.raises(InputError, match="it is a dataset: `train`"):
        BagReader(tmp_path / "d")


def test_arrays_of_unequal_length_are_refused() -> None:
    good = episode(3, 0)
    with pytest.raises(ValueError, match="3 actions"):
        replace(good, obs=good.obs[:-1])
