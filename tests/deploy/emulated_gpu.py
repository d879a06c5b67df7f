"""An emulated GPU: what landbridge calls of `tensorrt` and `cuda.bindings.runtime`, over host memory and onnxruntime.

Names, arguments and answers are those of the docstrings of tensorrt 10.16 and 11.4 and cuda-bindings 13.5. A stream
does nothing before it is synchronised, and device memory is known by address. It cannot show that TensorRT reads a
graph, nor how fast it is.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort

Kind = IntEnum("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})
Error = IntEnum("cudaError_t", {"cudaSuccess": 0, "cudaErrorInvalidValue": 1, "cudaErrorIllegalAddress": 700})
Flag = IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})
Mode = IntEnum("TensorIOMode", {"NONE": 0, "INPUT": 1, "OUTPUT": 2})
TF32, PLAIN = b"TF32", b"FP32"  # how an engine begins: whether it may round to ten bits


class Stream:
    """cudaStream_t: work that waits."""

    def __init__(self, handle: int) -> None:
        self.handle, self.work = handle, list[Callable[[], None]]()

    def __int__(self) -> int:
        return self.handle


class Gpu:
    """Attributes: `runtime`, `tensorrt`: the two modules; `lost`: set it, and every call fails."""

    def __init__(self) -> None:
        self.memory: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.streams: dict[int, Stream] = {}
        self.handles = itertools.count(4096)
        self.lost = False
        self.runtime = SimpleNamespace(
            cudaMemcpyKind=Kind,
            cudaMalloc=self.malloc,
            cudaMemcpyAsync=self.copy,
            cudaStreamCreate=self.create_stream,
            cudaStreamSynchronize=self.synchronize,
        )
        self.tensorrt = SimpleNamespace(
            __version__="11.4.0.106",
            Logger=Logger,
            Builder=Builder,
            OnnxParser=OnnxParser,
            NetworkDefinitionCreationFlag=Flag,
            BuilderFlag=SimpleNamespace(TF32="TF32"),
            TensorIOMode=Mode,
            float32="DataType.FLOAT",
            Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=self.deserialize),
        )

    def malloc(self, size: int) -> tuple[Error, int]:
        block = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(block)] = block
        return Error.cudaSuccess, ctypes.addressof(block)

    def create_stream(self) -> tuple[Error, Stream]:
        stream = Stream(next(self.handles))
        self.streams[int(stream)] = stream
        return Error.cudaSuccess, stream

    def copy(self, dst: int, src: int, count: int, kind: Kind, stream: Stream) -> tuple[Error]:
        device = dst if kind is Kind.cudaMemcpyHostToDevice else src
        if self.lost or device not in self.memory or len(self.memory[device]) < count:
            return (Error.cudaErrorInvalidValue,)
        stream.work.append(lambda: ctypes.memmove(dst, src, count))
        return (Error.cudaSuccess,)

    def synchronize(self, stream: Stream) -> tuple[Error]:
        for work in stream.work:
            work()
        stream.work.clear()
        return (Error.cudaErrorIllegalAddress if self.lost else Error.cudaSuccess,)

    def deserialize(self, engine: bytes) -> Engine | None:
        return Engine(self, engine) if engine[:4] in (TF32, PLAIN) else None


class Engine:
    """ICudaEngine."""

    def __init__(self, gpu: Gpu, engine: bytes) -> None:
        self.gpu = gpu
        self.session = ort.InferenceSession(engine[4:], providers=["CPUExecutionProvider"])
        self.ends = {value.name: (Mode.INPUT, value) for value in self.session.get_inputs()}
        self.ends |= {value.name: (Mode.OUTPUT, value) for value in self.session.get_outputs()}
        self.num_io_tensors = len(self.ends)

    def get_tensor_name(self, index: int) -> str:
        return list(self.ends)[index]

    def get_tensor_mode(self, name: str) -> Mode:
        return self.ends[name][0]

    def get_tensor_dtype(self, name: str) -> str:
        return {"tensor(float)": "DataType.FLOAT", "tensor(float16)": "DataType.HALF"}[self.ends[name][1].type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.ends[name][1].shape)

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    """IExecutionContext."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.addresses = engine, dict[str, int]()

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return name in self.engine.ends and memory in self.engine.gpu.memory

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self.addresses.keys() != self.engine.ends.keys():
            return False
        self.engine.gpu.streams[stream_handle].work.append(self._run)
        return True

    def _run(self) -> None:
        engine = self.engine
        inputs = {name: self._array(name).copy() for name, (mode, _) in engine.ends.items() if mode is Mode.INPUT}
        names = [name for name, (mode, _) in engine.ends.items() if mode is Mode.OUTPUT]
        for name, value in zip(names, engine.session.run(names, inputs), strict=True):
            self._array(name)[:] = value

    def _array(self, name: str) -> np.ndarray:
        block = self.engine.gpu.memory[self.addresses[name]]
        return np.frombuffer(block, np.float32).reshape(self.engine.get_tensor_shape(name))


class Logger:
    ERROR = 1

    def __init__(self, severity: int) -> None:
        self.severity = severity


class Builder:
    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def create_network(self, flags: int) -> SimpleNamespace:
        return SimpleNamespace(strongly_typed=bool(flags & 1 << Flag.STRONGLY_TYPED), model=b"")

    def create_builder_config(self) -> SimpleNamespace:
        flags = {"TF32"}
        return SimpleNamespace(flags=flags, clear_flag=flags.discard)

    def build_serialized_network(self, network: SimpleNamespace, config: SimpleNamespace) -> memoryview | None:
        kind = TF32 if config.flags else PLAIN
        return memoryview(kind + network.model) if network.strongly_typed else None


class OnnxParser:
    def __init__(self, network: SimpleNamespace, logger: Logger) -> None:
        self.network, self.errors = network, list[str]()
        self.get_error = self.errors.__getitem__

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def parse(self, model: bytes) -> bool:
        try:
            ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        except Exception as error:
            self.errors.append(str(error))
            return False
        self.network.model = model
        return True
