"""TensorRT without onnxruntime: an engine built from an ONNX file, and run, by TensorRT's own Python API.

Of TensorRT 10 and 11 only what both have is used. Networks are strongly typed (10 on request, 11 always): an engine
computes in the types that its graph names, so `precision` writes them there and nothing is left to the builder. Neither
`tensorrt` nor `cuda.bindings` is imported before it is asked for.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from landbridge.deploy.engine import NATIVE, TENSORRT, EngineKey
from landbridge.deploy.graph import Shapes, buffers
from landbridge.errors import InputError

INSTALL = "pip install 'landbridge[gpu]'"
OLDEST = 10  # major version of TensorRT; 8 knows no strongly typed networks


def build(path: Path, model: bytes) -> bytes:
    """An engine of the ONNX file `model` for this machine's first GPU, in full float32 where the graph says float32.

    Raises:
        InputError: TensorRT is not installed, too old, does not read the graph of `path`, or builds nothing of it.
    """
    trt = _tensorrt()
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        said = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise InputError(path, f"TensorRT {trt.__version__} cannot read it: {said:.200}", "use the CPU provider")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default, with 10 bits in place of 23: beyond the golden tolerance
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise InputError(path, f"TensorRT {trt.__version__} builds no engine of it, see above", "use the CPU provider")
    return bytes(engine)


class Engine:
    """A TensorRT engine with its buffers on both sides, behind what `graph.Graph` offers.

    Attributes:
        inputs, outputs: Buffers by name: fill the ones, `run`, read the others.
        provider: `tensorrt`.

    Raises:
        InputError: TensorRT cannot load it here, or its inputs or outputs are not the ones asked for.
    """

    provider = NATIVE

    def __init__(self, key: EngineKey, engine: bytes, inputs: Shapes, outputs: Shapes) -> None:
        self._made_from = key, engine, inputs, outputs
        path = key.file
        trt, cuda = _tensorrt(), _module("cuda.bindings.runtime")
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))  # must live as long as its engine
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise InputError(path, f"TensorRT {trt.__version__} cannot load it here", f"delete it, then {key.remedy}")
        self.inputs = buffers(path, "input", self._ends(trt, trt.TensorIOMode.INPUT), inputs)
        self.outputs = buffers(path, "output", self._ends(trt, trt.TensorIOMode.OUTPUT), outputs)
        self._context = self._engine.create_execution_context()
        self._stream = _checked(*cuda.cudaStreamCreate())
        self._copy, self._synchronize = cuda.cudaMemcpyAsync, cuda.cudaStreamSynchronize
        self._there, self._back = [], []
        for name, buffer in (self.inputs | self.outputs).items():
            device = _checked(*cuda.cudaMalloc(buffer.nbytes))  # a few hundred bytes, freed with the process
            self._context.set_tensor_address(name, device)
            ends = (device, buffer.ctypes.data, buffer.nbytes, cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)
            if name in self.inputs:
                self._there.append((*ends, self._stream))
            else:
                ends = (buffer.ctypes.data, device, buffer.nbytes, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)
                self._back.append((*ends, self._stream))

    def again(self) -> Engine:
        """The same engine once more, which has not run yet."""
        return Engine(*self._made_from)

    def run(self) -> None:
        """Compute `outputs` from `inputs`; raises RuntimeError when the GPU does not."""
        for copy in self._there:
            _checked(*self._copy(*copy))
        if not self._context.execute_async_v3(int(self._stream)):
            raise RuntimeError("TensorRT did not run its engine")
        for copy in self._back:
            _checked(*self._copy(*copy))
        _checked(*self._synchronize(self._stream))

    def _ends(self, trt: Any, mode: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of the engine's inputs or outputs."""
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        types = {name: engine.get_tensor_dtype(name) for name in names if engine.get_tensor_mode(name) == mode}
        return {
            name: ("float" if kind == trt.float32 else str(kind), tuple(engine.get_tensor_shape(name)))
            for name, kind in types.items()
        }


def _checked(error: Any, value: Any = None) -> Any:
    """The value of a CUDA call, which returns its error first; 0 is success."""
    if int(error) != 0:
        raise RuntimeError(f"CUDA: {error!r}")
    return value


def _tensorrt() -> Any:
    trt = _module("tensorrt")
    if int(trt.__version__.partition(".")[0]) < OLDEST:
        remedy = f"install {OLDEST} or newer: {INSTALL}, on a Jetson JetPack 6.1; or use {TENSORRT}"
        raise InputError("tensorrt", f"is {trt.__version__}", remedy)
    return trt


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:  # also a library that the module itself does not find
        raise InputError(name, f"cannot be imported: {error}", INSTALL) from error
