"""`landbridge export`: a trained run becomes a verified bundle."""

from __future__ import annotations

import csv
import importlib.metadata
import platform
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from landbridge.bundle import npz, write_bundle
from landbridge.errors import InputError
from landbridge.files import require_new
from landbridge.manifest import CALIBRATION, UNWATCHED, Manifest
from landbridge.provenance import commit, now
from landbridge.simulation.calibrated import digest_of
from landbridge.task import load_task
from landbridge.training.dataset import Transitions, open_domains
from landbridge.training.monitoring import TargetModel, describe, watch
from landbridge.training.onnx_graph import beyond_tensorrt, run_rows, to_onnx
from landbridge.training.policy import Actor, Trained, load_trained
from landbridge.training.run import METRICS, Inputs, has_reached, located, read_run, runs_of
from landbridge.training.selection import Foretold, best
from landbridge.training.stream import digests, read_domains

GOLDEN_ROWS = 128
EXTREME = 100.0  # standard deviations; the policy must saturate the same way everywhere
TOLERANCE = 5e-5  # eight times what float32 sums of 128 terms in another order cost at EXTREME: 6e-6 after the tanh
ROWS = ("obs", "action", "next_obs")  # inputs of alignment.onnx, in order


def export(
    run: Path, out: Path, calibration: Path | None = None, source: Path | None = None, target: Path | None = None
) -> dict[str, Any]:
    """Turn a training run into a bundle: ONNX with the normaliser inside, golden vectors, live monitors, checksums.

    Example: landbridge export --run runs/first --out policy.bundle

    Args:
        run: A run folder of `landbridge train`. After `train --seeds`, the folder that holds all runs: the policy's
            action is then the mean of theirs, and the live monitor is that of the first.
        out: Bundle to write: a folder, or one file if it ends in .zip.
        calibration: File of `landbridge calibrate identify`. Of several seeds and the mean of them all, the one that
            succeeds most in that simulator is exported.
        source: Where the source dataset of the run is now; by default where it was then.
        target: The same of the target dataset.
    """
    require_new(out)
    torch.set_num_threads(1)  # see train
    trained, foretold, candidates = load_trained(run), dict[str, str](), dict[Path, Foretold]()
    domains = _domains(run, trained, Inputs(source=source, target=target).given())
    if calibration is not None:
        run, found, candidates = best(run, calibration)
        foretold = {"foretold": f"{found} (calibrated by {digest_of(calibration)[:12]})"}
        if not any(each.success for each in candidates.values()):
            warnings.warn(f"none of {len(candidates)} candidates succeeds in the calibrated simulator", stacklevel=2)
        trained = load_trained(run)
    runs = {one: read_run(one) for one in runs_of(run)}
    plain, spec, task = next(iter(runs.values())), trained.robot.spec, load_task(trained.robot)
    config = plain["train"]
    graph, golden, difference = _policy(run, trained.actor, domains)
    files = {"policy.onnx": graph, "envelope.npz": npz(**describe(domains))}
    watched = watch(trained, domains)
    if watched.model is not None:
        files["alignment.onnx"], vectors = _alignment(watched.model, domains["target"])
        golden |= vectors
    else:
        warnings.warn(f"nothing will watch for drift on board: {watched.reason}", stacklevel=2)
    manifest = Manifest.of(
        spec,
        task=task.name,
        task_hash=task.digest(),
        agent=config["agent"],
        alignment=config["alignment"],
        dataset_hashes=plain["dataset_hashes"],
        config=config,
        obs_mean=tuple(plain["obs_mean"]),
        obs_std=tuple(plain["obs_std"]),
        golden_tolerance=TOLERANCE,
        scores=_scores(*next(iter(runs.items()))) if len(runs) == 1 else {},
        provenance=_provenance(plain)
        | foretold
        | {"seed": ", ".join(str(one["train"]["seed"]) for one in runs.values())}
        | ({UNWATCHED: watched.reason} if watched.reason else {}),
        drift=watched.limits,
    )
    bundle = write_bundle(out, manifest, spec, {**files, "golden.npz": npz(**golden)})
    return {
        "bundle": str(out),
        "digest": bundle.digest,
        "bytes": sum(map(len, bundle.files.values())),
        "golden_rows": len(golden["obs"]),
        "golden_difference": difference,
        "tensorrt": ", ".join(beyond_tensorrt(graph)) or "reads every operator of the policy",
        "live_mismatch": "none" if watched.reason else "alignment.onnx",
        **({"run": str(run)} | foretold if foretold else {}),
        **({"candidates": _rows(candidates)} if candidates else {}),
    }


def _rows(candidates: dict[Path, Foretold]) -> list[dict[str, str]]:
    """By which one was chosen; `foretold` is of other episodes."""
    return [{"candidate": str(run), "chosen_by": str(found)} for run, found in candidates.items()]


def _domains(run: Path, trained: Trained, moved: dict[str, Path]) -> dict[str, Transitions]:
    """The datasets that a finished run was given, as they were then, some of them elsewhere; of a stream its sample."""
    steps = trained.config.steps
    for one in runs_of(run):
        if not has_reached(one, steps):
            raise InputError(one, f"has not come to its end at step {steps}", "go on with `train --resume`")
    plain, robot = read_run(runs_of(run)[0]), trained.robot
    datasets = open_domains(robot, located(plain, moved))
    domains, stream = read_domains(robot, datasets, streamed=bool(plain.get("scratch")))
    if not {*plain["dataset_hashes"].values()} <= {*digests(domains, stream).values()}:
        remedy = "name where they are now with --source and --target, restore them, or train anew"
        raise InputError(run, "its datasets have changed since it was trained on them", remedy)
    return domains


def _policy(
    run: Path, actor: Actor, domains: dict[str, Transitions]
) -> tuple[bytes, dict[str, NDArray[np.float32]], float]:
    """The policy as ONNX, its golden vectors, and how far onnxruntime is from them; InputError if that is too far."""
    golden = _golden(actor, np.concatenate([data.obs for data in domains.values()]))
    graph = to_onnx(actor, {"obs": golden["obs"][:1]}, ["action"])
    difference = float(np.abs(run_rows(graph, {"obs": golden["obs"]}) - golden["action"]).max())
    if difference > TOLERANCE:
        raise InputError(run, f"onnxruntime differs from torch by {difference:.2g}", "report this: the export is wrong")
    return graph, golden, difference


def _golden(actor: Actor, obs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Real observations, then the mean moved far along every axis; actions as torch computes them."""
    rows = np.random.default_rng(0).choice(len(obs), min(GOLDEN_ROWS, len(obs)), replace=False)
    mean, std = actor.mean.cpu().numpy(), actor.std.cpu().numpy()
    far = [mean + sign * EXTREME * std * axis for axis in np.eye(len(mean), dtype=np.float32) for sign in (-1, 1)]
    inputs = np.concatenate([obs[rows], np.stack([mean, *far])]).astype(np.float32)
    return {"obs": inputs, "action": actor.numpy(inputs)}


def _alignment(model: TargetModel, target: Transitions) -> tuple[bytes, dict[str, NDArray[np.float32]]]:
    """The target model as ONNX, and its golden vectors: rows of the robot, and their mismatch as torch computes it."""
    rows = target[np.random.default_rng(0).choice(len(target), min(GOLDEN_ROWS, len(target)), replace=False)]
    inputs = dict(zip(ROWS, (rows.obs, rows.action, rows.next_obs), strict=True))
    graph = to_onnx(model, {name: values[:1] for name, values in inputs.items()}, ["mismatch", "predicted"])
    vectors = inputs | {"mismatch": model.mismatch(rows)}
    return graph, {f"alignment_{name}": values for name, values in vectors.items()}


def _scores(run: Path, plain: dict[str, Any]) -> dict[str, float]:
    """Last point of the learning curve, if the run was scored."""
    with (run / METRICS).open(newline="") as file:
        scored = [row for row in csv.DictReader(file) if row.get("success")]
    if not scored:
        return {}
    return {f"{key} on {plain['score']}": float(scored[-1][key]) for key in ("success", "return")}


def _provenance(plain: dict[str, Any]) -> dict[str, str]:
    made = plain["provenance"]
    versions = {name: importlib.metadata.version(name) for name in ("landbridge", "torch", "onnx", "onnxruntime")}
    return {
        "created": now(),
        "commit": commit(),
        "trained": made["created"],
        "trained_commit": made["commit"],
        **{name: digest for name, digest in made.items() if name.endswith(CALIBRATION)},
        "python": platform.python_version(),
        **versions,
    }
