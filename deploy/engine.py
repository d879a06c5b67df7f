"""TensorRT engines of onnxruntime's execution provider, kept under a key of everything they depend on.

An engine is valid for one model on one GPU model, compute capability, TensorRT, driver and precision. Each combination
has a folder of its own, so a changed one can never pick up an old engine; deleting the folder is always safe.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

from landbridge.errors import InputError

TENSORRT = "TensorrtExecutionProvider"
CUDA = "CUDAExecutionProvider"
Precision = Literal["fp32", "fp16"]
QUERY = ("name", "compute_cap", "driver_version")  # of nvidia-smi --query-gpu


@dataclass(frozen=True)
class EngineKey:
    """What an engine depends on.

    Attributes:
        model: SHA-256 of the ONNX file.
        gpu: Product name.
        compute_capability: As in "8.7".
        tensorrt: Version of the libraries.
        driver: Version of the kernel's driver.
        precision: fp32 or fp16.
    """

    model: str
    gpu: str
    compute_capability: str
    tensorrt: str
    driver: str
    precision: Precision

    @property
    def folder(self) -> Path:
        """Where its engine and timing cache lie, below $XDG_CACHE_HOME/landbridge."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "landbridge" / "tensorrt" / hashlib.sha256("\n".join(astuple(self)).encode()).hexdigest()[:32]


def engine_key(model: bytes, precision: Precision = "fp32") -> EngineKey:
    """The key of `model` on this machine's first GPU.

    Raises:
        InputError: There is no NVIDIA driver or no TensorRT.
    """
    smi = shutil.which("nvidia-smi")
    if smi is None:
        raise InputError("nvidia-smi", "is not installed: no NVIDIA driver", "use the CPU provider")
    query = [smi, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    asked = subprocess.run(query, capture_output=True, text=True, timeout=10)
    found = [part.strip() for part in asked.stdout.partition("\n")[0].split(",")]
    if asked.returncode != 0 or len(found) != len(QUERY):
        said = (asked.stderr or asked.stdout).strip()
        raise InputError("nvidia-smi", f"names no GPU: {said:.100}", "check the driver, or use the CPU provider")
    try:
        tensorrt = importlib.metadata.version("tensorrt")
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError("tensorrt", "is not installed", "pip install 'landbridge[gpu]'") from error
    gpu, capability, driver = found
    return EngineKey(hashlib.sha256(model).hexdigest(), gpu, capability, tensorrt, driver, precision)


def provider_options(provider: str, model: bytes) -> dict[str, str]:
    """Options of an execution provider for `model`; an engine and a timing cache for TensorRT.

    Raises:
        InputError: As `engine_key`.
    """
    if provider != TENSORRT:
        return {}
    folder = engine_key(model).folder
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
    }
