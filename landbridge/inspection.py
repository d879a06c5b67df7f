"""`landbridge inspect`: everything a person needs to know of a bundle, a dataset or a robot, on one screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from landbridge.bundle import Bundle, read_bundle
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import RobotSpec, load_robot, robots


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
    """The robot, the normaliser, the training data, the scores and the tolerance."""
    manifest = bundle.manifest
    normaliser = [
        {"observation": name, "mean": f"{mean:.6g}", "std": f"{std:.6g}"}
        for name, mean, std in zip(manifest.observation, manifest.obs_mean, manifest.obs_std, strict=True)
    ]
    return {
        "bundle": str(bundle.path),
        "digest": bundle.digest,
        "policy": f"{manifest.agent} with {manifest.alignment}, task {manifest.task}",
        "size": f"{sum(map(len, bundle.files.values())) / 1024:.0f} KiB in {len(bundle.files)} files",
        "golden_tolerance": manifest.golden_tolerance,
        **{f"score: {name}": value for name, value in manifest.scores.items()},
        **{f"trained on: {path}": digest[:12] for path, digest in manifest.dataset_hashes.items()},
        **{f"made by: {key}": value for key, value in manifest.provenance.items()},
        "normaliser": normaliser,
        **{key: value for key, value in describe_robot(bundle.robot).items() if key != "observation"},
    }
