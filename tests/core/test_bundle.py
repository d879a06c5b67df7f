from __future__ import annotations

import errno
import hashlib
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from landbridge.bundle import SUMS, Bundle, npz, read_bundle, write_bundle
from landbridge.errors import InputError
from landbridge.manifest import SCHEMA_VERSION, Manifest
from landbridge.observation import Observer
from landbridge.robot import RobotSpec, load_robot

DRIFT = {
    "window": 100,
    "quantile": 0.99,
    "margin": 1.75,
    "heldout_ticks": 600,
    "mismatch": None,
    "envelope": {"floor": 1.0, "limit": 2.0},
}
VERSION_1 = Path(__file__).parent / "data" / "bundle_v1.zip"  # of commit e32a3cd, by `linear_bundle` of conftest.py


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


@pytest.mark.parametrize("end", [b"\r\n", b"\x0b", b"\x1c"])
def test_sums_with_other_line_ends_are_refused(tmp_path: Path, robot: RobotSpec, end: bytes) -> None:
    """They would list the same files, and give the bundle another name."""
    sums = write(tmp_path / "b", robot).files[SUMS]
    (tmp_path / "b" / SUMS).write_bytes(sums.replace(b"\n", end, 1))
    with pytest.raises(InputError, match=f"{SUMS}: is not as it was written"):
        read_bundle(tmp_path / "b")


@pytest.mark.parametrize("name", ["policy.onnx", "golden.npz", SUMS])
def test_a_missing_file_is_named(tmp_path: Path, robot: RobotSpec, name: str) -> None:
    write(tmp_path / "b", robot)
    (tmp_path / "b" / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        read_bundle(tmp_path / "b")


@pytest.mark.parametrize("name", ["nowhere", "folder", "nowhere.zip"])
def test_what_is_no_bundle_at_all_is_called_that(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=rf"{name}: is no bundle(: No such file or directory)?\. name the output of"):
        read_bundle(tmp_path / name)


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
    with pytest.raises(InputError, match=r"other\.zip: is no bundle"):
        read_bundle(tmp_path / "other.zip")
    with pytest.raises(InputError, match="is no bundle"):
        read_bundle(tmp_path / "absent")


def test_nothing_is_overwritten(tmp_path: Path, robot: RobotSpec) -> None:
    write(tmp_path / "b", robot)
    with pytest.raises(InputError, match="already exists"):
        write(tmp_path / "b", robot)


@pytest.mark.parametrize("name", ["b", "b.zip"])
def test_a_full_disk_is_named_and_leaves_nothing(
    tmp_path: Path, robot: RobotSpec, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # of a write, which names no file

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(InputError, match=rf"{name}: cannot be written: No space left on device\. free space"):
        write(tmp_path / name, robot)
    assert list(tmp_path.iterdir()) == []


def test_a_changed_robot_is_refused(tmp_path: Path, robot: RobotSpec) -> None:
    bundle = write(tmp_path / "b", robot)
    bundle.require_robot(robot)
    with pytest.raises(InputError, match="has changed since export"):
        bundle.require_robot(robot.model_copy(update={"control_rate_hz": 51.0}))
    with pytest.raises(InputError, match=r"for robot 'furuta', this is 'arm'\. add --robot furuta, or export"):
        bundle.require_robot(robot.model_copy(update={"name": "arm"}))
    swapped = robot.model_copy(update={"joints": robot.joints[::-1]})
    with pytest.raises(InputError, match="bundle has joints"):
        bundle.require_robot(swapped)


def rewrite_manifest(path: Path, **changed: object) -> None:
    """Change a bundle's manifest and make its checksums agree, as no tool of ours does."""
    manifest = json.loads((path / "manifest.json").read_text()) | changed
    content = json.dumps(manifest).encode()
    old = hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
    (path / "manifest.json").write_bytes(content)
    sums = (path / SUMS).read_text().replace(old, hashlib.sha256(content).hexdigest())
    (path / SUMS).write_text(sums)


def test_a_bundle_whose_observation_this_version_builds_otherwise_is_refused(tmp_path: Path, robot: RobotSpec) -> None:
    """Its policy would read one column for another."""
    names = Observer(robot).names
    write(tmp_path / "b", robot)
    rewrite_manifest(tmp_path / "b", observation=[names[1], names[0], *names[2:]])
    with pytest.raises(InputError, match="is not what this version builds"):
        read_bundle(tmp_path / "b")


def test_a_bundle_of_version_1_is_migrated_in_memory_only(robot: RobotSpec) -> None:
    before = VERSION_1.read_bytes()
    bundle = read_bundle(VERSION_1)
    assert json.loads(bundle.files["manifest.json"])["schema_version"] == 1
    assert bundle.manifest.schema_version == SCHEMA_VERSION
    assert bundle.manifest.drift is None
    assert bundle.manifest.state == {}
    assert (bundle.manifest.robot, bundle.manifest.golden_tolerance) == ("furuta", 1e-5)
    assert bundle.robot.name == robot.name
    assert set(bundle.arrays("golden.npz")) == {"obs", "action"}
    assert VERSION_1.read_bytes() == before


@pytest.mark.parametrize("version", [0, 4, "2", None, 1.5])
def test_an_unknown_schema_version_is_named_with_the_remedy(tmp_path: Path, robot: RobotSpec, version: object) -> None:
    write(tmp_path / "b", robot)
    rewrite_manifest(tmp_path / "b", schema_version=version)
    with pytest.raises(InputError, match=rf"manifest\.json: schema_version: {version!r}, .* reads 1 to 3.*update"):
        read_bundle(tmp_path / "b")


def test_a_bad_field_is_named_with_its_value(tmp_path: Path, robot: RobotSpec) -> None:
    write(tmp_path / "b", robot)
    rewrite_manifest(tmp_path / "b", golden_tolerance="much")
    with pytest.raises(InputError, match=r"manifest\.json: golden_tolerance: .*\(got 'much'\)"):
        read_bundle(tmp_path / "b")
    rewrite_manifest(tmp_path / "b", golden_tolerance=1e-5, colour="blue")
    with pytest.raises(InputError, match=r"manifest\.json: colour: .*\(got 'blue'\)"):
        read_bundle(tmp_path / "b")


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"golden_tolerance": 0.02}, r"golden_tolerance: .*less than or equal to 0\.01 \(got 0\.02\)"),
        ({"golden_tolerance": float("inf")}, r"golden_tolerance: .*finite"),
        ({"golden_tolerance": 0.0}, r"golden_tolerance: .*greater than 0"),
        ({"control_rate_hz": 500.0}, r"control_rate_hz: is 500, robot\.yaml has 50"),
        ({"obs_mean": [0.0]}, "obs_mean: has 1 values, the observation 8"),
        ({"obs_std": [1.0] * 9}, "obs_std: has 9 values, the observation 8"),
        ({"drift": DRIFT | {"window": 0}}, r"drift\.window: .*greater than 0"),
        ({"drift": DRIFT | {"envelope": {"floor": 1.0, "limit": float("inf")}}}, r"envelope\.limit: .*finite"),
    ],
)
def test_a_manifest_that_would_hide_something_is_refused(
    tmp_path: Path, robot: RobotSpec, changed: dict[str, object], match: str
) -> None:
    write(tmp_path / "b", robot)
    rewrite_manifest(tmp_path / "b", **changed)
    with pytest.raises(InputError, match=rf"manifest\.json: .*{match}"):
        read_bundle(tmp_path / "b")


def test_an_array_that_is_not_there_or_none_at_all_is_named(tmp_path: Path, robot: RobotSpec) -> None:
    bundle = write(tmp_path / "b", robot)
    with pytest.raises(InputError, match=r"golden\.npz: has no 'state', only \['action', 'obs'\]"):
        bundle.arrays("golden.npz")["state"]
    for content in (b"", b"noise", bundle.files["golden.npz"][:200]):
        with pytest.raises(InputError, match=r"golden\.npz: is no \.npz file"):
            replace(bundle, files={"golden.npz": content}).arrays("golden.npz")


def test_zips_that_cannot_be_unpacked_are_refused(tmp_path: Path, robot: RobotSpec) -> None:
    files = write(tmp_path / "b", robot).files
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    packed = (tmp_path / "packed.zip").read_bytes()
    assert read_bundle(tmp_path / "packed.zip").files == files
    with zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("policy.onnx", bytes(1000))
    damaged = (tmp_path / "lzma.zip").read_bytes().replace(b"\x05\x00\x5d", b"\x05\x00\xff")
    (tmp_path / "broken.zip").write_bytes(damaged)
    with pytest.raises(InputError, match=r"broken\.zip: is no bundle"):
        read_bundle(tmp_path / "broken.zip")
    entry = packed.index(b"PK\x01\x02")  # of the first file in the directory: flags at 8, method at 10
    for at, value in ((8, 1), (10, 99), (100, 0xFF)):  # encrypted, an unknown method, not what was packed
        broken = bytearray(packed)
        broken[at + (entry if at < 100 else 0)] = value
        (tmp_path / "broken.zip").write_bytes(broken)
        with pytest.raises(InputError, match=r"broken\.zip: is no bundle"):
            read_bundle(tmp_path / "broken.zip")


def test_what_a_kill_has_left_is_replaced(tmp_path: Path, robot: RobotSpec) -> None:
    (tmp_path / "b.partial").mkdir()
    (tmp_path / "b.partial" / "policy.onnx").write_bytes(b"half")
    write(tmp_path / "b", robot)
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("evil", ["../evil", ".."])
def test_a_zip_that_would_write_elsewhere_is_refused(tmp_path: Path, robot: RobotSpec, evil: str) -> None:
    files = write(tmp_path / "b", robot).files
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for name, content in {**files, evil: b""}.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match=f"'{re.escape(evil)}' is not a plain file name"):
        read_bundle(tmp_path / "evil.zip")
