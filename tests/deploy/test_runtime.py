"""Runtime and bundle: values compared, and every refusal."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from untrained import write_untrained

from landbridge.bundle import npz, read_bundle
from landbridge.cli import main
from landbridge.deploy.graph import ProviderFallbackWarning
from landbridge.deploy.runtime import load_policy
from landbridge.deploy.verify import verify
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge.training.policy import graph_policy

SIZE = Observer(load_robot("furuta").spec).size
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(SIZE, 1)).astype(np.float32)

MakeBundle = Callable[..., Path]


def test_computes_what_the_graph_says(tmp_path: Path, linear_bundle: MakeBundle) -> None:
    policy = load_policy(read_bundle(linear_bundle(tmp_path / "b.zip", WEIGHT)))
    assert policy.golden_error <= 1e-6
    for _ in range(5):
        obs = RNG.normal(size=SIZE).astype(np.float32)
        np.testing.assert_allclose(policy(obs), np.tanh(obs @ WEIGHT), atol=1e-6)
    assert policy(obs).base is policy.action


def test_an_action_is_cut_off_at_its_limits_and_nan_stays(
    tmp_path: Path, linear_bundle: MakeBundle, linear_graph: Callable[..., bytes]
) -> None:
    """As in the simulator; golden actions may be from before that."""
    bundle, graph = read_bundle(linear_bundle(tmp_path / "a", WEIGHT)), linear_graph(WEIGHT, activation="Identity")
    obs = bundle.arrays("golden.npz")["obs"].astype(np.float32)
    assert (np.abs(obs @ WEIGHT) > 1).any()
    spec = load_robot("furuta").spec
    write_untrained(tmp_path / "b", spec, graph, (obs, obs @ WEIGHT), agent="test")
    policy = load_policy(read_bundle(tmp_path / "b"))
    for row in obs:
        np.testing.assert_allclose(policy(row), np.clip(row @ WEIGHT, -1, 1), atol=1e-5)
    assert policy(np.full(SIZE, 5, np.float32) * np.sign(WEIGHT[:, 0])) == 1
    assert np.isnan(policy(np.full(SIZE, -np.inf, np.float32) * np.sign(WEIGHT[:, 0])))  # an infinity is no wish
    assert np.isnan(policy(np.full(SIZE, np.nan)))


def test_weights_outside_the_bundle_are_not_read(
    tmp_path: Path, linear_bundle: MakeBundle, linear_graph: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They could change after bundle and signature were verified."""
    weight = np.tile(WEIGHT, (1, 64))  # of a few dozen bytes onnxruntime reads none
    model = onnx.load_from_string(linear_graph(weight, "wide"))
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["wide"], ["action"], axes=[1], keepdims=1))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("action", onnx.TensorProto.FLOAT, [1, 1]))
    monkeypatch.chdir(tmp_path)
    assert load_policy(read_bundle(linear_bundle(tmp_path / "whole", WEIGHT, model.SerializeToString())))
    (tensor,) = model.graph.initializer
    Path("w.bin").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, "w.bin")
    tensor.ClearField("raw_data")
    outside = model.SerializeToString()
    alone = ort.InferenceSession(outside, providers=["CPUExecutionProvider"])  # as a library would
    assert np.isfinite(alone.run(None, {"obs": np.ones((1, SIZE), np.float32)})).all()
    bundle = read_bundle(linear_bundle(tmp_path / "b", WEIGHT, outside))
    with pytest.raises(InputError, match=r"policy\.onnx: names a file that holds its weights"):
        load_policy(bundle)
    with pytest.raises(InputError, match=r"policy\.onnx: names a file that holds its weights"):
        graph_policy(bundle.path / "policy.onnx", bundle.files["policy.onnx"], {})


def test_golden_mismatch_is_refused(tmp_path: Path, linear_bundle: MakeBundle) -> None:
    with pytest.raises(InputError, match=r"golden.npz.*differ by .*allowed is 1e-05"):
        load_policy(read_bundle(linear_bundle(tmp_path / "b", WEIGHT, golden_shift=1e-3)))


@pytest.mark.parametrize(
    ("obs", "action", "match"),
    [
        (np.zeros((0, SIZE)), np.zeros((0, 1)), r"obs \(0, 8\) and action \(0, 1\) are no rows of 8 and 1 values"),
        (np.zeros((5, 1)), np.zeros((5, 1)), r"obs \(5, 1\)"),  # would be spread over all columns
        (np.zeros((5, SIZE)), np.zeros((4, 1)), r"action \(4, 1\)"),
        (np.zeros((5, 2, SIZE)), np.zeros((5, 1)), r"action \(5, 1\)"),
        (np.full((5, SIZE), np.nan), np.zeros((5, 1)), "obs has NaN"),
    ],
)
def test_golden_vectors_that_prove_nothing_are_refused(
    tmp_path: Path, linear_bundle: MakeBundle, obs: np.ndarray, action: np.ndarray, match: str
) -> None:
    bundle = read_bundle(linear_bundle(tmp_path / "b", WEIGHT))
    with pytest.raises(InputError, match=rf"golden\.npz: .*{match}"):
        load_policy(replace(bundle, files={**bundle.files, "golden.npz": npz(obs=obs, action=action)}))


def test_nan_from_the_graph_is_a_golden_mismatch(
    tmp_path: Path, linear_bundle: MakeBundle, linear_graph: Callable[..., bytes]
) -> None:
    with pytest.raises(InputError, match="differ by nan"):
        load_policy(read_bundle(linear_bundle(tmp_path / "b", WEIGHT, linear_graph(np.full_like(WEIGHT, np.nan)))))


@pytest.mark.parametrize(
    ("weight", "output", "match"),
    [
        (WEIGHT, "a", r"output is .* expected float32 {'action': \(1, 1\)}"),
        (np.zeros((SIZE, 2), np.float32), "action", r"output is .* expected float32 {'action': \(1, 1\)}"),
        (WEIGHT[:-1], "action", r"input is .* expected float32 {'obs': \(1, 8\)}"),
    ],
)
def test_foreign_graphs_are_refused(
    tmp_path: Path,
    linear_bundle: MakeBundle,
    linear_graph: Callable[..., bytes],
    weight: np.ndarray,
    output: str,
    match: str,
) -> None:
    bundle = linear_bundle(tmp_path / "b", WEIGHT, linear_graph(weight, output))
    with pytest.raises(InputError, match=match):
        load_policy(read_bundle(bundle))


def test_what_is_no_graph_is_refused(tmp_path: Path, linear_bundle: MakeBundle) -> None:
    with pytest.raises(InputError, match="onnxruntime cannot load it"):
        load_policy(read_bundle(linear_bundle(tmp_path / "b", WEIGHT, b"not a graph")))


def test_any_changed_byte_is_refused(tmp_path: Path, linear_bundle: MakeBundle) -> None:
    whole = linear_bundle(tmp_path / "whole", WEIGHT)
    for name in ("policy.onnx", "manifest.json", "robot.yaml", "golden.npz", "envelope.npz"):
        broken = tmp_path / f"broken-{name}"
        shutil.copytree(whole, broken)
        content = bytearray((broken / name).read_bytes())
        content[len(content) // 2] ^= 1
        (broken / name).write_bytes(content)
        with pytest.raises(InputError, match="does not match SHA256SUMS"):
            read_bundle(broken)


def test_another_robot_is_refused(tmp_path: Path, linear_bundle: MakeBundle) -> None:
    folder = tmp_path / "furuta2"
    shutil.copytree(load_robot("furuta").folder, folder)
    text = (folder / "robot.yaml").read_text()
    (folder / "robot.yaml").write_text(text.replace("effort_limit: 0.12", "effort_limit: 0.5"))
    with pytest.raises(InputError, match="has changed since export"):
        verify(linear_bundle(tmp_path / "b", WEIGHT), robot=str(folder))


def test_a_provider_that_falls_back_says_so_or_is_refused(tmp_path: Path, linear_bundle: MakeBundle) -> None:
    bundle = read_bundle(linear_bundle(tmp_path / "b", WEIGHT))
    absent = next(name for name in ort.get_all_providers() if name not in ort.get_available_providers())
    with pytest.warns(ProviderFallbackWarning, match=f"asked for {absent}, running on CPU"):
        assert load_policy(bundle, (absent,)).provider == "CPUExecutionProvider"
    with pytest.raises(InputError, match=f"asked for {absent}"):
        load_policy(bundle, (absent,), strict=True)


@pytest.mark.parametrize("arguments", [["verify"], ["verify", "--strict"], ["bench"]])
def test_a_provider_that_there_is_nowhere_is_refused(
    tmp_path: Path, linear_bundle: MakeBundle, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    option = "--providers" if arguments == ["bench"] else "--provider"
    bundle = linear_bundle(tmp_path / "b", WEIGHT)
    assert main([*arguments, str(bundle), option, "CPUExecutionProvidor"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "provider: there is no 'CPUExecutionProvidor'. name tensorrt, " in said
    assert "CPUExecutionProvider" in said


def test_verify_reports_figures(tmp_path: Path, linear_bundle: MakeBundle) -> None:
    figures = verify(linear_bundle(tmp_path / "b", WEIGHT), robot="furuta")
    assert figures["robot"] == "furuta"
    assert figures["golden_error"] <= figures["golden_tolerance"]
    assert figures["live_monitors"] == "none in this bundle"
    assert figures["signature"] == "not checked"
    assert 0 < figures["inference_p50_us"] <= figures["inference_p99_us"]
