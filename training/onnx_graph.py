"""Networks as ONNX: written with one exporter, read back by onnxruntime, and held to what TensorRT reads."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

OPSET = 18  # ONNX 1.13: within what TensorRT 8.6 (JetPack 6) and every onnxruntime since 1.14 read
# What our networks and rsl_rl's are made of and TensorRT 8.6 reads, up to its opset (onnx-tensorrt, docs/operators.md).
TENSORRT_OPSET = 17
TENSORRT_OPERATORS = (
    "Abs", "Add", "Clip", "Concat", "Constant", "Div", "Elu", "Exp", "Expand", "GRU", "Gather", "Gemm", "Identity",
    "LSTM", "LayerNormalization", "Log", "MatMul", "Max", "Min", "Mul", "Neg", "Relu", "Reshape", "Shape", "Sigmoid",
    "Slice", "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "Transpose", "Unsqueeze", "Where",
)  # fmt: skip


def to_onnx(module: nn.Module, example: dict[str, NDArray[np.float32]], outputs: list[str]) -> bytes:
    """A module as ONNX with the inputs of `example`, by name and shape, and these outputs; all float32."""
    inputs = tuple(torch.from_numpy(value) for value in example.values())
    # The exporter reports its progress on standard output and through logging and warnings; failures still raise.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(example),
            output_names=outputs,
            verbose=False,
        )
    assert program is not None
    onnx.checker.check_model(program.model_proto, full_check=True)
    return bytes(program.model_proto.SerializeToString())


def beyond_tensorrt(graph: bytes) -> list[str]:
    """Operators of an ONNX file that TensorRT does not read, or knows only in an older form."""
    model = onnx.load_from_string(graph)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    found = {(node.op_type, node.domain) for node in model.graph.node}
    return sorted(
        name
        for name, domain in found
        if domain not in ("", "ai.onnx")
        or name not in TENSORRT_OPERATORS
        or onnx.defs.get_schema(name, opset).since_version > TENSORRT_OPSET
    )


def run_rows(graph: bytes, inputs: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """First output of every row of `inputs`, by onnxruntime one at a time, as on a robot."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    rows = [{name: values[i : i + 1] for name, values in inputs.items()} for i in range(len(inputs["obs"]))]
    return np.concatenate([session.run(None, row)[0] for row in rows])
