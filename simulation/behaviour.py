"""Behaviour policies: what fills source datasets and excites a robot for recording. Numpy only.

A robot's `behaviour.py` defines `make_behaviours(observer, parameters) -> dict[str, Behaviour]`; the parameters, and
the commands that tuned them, are in its `behaviour.yaml`. The pieces that several robots need are here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import Robot, RobotSpec
from landbridge.spec import Positive, Spec, read_model
from landbridge.task import first_observations, load_task

Policy = Callable[[NDArray[np.float32]], NDArray[np.floating]]
"""Batched: obs (B, n) -> action (B, m) in [-1, 1]."""

Behaviour = Callable[[int, np.random.Generator], Policy]
"""Starts a policy for one episode of a batch: (B, rng) -> Policy. The policy may keep state per row."""


def load_behaviours(robot: Robot, parameters: BehaviourFile | None = None) -> dict[str, Behaviour]:
    """The behaviours of `robot` by name, with `parameters` in place of those in its `behaviour.yaml`.

    Raises:
        InputError: The robot has no `behaviour.py` or `behaviour.yaml`, or a malformed one.
    """
    if parameters is None:
        parameters = read_behaviours(robot.folder / "behaviour.yaml")
    values = {name: tuned.parameters for name, tuned in parameters.behaviours.items()}
    make = robot.defined("behaviour", "make_behaviours")
    with robot.blamed("behaviour"):
        behaviours: dict[str, Behaviour] = make(Observer(robot.spec), values)
    return {name: _blamed(robot, behaviour) for name, behaviour in behaviours.items()}


def _blamed(robot: Robot, behaviour: Behaviour) -> Behaviour:
    """`behaviour`, but its errors name their line of `behaviour.py`, however late in an episode they come."""

    def start(batch: int, rng: np.random.Generator) -> Policy:
        with robot.blamed("behaviour"):
            policy = behaviour(batch, rng)

        def act(obs: NDArray[np.float32]) -> NDArray[np.floating]:
            with robot.blamed("behaviour"):
                return policy(obs)

        return act

    return start


def source_mix(robot: Robot, mix: Mapping[str, float] | None = None) -> dict[str, float]:
    """Shares of a source dataset by behaviour, summing to 1: those of `mix`, by default SOURCE_MIX of `behaviour.py`.

    Raises:
        InputError: It names no behaviour, or none that there is, a share is not positive, or one does not act.
    """
    where, shares, behaviours = "--mix", mix, load_behaviours(robot)
    if shares is None:
        where, shares = f"{robot.folder / 'behaviour.py'}: SOURCE_MIX", robot.defined("behaviour", "SOURCE_MIX")
    if not isinstance(shares, Mapping):
        raise InputError(where, f"is {shares!r:.80}", "give a dict of shares by behaviour")
    if unknown := sorted(map(str, shares.keys() - behaviours.keys())):
        raise InputError(where, f"unknown behaviours {unknown}", f"name some of {', '.join(behaviours)}")
    if not shares or not all(isinstance(share, int | float) and 0 < share < np.inf for share in shares.values()):
        raise InputError(where, f"shares are {dict(shares)}", "give each behaviour a positive share")
    require_actions(robot, behaviours, shares)
    return {name: share / sum(shares.values()) for name, share in shares.items()}


def require_actions(robot: Robot, behaviours: Mapping[str, Behaviour], names: Iterable[str]) -> None:
    """Raise InputError unless each of these behaviours acts on two robots at their start as `Policy` says."""
    obs = first_observations(load_task(robot), 2)
    for name in names:
        action = behaviours[name](len(obs), np.random.default_rng(0))(obs)
        require_action(action, len(obs), robot.spec, f"{robot.folder / 'behaviour.py'}: behaviour {name}")


def require_action(action: NDArray[np.floating], batch: int, spec: RobotSpec, where: str) -> None:
    """Raise InputError unless `action` is (batch, A) and finite."""
    shape = batch, len(spec.actuated)
    if np.shape(action) != shape:
        problem = f"gives actions of shape {np.shape(action)} for observations of {batch} robots"
        raise InputError(where, problem, f"give (batch, {shape[1]}), a column for each of {spec.actuated}")
    if not np.isfinite(action).all():
        raise InputError(where, "answers NaN or Inf", "look for a division by zero or an overflow")


class Tuned(Spec):
    """Parameters of one behaviour, and the command that found them."""

    made_by: str
    parameters: dict[str, Positive]


class BehaviourFile(Spec):
    """The file `behaviour.yaml`."""

    schema_version: Literal[1]
    behaviours: dict[str, Tuned]


def read_behaviours(path: Path) -> BehaviourFile:
    """Read a `behaviour.yaml`; raises InputError if it is missing, malformed, or a parameter is not positive."""
    if not path.is_file():
        raise InputError(path, "no such file", "restore it, or write a first guess and run landbridge robot tune")
    return read_model(BehaviourFile, path)


def perturbed(
    policy: Callable[[NDArray[np.float32], NDArray[np.float64]], NDArray[np.floating]],
    batch: int,
    rng: np.random.Generator,
    noise: float,
    spread: float,
) -> Policy:
    """`policy(obs, gain)` with its gain (B, 1) off by up to `spread` and white noise of up to `noise`, drawn per row.

    White, because smooth noise can be read off the past actions in the observation: a policy trained on such data
    copies its own last action, and its own errors with it.
    """
    gain = rng.uniform(1 - spread, 1 + spread, (batch, 1))
    size = rng.uniform(0, noise, (batch, 1))

    def noisy(obs: NDArray[np.float32]) -> NDArray[np.floating]:
        action = policy(obs, gain)
        return np.clip(action + size * rng.standard_normal(action.shape), -1, 1)

    return noisy


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
