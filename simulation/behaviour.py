"""Behaviour policies: what fills source datasets and excites a robot for recording. Numpy only.

A robot's `behaviour.py` defines `make_behaviours(observer) -> dict[str, Behaviour]`, and keeps what its commands tuned
in `behaviour.yaml`. The pieces that several robots need are here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import yaml
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import Robot

Policy = Callable[[NDArray[np.float32]], NDArray[np.floating]]
"""Batched: obs (B, n) -> action (B, m) in [-1, 1]."""

Behaviour = Callable[[int, np.random.Generator], Policy]
"""Starts a policy for one episode of a batch: (B, rng) -> Policy. The policy may keep state per row."""


def load_behaviours(robot: Robot) -> dict[str, Behaviour]:
    """The behaviours of `robot` by name; raises InputError if it has no `behaviour.py`."""
    behaviours: dict[str, Behaviour] = robot.module("behaviour").make_behaviours(Observer(robot.spec))
    return behaviours


def read_parameters(path: Path) -> dict[str, dict[str, float]]:
    """Parameters by behaviour from a `behaviour.yaml`; raises InputError unless each is a positive number."""
    if not path.is_file():
        raise InputError(path, "no such file", "restore it, or write a first guess and run landbridge.simulation.tune")
    read = yaml.safe_load(path.read_text())
    for name, parameters in read.items():
        for key, value in parameters.items():
            if not isinstance(value, float | int) or not 0 < value < np.inf:
                raise InputError(path, f"{name}.{key} is {value!r}", "give a positive number")
    return {name: {key: float(value) for key, value in parameters.items()} for name, parameters in read.items()}


class OrnsteinUhlenbeck:
    """Smooth noise (B, m) of unit variance: x' = x - x dt/tau + sqrt(2 dt/tau) xi, started in its stationary state."""

    def __init__(self, shape: tuple[int, int], tau_steps: float, rng: np.random.Generator) -> None:
        self._keep = np.exp(-1 / tau_steps)
        self._kick = np.sqrt(1 - self._keep**2)
        self._rng = rng
        self._x = rng.standard_normal(shape)

    def __call__(self) -> NDArray[np.float64]:
        """The next sample."""
        self._x = self._keep * self._x + self._kick * self._rng.standard_normal(self._x.shape)
        return self._x


class Actor:
    """A feed-forward actor, ReLU inside and tanh at its end, from an `.npz` with weight0, bias0, weight1, ..."""

    def __init__(self, source: Path | BinaryIO) -> None:
        if isinstance(source, Path) and not source.is_file():
            raise InputError(source, "no such file", "run `python -m landbridge.training.pretrain`")
        with np.load(source, allow_pickle=False) as data:
            layers = sum(key.startswith("weight") for key in data.files)
            self._layers = [(data[f"weight{i}"], data[f"bias{i}"]) for i in range(layers)]

    def __call__(self, obs: NDArray[np.float32]) -> NDArray[np.floating]:
        """Action (B, m) for obs (B, n)."""
        x: NDArray[np.floating] = obs
        for weight, bias in self._layers[:-1]:
            x = np.maximum(x @ weight.T + bias, 0)
        weight, bias = self._layers[-1]
        return np.tanh(x @ weight.T + bias)
