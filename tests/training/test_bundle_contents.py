"""What export puts beside the graph, and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from landbridge.bundle import Bundle, read_bundle
from landbridge.robot import load_robot
from landbridge.training.agents.iql import IQLConfig
from landbridge.training.config import TrainConfig
from landbridge.training.dataset import Transitions, load_domains
from landbridge.training.export import EXTREME
from landbridge.training.policy import load_actor
from landbridge.training.run import read_run
from landbridge.training.train import train

from .conftest import QUICK


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Any) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    config = TrainConfig(steps=100, rows=16, seed=3, iql=IQLConfig(hidden=(16, 16)), tabb=QUICK)
    train(out, data.source, data.target, config=config)
    return out


@pytest.fixture(scope="module")
def printed(trained: Path) -> dict[str, Any]:
    """What `landbridge export --json` printed: fails unless standard output is JSON and nothing else."""
    out = str(trained.parent / "policy.bundle")
    command = [sys.executable, "-m", "landbridge", "export", "--run", str(trained), "--out", out, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


@pytest.fixture(scope="module")
def bundle(printed: dict[str, Any]) -> Bundle:
    return read_bundle(Path(printed["bundle"]))


@pytest.fixture(scope="module")
def domains(data: Any) -> dict[str, Transitions]:
    return load_domains(load_robot("furuta"), {"source": data.source, "target": data.target})


def test_the_figures_are_those_of_the_bundle(printed: dict[str, Any], bundle: Bundle) -> None:
    assert printed["digest"] == bundle.digest
    assert printed["bytes"] == sum(map(len, bundle.files.values()))
    assert 0 <= printed["golden_difference"] < bundle.manifest.golden_tolerance


def test_golden_vectors_are_torch_actions_of_real_and_extreme_rows(
    trained: Path, bundle: Bundle, domains: dict[str, Transitions]
) -> None:
    golden, manifest = bundle.arrays("golden.npz"), bundle.manifest
    np.testing.assert_array_equal(golden["action"], load_actor(trained)[0].numpy(golden["obs"].astype(np.float32)))
    seen = {row.tobytes() for domain in domains.values() for row in domain.obs}
    assert sum(row.astype(np.float32).tobytes() in seen for row in golden["obs"]) >= 64
    away = np.abs(golden["obs"] - np.array(manifest.obs_mean)) / np.array(manifest.obs_std)
    np.testing.assert_allclose(away.max(0), EXTREME, rtol=1e-3)


def test_the_normaliser_is_inside_the_graph(trained: Path, bundle: Bundle) -> None:
    """The bare layers, given (obs - mean) / std of the manifest, agree with the golden actions of raw obs."""
    golden, manifest = bundle.arrays("golden.npz"), bundle.manifest
    x = (golden["obs"] - np.array(manifest.obs_mean)) / np.array(manifest.obs_std)
    layers = load_actor(trained)[0].policies[0].net.layers
    for i, layer in enumerate(layers):
        x = x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        x = np.maximum(x, 0) if i < len(layers) - 1 else np.tanh(x)
    np.testing.assert_allclose(golden["action"], x, atol=manifest.golden_tolerance)


def test_the_envelope_is_what_numpy_says_of_the_datasets(bundle: Bundle, domains: dict[str, Transitions]) -> None:
    envelope = bundle.arrays("envelope.npz")
    np.testing.assert_array_equal(envelope["quantile_levels"], [0.001, 0.01, 0.5, 0.99, 0.999])
    for name, domain in domains.items():
        rows = np.concatenate([domain.obs, domain.action], axis=1)
        np.testing.assert_allclose(envelope[f"{name}_mean"], rows.mean(0), atol=1e-5)
        np.testing.assert_allclose(envelope[f"{name}_std"], rows.std(0), atol=1e-5)
        np.testing.assert_allclose(envelope[f"{name}_quantiles"][2], np.median(rows, axis=0), atol=1e-6)
        assert ((rows <= envelope[f"{name}_quantiles"][3]).mean(0) >= 0.985).all()
    target = np.concatenate([domains["target"].obs, domains["target"].action], axis=1)
    np.testing.assert_allclose(envelope["target_cov"], np.cov(target.T), atol=1e-6)


def test_the_manifest_says_where_the_policy_came_from(trained: Path, bundle: Bundle) -> None:
    plain, manifest = read_run(trained), bundle.manifest
    assert manifest.config == plain["train"]
    assert manifest.dataset_hashes == plain["dataset_hashes"]
    assert list(manifest.obs_mean) == plain["obs_mean"]
    assert manifest.scores == {}
    assert manifest.drift is not None
    assert "alignment.onnx" in bundle.files
    assert manifest.provenance["seed"] == "3"
    assert {"created", "commit", "torch", "onnx", "onnxruntime", "landbridge"} <= set(manifest.provenance)
