"""Native TensorRT on an emulated GPU, and what of it needs none: graphs in other precisions, on the CPU."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from untrained import write_untrained

from landbridge.bundle import Bundle, npz, read_bundle, write_bundle
from landbridge.cli import main
from landbridge.deploy.accept import build_engine
from landbridge.deploy.engine import NATIVE, TENSORRT, Precision, accept, write_candidate
from landbridge.deploy.graph import Graph
from landbridge.deploy.native import Engine, build
from landbridge.deploy.precision import calibration, lowered
from landbridge.deploy.runtime import (
    GOLDEN_TOLERANCE,
    Calibrated,
    Policy,
    calibrated_range,
    familiar,
    golden_error,
    key_of,
    load_policy,
)
from landbridge.deploy.verify import verify
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge_nodes.replay import replay

from .emulated_gpu import Gpu

HIDDEN = 16
RNG = np.random.default_rng(0)
OBS = RNG.normal(size=(20, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A policy that barely moves the furuta."""
    return write(tmp_path_factory.mktemp("native"), last=0.1)


def write(folder: Path, last: float, activation: str = "Tanh") -> Bundle:
    """A bundle of a small random policy of three dense layers, `last` the size of the last one's weights."""
    sizes, rng = (8, HIDDEN, HIDDEN, 1), np.random.default_rng(0)
    weights = [
        rng.normal(size=pair).astype(np.float32) / np.sqrt(pair[0], dtype=np.float32) for pair in pairwise(sizes)
    ]
    weights[-1] *= np.float32(last)
    obs = rng.normal(size=(200, 8)).astype(np.float32)
    act = {"Tanh": np.tanh, "Relu": lambda x: np.maximum(x, 0)}[activation]
    action = act(act(obs @ weights[0]) @ weights[1]) @ weights[2]
    write_untrained(folder / "b", load_robot("furuta").spec, mlp(weights, activation), (obs, action), agent="test")
    return read_bundle(folder / "b")


def mlp(weights: list[np.ndarray], activation: str = "Tanh") -> bytes:
    nodes = [
        helper.make_node("MatMul", ["obs", "w0"], ["a"]),
        helper.make_node(activation, ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["c"]),
        helper.make_node(activation, ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "w2"], ["action"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, s]) for n, s in (("obs", 8), ("action", 1))]
    constants = [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)]
    graph = helper.make_graph(nodes, "policy", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture
def gpu(nvidia_smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Gpu:
    nvidia_smi("Orin, 8.7, 540.4.0")
    emulated = Gpu()
    monkeypatch.setitem(sys.modules, "tensorrt", emulated.tensorrt)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", emulated.runtime)
    return emulated


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_is_built_accepted_and_runs(gpu: Gpu, bundle: Bundle, precision: Precision) -> None:
    """What the robot computes then is what the CPU computes, within the tolerance, call after call."""
    with pytest.raises(InputError, match=r"engine\.json: no accepted engine.*landbridge engine build"):
        load_policy(bundle, (NATIVE,), precision=precision)
    figures = build_engine(bundle.path, precision, episodes=1)
    assert figures["back_end"] == NATIVE
    assert figures["golden_error"] <= figures["golden_tolerance"]
    policy, reference = load_policy(bundle, (NATIVE,), strict=True, precision=precision), load_policy(bundle)
    assert policy.provider == NATIVE
    assert (policy.golden_error > 1e-6) == (precision != "fp32")  # it is another precision
    again = Policy(policy.graph.again())
    for obs in OBS:
        np.testing.assert_allclose(policy(obs), reference(obs), atol=figures["golden_tolerance"])
        np.testing.assert_array_equal(again(obs), policy(obs))


def test_an_engine_that_is_not_the_accepted_one_is_refused(
    gpu: Gpu, bundle: Bundle, nvidia_smi: Callable[..., None]
) -> None:
    build_engine(bundle.path, episodes=1)
    key = key_of(bundle, "fp32", NATIVE)
    key.file.write_bytes(key.file.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"policy\.engine: is not the engine that was accepted"):
        load_policy(bundle, (NATIVE,))
    nvidia_smi("Orin, 8.7, 540.5.0")
    with pytest.raises(InputError, match="no accepted engine"):
        load_policy(bundle, (NATIVE,))


def test_a_build_that_fails_leaves_the_accepted_engine(
    gpu: Gpu, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it does not drive, is not what golden vectors say, or is not finished."""
    build_engine(bundle.path, episodes=1)
    key = key_of(bundle, "fp32", NATIVE)
    before = {path.name: path.read_bytes() for path in key.folder.iterdir()}
    raised = InputError("b", "drives worse than the CPU", "do not use it")
    for name, replaced in (
        ("compare", lambda *_: raise_(raised)),
        ("build", lambda *_: b"FP32" + mlp([np.zeros(pair, np.float32) for pair in ((8, 2), (2, 2), (2, 1))])),
        ("build", lambda *_: b"cut off"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"landbridge.deploy.accept.{name}", replaced)
            with pytest.raises(InputError):
                build_engine(bundle.path, episodes=1)
        assert {path.name: path.read_bytes() for path in key.folder.iterdir()} == before
        assert load_policy(bundle, (NATIVE,)).golden_error < 1e-6


def raise_(error: Exception) -> None:
    raise error


def test_an_engine_without_its_file_is_refused(gpu: Gpu, bundle: Bundle) -> None:
    key = key_of(bundle, "fp32", NATIVE)
    with pytest.raises(InputError, match=r"policy\.engine: is missing. .*--provider tensorrt --precision fp32`"):
        load_policy(bundle, (NATIVE,), accepted=False)
    build_engine(bundle.path, episodes=1)
    key.file.unlink()
    with pytest.raises(InputError, match=r"policy\.engine: is not the engine that was accepted"):
        load_policy(bundle, (NATIVE,))
    accept(key, bundle.manifest.robot_hash, 0.0, {})  # of a folder without an engine
    with pytest.raises(InputError, match=r"policy\.engine: is missing"):
        load_policy(bundle, (NATIVE,))


def test_a_build_without_episodes_is_refused_before_anything_is_built(gpu: Gpu, bundle: Bundle) -> None:
    with pytest.raises(InputError, match="--episodes: is 0"):
        build_engine(bundle.path, episodes=0)
    assert not key_of(bundle, "fp32", NATIVE).folder.exists()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_verify_computes_in_the_precision_that_it_names(gpu: Gpu, bundle: Bundle, precision: Precision) -> None:
    built = build_engine(bundle.path, precision, episodes=1)
    figures = verify(bundle.path, provider=NATIVE, precision=precision, strict=True)
    for name, value in {"provider": NATIVE, "precision": precision}.items():
        assert figures[name] == value
    for name in ("golden_error", "golden_tolerance"):
        assert figures[name] == built[name]
    assert verify(bundle.path)["precision"] == "fp32"


def test_calibrated_with_other_data_it_is_another_engine(gpu: Gpu, bundle: Bundle, tmp_path: Path) -> None:
    golden = bundle.arrays("golden.npz")
    half = {name: values[: len(values) // 2] for name, values in golden.items()}
    files = {name: bundle.files[name] for name in ("policy.onnx", "envelope.npz")} | {"golden.npz": npz(**half)}
    other = write_bundle(tmp_path / "b", bundle.manifest, bundle.robot, files)
    assert key_of(other, "fp16", NATIVE) == key_of(bundle, "fp16", NATIVE)
    assert key_of(other, "int8", NATIVE) != key_of(bundle, "int8", NATIVE)


def test_a_log_is_replayed_in_the_precision_that_is_asked_for(gpu: Gpu, repository: Path) -> None:
    """One recorded in float32, so that half floats show."""
    data = repository / "tests" / "ros" / "data"
    build_engine(data / "replay.zip", "fp16", episodes=1)
    figures = replay(data / "replay.mcap", data / "replay.zip", provider=NATIVE, precision="fp16")
    assert (figures["provider"], figures["precision"]) == (NATIVE, "fp16")
    (action,) = (row for row in figures["stages"] if row["stage"] == "action")
    assert 1e-5 < action["largest difference"] < 0.02
    with pytest.raises(InputError, match="no accepted engine"):
        replay(data / "replay.mcap", data / "replay.zip", provider=NATIVE)


def test_fp32_is_full_float32(gpu: Gpu, bundle: Bundle) -> None:
    """TensorRT rounds to TF32 unless it is told not to, and that is more than golden vectors forgive."""
    model = bundle.files["policy.onnx"]
    assert build(bundle.path, model) == b"FP32" + model


def test_a_recurrent_engine_keeps_its_state(gpu: Gpu, tmp_path: Path, recurrent_bundle: Callable[..., Path]) -> None:
    path = recurrent_bundle(tmp_path / "b", np.ones((8, 1), np.float32))
    figures = build_engine(path, episodes=1)
    assert figures["return"] == figures["return_cpu"]
    policy, reference = load_policy(read_bundle(path), (NATIVE,)), load_policy(read_bundle(path))
    np.testing.assert_array_equal([policy(o).copy() for o in OBS], [reference(o).copy() for o in OBS])


def test_a_gpu_that_fails_while_running_raises(gpu: Gpu, bundle: Bundle) -> None:
    """Which makes the controller fall silent, as with onnxruntime."""
    build_engine(bundle.path, episodes=1)
    policy = load_policy(bundle, (NATIVE,))
    gpu.lost = True
    with pytest.raises(RuntimeError, match=r"CUDA: .*cudaErrorInvalidValue"):
        policy(OBS[0])


def test_graphs_that_tensorrt_does_not_take_are_refused(gpu: Gpu, bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"TensorRT 11\.4\.0\.106 cannot read it"):
        build(bundle.path, b"not a graph")
    sizes, key = ({"obs": (1, 8)}, {"action": (1, 1)}), key_of(bundle, "int8", NATIVE)
    with pytest.raises(
        InputError, match=r"cannot load it here.*engine build BUNDLE --provider tensorrt --precision int8`"
    ):
        Engine(key, b"of another TensorRT", *sizes)
    with pytest.raises(
        InputError, match=r"input is {'obs': \('float', \(1, 8\)\)}, expected float32 {'obs': \(1, 9\)}"
    ):
        Engine(key, build(bundle.path, bundle.files["policy.onnx"]), {"obs": (1, 9)}, sizes[1])


def test_a_tensorrt_that_is_too_old_is_refused(gpu: Gpu, bundle: Bundle) -> None:
    """JetPack 6.0's has no strongly typed networks."""
    gpu.tensorrt.__version__ = "8.6.2"
    del gpu.tensorrt.NetworkDefinitionCreationFlag
    match = r"tensorrt: is 8\.6\.2\. install 10 or newer"
    with pytest.raises(InputError, match=match):
        build_engine(bundle.path, episodes=1)
    with pytest.raises(InputError, match=match):
        Engine(key_of(bundle, "fp32", NATIVE), b"FP32", {}, {})


def test_without_the_libraries_it_says_what_to_install(
    nvidia_smi: Callable[..., None], bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("tensorrt"):
        pytest.skip("tensorrt is installed here")
    nvidia_smi("Orin, 8.7, 540.4.0")
    assert main(["engine", "build", str(bundle.path)]) == 2
    assert "tensorrt: cannot be imported" in (said := capsys.readouterr().err)
    assert "pip install 'landbridge[gpu]'" in said


@pytest.mark.parametrize("provider", [TENSORRT, "CPUExecutionProvider"])
def test_int8_is_offered_by_native_tensorrt_only(bundle: Bundle, provider: str) -> None:
    with pytest.raises(InputError, match=f"precision: is int8 on {provider}. ask for tensorrt, or for fp32"):
        load_policy(bundle, (provider,), precision="int8")


def test_a_precision_that_does_not_exist_is_refused(bundle: Bundle) -> None:
    """As a parameter of the policy node can name it."""
    with pytest.raises(InputError, match=r"precision: is bf16 on tensorrt\. name one of fp32, fp16, int8"):
        load_policy(bundle, (NATIVE,), precision="bf16")  # type: ignore[arg-type]


def on_the_cpu(bundle: Bundle, model: bytes) -> Policy:
    return Policy(Graph(bundle.path, model, {"obs": (1, 8)}, {"action": (1, 1)}))


def test_int8_quantises_the_inner_layer_and_drives(bundle: Bundle) -> None:
    model = onnx.load_from_string(lowered(bundle, "int8", load_policy(bundle)))
    made_by = {output: node for node in model.graph.node for output in node.output}
    dense = [node for node in model.graph.node if node.op_type == "MatMul"]
    quantised = [[made_by[n].op_type if n in made_by else "" for n in node.input] for node in dense]
    assert quantised[1] == ["DequantizeLinear", "DequantizeLinear"]
    assert "DequantizeLinear" not in quantised[0] + quantised[2][1:]
    zeros = [numpy_helper.to_array(t) for t in model.graph.initializer if "zero_point" in t.name]
    assert zeros and not any(zero.any() for zero in zeros)  # TensorRT reads symmetric ranges only
    policy = Policy(Calibrated(bundle, on_the_cpu(bundle, model.SerializeToString()).graph))
    assert 0 < golden_error(bundle, policy) <= GOLDEN_TOLERANCE["int8"]


def test_what_int8_was_not_calibrated_for_is_answered_in_fp32(gpu: Gpu, tmp_path: Path) -> None:
    """Up to twice the range, which activations without a bound leave too; and counted."""
    lively = write(tmp_path, last=0.3, activation="Relu")
    build_engine(lively.path, "int8", episodes=1, scenario="none")
    policy, reference = load_policy(lively, (NATIVE,), precision="int8"), load_policy(lively)
    low, high = calibrated_range(lively)
    far = np.repeat([1.0, 2.0], 200)[:, None] * RNG.uniform(-1, 1, (400, 8))
    obs = ((low + high) / 2 + (high - low) / 2 * far).astype(np.float32)
    known, alone = familiar(lively, obs), Policy(policy.graph._engine.again())
    exact = np.array([reference(row).copy() for row in obs])
    errors, errors_alone = (np.abs([of(row).copy() for row in obs] - exact)[:, 0] for of in (policy, alone))
    assert policy.outside == (~known).sum() > 100
    assert errors[~known].max() < 1e-6
    assert errors_alone[~known].max() > 0.1  # the engine's own answers
    np.testing.assert_array_equal(errors[known], errors_alone[known])
    assert 0 < errors[known].max() < GOLDEN_TOLERANCE["int8"]
    policy(np.full(8, np.nan, np.float32))
    assert np.isnan(policy.action).all()


def test_a_recurrent_policy_keeps_its_state_from_engine_to_cpu_and_back(
    tmp_path: Path, recurrent_bundle: Callable[..., Path]
) -> None:
    bundle = read_bundle(recurrent_bundle(tmp_path / "b", np.ones((8, 1), np.float32)))
    reference = load_policy(bundle)
    policy = Policy(Calibrated(bundle, reference.graph.again()))
    obs = np.concatenate([OBS[:3], OBS[:3] + 10, OBS[3:6]])
    np.testing.assert_array_equal([policy(o).copy() for o in obs], [reference(o).copy() for o in obs])
    assert 3 <= policy.outside < len(obs)


def test_badly_calibrated_int8_is_refused(gpu: Gpu, tmp_path: Path) -> None:
    """Ranges a hundred times too wide leave a few steps of the action."""
    lively = write(tmp_path, last=0.7)
    model = onnx.load_from_string(lowered(lively, "int8", load_policy(lively)))
    key = key_of(lively, "int8", NATIVE)
    write_candidate(key, build(lively.path, model.SerializeToString()))
    assert load_policy(lively, (NATIVE,), precision="int8", accepted=False).golden_error > 0
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_scale"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(100), tensor.name))
    write_candidate(key, build(lively.path, model.SerializeToString()))
    with pytest.raises(InputError, match=r"golden\.npz: actions differ by 0\.6\d+ on tensorrt, allowed is 0\.2"):
        load_policy(lively, (NATIVE,), precision="int8", accepted=False)


def test_what_cannot_be_quantised_is_refused(
    tmp_path: Path, bundle: Bundle, linear_bundle: Callable[..., Path]
) -> None:
    shallow = read_bundle(linear_bundle(tmp_path / "b", np.ones((8, 1), np.float32)))
    files = {name: shallow.files[name] for name in ("policy.onnx", "golden.npz")} | {"envelope.npz": npz()}
    unknown = write_bundle(tmp_path / "unknown", shallow.manifest, shallow.robot, files)
    with pytest.raises(InputError, match=r"no dense layer .* besides its first and last"):
        lowered(shallow, "int8", load_policy(shallow))
    with pytest.raises(InputError, match=r"envelope\.npz: has no quantiles"):
        familiar(unknown, OBS)
    with pytest.raises(InputError, match=r"golden\.npz: has no observation like the training data"):
        familiar(bundle, OBS + 1000)


def test_calibration_takes_familiar_rows_with_the_state_they_meet(
    tmp_path: Path, recurrent_bundle: Callable[..., Path]
) -> None:
    bundle = read_bundle(recurrent_bundle(tmp_path / "b", RNG.normal(size=(8, 1)).astype(np.float32)))
    obs = bundle.arrays("golden.npz")["obs"]
    inside = familiar(bundle, obs)
    rows = list(calibration(bundle, load_policy(bundle)))
    assert 0 < len(rows) == inside.sum() < inside.size
    np.testing.assert_array_equal(np.concatenate([row["obs"] for row in rows]), obs[inside])
    ticks = [tick for sequence in inside for tick in np.flatnonzero(sequence)]
    assert [row["c_in"].item() for row in rows] == ticks  # which the graph counts itself


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_real_engine_is_built_accepted_and_runs(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    for module in ("tensorrt", "cuda.bindings"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            pytest.skip(f"needs a GPU and the extra [gpu]: {error}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    figures = build_engine(bundle.path, precision, episodes=2)
    assert figures["golden_error"] <= figures["golden_tolerance"]
    assert load_policy(bundle, (NATIVE,), strict=True, precision=precision).provider == NATIVE
