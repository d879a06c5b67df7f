"""The bundle: one verified artefact that carries a policy from the trainer to the robot.

A folder or one zip of

- `policy.onnx`: obs (1, n) in physical units -> action (1, m); the normaliser is inside the graph,
- `manifest.json`: the `Manifest`; an older schema version is migrated when it is read, never on disk,
- `robot.yaml`: the robot it was trained for,
- `golden.npz`: inputs `obs` and the outputs `action` they must give on every machine,
- `envelope.npz`: what the training data looked like; `training.export` says which arrays,
- `alignment.onnx`, optional: what the robot it was trained for would have done; see `deploy.drift`,
- `SHA256SUMS` of the above, and `model.sig`, optional: a signature over all of it (`landbridge.signature`).

Reading verifies every byte and keeps the verified bytes in memory, so nothing can change between check and use.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import RobotSpec, Spec, validated

SCHEMA_VERSION = 2
SUMS = "SHA256SUMS"
SIGNATURE = "model.sig"  # not listed in SHA256SUMS, which it signs
REQUIRED = ("policy.onnx", "manifest.json", "robot.yaml", "golden.npz", "envelope.npz", SUMS)
REMEDY = "export the bundle again and copy it whole"


class Threshold(Spec):
    """Limit of one score, from the robot's held-out data.

    Attributes:
        floor: Median of the score on single held-out ticks: the noise that a healthy robot has, too.
        limit: A mean over the window above it is an alarm.
    """

    floor: float
    limit: float


class Drift(Spec):
    """When the live monitors of `landbridge.deploy.drift` raise an alarm.

    limit = margin * (the `quantile` of the score's means over windows of held-out target rollouts), so on such data a
    window would be over limit / margin with a share of 1 - quantile, and over the limit more rarely.

    Attributes:
        window: Control ticks that a score is averaged over.
        heldout_ticks: Transitions that the limits are from.
        mismatch: Of the target Bellman mismatch; None without `alignment.onnx`.
        envelope: Of the Mahalanobis distance from the target data.
    """

    window: int
    quantile: float
    margin: float
    heldout_ticks: int
    mismatch: Threshold | None
    envelope: Threshold


class Manifest(Spec):
    """What a policy is, for a person and for the loader.

    Attributes:
        joints: All joints by name, in the order the observation was built with.
        actuated: Joints of the action vector, in order.
        observation: Names of the observation's scalars, in order.
        robot_hash: `RobotSpec.digest()` of the robot it was trained for.
        task_hash: `Task.digest()` of its reward.
        dataset_hashes: Digest of each dataset it was trained on, by path as given.
        config: The trainer's full configuration.
        obs_mean, obs_std: The normaliser inside `policy.onnx`, full precision.
        golden_tolerance: Largest |difference| allowed between golden and computed actions.
        scores: Figures known at export (for example success on a scenario), by name.
        provenance: Versions, commit, seed, creation time.
        drift: Limits of the live monitors; None without target data to set them by.
    """

    schema_version: Literal[2] = 2
    robot: str
    robot_hash: str
    task: str
    task_hash: str
    joints: tuple[str, ...]
    actuated: tuple[str, ...]
    observation: tuple[str, ...]
    control_rate_hz: float
    agent: str
    alignment: str
    dataset_hashes: dict[str, str]
    config: dict[str, Any]
    obs_mean: tuple[float, ...]
    obs_std: tuple[float, ...]
    golden_tolerance: float
    scores: dict[str, float]
    provenance: dict[str, str]
    drift: Drift | None = None

    @classmethod
    def of(cls, spec: RobotSpec, **others: Any) -> Manifest:
        """The manifest of a policy for the robot `spec`, whose facts are copied in; `others` are the other fields."""
        return cls(
            robot=spec.name,
            robot_hash=spec.digest(),
            joints=tuple(spec.joint_names),
            actuated=tuple(spec.actuated),
            observation=tuple(Observer(spec).names),
            control_rate_hz=spec.control_rate_hz,
            **others,
        )


@dataclass(frozen=True)
class Bundle:
    """A verified bundle in memory.

    Attributes:
        path: Where it was read from.
        files: Every file's bytes, by name.
        digest: SHA-256 of `SHA256SUMS`: names the bundle.
    """

    path: Path
    manifest: Manifest
    robot: RobotSpec
    files: Mapping[str, bytes]
    digest: str

    def arrays(self, name: str) -> dict[str, NDArray[np.float64]]:
        """The arrays of one `.npz` file."""
        with np.load(io.BytesIO(self.files[name]), allow_pickle=False) as data:
            return {key: data[key] for key in data.files}

    def require_robot(self, spec: RobotSpec) -> None:
        """Raise InputError unless the bundle was trained for exactly this robot."""
        if self.manifest.robot != spec.name:
            raise InputError(
                self.path,
                f"bundle is for robot {self.manifest.robot!r}, this is {spec.name!r}",
                "export one for this robot",
            )
        if list(self.manifest.joints) != spec.joint_names or list(self.manifest.actuated) != spec.actuated:
            raise InputError(
                self.path,
                f"bundle has joints {list(self.manifest.joints)}, robot has {spec.joint_names}",
                "export it again",
            )
        if self.manifest.robot_hash != spec.digest():
            raise InputError(
                self.path,
                f"robot {spec.name!r} has changed since export "
                f"(hash {spec.digest()[:12]}, bundle {self.manifest.robot_hash[:12]})",
                "export again with the present robot.yaml, or restore the old one",
            )


def npz(**arrays: NDArray[Any]) -> bytes:
    """The content of an `.npz` file with these arrays; `Bundle.arrays` reads it back."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def write_bundle(path: Path, manifest: Manifest, robot: RobotSpec, files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle to the new folder `path`, or to one zip if `path` ends in `.zip`; complete or not at all.

    Args:
        files: `policy.onnx`, `golden.npz`, `envelope.npz` and any optional file.

    Raises:
        InputError: `path` exists.
    """
    if path.exists():
        raise InputError(path, "already exists", "choose another --out or remove it")
    every = dict(files)
    every["manifest.json"] = (json.dumps(manifest.model_dump(), indent=2) + "\n").encode()
    every["robot.yaml"] = yaml.safe_dump(robot.model_dump(mode="json"), sort_keys=False).encode()
    every[SUMS] = "".join(f"{hashlib.sha256(every[n]).hexdigest()}  {n}\n" for n in sorted(every)).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_files(path, every)
    return read_bundle(path)


def add_file(bundle: Bundle, name: str, content: bytes) -> None:
    """Put one file that `SHA256SUMS` does not list into a bundle on disk, complete or not at all."""
    if bundle.path.is_dir():
        partial = bundle.path.with_name(bundle.path.name + ".partial")
        partial.write_bytes(content)
        partial.replace(bundle.path / name)
    else:
        _write_files(bundle.path, {**bundle.files, name: content})


def _write_files(path: Path, files: Mapping[str, bytes]) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        if path.suffix == ".zip" or path.is_file():
            with zipfile.ZipFile(partial, "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
        else:
            partial.mkdir()
            for name, content in files.items():
                (partial / name).write_bytes(content)
        partial.replace(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)


def read_bundle(path: Path) -> Bundle:
    """Read and verify a bundle: every file named, every byte as written, manifest and robot in agreement.

    Raises:
        InputError: Anything is missing, changed, unknown or contradictory.
    """
    files = _read_files(path)
    for name in REQUIRED:
        if name not in files:
            raise InputError(path, f"{name} is missing", REMEDY)
    _verify_sums(path, files)
    manifest = _manifest(path / "manifest.json", files["manifest.json"])
    try:
        plain = yaml.safe_load(files["robot.yaml"])
    except yaml.YAMLError as error:
        raise InputError(path / "robot.yaml", f"not YAML: {' '.join(str(error).split())}", REMEDY) from error
    robot = validated(RobotSpec, plain, path / "robot.yaml", REMEDY)
    bundle = Bundle(path, manifest, robot, files, hashlib.sha256(files[SUMS]).hexdigest())
    bundle.require_robot(robot)
    names = Observer(robot).names
    if list(manifest.observation) != names:
        raise InputError(
            path, f"observation {list(manifest.observation)} is not what this version builds: {names}", REMEDY
        )
    return bundle


def _manifest(where: Path, content: bytes) -> Manifest:
    """The manifest in its present form, whichever version wrote it."""
    try:
        plain = json.loads(content)
        version = plain["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(where, f"schema_version: cannot be read ({error!r:.100})", REMEDY) from error
    if version not in (*MIGRATIONS, SCHEMA_VERSION):
        raise InputError(
            where,
            f"schema_version: {version!r}, this landbridge reads {min(MIGRATIONS)} to {SCHEMA_VERSION}",
            "update landbridge on this machine, or export the bundle with this version",
        )
    while version != SCHEMA_VERSION:
        plain = MIGRATIONS[version](plain)
        version = plain["schema_version"]
    return validated(Manifest, plain, where, REMEDY)


def _from_version_1(plain: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had no drift thresholds, and its envelope describes observations without actions."""
    return {**plain, "schema_version": 2}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_version_1}


def _read_files(path: Path) -> dict[str, bytes]:
    try:
        if path.is_dir():
            return {p.name: p.read_bytes() for p in sorted(path.iterdir()) if p.is_file()}
        with zipfile.ZipFile(path) as archive:
            if nested := [name for name in archive.namelist() if PurePosixPath(name).name != name]:
                raise InputError(path, f"{nested[0]!r} is not a plain file name", REMEDY)
            return {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(
            path, f"not a bundle folder or zip: {error}", "name the output of `landbridge export`"
        ) from error


def _verify_sums(path: Path, files: Mapping[str, bytes]) -> None:
    listed: dict[str, str] = {}
    for line in files[SUMS].decode(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    if unlisted := sorted(set(files) - set(listed) - {SUMS, SIGNATURE}):
        raise InputError(path, f"files not listed in {SUMS}: {unlisted}", "remove them or export again")
    for name, digest in listed.items():
        if name not in files:
            raise InputError(path, f"{name} is missing", REMEDY)
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise InputError(path / name, f"does not match {SUMS}", REMEDY)
