from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from landbridge.episode import DatasetMetadata, Episode, now, open_dataset, write_dataset
from landbridge.errors import InputError

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
    )


def test_round_trip_is_exact(tmp_path: Path) -> None:
    episodes = [episode(3, 0), episode(1, 1), episode(5, 2)]
    written = write_dataset(tmp_path / "d", episodes, METADATA)
    assert (len(written), written.transitions, written.metadata) == (3, 9, METADATA)
    for before, after in zip(episodes, open_dataset(tmp_path / "d"), strict=True):
        for field in ("obs", "actions", "rewards", "terminated", "truncated", "stamps"):
            np.testing.assert_array_equal(getattr(before, field), getattr(after, field))


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


def test_arrays_of_unequal_length_are_refused() -> None:
    good = episode(3, 0)
    with pytest.raises(ValueError, match="3 actions"):
        Episode(good.obs[:-1], good.actions, good.rewards, good.terminated, good.truncated, good.stamps)
