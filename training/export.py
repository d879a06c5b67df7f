"""`landbridge export`: a trained run becomes a verified bundle."""

from __future__ import annotations

import contextlib
import csv
import importlib.metadata
import logging
import platform
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from landbridge.bundle import Manifest, npz, write_bundle
from landbridge.episode import commit, now
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.task import load_task
from landbridge.training.dataset import load_domains
from landbridge.training.policy import Actor, load_actor
from landbridge.training.run import METRICS, read_run

OPSET = 18  # ONNX 1.13: within what TensorRT 8.6 (JetPack 6) and every onnxruntime since 1.14 read
GOLDEN_ROWS = 128
EXTREME = 100.0  # standard deviations; the policy must saturate the same way everywhere
TOLERANCE = 1e-5  # float32 sums of 128 terms in another order differ by about 1e-6 after the tanh
QUANTILES = (0.001, 0.01, 0.5, 0.99, 0.999)


def export(run: Path, out: Path) -> dict[str, Any]:
    """Turn a training run into a bundle: ONNX with the normaliser inside, golden vectors, envelope, checksums.

    Example: landbridge export --run runs/tabb --out policy.bundle

    Args:
        run: A run folder of `landbridge train`.
        out: Bundle to write: a folder, or one file if it ends in .zip.
    """
    if out.exists():
        raise InputError(out, "already exists", "choose another --out or remove it")
    plain = read_run(run)
    actor, robot = load_actor(run)
    paths = {name: Path(plain[name]) for name in ("source", "target") if plain[name]}
    observations = {name: data.obs for name, data in load_domains(robot, paths).items()}
    graph = to_onnx(actor, Observer(robot.spec).size)
    golden = _golden(actor, np.concatenate(list(observations.values())))
    difference = float(np.abs(_run(graph, golden["obs"]) - golden["action"]).max())
    if difference > TOLERANCE:
        raise InputError(run, f"onnxruntime differs from torch by {difference:.2g}", "report this: the export is wrong")
    spec, task, config = robot.spec, load_task(robot), plain["train"]
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
        scores=_scores(run, plain),
        provenance=_provenance(plain),
    )
    files = {"policy.onnx": graph, "golden.npz": npz(**golden), "envelope.npz": npz(**_envelope(observations))}
    bundle = write_bundle(out, manifest, spec, files)
    return {
        "bundle": str(out),
        "digest": bundle.digest,
        "bytes": sum(map(len, bundle.files.values())),
        "golden_rows": len(golden["obs"]),
        "golden_difference": difference,
    }


def to_onnx(actor: Actor, obs_size: int) -> bytes:
    """The actor as ONNX: `obs` (1, n) float32 in physical units -> `action` (1, m) float32."""
    example = (torch.zeros(1, obs_size),)
    # The exporter reports its progress on standard output and through logging and warnings; failures still raise.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            actor,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=["obs"],
            output_names=["action"],
            verbose=False,
        )
    assert program is not None
    onnx.checker.check_model(program.model_proto, full_check=True)
    return bytes(program.model_proto.SerializeToString())


def _golden(actor: Actor, obs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Real observations, then the mean moved far along every axis; actions as torch computes them."""
    rows = np.random.default_rng(0).choice(len(obs), min(GOLDEN_ROWS, len(obs)), replace=False)
    mean, std = actor.mean.cpu().numpy(), actor.std.cpu().numpy()
    far = [mean + sign * EXTREME * std * axis for axis in np.eye(len(mean), dtype=np.float32) for sign in (-1, 1)]
    inputs = np.concatenate([obs[rows], np.stack([mean, *far])]).astype(np.float32)
    return {"obs": inputs, "action": actor.numpy(inputs)}


def _run(graph: bytes, obs: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["action"], {"obs": row[None]})[0] for row in obs])


def _envelope(observations: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float64]]:
    """Per domain and column what the training data looked like: mean, std, quantiles."""
    arrays = {"quantile_levels": np.array(QUANTILES)}
    for name, obs in observations.items():
        arrays |= {
            f"{name}_mean": obs.mean(0, np.float64),
            f"{name}_std": obs.std(0, np.float64),
            f"{name}_quantiles": np.quantile(obs.astype(np.float64), QUANTILES, axis=0),
        }
    return arrays


def _scores(run: Path, plain: dict[str, Any]) -> dict[str, float]:
    """Last point of the learning curve, if the run was scored."""
    with (run / METRICS).open(newline="") as file:
        scored = [row for row in csv.DictReader(file) if row.get("success")]
    if not scored:
        return {}
    return {f"{key} on {plain['score']}": float(scored[-1][key]) for key in ("success", "return")}


def _provenance(plain: dict[str, Any]) -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in ("landbridge", "torch", "onnx", "onnxruntime")}
    return {
        "created": now(),
        "commit": commit(),
        "trained": plain["provenance"]["created"],
        "trained_commit": plain["provenance"]["commit"],
        "seed": str(plain["train"]["seed"]),
        "python": platform.python_version(),
        **versions,
    }
