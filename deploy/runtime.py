"""Inference: a verified bundle becomes a function from one observation to one action.

onnxruntime with one thread and pre-bound buffers, on any of its execution providers: nothing is allocated per call but
what onnxruntime itself allocates.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from typing_extensions import Self

from landbridge.bundle import Bundle
from landbridge.deploy.engine import TENSORRT, Precision, engine_key, provider_options, read_record
from landbridge.errors import InputError
from landbridge.manifest import Manifest

CPU = "CPUExecutionProvider"
# Largest |difference| from golden actions in [-1, 1]; None: the one that the bundle states. Half floats have 11 bits.
GOLDEN_TOLERANCE: dict[Precision, float | None] = {"fp32": None, "fp16": 0.02}


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
        inputs: Mapping[str, tuple[int, ...]],
        outputs: Mapping[str, tuple[int, ...]],
        providers: Sequence[str] = (CPU,),
        precision: Precision = "fp32",
    ) -> None:
        self._made_from = path, model, dict(inputs), dict(outputs), tuple(providers), precision
        self.session = open_session(path, model, providers, precision)
        self.provider: str = self.session.get_providers()[0]
        self.inputs = _buffers(path, "input", self.session.get_inputs(), inputs)
        self.outputs = _buffers(path, "output", self.session.get_outputs(), outputs)
        binding = self.session.io_binding()
        for bind, buffers in ((binding.bind_input, self.inputs), (binding.bind_output, self.outputs)):
            for name, buffer in buffers.items():
                bind(name, "cpu", 0, np.float32, list(buffer.shape), buffer.ctypes.data)
        self.run: Callable[[], None] = partial(self.session.run_with_iobinding, binding)

    def again(self) -> Graph:
        """The same graph in a session of its own, which has not run yet."""
        return Graph(*self._made_from)


class Policy:
    """One policy, ready to run. Made by `load_policy`.

    A recurrent policy's state, every output NAME_out of its graph, is kept here and fed back as NAME_in.

    Attributes:
        obs: Input buffer (1, n) float32, n the size of the observation.
        action: Output buffer (1, m) float32; overwritten by each call.
        provider: The execution provider that really runs it.
        recurrent: Whether it has a state, so that an answer depends on all calls since `reset`.
        golden_error: Largest |difference| from the golden actions, measured at load on this machine and provider.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph, self.provider = graph, graph.provider
        self.obs, self.action = graph.inputs["obs"], graph.outputs["action"]
        self.golden_error = float("nan")
        self._row, self._answer, self._run = self.obs[0], self.action[0], graph.run
        names = [name.removesuffix("_in") for name in graph.inputs if name != "obs"]
        self._state = [(graph.inputs[f"{name}_in"], graph.outputs[f"{name}_out"]) for name in names]
        self.recurrent = bool(names)

    def __call__(self, obs: NDArray[np.floating]) -> NDArray[np.float32]:
        """The action (m,) for one observation (n,): a view of `action`, valid until the next call."""
        self._row[:] = obs
        self._run()
        for before, after in self._state:
            before[:] = after
        return self._answer

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
        providers: Execution providers in order of preference; CPU is added at the end.
        strict: Refuse, rather than warn, when the first one is not what runs.
        precision: fp16 on TensorRT only, whatever of it this machine has accepted.
        accepted: Whether an engine of fp16 must have passed `landbridge engine build` on this machine.

    Raises:
        InputError: The graph is not one landbridge exports, golden vectors differ by more than the stated tolerance, or
            the provider fell back and `strict` is set, or fp16 was not accepted here.
    """
    if precision != "fp32":
        _require_accepted(bundle, providers[0], precision, accepted)
    model = bundle.files["policy.onnx"]
    policy = Policy(Graph(bundle.path / "policy.onnx", model, *_sizes(bundle.manifest), providers, precision))
    if policy.provider != providers[0]:
        problem = f"asked for {providers[0]}, running on {policy.provider}; available: {ort.get_available_providers()}"
        if strict:
            raise InputError(
                bundle.path / "policy.onnx", problem, "install that provider (`landbridge doctor`), or drop --strict"
            )
        warnings.warn(problem, ProviderFallbackWarning, stacklevel=2)
    policy.golden_error = golden_error(bundle, policy)
    coarser = GOLDEN_TOLERANCE[precision] if policy.provider == TENSORRT else None
    tolerance = coarser or bundle.manifest.golden_tolerance
    if not policy.golden_error <= tolerance:
        raise InputError(
            bundle.path / "golden.npz",
            f"actions differ by {policy.golden_error:.3g} on {policy.provider}, allowed is {tolerance:.3g}",
            "do not run it here; export it again, or use another provider",
        )
    return policy


def _require_accepted(bundle: Bundle, provider: str, precision: Precision, accepted: bool) -> None:
    if provider != TENSORRT:
        raise InputError("precision", f"is {precision} on {provider}", f"ask for {TENSORRT}, or for fp32")
    if accepted:
        read_record(engine_key(bundle.files["policy.onnx"], precision))


def _sizes(manifest: Manifest) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Inputs and outputs of the manifest's `policy.onnx`."""
    return (
        {"obs": (1, len(manifest.observation)), **{f"{name}_in": shape for name, shape in manifest.state.items()}},
        {"action": (1, len(manifest.actuated)), **{f"{name}_out": shape for name, shape in manifest.state.items()}},
    )


def golden_error(bundle: Bundle, policy: Policy) -> float:
    """Largest |computed - golden| action; NaN if any computed one is NaN. Leaves the policy at an episode's begin."""
    golden = bundle.arrays("golden.npz")
    obs, action = golden["obs"], golden["action"]
    sequences = obs if obs.ndim == 3 else obs[:, None]
    computed = []
    for sequence in sequences:
        policy.reset()
        computed += [policy(row).copy() for row in sequence]
    policy.reset()
    return float(np.abs(np.reshape(computed, action.shape) - action).max())


def open_session(
    path: Path, model: bytes, providers: Sequence[str] = (CPU,), precision: Precision = "fp32"
) -> ort.InferenceSession:
    """A single-threaded session on the first of `providers` that this onnxruntime has, else on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    known = [name for name in dict.fromkeys((*providers, CPU)) if name in ort.get_available_providers()]
    configured = []
    for name in known:
        try:
            configured.append((name, provider_options(name, model, precision)))
        except InputError as error:
            warnings.warn(f"{name} is left out: {error}", ProviderFallbackWarning, stacklevel=2)
    try:
        return ort.InferenceSession(model, options, providers=configured)
    except Exception as error:  # onnxruntime raises classes of its own that share no base but Exception
        raise InputError(path, f"onnxruntime cannot load it: {str(error)[:200]}", "export the bundle again") from error


def _buffers(
    path: Path, kind: str, found: Sequence[Any], wanted: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[np.float32]]:
    """Zeros of the shapes that the graph has; raises InputError if they are not the ones wanted."""
    got = {value.name: (value.type, tuple(value.shape)) for value in found}
    if got.keys() != wanted.keys() or not all(_fits(*got[name], shape) for name, shape in wanted.items()):
        raise InputError(
            path, f"{kind} is {got}, expected float32 {dict(wanted)}", "export it with `landbridge export`"
        )
    return {name: np.zeros(got[name][1], np.float32) for name in wanted}


def _fits(dtype: str, shape: tuple[Any, ...], wanted: tuple[int, ...]) -> bool:
    sizes = len(shape) == len(wanted) and all(isinstance(got, int) for got in shape)
    return dtype == "tensor(float)" and sizes and all(w in (g, -1) for g, w in zip(shape, wanted, strict=True))
