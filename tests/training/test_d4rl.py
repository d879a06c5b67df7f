from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from landbridge.episode import open_dataset
from landbridge.errors import InputError
from landbridge.training.d4rl import read_d4rl
from landbridge.training.ingest import ingest


def rows(count: int = 7, obs: int = 2, action: int = 1) -> dict[str, np.ndarray]:
    """Row i observes (i, i, ...) and leads to i + 1."""
    values = np.arange(count, dtype=np.float64)
    return {
        "observations": np.repeat(values[:, None], obs, 1),
        "next_observations": np.repeat(values[:, None] + 1, obs, 1),
        "actions": np.zeros((count, action)),
        "rewards": values * 10,
        "terminals": np.zeros(count, bool),
        "timeouts": np.zeros(count, bool),
    }


def save(path: Path, data: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in data.items():
            file[name] = array
    return path


def test_seams_are_where_the_next_observation_does_not_continue(tmp_path: Path) -> None:
    data = rows()
    data["observations"][3:] += 100  # an unmarked seam after row 2
    data["next_observations"][3:] += 100
    data["terminals"][4] = True
    found = read_d4rl(save(tmp_path / "a.hdf5", data), 2, 1, 0.02)
    assert [len(episode) for episode in found.episodes] == [3, 2, 2]
    assert found.repairs == {"unmarked_seams": 1, "rows_dropped": 0, "terminals_dropped": 0, "actions_clipped": 0}
    assert found.episodes[0].obs[:, 0].tolist() == [0, 1, 2, 3]
    assert found.episodes[1].obs[:, 0].tolist() == [103, 104, 105]
    assert [bool(episode.terminated[-1]) for episode in found.episodes] == [False, True, False]
    assert [bool(episode.truncated[-1]) for episode in found.episodes] == [True, False, True]


def test_rows_of_another_width_are_no_seams(tmp_path: Path) -> None:
    data = rows()
    data["observations"] = 20 * data["observations"] + 0.123456789
    data["next_observations"] = (20 * data["next_observations"] + 0.123456789).astype(np.float32)
    assert np.abs(data["next_observations"][:-1] - data["observations"][1:]).max() > 1e-6
    data["timeouts"][-1] = True
    assert [len(episode) for episode in read_d4rl(save(tmp_path / "a.hdf5", data), 2, 1, 0.02).episodes] == [7]


def test_without_stored_next_observations_the_last_row_of_an_episode_goes(tmp_path: Path) -> None:
    data = rows()
    del data["next_observations"]
    data["timeouts"][2] = data["terminals"][4] = True
    with pytest.warns(UserWarning, match=r"a\.hdf5: 1 rows end an episode by failure, and are dropped"):
        found = read_d4rl(save(tmp_path / "a.hdf5", data), 2, 1, 0.02)
    assert [episode.obs[:, 0].tolist() for episode in found.episodes] == [[0, 1, 2], [3, 4], [5, 6]]
    assert (found.repairs["rows_dropped"], found.repairs["terminals_dropped"]) == (3, 1)
    assert not any(episode.terminated.any() for episode in found.episodes)


def test_a_file_in_which_nothing_tells_where_time_ran_out_is_refused(tmp_path: Path) -> None:
    """Rows of two episodes would become a transition."""
    data = rows()
    del data["next_observations"], data["timeouts"]
    with pytest.raises(InputError, match="has neither next_observations nor timeouts"):
        read_d4rl(save(tmp_path / "a.hdf5", data), 2, 1, 0.02)


def test_a_file_without_a_transition_is_refused(tmp_path: Path) -> None:
    data = rows(1)
    del data["next_observations"]
    with pytest.raises(InputError, match=r"holds no transition: nothing says what followed its 1 rows"):
        read_d4rl(save(tmp_path / "a.hdf5", data), 2, 1, 0.02)


def test_an_array_of_words_is_refused(tmp_path: Path) -> None:
    data = rows() | {"rewards": np.array(["much"] * 7, h5py.string_dtype())}
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        read_d4rl(save(tmp_path / "a.hdf5", data), 2, 1, 0.02)


def test_vectors_may_be_columns(tmp_path: Path) -> None:
    data = rows()
    data["terminals"][4] = True
    columns = data | {name: data[name][:, None] for name in ("rewards", "terminals", "timeouts")}
    flat, found = (read_d4rl(save(tmp_path / f"{i}.hdf5", d), 2, 1, 0.02) for i, d in enumerate((data, columns)))
    assert found.repairs == flat.repairs and len(found.episodes) == len(flat.episodes) == 2
    for a, b in zip(found.episodes, flat.episodes, strict=True):
        np.testing.assert_array_equal(a.rewards, b.rewards)
        np.testing.assert_array_equal(a.terminated, b.terminated)


@pytest.mark.parametrize("name", ["observations", "next_observations", "actions", "rewards"])
def test_nan_and_inf_are_refused_with_their_rows(tmp_path: Path, name: str) -> None:
    data = rows()
    data[name][2], data[name][5] = np.nan, -np.inf
    with pytest.raises(InputError, match=rf"{name} has NaN or Inf in 2 rows, first \[2, 5\]"):
        read_d4rl(save(tmp_path / "a.hdf5", data), 2, 1, 0.02)


def test_files_of_another_layout_or_robot_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do not fit sizes 8 and 1"):
        read_d4rl(save(tmp_path / "a.hdf5", rows()), 8, 1, 0.02)
    with pytest.raises(InputError, match=r"has no \['observations'"):
        read_d4rl(save(tmp_path / "b.hdf5", {"x": np.zeros(3)}), 2, 1, 0.02)
    with pytest.raises(InputError, match="arrays of lengths"):
        read_d4rl(save(tmp_path / "c.hdf5", rows() | {"rewards": np.zeros(3)}), 2, 1, 0.02)
    with pytest.raises(InputError, match="has no rows"):
        read_d4rl(save(tmp_path / "d.hdf5", rows(0)), 2, 1, 0.02)
    with pytest.raises(InputError, match=r"rewards has shape \(7, 2\), not \(7,\)"):
        read_d4rl(save(tmp_path / "f.hdf5", rows() | {"rewards": np.zeros((7, 2))}), 2, 1, 0.02)
    grouped = rows()
    grouped["rewards/x"] = grouped.pop("rewards")
    with pytest.raises(InputError, match=r"\['rewards'\] are groups or single values"):
        read_d4rl(save(tmp_path / "g.hdf5", grouped), 2, 1, 0.02)
    (tmp_path / "e.hdf5").write_bytes(b"not hdf5")
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        read_d4rl(tmp_path / "e.hdf5", 2, 1, 0.02)


def test_actions_in_another_unit_are_refused_and_many_beyond_the_range_told_of(tmp_path: Path) -> None:
    data = rows()
    data["actions"][:] = np.array([[57.3], [-20.0], [3.0], [-90.0], [0.5], [0.1], [-0.2]])
    with pytest.raises(
        InputError, match=r"4 of 7 rows have an action beyond \[-1, 1\], up to 90\. an action is a share"
    ):
        read_d4rl(save(tmp_path / "deg.hdf5", data), 2, 1, 0.02)
    data["actions"][:] = np.clip(data["actions"], -1, 1)
    data["actions"][3] = -1.25
    with pytest.warns(
        UserWarning, match=r"few.hdf5: 1 of 7 rows have an action beyond \[-1, 1\], up to 1\.25: clipped"
    ):
        found = read_d4rl(save(tmp_path / "few.hdf5", data), 2, 1, 0.02)
    assert found.repairs["actions_clipped"] == 1
    assert np.concatenate([e.actions for e in found.episodes])[3, 0] == -1


def test_ingest_writes_a_source_dataset(tmp_path: Path) -> None:
    data = rows(obs=8)
    data["actions"][1] = 1.5
    with pytest.warns(UserWarning, match=r"1 of 7 rows .* up to 1\.5: clipped") as warned:
        figures = ingest((save(tmp_path / "a.hdf5", data),), tmp_path / "data")
    labels = "100.0% of its rewards and 85.7% of its ends are not those of task 'swing_up'"
    assert any(labels in str(warning.message) for warning in warned)
    assert figures["transitions"] == 7
    assert figures["recordings"][0]["actions_clipped"] == 1
    dataset = open_dataset(tmp_path / "data")
    assert (dataset.metadata.domain, dataset.metadata.engine) == ("source", "d4rl")
    (episode,) = dataset
    assert episode.rewards.tolist() == [0, 10, 20, 30, 40, 50, 60]
    assert episode.actions[1, 0] == 1.0
