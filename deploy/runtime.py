"""Inference: a verified bundle becomes a function from one observation to one action.

By onnxruntime (`graph`) or a native TensorRT engine (`native`), with buffers made once: nothing is allocated per call
but what onnxruntime itself allocates.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from typing_extensions import Self

from landbridge.bundle import Bundle
from landbridge.deploy.engine import (
    NATIVE,
    PRECISIONS,
    EngineKey,
    Precision,
    engine_key,
    read_engine,
    require_accepted,
    require_offered,
)
from landbridge.deploy.graph import Graph, ProviderFallbackWarning
from landbridge.deploy.native import Engine
from landbridge.errors import InputError
from landbridge.manifest import REMEDY, Manifest
from landbridge.onnx_session import CPU

# Largest |difference| from golden actions in [-1, 1]; None: the one that the bundle states. Half floats have 11 bits.
# int8 is held to a tenth of the range: the closed loop says whether that will do.
GOLDEN_TOLERANCE: dict[Precision, float | None] = {"fp32": None, "fp16": 0.02, "int8": 0.2}


class Calibrated:
    """An int8 engine where it was calibrated, and the bundle's own graph on the CPU for all other observations.

    Beyond its range an int8 activation saturates, and the action may be any other. Behind what `graph.Graph` offers.

    Attributes:
        outside: Calls that the CPU has answered.
    """

    def __init__(self, bundle: Bundle, engine: Graph | Engine) -> None:
        self.inputs, self.outputs, self.provider = engine.inputs, engine.outputs, engine.provider
        self.outside = 0
        self._bundle, self._engine, self._obs = bundle, engine, engine.inputs["obs"]
        self._exact = Graph(bundle.path / "policy.onnx", bundle.files["policy.onnx"], *_sizes(bundle.manifest))
        self._low, self._high = (bound.astype(np.float32) for bound in calibrated_range(bundle))

    def again(self) -> Calibrated:
        """The same once more, which has not run yet."""
        return Calibrated(self._bundle, self._engine.again())

    def run(self) -> None:
        """Compute `outputs` from `inputs`, the state of a recurrent policy among both."""
        if ((self._low <= self._obs) & (self._obs <= self._high)).all():
            self._engine.run()
            return
        self.outside += 1
        for name, buffer in self.inputs.items():
            self._exact.inputs[name][:] = buffer
        self._exact.run()
        for name, buffer in self.outputs.items():
            buffer[:] = self._exact.outputs[name]


class Policy:
    """One policy, ready to run. Made by `load_policy`.

    A recurrent policy's state, every output NAME_out of its graph, is kept here and fed back as NAME_in.

    Attributes:
        obs: Input buffer (1, n) float32, n the size of the observation.
        action: Output buffer (1, m) float32 in [-1, 1]; overwritten by each call.
        provider: The execution provider that really runs it.
        precision: What it really computes in.
        recurrent: Whether it has a state, so that an answer depends on all calls since `reset`.
        golden_error: Largest |difference| from the golden actions, measured at load on this machine and provider.
    """

    def __init__(self, graph: Graph | Engine | Calibrated) -> None:
        self.graph, self.provider = graph, graph.provider
        self.obs, self.action = graph.inputs["obs"], graph.outputs["action"]
        self.precision: Precision = "fp32"
        self.golden_error = float("nan")
        self._row, self._answer, self._run = self.obs[0], self.action[0], graph.run
        names = [name.removesuffix("_in") for name in graph.inputs if name != "obs"]
        self._state = [(graph.inputs[f"{name}_in"], graph.outputs[f"{name}_out"]) for name in names]
        self.recurrent = bool(names)

    def __call__(self, obs: NDArray[np.floating]) -> NDArray[np.float32]:
        """The action (m,) for one observation (n,): a view of `action`, valid until the next call.

        What is asked for beyond [-1, 1] never reaches the motors, so it is cut off here, where the history of actions,
        the drift watch and the log begin, as it is in the simulator. NaN stays NaN, and an infinity becomes one: the
        guard is to refuse both. Few policies need it, and to ask first costs a few microseconds less.
        """
        self._row[:] = obs
        self._run()
        for asked in self._answer.tolist():
            if not -1.0 <= asked <= 1.0:
                self._answer[np.isinf(self._answer)] = np.nan
                self._answer.clip(-1.0, 1.0, out=self._answer)
                break
        for before, after in self._state:
            before[:] = after
        return self._answer

    @property
    def outside(self) -> int:
        """How many calls were answered on the CPU, since their observation is not where int8 was calibrated."""
        return self.graph.outside if isinstance(self.graph, Calibrated) else 0

    def reset(self) -> Self:
        """Begin an episode: forget all calls so far."""
        for before, _ in self._state:
            before[:] = 0
        return self


def load_policy(
    bundle: Bundle,
    providers: Sequence[str] = (CPU,),
    strict: bool = False,
    precision: Precision = "fp32",
    accepted: bool = True,
) -> Policy:
    """A policy that reproduces its bundle's golden vectors on this machine and provider.

    Args:
        providers: Execution providers in order of preference, CPU is added at the end; or `tensorrt`, which falls back
            to nothing.
        strict: Refuse, rather than warn, when the first one is not what runs.
        precision: fp16 on TensorRT only, int8 on native TensorRT only.
        accepted: Whether an engine of those, or a native one, must have passed `landbridge engine build` here.

    Raises:
        InputError: The graph is not one landbridge exports, golden vectors differ by more than the stated tolerance or
            cannot tell, no provider bears that name, it fell back and `strict` is set, or an engine was not accepted
            here.
    """
    _require_known(providers)
    require_offered(providers[0], precision)
    where, sizes = bundle.path / "policy.onnx", _sizes(bundle.manifest)
    if providers[0] == NATIVE:
        key = key_of(bundle, precision, NATIVE)
        engine = Engine(key, read_engine(key, bundle.manifest.robot_hash if accepted else None), *sizes)
        policy = Policy(Calibrated(bundle, engine) if precision == "int8" else engine)
    else:
        if accepted and precision != "fp32":
            require_accepted(key_of(bundle, precision, providers[0]), bundle.manifest.robot_hash)
        policy = Policy(Graph(where, bundle.files["policy.onnx"], *sizes, providers, precision))
    if policy.provider != providers[0]:
        problem = f"asked for {providers[0]}, running on {policy.provider}; available: {ort.get_available_providers()}"
        if strict:
            raise InputError(where, problem, "install that provider (`landbridge doctor`), or drop --strict")
        warnings.warn(problem, ProviderFallbackWarning, stacklevel=2)
    policy.precision = precision if policy.provider in PRECISIONS else "fp32"
    policy.golden_error = golden_error(bundle, policy)
    tolerance = golden_tolerance(bundle, policy.precision)
    if not policy.golden_error <= tolerance:
        raise InputError(
            bundle.path / "golden.npz",
            f"actions differ by {policy.golden_error:.3g} on {policy.provider}, allowed is {tolerance:.3g}",
            "do not run it here; export it again, or use another provider",
        )
    if isinstance(policy.graph, Calibrated):
        policy.graph.outside = 0  # of the robot's observations
    return policy


def _require_known(providers: Sequence[str]) -> None:
    """A misspelt name is no provider that this machine lacks, and falls back to nothing."""
    if unknown := [name for name in providers if name not in (NATIVE, *ort.get_all_providers())]:
        here = ", ".join((NATIVE, *ort.get_available_providers()))
        raise InputError("provider", f"there is no {unknown[0]!r}", f"name {here}, or one of another onnxruntime")


def key_of(bundle: Bundle, precision: Precision, provider: str) -> EngineKey:
    """The key of a bundle's engine here; one of int8 also depends on what it is calibrated with."""
    model = bundle.files["policy.onnx"]
    if precision == "int8":
        model += bundle.files["golden.npz"] + bundle.files["envelope.npz"]
    return engine_key(model, precision, provider)


def _sizes(manifest: Manifest) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Inputs and outputs of the manifest's `policy.onnx`."""
    return (
        {"obs": (1, len(manifest.observation)), **{f"{name}_in": shape for name, shape in manifest.state.items()}},
        {"action": (1, len(manifest.actuated)), **{f"{name}_out": shape for name, shape in manifest.state.items()}},
    )


def golden_tolerance(bundle: Bundle, precision: Precision) -> float:
    """Largest allowed `golden_error`."""
    return GOLDEN_TOLERANCE[precision] or bundle.manifest.golden_tolerance


def golden_error(bundle: Bundle, policy: Policy) -> float:
    """Largest |computed - golden| action in [-1, 1]; NaN if any is NaN. Leaves the policy at an episode's begin."""
    obs, action = golden_sequences(bundle)
    computed = []
    for sequence in obs:
        policy.reset()
        computed += [policy(row).copy() for row in sequence]
    policy.reset()
    return float(np.abs(np.reshape(computed, action.shape) - np.clip(action, -1, 1)).max())


def golden_sequences(bundle: Bundle) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Observations (S, T, n) and actions (S, T, m); single rows are sequences of one.

    Raises:
        InputError: They are none of this policy's, not finite, or single rows of a recurrent policy, which would not
            show a state that is lost.
    """
    golden, where = bundle.arrays("golden.npz"), bundle.path / "golden.npz"
    obs, action = golden["obs"], golden["action"]
    if bundle.manifest.state and (obs.ndim != 3 or obs.shape[1] < 2):
        problem = f"obs {obs.shape} are no sequences (S, T, n) of 2 or more ticks, and the policy has a state"
        raise InputError(where, problem, "export or import it again with this version")
    n, m = len(bundle.manifest.observation), len(bundle.manifest.actuated)
    rows = obs.shape[:-1]
    if not (obs.size and obs.ndim in (2, 3) and obs.shape == (*rows, n) and action.shape == (*rows, m)):
        problem = f"obs {obs.shape} and action {action.shape} are no rows of {n} and {m} values"
        raise InputError(where, problem, REMEDY)
    if not np.isfinite(obs).all():
        raise InputError(where, "obs has NaN or Inf", REMEDY)
    return (obs, action) if obs.ndim == 3 else (obs[:, None], action[:, None])


def calibrated_range(bundle: Bundle) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper bounds (n,) of the observation: the outer quantiles of the training data.

    Raises:
        InputError: The bundle does not say where its training data were.
    """
    envelope, n = bundle.arrays("envelope.npz"), len(bundle.manifest.observation)
    quantiles = [values[:, :n] for name, values in envelope.items() if name.endswith("_quantiles")]
    if not quantiles:
        raise InputError(bundle.path / "envelope.npz", "has no quantiles", "export the bundle again with this version")
    return np.min(quantiles, axis=(0, 1)), np.max(quantiles, axis=(0, 1))


def familiar(bundle: Bundle, obs: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Mask (...,) of observations (..., n) in `calibrated_range`; raises InputError if none is there."""
    low, high = calibrated_range(bundle)
    inside: NDArray[np.bool_] = np.asarray(((low <= obs) & (obs <= high)).all(-1))
    if not inside.any():
        raise InputError(bundle.path / "golden.npz", "has no observation like the training data", "export it again")
    return inside
