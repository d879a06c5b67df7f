from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from landbridge.bundle import SUMS, Bundle, Manifest, npz, read_bundle, write_bundle
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import RobotSpec, load_robot


@pytest.fixture
def robot() -> RobotSpec:
    return load_robot("furuta").spec


def write(path: Path, robot: RobotSpec) -> Bundle:
    size = Observer(robot).size
    manifest = Manifest.of(
        robot,
        task="swing_up",
        task_hash="0" * 64,
        agent="iql",
        alignment="tabb",
        dataset_hashes={},
        config={"gamma": 0.99},
        obs_mean=(1 / 3,) * size,
        obs_std=(1.0,) * size,
        golden_tolerance=1e-5,
        scores={},
        provenance={},
    )
    files = {
        "policy.onnx": b"graph",
        "golden.npz": npz(obs=np.zeros((2, size)), action=np.ones((2, 1))),
        "envelope.npz": npz(mean=np.zeros(size)),
    }
    return write_bundle(path, manifest, robot, files)


@pytest.mark.parametrize("name", ["policy", "policy.zip"])
def test_round_trip_keeps_every_byte_and_full_precision(tmp_path: Path, robot: RobotSpec, name: str) -> None:
    written = write(tmp_path / name, robot)
    read = read_bundle(tmp_path / name)
    assert read.files == written.files
    assert read.digest == written.digest
    assert read.manifest.obs_mean[0] == 1 / 3
    assert read.robot == robot
    np.testing.assert_array_equal(read.arrays("golden.npz")["action"], np.ones((2, 1)))
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_any_flipped_byte_of_any_file_is_refused(tmp_path: Path, robot: RobotSpec) -> None:
    files = write(tmp_path / "b", robot).files
    for name, content in files.items():
        at = len(content) // 2
        (tmp_path / "b" / name).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(InputError):
            read_bundle(tmp_path / "b")
        (tmp_path / "b" / name).write_bytes(content)
    assert read_bundle(tmp_path / "b").files == files


@pytest.mark.parametrize("name", ["policy.onnx", "golden.npz", SUMS])
def test_a_missing_file_is_named(tmp_path: Path, robot: RobotSpec, name: str) -> None:
    write(tmp_path / "b", robot)
    (tmp_path / "b" / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        read_bundle(tmp_path / "b")


def test_an_unlisted_file_is_refused(tmp_path: Path, robot: RobotSpec) -> None:
    write(tmp_path / "b", robot)
    (tmp_path / "b" / "extra.bin").write_bytes(b"x")
    with pytest.raises(InputError, match=r"extra\.bin"):
        read_bundle(tmp_path / "b")


def test_a_truncated_zip_and_a_stranger_are_refused(tmp_path: Path, robot: RobotSpec) -> None:
    write(tmp_path / "b.zip", robot)
    whole = (tmp_path / "b.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError):  # golden.npz inside is itself a zip: the reader may find that one
        read_bundle(tmp_path / "cut.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match="is missing"):
        read_bundle(tmp_path / "other.zip")
    with pytest.raises(InputError, match="not a bundle"):
        read_bundle(tmp_path / "absent")


def test_nothing_is_overwritten(tmp_path: Path, robot: RobotSpec) -> None:
    write(tmp_path / "b", robot)
    with pytest.raises(InputError, match="already exists"):
        write(tmp_path / "b", robot)


def test_a_changed_robot_is_refused(tmp_path: Path, robot: RobotSpec) -> None:
    bundle = write(tmp_path / "b", robot)
    bundle.require_robot(robot)
    with pytest.raises(InputError, match="has changed since export"):
        bundle.require_robot(robot.model_copy(update={"control_rate_hz": 51.0}))
    with pytest.raises(InputError, match="bundle is for robot 'furuta'"):
        bundle.require_robot(robot.model_copy(update={"name": "arm"}))
    swapped = robot.model_copy(update={"joints": robot.joints[::-1]})
    with pytest.raises(InputError, match="bundle has joints"):
        bundle.require_robot(swapped)
