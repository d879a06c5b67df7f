"""Inference: a verified bundle becomes a function from one observation to one action.

onnxruntime with one thread and pre-bound buffers: nothing is allocated per call but what onnxruntime itself allocates.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from landbridge.bundle import Bundle
from landbridge.errors import InputError

CPU = "CPUExecutionProvider"


class ProviderFallbackWarning(UserWarning):
    """Inference runs on another provider than the one asked for."""


class Policy:
    """One policy, ready to run. Made by `load_policy`.

    Attributes:
        obs: Input buffer (1, n) float32, n the size of the observation; fill it in place.
        action: Output buffer (1, m) float32; overwritten by each call.
        provider: The execution provider that really runs it.
        golden_error: Largest |difference| from the golden actions, measured at load on this machine and provider.
    """

    def __init__(self, session: ort.InferenceSession, obs_size: int, action_size: int) -> None:
        self._session = session
        self.provider: str = session.get_providers()[0]
        self.obs = np.zeros((1, obs_size), np.float32)
        self.action = np.zeros((1, action_size), np.float32)
        self.golden_error = float("nan")
        self._binding = session.io_binding()
        for bind, name, buffer in (
            (self._binding.bind_input, "obs", self.obs),
            (self._binding.bind_output, "action", self.action),
        ):
            bind(name, "cpu", 0, np.float32, list(buffer.shape), buffer.ctypes.data)

    def __call__(self, obs: NDArray[np.floating]) -> NDArray[np.float32]:
        """The action (m,) for one observation (n,): a view of `action`, valid until the next call."""
        self.obs[0] = obs
        self._session.run_with_iobinding(self._binding)
        return self.action[0]


def load_policy(bundle: Bundle, providers: Sequence[str] = (CPU,), strict: bool = False) -> Policy:
    """A policy that reproduces its bundle's golden vectors on this machine and provider.

    Args:
        providers: Execution providers in order of preference; CPU is added at the end.
        strict: Refuse, rather than warn, when the first one is not what runs.

    Raises:
        InputError: The graph is not one landbridge exports, golden vectors differ by more than the stated tolerance, or
            the provider fell back and `strict` is set.
    """
    path = bundle.path / "policy.onnx"
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    known = [name for name in (*providers, CPU) if name in ort.get_available_providers()]
    try:
        session = ort.InferenceSession(bundle.files["policy.onnx"], options, providers=list(dict.fromkeys(known)))
    except Exception as error:  # onnxruntime raises classes of its own that share no base but Exception
        raise InputError(path, f"onnxruntime cannot load it: {str(error)[:200]}", "export the bundle again") from error
    sizes = len(bundle.manifest.observation), len(bundle.manifest.actuated)
    _require_interface(path, session, *sizes)
    policy = Policy(session, *sizes)
    if policy.provider != providers[0]:
        problem = f"asked for {providers[0]}, running on {policy.provider}; available: {ort.get_available_providers()}"
        if strict:
            raise InputError(path, problem, "install that provider, or do without --strict")
        warnings.warn(problem, ProviderFallbackWarning, stacklevel=2)
    policy.golden_error = golden_error(bundle, policy)
    if not policy.golden_error <= bundle.manifest.golden_tolerance:
        tolerance = bundle.manifest.golden_tolerance
        raise InputError(
            bundle.path / "golden.npz",
            f"actions differ by {policy.golden_error:.3g} on {policy.provider}, allowed is {tolerance:.3g}",
            "do not run it here; export it again, or use another provider",
        )
    return policy


def golden_error(bundle: Bundle, policy: Policy) -> float:
    """Largest |computed - golden| action; NaN if any computed one is NaN."""
    golden = bundle.arrays("golden.npz")
    computed = np.stack([policy(obs).copy() for obs in golden["obs"]])
    return float(np.abs(computed - golden["action"]).max())


def _require_interface(path: Any, session: ort.InferenceSession, obs_size: int, action_size: int) -> None:
    for kind, found, name, size in (
        ("input", session.get_inputs(), "obs", obs_size),
        ("output", session.get_outputs(), "action", action_size),
    ):
        got = [(value.name, value.type, list(value.shape)) for value in found]
        if len(got) != 1 or got[0][:2] != (name, "tensor(float)") or got[0][2][1:] != [size]:
            raise InputError(
                path, f"{kind} is {got}, expected {name!r} float32 (1, {size})", "export it with `landbridge export`"
            )
