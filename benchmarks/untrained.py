"""Bundles of policies that nobody trained, for measuring and testing what runs a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landbridge.bundle import npz, write_bundle
from landbridge.manifest import Manifest
from landbridge.observation import Observer
from landbridge.robot import RobotSpec

QUANTILES = (0.01, 0.5, 0.99)


def write_untrained(
    path: Path,
    spec: RobotSpec,
    graph: bytes,
    golden: tuple[NDArray[np.float32], NDArray[np.float32]],
    *,
    agent: str,
    task: str = "swing_up",
    task_hash: str = "none",
    tolerance: float = 1e-5,
    state: dict[str, tuple[int, ...]] | None = None,
) -> None:
    """A bundle of the ONNX model `graph`, which reads plain observations; its envelope is that of the golden ones.

    Args:
        path: Folder or zip to write.
        golden: Observations (N, n) and the actions (N, m) that the graph answers, within `tolerance`; (S, T, n) and
            (S, T, m) of a recurrent one.
        state: Shapes of a recurrent graph's state, by name.
    """
    obs, action = golden
    names = Observer(spec).names
    manifest = Manifest.of(
        spec,
        task=task,
        task_hash=task_hash,
        agent=agent,
        alignment="none",
        dataset_hashes={},
        config={},
        obs_mean=(0.0,) * len(names),
        obs_std=(1.0,) * len(names),
        golden_tolerance=tolerance,
        scores={},
        provenance={},
        state=state or {},
    )
    envelope = npz(source_quantiles=np.quantile(obs.reshape(-1, len(names)), QUANTILES, axis=0))
    files = {"policy.onnx": graph, "golden.npz": npz(obs=obs, action=action), "envelope.npz": envelope}
    write_bundle(path, manifest, spec, files)
