"""What of TensorRT can be checked without a GPU: keys, folders, options, and that every lack is loud."""

from __future__ import annotations

import ctypes
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from landbridge.bundle import read_bundle
from landbridge.deploy.accept import build_engine, compare
from landbridge.deploy.engine import (
    CUDA,
    NATIVE,
    TENSORRT,
    EngineKey,
    Precision,
    accept,
    engine_key,
    provider_options,
    read_record,
    require_accepted,
)
from landbridge.deploy.graph import ProviderFallbackWarning
from landbridge.deploy.runtime import load_policy
from landbridge.errors import InputError
from landbridge.onnx_session import CPU
from landbridge.robot import load_robot
from landbridge.simulation.behaviour import load_behaviours

KEY = EngineKey("0" * 64, "Orin (nvgpu)", "8.7", "10.3.0", "540.4.0", "fp32", TENSORRT)
WEIGHT = np.ones((8, 1), np.float32)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "1" * 64},
        {"gpu": "Orin Nano"},
        {"compute_capability": "8.6"},
        {"tensorrt": "10.3.1"},
        {"driver": "540.4.1"},
        {"precision": "fp16"},
        {"back_end": NATIVE},
        {"gpu": "Orin", "compute_capability": "(nvgpu)\n8.7"},  # no two keys may run together
    ],
)
def test_each_part_of_the_key_has_a_folder_of_its_own(change: dict[str, str]) -> None:
    assert KEY.folder == replace(KEY).folder
    assert KEY.folder != replace(KEY, **change).folder  # type: ignore[arg-type]


def test_the_key_is_that_of_this_machine(nvidia_smi: Callable[..., None], tmp_path: Path) -> None:
    nvidia_smi("NVIDIA H100 80GB HBM3, 9.0, 550.54.15")
    key = engine_key(b"model")
    assert (key.gpu, key.compute_capability, key.driver) == ("NVIDIA H100 80GB HBM3", "9.0", "550.54.15")
    assert key.tensorrt == "10.3.0"
    assert key.model != engine_key(b"another").model
    assert tmp_path / "cache" / "landbridge" / "tensorrt" == key.folder.parent


def test_engine_and_timing_cache_lie_in_the_keys_folder(nvidia_smi: Callable[..., None]) -> None:
    nvidia_smi("NVIDIA H100 80GB HBM3, 9.0, 550.54.15")
    options, folder = provider_options(TENSORRT, b"model"), engine_key(b"model").folder
    assert folder.is_dir()
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == str(folder)
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "True"
    assert provider_options(CPU, b"model") == {}


@pytest.mark.parametrize(
    ("answer", "code", "tensorrt", "match"),
    [
        ("NVIDIA-SMI has failed", 9, "10.3.0", "nvidia-smi: names no GPU: NVIDIA-SMI has failed"),
        ("", 0, "10.3.0", "nvidia-smi: names no GPU"),
        ("Orin, 8.7, 540.4.0", 0, None, "tensorrt: is not installed"),
    ],
)
def test_a_machine_without_gpu_or_tensorrt_says_so(
    nvidia_smi: Callable[..., None], answer: str, code: int, tensorrt: str | None, match: str
) -> None:
    nvidia_smi(answer, code, tensorrt)
    with pytest.raises(InputError, match=match):
        engine_key(b"model")


def test_tensorrt_that_cannot_run_is_left_out_loudly(
    tmp_path: Path, linear_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with onnxruntime-gpu on a machine without a driver: the provider is listed, but has nothing to run on."""
    bundle = read_bundle(linear_bundle(tmp_path / "b", WEIGHT))
    real = ort.get_available_providers()
    assert TENSORRT not in real
    monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, *real])
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.warns(ProviderFallbackWarning, match="left out: nvidia-smi: is not installed"),
        pytest.warns(ProviderFallbackWarning, match=f"asked for {TENSORRT}, running on {CPU}"),
    ):
        assert load_policy(bundle, (TENSORRT,)).provider == CPU
    with pytest.warns(ProviderFallbackWarning), pytest.raises(InputError, match=f"asked for {TENSORRT}"):
        load_policy(bundle, (TENSORRT,), strict=True)


class GpuSession(ort.InferenceSession):  # type: ignore[misc]
    """A session on an emulated GPU: an input is copied there when it is bound, as onnxruntime's CUDA provider does."""

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def io_binding(self) -> GpuSession:
        self.there: dict[str, np.ndarray] = {}
        self.back: dict[str, np.ndarray] = {}
        return self

    def bind_input(self, name: str, device: str, index: int, kind: type, shape: list[int], address: int) -> None:
        self.there[name] = floats(address, shape).copy()

    def bind_output(self, name: str, device: str, index: int, kind: type, shape: list[int], address: int) -> None:
        self.back[name] = floats(address, shape)

    def run_with_iobinding(self, binding: GpuSession) -> None:
        for name, value in zip(self.back, self.run([*self.back], self.there), strict=True):
            self.back[name][:] = value


def floats(address: int, shape: list[int]) -> np.ndarray:
    pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
    return np.ctypeslib.as_array(pointer, tuple(shape))


def test_a_gpu_is_given_each_observation(
    tmp_path: Path, linear_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ort.get_available_providers()
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, *real])
    monkeypatch.setattr(ort, "InferenceSession", lambda *args, **kwargs: GpuSession(args[0], args[1], providers=[CPU]))
    policy = load_policy(read_bundle(linear_bundle(tmp_path / "b", WEIGHT)), (CUDA,), strict=True)
    assert policy.provider == CUDA
    for scale in (1, -1):
        obs = scale * np.linspace(-1, 1, 8, dtype=np.float32)
        np.testing.assert_allclose(policy(obs), np.tanh(obs @ WEIGHT), atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_golden_vectors_on_the_gpu(tmp_path: Path, linear_bundle: Callable[..., Path], provider: str) -> None:
    require(provider)
    bundle = read_bundle(linear_bundle(tmp_path / "b", WEIGHT))
    policy = load_policy(bundle, (provider,), strict=True)
    assert policy.provider == provider
    obs = np.linspace(-1, 1, 8, dtype=np.float32)
    np.testing.assert_allclose(policy(obs), np.tanh(obs @ WEIGHT), atol=1e-5)
    if provider == TENSORRT:
        assert list(engine_key(bundle.files["policy.onnx"]).folder.glob("*.engine"))


def require(provider: str) -> None:
    """Skip where onnxruntime lacks the provider, or lists it without the library that it needs."""
    if provider not in ort.get_available_providers():
        pytest.skip(f"onnxruntime here has no {provider}: {ort.get_available_providers()}")
    if provider == TENSORRT:
        pytest.importorskip("tensorrt", reason=f"{provider} is listed, and TensorRT is not installed")


@pytest.fixture
def accepted(nvidia_smi: Callable[..., None]) -> EngineKey:
    """A key on a pretended GPU, with one engine and the record of its acceptance."""
    nvidia_smi("Orin, 8.7, 540.4.0")
    key = engine_key(b"model", "fp16")
    key.folder.mkdir(parents=True)
    (key.folder / "graph_sm87.engine").write_bytes(b"engine")
    accept(key, "ours", 0.001, {"success": 1.0})
    return key


def test_a_record_is_read_back_and_fp16_asked_of_the_provider(accepted: EngineKey) -> None:
    record = read_record(accepted)
    assert record.key == asdict(accepted)
    assert record.engines == {"graph_sm87.engine": hashlib.sha256(b"engine").hexdigest()}
    assert require_accepted(accepted, "ours") == {"graph_sm87.engine": b"engine"}
    with pytest.raises(InputError, match=r"robot_hash: it has driven another robot\. build it again"):
        require_accepted(accepted, "another")  # of the same graph, which an imported policy may be for two robots
    assert provider_options(TENSORRT, b"model", "fp16")["trt_fp16_enable"] == "True"
    assert provider_options(TENSORRT, b"model", "fp32")["trt_fp16_enable"] == "False"
    assert not list(accepted.folder.glob("*.partial"))


def test_an_engine_that_is_not_the_accepted_one_is_refused(accepted: EngineKey) -> None:
    engine = accepted.folder / "graph_sm87.engine"
    for content, extra in ((b"engina", None), (b"engine", b"another"), (None, None)):
        engine.unlink(missing_ok=True)
        if content is not None:
            engine.write_bytes(content)
        if extra is not None:
            (accepted.folder / "graph_sm88.engine").write_bytes(extra)
        match = rf"graph_sm8[78]\.engine: is not the engine that was accepted.* {TENSORRT} --precision fp16`"
        with pytest.raises(InputError, match=match):
            provider_options(TENSORRT, b"model", "fp16")
        (accepted.folder / "graph_sm88.engine").unlink(missing_ok=True)
    engine.write_bytes(b"engine")
    assert read_record(accepted).golden_error == 0.001


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("key", asdict(KEY), "key: of another compute_capability, driver"),
        ("golden_error", "small", r"golden_error: .*got 'small'"),
        ("schema_version", 1, "schema_version: "),
    ],
)
def test_a_record_that_does_not_fit_names_its_field(accepted: EngineKey, field: str, value: object, match: str) -> None:
    path = accepted.folder / "engine.json"
    plain = json.loads(path.read_text())
    if field == "key":
        value = plain["key"] | {"driver": "0", "compute_capability": "9.0"}
    path.write_text(json.dumps(plain | {field: value}))
    with pytest.raises(InputError, match=match):
        read_record(accepted)
    path.write_text("{")
    with pytest.raises(InputError, match="no accepted engine"):
        read_record(accepted)


def test_half_precision_runs_only_where_it_was_accepted(
    tmp_path: Path, linear_bundle: Callable[..., Path], nvidia_smi: Callable[..., None]
) -> None:
    bundle = read_bundle(linear_bundle(tmp_path / "b", WEIGHT))
    with pytest.raises(InputError, match="precision: is fp16 on CPUExecutionProvider"):
        load_policy(bundle, precision="fp16")
    nvidia_smi("Orin, 8.7, 540.4.0")
    with pytest.raises(InputError, match=r"engine\.json: no accepted engine.*landbridge engine build"):
        load_policy(bundle, (TENSORRT,), precision="fp16")


def test_acceptance_asks_for_the_same_driving_as_the_cpus(tmp_path: Path, linear_bundle: Callable[..., Path]) -> None:
    """A controller that swings up, the same a thousandth off, and one that does nothing."""
    robot = load_robot("furuta")
    bundle = read_bundle(linear_bundle(tmp_path / "b", WEIGHT))
    tuned = load_behaviours(robot)["tuned"](1, np.random.default_rng(0))

    def exact(row: np.ndarray) -> np.ndarray:
        return tuned(row[None])[0].astype(np.float32)

    scores = compare(bundle, robot, lambda: lambda row: exact(row) + np.float32(1e-3), lambda: exact, "none", 1)
    assert scores["success"] == scores["success_cpu"] == 1.0
    assert scores["return"] == pytest.approx(scores["return_cpu"], rel=0.05)
    with pytest.raises(InputError, match=r"drives worse than the CPU on none: .*'success': 0\.0"):
        compare(bundle, robot, lambda: lambda row: np.zeros(1, np.float32), lambda: exact, "none", 1)


def test_a_build_without_a_gpu_is_refused_before_anything_is_built(
    tmp_path: Path, linear_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = linear_bundle(tmp_path / "b", WEIGHT)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for provider in (NATIVE, TENSORRT):
        with pytest.raises(InputError, match="nvidia-smi: is not installed"):
            build_engine(bundle, provider=provider)
    assert not (tmp_path / "cache").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_of_onnxruntime_is_built_accepted_and_found_again(
    tmp_path: Path, linear_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    require(TENSORRT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = linear_bundle(tmp_path / "b", WEIGHT)
    figures = build_engine(path, precision, TENSORRT, episodes=2)
    assert figures["golden_error"] <= figures["golden_tolerance"]
    assert load_policy(read_bundle(path), (TENSORRT,), strict=True, precision=precision).provider == TENSORRT
