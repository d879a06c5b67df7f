"""CUDA graphs: the many small kernels of one step, launched by one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3  # plain calls, in which libraries take their workspaces and the compiler compiles


class Captured:
    """A function of tensors, called plainly at first and then recorded as a CUDA graph and replayed.

    A step on networks of a hundred units is some hundred kernels of a few microseconds, which Python launches more
    slowly than the GPU runs them. What is replayed runs no Python: the function must have the same shapes, and read and
    write the same memory, in every call, and never wait for the GPU
    (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._calls = 0
        self._graph: Any = None
        self._inputs: tuple[Tensor, ...] = ()
        self._output: Tensor

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function of `inputs`, and what it does besides."""
        self._calls += 1
        if self._calls <= WARM_UP:
            return self._function(*inputs)
        if self._graph is None:
            self._inputs = tuple(given.clone() for given in inputs)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):  # records, and does nothing yet
                self._output = self._function(*self._inputs)
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        self._graph.replay()
        return self._output.clone()
