"""`landbridge inspect`: everything a person needs to know of a bundle, a dataset or a robot, on one screen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landbridge.bundle import SIGNATURE, Bundle, read_bundle
from landbridge.errors import InputError
from landbridge.manifest import CALIBRATION, IMPORTED, UNWATCHED, Manifest
from landbridge.observation import Observer
from landbridge.robot import RobotSpec, load_robot, robots

MOST_ROWS = 24  # of a table of columns, which with the rest is a screen


def inspect(path: str, /) -> dict[str, Any]:
    """Print what a bundle, a dataset or a robot is.

    Example: landbridge inspect demo/policy.bundle

    Args:
        path: A bundle (folder or zip), a dataset folder, a robot folder, or the name of a robot that ships.
    """
    folder = Path(path)
    if path in robots() or ((folder / "robot.yaml").is_file() and not (folder / "manifest.json").is_file()):
        return describe_robot(load_robot(path).spec)
    if folder.suffix == ".zip" or (folder / "manifest.json").is_file():
        return describe_bundle(read_bundle(folder))
    if (folder / "metadata.json").is_file():
        from landbridge.episode import open_dataset

        dataset = open_dataset(folder)
        return {"dataset": path, "episodes": len(dataset), "transitions": dataset.transitions} | (
            dataset.metadata.model_dump()
        )
    if not folder.exists():
        raise InputError(path, "no such file or folder, nor a robot that ships", f"those are {', '.join(robots())}")
    remedy = f"name a bundle, a dataset, a robot folder or one of {robots()}"
    raise InputError(path, "neither a bundle, a dataset nor a robot", remedy)


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
        "trained on": ", ".join(f"{path} ({digest[:12]})" for path, digest in manifest.dataset_hashes.items())
        or "not here",
        **_provenance(manifest.provenance),
        "robot": f"{manifest.robot} ({manifest.robot_hash[:12]}), {_installed(bundle)}",
        "rate": f"{bundle.robot.control_rate_hz:g} Hz, latency budget {bundle.robot.latency_budget_ms:g} ms",
        "joints": robot["joints"],
        "normaliser": _normaliser(bundle),
    }


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
