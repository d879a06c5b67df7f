"""onnxruntime: an ONNX graph with one thread and its buffers bound once, on any of its execution providers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from landbridge.deploy.engine import Precision, provider_options
from landbridge.errors import InputError
from landbridge.onnx_session import CPU, open_session

Shapes = Mapping[str, tuple[int, ...]]


class ProviderFallbackWarning(UserWarning):
    """Inference runs on another provider than the one asked for."""


class Graph:
    """An ONNX graph of float32 tensors with fixed shapes, its buffers bound once.

    A size of -1 in `inputs` or `outputs` leaves it to the graph.

    Attributes:
        inputs, outputs: Buffers by name: fill the ones, `run`, read the others.
        run: Computes `outputs` from `inputs`.
        provider: The execution provider that really runs it.

    Raises:
        InputError: onnxruntime cannot load it, or its inputs or outputs are not the ones asked for.
    """

    def __init__(
        self,
        path: Path,
        model: bytes,
        inputs: Shapes,
        outputs: Shapes,
        providers: Sequence[str] = (CPU,),
        precision: Precision = "fp32",
    ) -> None:
        self._made_from = path, model, dict(inputs), dict(outputs), tuple(providers), precision
        self.session = _session(path, model, providers, precision)
        self.provider: str = self.session.get_providers()[0]
        self.inputs = buffers(path, "input", _ends(self.session.get_inputs()), inputs)
        self.outputs = buffers(path, "output", _ends(self.session.get_outputs()), outputs)
        self._binding = self.session.io_binding()
        _bind(self._binding.bind_input, self.inputs)
        _bind(self._binding.bind_output, self.outputs)
        on_cpu = partial(self.session.run_with_iobinding, self._binding)
        self.run: Callable[[], None] = on_cpu if self.provider == CPU else self._run_on_gpu

    def again(self) -> Graph:
        """The same graph in a session of its own, which has not run yet."""
        return Graph(*self._made_from)

    def _run_on_gpu(self) -> None:
        """Inputs are bound again: onnxruntime copies one to a GPU when it is bound, and not when it runs."""
        _bind(self._binding.bind_input, self.inputs)
        self.session.run_with_iobinding(self._binding)


def _bind(bind: Callable[..., None], bound: Mapping[str, NDArray[np.float32]]) -> None:
    for name, buffer in bound.items():
        bind(name, "cpu", 0, np.float32, list(buffer.shape), buffer.ctypes.data)


def _session(path: Path, model: bytes, providers: Sequence[str], precision: Precision) -> ort.InferenceSession:
    """On the first of `providers` that this onnxruntime has, else on the CPU."""
    known = [name for name in dict.fromkeys((*providers, CPU)) if name in ort.get_available_providers()]
    configured = []
    for name in known:
        try:
            configured.append((name, provider_options(name, model, precision)))
        except InputError as error:
            warnings.warn(f"{name} is left out: {error}", ProviderFallbackWarning, stacklevel=2)
    return open_session(path, model, configured)


def _ends(values: Sequence[Any]) -> dict[str, tuple[str, tuple[Any, ...]]]:
    return {value.name: (value.type.removeprefix("tensor(").rstrip(")"), tuple(value.shape)) for value in values}


def buffers(
    path: Path, kind: str, got: Mapping[str, tuple[str, tuple[Any, ...]]], wanted: Shapes
) -> dict[str, NDArray[np.float32]]:
    """Zeros of the shapes that a graph has, `got` by name after their types; InputError if others are wanted."""
    if got.keys() != wanted.keys() or not all(_fits(*got[name], shape) for name, shape in wanted.items()):
        raise InputError(
            path, f"{kind} is {dict(got)}, expected float32 {dict(wanted)}", "export it with `landbridge export`"
        )
    return {name: np.zeros(got[name][1], np.float32) for name in wanted}


def _fits(dtype: str, shape: tuple[Any, ...], wanted: tuple[int, ...]) -> bool:
    sizes = len(shape) == len(wanted) and all(isinstance(got, int) for got in shape)
    return dtype == "float" and sizes and all(w in (g, -1) for g, w in zip(shape, wanted, strict=True))
