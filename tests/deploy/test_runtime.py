"""Runtime and bundle: values compared, and every refusal."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from landbridge.bundle import Manifest, read_bundle, write_bundle
from landbridge.deploy.runtime import ProviderFallbackWarning, load_policy
from landbridge.deploy.verify import verify
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import load_robot

SPEC = load_robot("furuta").spec
NAMES = Observer(SPEC).names
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(len(NAMES), 1)).astype(np.float32)


def graph(weight: np.ndarray, output: str = "action") -> bytes:
    """The graph of action = tanh(obs @ weight)."""
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["obs", "w"], ["h"]), helper.make_node("Tanh", ["h"], [output])],
            "policy",
            [helper.make_tensor_value_info("obs", TensorProto.FLOAT, [1, weight.shape[0]])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, weight.shape[1]])],
            [numpy_helper.from_array(weight, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def make(path: Path, onnx_bytes: bytes | None = None, shift: float = 0.0, robot_hash: str = "") -> Path:
    obs = RNG.normal(size=(16, len(NAMES))).astype(np.float32)
    manifest = Manifest(
        robot=SPEC.name,
        robot_hash=robot_hash or SPEC.digest(),
        task="swing_up",
        task_hash="0",
        joints=tuple(SPEC.joint_names),
        actuated=tuple(SPEC.actuated),
        observation=tuple(NAMES),
        control_rate_hz=SPEC.control_rate_hz,
        agent="test",
        alignment="none",
        dataset_hashes={},
        config={},
        obs_mean=(0.0,) * len(NAMES),
        obs_std=(1.0,) * len(NAMES),
        golden_tolerance=1e-5,
        scores={},
        provenance={},
    )
    files = {
        "policy.onnx": onnx_bytes or graph(WEIGHT),
        "golden.npz": npz(obs=obs, action=np.tanh(obs @ WEIGHT) + np.float32(shift)),
        "envelope.npz": npz(obs=obs),
    }
    write_bundle(path, manifest, SPEC, files)
    return path


def test_computes_what_the_graph_says(tmp_path: Path) -> None:
    policy = load_policy(read_bundle(make(tmp_path / "b.zip")))
    assert policy.golden_error <= 1e-6
    for _ in range(5):
        obs = RNG.normal(size=len(NAMES)).astype(np.float32)
        np.testing.assert_allclose(policy(obs), np.tanh(obs @ WEIGHT), atol=1e-6)
    assert policy(obs).base is policy.action


def test_golden_mismatch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"golden.npz.*differ by .*allowed is 1e-05"):
        load_policy(read_bundle(make(tmp_path / "b", shift=1e-3)))


def test_nan_from_the_graph_is_a_golden_mismatch(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="differ by nan"):
        load_policy(read_bundle(make(tmp_path / "b", graph(np.full_like(WEIGHT, np.nan)))))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"not a graph", "onnxruntime cannot load it"),
        (graph(WEIGHT, output="a"), "output is .* expected 'action'"),
        (graph(np.zeros((len(NAMES), 2), np.float32)), "output is .* expected 'action'"),
        (graph(WEIGHT[:-1]), "input is .* expected 'obs'"),
    ],
)
def test_foreign_graphs_are_refused(tmp_path: Path, content: bytes, match: str) -> None:
    with pytest.raises(InputError, match=match):
        load_policy(read_bundle(make(tmp_path / "b", content)))


def test_any_changed_byte_is_refused(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole")
    for name in ("policy.onnx", "manifest.json", "robot.yaml", "golden.npz", "envelope.npz"):
        broken = tmp_path / f"broken-{name}"
        shutil.copytree(whole, broken)
        content = bytearray((broken / name).read_bytes())
        content[len(content) // 2] ^= 1
        (broken / name).write_bytes(content)
        with pytest.raises(InputError, match="does not match SHA256SUMS"):
            read_bundle(broken)


def test_another_robot_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "furuta2"
    shutil.copytree(load_robot("furuta").folder, folder)
    text = (folder / "robot.yaml").read_text()
    (folder / "robot.yaml").write_text(text.replace("effort_limit: 0.12", "effort_limit: 0.5"))
    with pytest.raises(InputError, match="has changed since export"):
        verify(make(tmp_path / "b"), robot=str(folder))


def test_a_provider_that_falls_back_says_so_or_is_refused(tmp_path: Path) -> None:
    bundle = read_bundle(make(tmp_path / "b"))
    with pytest.warns(ProviderFallbackWarning, match="asked for NoSuchProvider, running on CPU"):
        assert load_policy(bundle, ("NoSuchProvider",)).provider == "CPUExecutionProvider"
    with pytest.raises(InputError, match="asked for NoSuchProvider"):
        load_policy(bundle, ("NoSuchProvider",), strict=True)


def test_verify_reports_figures(tmp_path: Path) -> None:
    figures = verify(make(tmp_path / "b"), robot="furuta")
    assert figures["robot"] == "furuta"
    assert figures["golden_error"] <= figures["golden_tolerance"]
    assert 0 < figures["inference_p50_us"] <= figures["inference_p99_us"]
