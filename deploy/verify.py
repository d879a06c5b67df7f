"""`landbridge verify`: is this bundle whole, for this robot, and the same function on this machine?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from landbridge.bundle import read_bundle
from landbridge.deploy.drift import watch_of
from landbridge.deploy.engine import Precision
from landbridge.deploy.runtime import golden_sequences, golden_tolerance, load_policy
from landbridge.onnx_session import CPU
from landbridge.robot import load_robot
from landbridge.signature import require_signature

TIMED_CALLS = 1000


def verify(
    bundle: Path,
    /,
    robot: str | None = None,
    public_key: Path | None = None,
    provider: str = CPU,
    precision: Precision = "fp32",
    strict: bool = False,
) -> dict[str, Any]:
    """Check every byte of a bundle, its signature, its robot and its golden vectors on this machine.

    Example: landbridge verify policy.bundle --robot furuta --public-key key.pub

    Args:
        bundle: Folder or zip written by `landbridge export`.
        robot: Robot it is to run on, by name or folder; by default only the copy inside the bundle is checked.
        public_key: Refuse the bundle unless the private half of this key has signed it.
        provider: onnxruntime execution provider, or `tensorrt`, to compute the golden vectors with.
        precision: What it computes in, as `landbridge engine build` has accepted it here.
        strict: Refuse when another provider than the one asked for would run.
    """
    read = read_bundle(bundle)
    if public_key is not None:
        require_signature(read, public_key)
    if robot is not None:
        read.require_robot(load_robot(robot).spec)
    policy, watch = load_policy(read, (provider,), strict, precision), watch_of(read)
    rows = golden_sequences(read)[0].reshape(-1, policy.obs.shape[1])
    took = []
    for i in range(TIMED_CALLS):
        start = time.perf_counter()
        policy(rows[i % len(rows)])
        took.append(time.perf_counter() - start)
    return {
        "bundle": str(bundle),
        "digest": read.digest,
        "robot": read.manifest.robot,
        "task": read.manifest.task,
        "agent": read.manifest.agent,
        "alignment": read.manifest.alignment,
        "signature": "not checked" if public_key is None else f"by {public_key}",
        "provider": policy.provider,
        "precision": policy.precision,
        "golden_error": policy.golden_error,
        "golden_tolerance": golden_tolerance(read, policy.precision),
        "live_monitors": "none in this bundle" if watch is None else "target model reproduces its golden vectors",
        "inference_p50_us": float(np.percentile(took, 50) * 1e6),
        "inference_p99_us": float(np.percentile(took, 99) * 1e6),
    }
