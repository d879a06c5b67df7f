"""What of TensorRT can be checked without a GPU: keys, folders, options, and that every lack is loud."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from landbridge.bundle import read_bundle
from landbridge.deploy.engine import TENSORRT, EngineKey, engine_key, provider_options
from landbridge.deploy.runtime import CPU, ProviderFallbackWarning, load_policy
from landbridge.errors import InputError

KEY = EngineKey("0" * 64, "Orin (nvgpu)", "8.7", "10.3.0", "540.4.0", "fp32")
WEIGHT = np.ones((8, 1), np.float32)


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a program of that name first on the PATH, which answers as told, and TensorRT 10.3.0 among the packages."""

    def install(answer: str, code: int = 0, tensorrt: str | None = "10.3.0") -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        program = tmp_path / "bin" / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nprintf '%s\\n' '{answer}'\nexit {code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        real = importlib.metadata.version

        def version(name: str) -> str:
            if name != "tensorrt":
                return real(name)
            if tensorrt is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return tensorrt

        monkeypatch.setattr(importlib.metadata, "version", version)

    return install


@pytest.mark.parametrize(
    "change",
    [
        {"model": "1" * 64},
        {"gpu": "Orin Nano"},
        {"compute_capability": "8.6"},
        {"tensorrt": "10.3.1"},
        {"driver": "540.4.1"},
        {"precision": "fp16"},
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


@pytest.mark.gpu
@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", TENSORRT])
def test_golden_vectors_on_the_gpu(tmp_path: Path, linear_bundle: Callable[..., Path], provider: str) -> None:
    if provider not in ort.get_available_providers():
        pytest.skip(f"onnxruntime here has no {provider}: {ort.get_available_providers()}")
    bundle = read_bundle(linear_bundle(tmp_path / "b", WEIGHT))
    policy = load_policy(bundle, (provider,), strict=True)
    assert policy.provider == provider
    obs = np.linspace(-1, 1, 8, dtype=np.float32)
    np.testing.assert_allclose(policy(obs), np.tanh(obs @ WEIGHT), atol=1e-5)
    if provider == TENSORRT:
        assert list(engine_key(bundle.files["policy.onnx"]).folder.glob("*.engine"))
