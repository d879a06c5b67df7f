"""`landbridge inspect`: describe anything that landbridge has written, on one screen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from landbridge.bundle import SIGNATURE, Bundle, read_bundle
from landbridge.errors import InputError
from landbridge.manifest import CALIBRATION, IMPORTED, UNWATCHED, Manifest
from landbridge.observation import Observer
from landbridge.robot import RobotSpec, load_robot, robots
from landbridge.spec import read_model

CALIBRATED = "calibration.yaml"
MOST_ROWS = 24  # of a table of columns, which with the rest is a screen


def inspect(path: str, /) -> dict[str, Any]:
    """Describe anything that landbridge has written, and name the commands that read it; or describe a robot.

    Example: landbridge inspect demo/policy.bundle

    Args:
        path: A bundle (folder or zip), dataset, bag, calibration or run, a robot folder, or the name of a robot that
            ships.
    """
    if path in robots():
        return describe_robot(load_robot(path).spec)
    place = Path(path)
    if not place.exists():
        raise InputError(path, "no such file or folder, nor a robot that ships", f"those are {', '.join(robots())}")
    if place.suffix == ".zip":
        return describe_bundle(read_bundle(place))
    for pattern, describe in KINDS.items():
        if place.is_file() and place.match(pattern):
            return describe(place if describe in FILES else place.parent)
        if place.is_dir() and (found := sorted(place.glob(pattern))):
            return describe(found[0] if describe in FILES else place)
    if place.suffix == ".yaml":
        for key, describe in KEYS.items():
            if any(line.startswith(f"{key}:") for line in place.read_text(errors="replace").splitlines()):
                return describe(place)
    remedy = f"name a bundle, a dataset, a bag, a calibration, a run, a robot folder or one of {', '.join(robots())}"
    if place.is_dir() and (inner := [one.name for one in sorted(place.iterdir()) if _is_known(one)]):
        remedy = f"name what it holds: {', '.join(inner)}"
    raise InputError(path, "nothing that landbridge would have written", remedy)


def _is_known(folder: Path) -> bool:
    return folder.is_dir() and any(any(folder.glob(pattern)) for pattern in KINDS)


def describe_robot(spec: RobotSpec) -> dict[str, Any]:
    """Rates, joints in order with their limits, observation columns and the action's scale."""
    unit = {"position": "rad", "velocity": "rad/s", "effort": "N m"}[spec.action.kind]
    joints = [
        {
            "joint": joint.name,
            "action": f"{spec.action.kind} x {spec.action.scale[joint.name]:g} {unit}" if joint.actuated else "passive",
            "position [rad]": "free" if joint.position_limit is None else "{:g} .. {:g}".format(*joint.position_limit),
            "velocity [rad/s]": f"{joint.velocity_limit:g}",
            "effort [N m]": f"{joint.effort_limit:g}",
        }
        for joint in spec.joints
    ]
    return {
        "robot": spec.name,
        "robot_hash": spec.digest(),
        "control_rate_hz": spec.control_rate_hz,
        "latency_budget_ms": spec.latency_budget_ms,
        "observation": ", ".join(Observer(spec).names),
        "joints": joints,
    }


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """What it is, for which robot, how good, how far it may be trusted, and what it was trained on; on one screen."""
    manifest, golden = bundle.manifest, bundle.arrays("golden.npz")
    stored = json.loads(bundle.files["manifest.json"])["schema_version"]
    migrated = "" if stored == manifest.schema_version else f", read as {manifest.schema_version}"
    robot = describe_robot(bundle.robot)
    return {
        "bundle": f"{bundle.path}: {sum(map(len, bundle.files.values())) / 1024:.0f} KiB, {', '.join(bundle.files)}",
        "digest": bundle.digest,
        "schema": f"version {stored}{migrated}",
        "signature": "model.sig; `landbridge verify --public-key` checks it" if SIGNATURE in bundle.files else "none",
        "policy": f"{manifest.agent} with {manifest.alignment}, task {manifest.task}{_state(manifest.state)}",
        "scores": ", ".join(f"{name} {value:.4g}" for name, value in manifest.scores.items()) or "none at export",
        "golden vectors": f"{golden['obs'][..., 0].size}, allowed difference {manifest.golden_tolerance:g}",
        "live monitors": _monitors(manifest),
        "trained on": _hashed(manifest.dataset_hashes) or "not here",
        **_provenance(manifest.provenance),
        "robot": f"{manifest.robot} ({manifest.robot_hash[:12]}), {_installed(bundle)}",
        "rate": f"{bundle.robot.control_rate_hz:g} Hz, latency budget {bundle.robot.latency_budget_ms:g} ms",
        "joints": robot["joints"],
        "normaliser": _normaliser(bundle),
        "read by": "verify, evaluate, up deploy, replay, bench, sign, deploy push, engine build",
    }


def _hashed(digests: Mapping[str, str]) -> str:
    return ", ".join(f"{path} ({digest[:12]})" for path, digest in digests.items())


def _provenance(provenance: Mapping[str, str]) -> dict[str, str]:
    calibrated = [key for key in provenance if key.endswith(CALIBRATION)]
    elsewhere = {*calibrated, UNWATCHED}
    named = [f"{key.removesuffix(CALIBRATION)} {provenance[key][:12]}" for key in calibrated]
    return {
        "calibration": ", ".join(named) or "none named",
        "made": ", ".join(f"{key} {value}" for key, value in provenance.items() if key not in elsewhere) or "not said",
    }


def _state(state: Mapping[str, tuple[int, ...]]) -> str:
    return "".join(f", state {name} {list(shape)}" for name, shape in state.items())


def _normaliser(bundle: Bundle) -> list[dict[str, str]] | str:
    """Mean and std inside the graph, and where 98 % of the target data lie.

    Per column of the observation; by ranges per term where columns would fill more than a screen.
    """
    manifest, envelope = bundle.manifest, bundle.arrays("envelope.npz")
    if manifest.agent == IMPORTED:
        return f"unknown: imported; reads {', '.join(manifest.observation)}"
    columns: dict[str, list[int]] = {}
    for i, name in enumerate(manifest.observation):
        columns.setdefault(name.split(".")[0] if len(manifest.observation) > MOST_ROWS else name, []).append(i)
    figures = {"mean": np.array(manifest.obs_mean), "std": np.array(manifest.obs_std)}
    rows = []
    for name, at in columns.items():
        row = {"observation": name if len(at) == 1 else f"{name} ({len(at)} columns)"}
        row |= {figure: _range(values[at], 6) for figure, values in figures.items()}
        if "target_quantiles" in envelope:
            _, low, _, high, _ = envelope["target_quantiles"][:, at]
            row["target data, 98 %"] = _range(np.array([low.min(), high.max()]), 3)
        rows.append(row)
    return rows


def _range(values: NDArray[np.float64], digits: int) -> str:
    low, high = f"{values.min():.{digits}g}", f"{values.max():.{digits}g}"
    return low if low == high else f"{low} .. {high}"


def _monitors(manifest: Manifest) -> str:
    drift, reason = manifest.drift, manifest.provenance.get(UNWATCHED)
    if drift is None:
        return f"none: {reason or 'exported without limits from target data'}"
    limits = {"mismatch": drift.mismatch, "distance": drift.envelope}
    shown = ", ".join(
        f"{name} up to {t.limit:.3g} (floor {t.floor:.3g})" for name, t in limits.items() if t is not None
    )
    lacking = f"; no mismatch: {reason}" if reason else ""
    return f"{shown}, means of {drift.window} ticks, from {drift.heldout_ticks} held-out ticks{lacking}"


def _installed(bundle: Bundle) -> str:
    if bundle.robot.name not in robots():
        return "not one that ships here"
    same = load_robot(bundle.robot.name).spec.digest() == bundle.manifest.robot_hash
    return "as it is installed here" if same else "NOT as it is installed here"


def _dataset(folder: Path) -> dict[str, Any]:
    from landbridge.episode import open_dataset

    dataset = open_dataset(folder)
    size = {"dataset": str(folder), "episodes": len(dataset), "transitions": dataset.transitions}
    domain = dataset.metadata.domain
    fitted = "calibrate, " if domain == "target" else ""
    return size | dataset.metadata.model_dump() | {"read by": f"{fitted}diagnose, train --{domain}, export"}


def _run(folder: Path) -> dict[str, Any]:
    """Of a run, or of those of several seeds, which have all else in common."""
    from landbridge.training.log import last_step
    from landbridge.training.run import read_run, runs_of

    runs = {run: read_run(run) for run in runs_of(folder)}
    plain = next(iter(runs.values()))
    config = plain["train"]
    steps = [f"{last_step(run)} of seed {its['train']['seed']}" for run, its in runs.items()]
    return {
        "run": str(folder),
        "policy": f"{config['agent']} with {config['alignment']}",
        "robot": plain["robot"],
        "steps": f"{', '.join(steps)}; {config['steps']} were asked for",
        "trained on": _hashed(plain["dataset_hashes"]),
        **_provenance(plain["provenance"]),
        "read by": "evaluate, export; train --resume goes on with it",
    }


def _bag(folder: Path) -> dict[str, Any]:
    from landbridge.bag import BagReader

    about = {"bag": str(folder), "read by": "ingest, rerun; replay, if a policy ran; ros2 bag, Foxglove"}
    if not (folder / "metadata.yaml").is_file():
        return about | {"cut off": "has no metadata.yaml; ingest reads it, and repair makes it whole for ros2 bag"}
    try:
        held = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
        topics = [(each["topic_metadata"], each["message_count"]) for each in held["topics_with_message_count"]]
        rows = [{"topic": topic["name"], "type": topic["type"], "messages": count} for topic, count in topics]
        size = {"seconds": held["duration"]["nanoseconds"] / 1e9, "messages": held["message_count"]}
        with suppress(InputError):  # a bag of somebody else
            size |= {"cut off": cut} if (cut := BagReader(folder).repaired) else {}
        return about | size | (held.get("custom_data") or {}) | {"topics": rows}
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        problem = f"not the metadata of a bag: {' '.join(str(error).split())}"
        raise InputError(folder / "metadata.yaml", problem, "make it anew with `landbridge repair`") from error


def _calibration(file: Path) -> dict[str, Any]:
    from landbridge.calibration.identify import figures
    from landbridge.simulation.calibrated import Calibration

    found = read_model(Calibration, file)
    return {
        "calibration": str(file),
        "robot": f"{found.robot} ({found.robot_hash[:12]})",
        "fitted to": _hashed({found.dataset: found.dataset_hash}),
        "made": f"created {found.created}, commit {found.commit}",
        "read by": "collect, export and evaluate --calibration, up deploy --compensate, calibrate report",
        **figures(found),
    }


def _named(what: str, read_by: str) -> Callable[[Path], dict[str, Any]]:
    return lambda path: {what: str(path), "read by": read_by}


_excitation, _d4rl = _named("excitation", "record --excitation"), _named("D4RL file", "ingest")
FILES = (_calibration, _excitation, _d4rl)  # of one file, the others of its folder
KEYS = {"estimates": _calibration, "frequencies_hz": _excitation}  # by which such a file is known under any name
# Of a folder, by the first of these files that it has.
KINDS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "manifest.json": lambda folder: describe_bundle(read_bundle(folder)),
    "robot.yaml": lambda folder: describe_robot(load_robot(folder).spec),
    "metadata.json": _dataset,
    "config.json": _run,
    "seed*/config.json": _run,
    "*.mcap": _bag,
    CALIBRATED: _calibration,
    "excitation.yaml": _excitation,
    "sweep.json": _named("sweep", "sweep with the same --out; sweep.csv is its table"),
    "results.json": _named("demo", "a browser: report.html"),
    "junit.xml": _named("acceptance of hardware", "a browser: report.html; junit.xml by a CI"),
    "*.hdf5": _d4rl,
}
