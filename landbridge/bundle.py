"""The bundle: one verified artefact that carries a policy from the trainer to the robot.

A folder or one zip of

- `policy.onnx`: obs (1, n) in physical units -> action (1, m); the normaliser is inside the graph; a recurrent policy
  also reads and answers what `Manifest.state` names,
- `manifest.json`: the `Manifest`; an older schema version is migrated when it is read, never on disk,
- `robot.yaml`: the robot it was trained for,
- `golden.npz`: inputs `obs` (N, n), or sequences (S, T, n) that begin without a past, and the outputs `action` in
  [-1, 1] that they must give on every machine,
- `envelope.npz`: what the training data looked like; `training.export` says which arrays,
- `alignment.onnx`, optional: what the robot it was trained for would have done; see `deploy.drift`,
- `SHA256SUMS` of the above, and `model.sig`, optional: a signature over all of it (`landbridge.signature`).

Reading verifies every byte and keeps the verified bytes in memory, so nothing can change between check and use.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.files import not_written, require_new
from landbridge.manifest import REMEDY, Manifest, parse_manifest
from landbridge.observation import Observer
from landbridge.robot import RobotSpec, option
from landbridge.spec import validated

SUMS = "SHA256SUMS"
SIGNATURE = "model.sig"  # not listed in SHA256SUMS, which it signs
# What zipfile raises of a damaged file, one that is encrypted, and one packed in a way that it does not know.
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, NotImplementedError)
REQUIRED = ("policy.onnx", "manifest.json", "robot.yaml", "golden.npz", "envelope.npz", SUMS)


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
        """The arrays of one `.npz` file; raises InputError if it is none, or when one is asked for that it lacks."""
        try:
            with np.load(io.BytesIO(self.files[name]), allow_pickle=False) as data:
                return _Arrays(self.path / name, {key: data[key] for key in data.files})
        except (OSError, ValueError, EOFError, AttributeError, *BROKEN_ZIP) as error:  # the fourth: a lone array
            raise InputError(self.path / name, f"is no .npz file: {error!s:.100}", REMEDY) from error

    def require_robot(self, spec: RobotSpec) -> None:
        """Raise InputError unless the bundle was trained for exactly this robot."""
        if self.manifest.robot != spec.name:
            raise InputError(
                self.path,
                f"bundle is for robot {self.manifest.robot!r}, this is {spec.name!r}",
                f"add {option(self.manifest.robot)}, or export one for this robot",
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


class _Arrays(dict[str, NDArray[np.float64]]):
    def __init__(self, path: Path, arrays: Mapping[str, NDArray[np.float64]]) -> None:
        super().__init__(arrays)
        self._path = path

    def __missing__(self, key: str) -> NDArray[np.float64]:
        raise InputError(self._path, f"has no {key!r}, only {sorted(self)}", REMEDY)


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
        InputError: `path` exists, or cannot be written.
    """
    require_new(path)
    every = dict(files)
    every["manifest.json"] = (json.dumps(manifest.model_dump(), indent=2) + "\n").encode()
    every["robot.yaml"] = yaml.safe_dump(robot.model_dump(mode="json"), sort_keys=False).encode()
    every[SUMS] = _sums(_digests(every))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_files(path, every)
    except OSError as error:
        raise not_written(path, error, "free space, or choose another --out") from error
    return read_bundle(path)


def add_file(bundle: Bundle, name: str, content: bytes) -> None:
    """Put one file that `SHA256SUMS` does not list into a bundle on disk, complete or not at all."""
    path = bundle.path.resolve()  # a link stays one
    if path.is_dir():
        partial = path.with_name(path.name + ".partial")  # inside, what a kill leaves would be an unlisted file
        try:
            partial.write_bytes(content)
            partial.replace(path / name)
        finally:
            partial.unlink(missing_ok=True)
    else:
        _write_files(path, {**bundle.files, name: content})


def _write_files(path: Path, files: Mapping[str, bytes]) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        if path.suffix == ".zip" or path.is_file():
            with zipfile.ZipFile(partial, "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
        else:
            if partial.is_dir():  # of a kill
                shutil.rmtree(partial)
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
    if not files.keys() & {*REQUIRED}:
        raise InputError(path, "is no bundle", "name the output of `landbridge export`")
    for name in REQUIRED:
        if name not in files:
            raise InputError(path, f"{name} is missing", REMEDY)
    _verify_sums(path, files)
    manifest = parse_manifest(path / "manifest.json", files["manifest.json"])
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
    if manifest.control_rate_hz != robot.control_rate_hz:
        problem = f"control_rate_hz: is {manifest.control_rate_hz:g}, robot.yaml has {robot.control_rate_hz:g}"
        raise InputError(path / "manifest.json", problem, REMEDY)
    for field, values in (("obs_mean", manifest.obs_mean), ("obs_std", manifest.obs_std)):
        if len(values) != len(names):
            problem = f"{field}: has {len(values)} values, the observation {len(names)}"
            raise InputError(path / "manifest.json", problem, REMEDY)
    return bundle


def _read_files(path: Path) -> dict[str, bytes]:
    try:
        if path.is_dir():
            folder = path.resolve()  # once: a link may be switched to another bundle meanwhile
            return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}
        with zipfile.ZipFile(path) as archive:
            if nested := [name for name in archive.namelist() if PurePosixPath(name).name != name or name == ".."]:
                raise InputError(path, f"{nested[0]!r} is not a plain file name", REMEDY)
            return {name: archive.read(name) for name in archive.namelist()}
    except (OSError, EOFError, *BROKEN_ZIP) as error:
        problem = f"is no bundle: {getattr(error, 'strerror', None) or error}"
        raise InputError(path, problem, "name the output of `landbridge export`") from error


def _verify_sums(path: Path, files: Mapping[str, bytes]) -> None:
    listed: dict[str, str] = {}
    for line in files[SUMS].decode(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    if unlisted := sorted(set(files) - set(listed) - {SUMS, SIGNATURE}):
        raise InputError(path, f"files not listed in {SUMS}: {unlisted}", "remove them or export again")
    found = _digests(files)
    for name, digest in listed.items():
        if name not in files:
            raise InputError(path, f"{name} is missing", REMEDY)
        if found.get(name) != digest:
            raise InputError(path / name, f"does not match {SUMS}", REMEDY)
    if files[SUMS] != _sums(found):  # other line ends would be another name of the same bundle
        raise InputError(path / SUMS, "is not as it was written", REMEDY)


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of each file that `SHA256SUMS` lists, in its order."""
    listed = sorted(files.keys() - {SUMS, SIGNATURE})
    return {name: hashlib.sha256(files[name]).hexdigest() for name in listed}


def _sums(digests: Mapping[str, str]) -> bytes:
    """`SHA256SUMS`."""
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()
