"""TensorRT engines, kept under a key of everything they depend on.

An engine is valid for one model on one GPU model, compute capability, TensorRT, driver, precision and back end:
onnxruntime's execution provider or TensorRT itself (`native`). Each combination has a folder of its own, so a changed
one can never pick up an old engine; deleting the folder is always safe. Beside the engines lies `engine.json`, the
record of a build that was accepted (`landbridge engine build`).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from landbridge.errors import InputError
from landbridge.files import write_atomic
from landbridge.gpu import gpus
from landbridge.spec import Spec, validated

TENSORRT = "TensorrtExecutionProvider"
CUDA = "CUDAExecutionProvider"
NATIVE = "tensorrt"  # the same library without onnxruntime
Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: dict[str, tuple[Precision, ...]] = {TENSORRT: ("fp32", "fp16"), NATIVE: ("fp32", "fp16", "int8")}
RECORD = "engine.json"


@dataclass(frozen=True)
class EngineKey:
    """What an engine depends on.

    Attributes:
        model: SHA-256 of the ONNX file, with int8 also of what it is calibrated with.
        gpu: Product name.
        compute_capability: As in "8.7".
        tensorrt: Version of the libraries.
        driver: Version of the kernel's driver.
        precision: fp32, fp16 or int8.
        back_end: TensorrtExecutionProvider or tensorrt.
    """

    model: str
    gpu: str
    compute_capability: str
    tensorrt: str
    driver: str
    precision: Precision
    back_end: str

    @property
    def file(self) -> Path:
        """The engine of the back end `tensorrt`; onnxruntime names its own."""
        return self.folder / "policy.engine"

    @property
    def candidate(self) -> Path:
        """Such an engine that is built and not accepted yet, beside the one that is."""
        return self.folder / "policy.candidate"

    @property
    def remedy(self) -> str:
        """How to get an engine of this key."""
        options = f"--provider {self.back_end} --precision {self.precision}"
        return f"build it again with `landbridge engine build BUNDLE {options}`"

    @property
    def folder(self) -> Path:
        """Where its engine and timing cache lie, below $XDG_CACHE_HOME/landbridge."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "landbridge" / "tensorrt" / hashlib.sha256("\n".join(astuple(self)).encode()).hexdigest()[:32]


class Record(Spec):
    """An accepted build.

    Attributes:
        key: The `EngineKey` as a dict.
        robot_hash: Of the robot that the closed loop was of.
        engines: SHA-256 of each engine file, by name.
        golden_error: Largest |difference| from the golden actions.
        scores: Success and return in closed loop, of the engine and of the CPU.
    """

    schema_version: Literal[2] = 2
    key: dict[str, str]
    robot_hash: str
    engines: dict[str, str]
    golden_error: float
    scores: dict[str, float]


def engine_key(model: bytes, precision: Precision = "fp32", back_end: str = TENSORRT) -> EngineKey:
    """The key of `model` on this machine's first GPU.

    Raises:
        InputError: There is no NVIDIA driver or no TensorRT.
    """
    gpu, capability, driver = gpus("name", "compute_cap", "driver_version")[0]
    try:
        tensorrt = importlib.metadata.version("tensorrt")
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError("tensorrt", "is not installed", "pip install 'landbridge[gpu]'") from error
    return EngineKey(hashlib.sha256(model).hexdigest(), gpu, capability, tensorrt, driver, precision, back_end)


def require_offered(provider: str, precision: Precision) -> None:
    """Raise InputError unless `provider` computes in `precision`: all do in fp32."""
    if precision not in PRECISIONS.get(provider, ("fp32",)):
        able = [name for name, precisions in PRECISIONS.items() if precision in precisions]
        remedy = (
            f"ask for {' or '.join(able)}, or for fp32" if able else f"name one of {', '.join(get_args(Precision))}"
        )
        raise InputError("precision", f"is {precision} on {provider}", remedy)


def provider_options(provider: str, model: bytes, precision: Precision = "fp32") -> dict[str, str]:
    """Options of an execution provider for `model`; engine and timing cache for TensorRT.

    Raises:
        InputError: As `engine_key`, or an engine in the cache is not the one that was accepted.
    """
    if provider != TENSORRT:
        return {}
    key = engine_key(model, precision)
    key.folder.mkdir(parents=True, exist_ok=True)
    if (key.folder / RECORD).is_file():
        require_accepted(key)
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(key.folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(key.folder),
        "trt_fp16_enable": str(precision == "fp16"),
    }


def write_candidate(key: EngineKey, engine: bytes) -> None:
    """Put an engine of the back end `tensorrt` into its folder, where it waits to be accepted."""
    write_atomic(key.candidate, engine)


def accept(key: EngineKey, robot_hash: str, golden_error: float, scores: dict[str, float]) -> Record:
    """Record that the candidate, or what onnxruntime has built in the key's folder, is the engine from now on.

    An engine without its record is refused, so that a kill between the two leaves none that nobody accepted.
    """
    if key.candidate.is_file():
        key.candidate.replace(key.file)
    engines = {name: _digest(engine) for name, engine in _engines(key).items()}
    record = Record(key=asdict(key), robot_hash=robot_hash, engines=engines, golden_error=golden_error, scores=scores)
    write_atomic(key.folder / RECORD, record.model_dump_json(indent=2) + "\n")
    return record


def read_record(key: EngineKey) -> Record:
    """The record of the accepted build for this key.

    Raises:
        InputError: There is none, or it is of another key.
    """
    path = key.folder / RECORD
    try:
        plain: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(path, f"no accepted engine: {error!r:.120}", key.remedy) from error
    record = validated(Record, plain, path, key.remedy)
    if other := [name for name, value in asdict(key).items() if record.key.get(name) != value]:
        raise InputError(path, f"key: of another {', '.join(other)} than this machine's", key.remedy)
    return record


def require_accepted(key: EngineKey, robot_hash: str | None = None) -> dict[str, bytes]:
    """The engines of the accepted build for this key, by name: the very bytes that were compared with its record.

    Args:
        robot_hash: Of the robot that the engine is to drive; None: whatever robot.

    Raises:
        InputError: As `read_record`, an engine has changed, gone or come since, or it was accepted for another robot.
    """
    record, found = read_record(key), _engines(key)
    if robot_hash not in (None, record.robot_hash):
        raise InputError(key.folder / RECORD, "robot_hash: it has driven another robot", key.remedy)
    accepted = record.engines
    for name in sorted({*accepted, *found}):
        if name not in found or accepted.get(name) != _digest(found[name]):
            raise InputError(key.folder / name, "is not the engine that was accepted", f"delete it, then {key.remedy}")
    return found


def read_engine(key: EngineKey, robot_hash: str | None) -> bytes:
    """The engine of the back end `tensorrt`: the one accepted for the robot of that hash, or if None the candidate.

    Raises:
        InputError: As `require_accepted`, or there is none.
    """
    if robot_hash is not None:
        engine = require_accepted(key, robot_hash).get(key.file.name)
    else:
        engine = key.candidate.read_bytes() if key.candidate.is_file() else None
    if engine is None:
        raise InputError(key.file, "is missing", key.remedy)
    return engine


def _engines(key: EngineKey) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(key.folder.glob("*.engine"))}


def _digest(engine: bytes) -> str:
    return hashlib.sha256(engine).hexdigest()
