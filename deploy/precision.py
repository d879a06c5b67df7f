"""A policy's graph in another precision: the types are written into it, so that any back end computes the same.

fp16 is onnxruntime's own conversion. int8 is explicit quantisation: QuantizeLinear and DequantizeLinear around the
inner dense layers, symmetric, with ranges from the bundle's golden observations. The first layer, whose inputs have a
unit each, and the last, which is the action, stay float.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landbridge.bundle import Bundle
from landbridge.deploy.engine import Precision
from landbridge.deploy.runtime import Policy, familiar, golden_sequences
from landbridge.errors import InputError

DENSE = ("Gemm", "MatMul")
# TensorRT takes symmetric ranges, weights by a pair of their own, and no quantised bias.
# (developer guide, "Working with Quantized Types"; onnxruntime.quantization.quantize for the names)
OPTIONS = {"ActivationSymmetric": True, "WeightSymmetric": True, "AddQDQPairToWeight": True, "QuantizeBias": False}


def lowered(bundle: Bundle, precision: Precision, reference: Policy) -> bytes:
    """`policy.onnx` in `precision`; inputs and outputs stay float32.

    Args:
        reference: The bundle's policy on the CPU, whose state calibrates a recurrent graph.

    Raises:
        InputError: `onnx` is not installed, or there is nothing to quantise or to calibrate with.
    """
    if precision == "fp32":
        return bundle.files["policy.onnx"]
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise InputError("onnx", "is not installed", "pip install 'landbridge[gpu]'") from error
    model = onnx.load_from_string(bundle.files["policy.onnx"])
    return _half(model) if precision == "fp16" else _quantised(bundle, model, reference)


def _half(model: Any) -> bytes:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return bytes(convert_float_to_float16(model, keep_io_types=True).SerializeToString())


def _quantised(bundle: Bundle, model: Any, reference: Policy) -> bytes:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{i}"  # the quantiser finds them by name
    inner = [node.name for node in model.graph.node if node.op_type in DENSE][1:-1]
    if not inner:
        problem = f"has no dense layer ({', '.join(DENSE)}) besides its first and last"
        raise InputError(bundle.path / "policy.onnx", problem, "int8 would change nothing: use fp16 or fp32")
    logging.disable(logging.WARNING)  # advice to fuse layers first, on the root logger
    try:
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "policy.onnx"
            quantize_static(
                model,
                out,
                _Rows(calibration(bundle, reference)),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                nodes_to_quantize=inner,
                extra_options=OPTIONS,
            )
            return out.read_bytes()
    finally:
        logging.disable(logging.NOTSET)


def calibration(bundle: Bundle, reference: Policy) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Inputs of the graph, with the state that a recurrent one has then, at every `familiar` golden observation."""
    obs, _ = golden_sequences(bundle)
    for sequence, known in zip(obs, familiar(bundle, obs), strict=True):
        reference.reset()
        for row, inside in zip(sequence, known, strict=True):
            if inside:
                state = {name: buffer.copy() for name, buffer in reference.graph.inputs.items()}
                yield state | {"obs": row[None].astype(np.float32)}
            reference(row)
    reference.reset()


class _Rows:
    """What onnxruntime calls a CalibrationDataReader."""

    def __init__(self, rows: Iterator[dict[str, NDArray[np.float32]]]) -> None:
        self.get_next = lambda: next(rows, None)
