"""The fit: parameters and the start states of all windows, by robust Gauss-Newton steps with a weak prior.

Start states belong to one window each and are eliminated from every step (condensing; Bock, 1983), so its size is the
number of parameters. scipy's `least_squares` cannot do that: with thousands of start states among its unknowns its
iterative step converges slowly, and its interior-point treatment of bounds stalls where a latency or a friction begins
at zero. Hence a Levenberg-Marquardt loop of our own, with the bounds as an active set.

What a floating base needs otherwise is in `landbridge.calibration.descent`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

from landbridge.calibration.descent import MAD, STEP, Smooth, descent
from landbridge.calibration.shooting import simulate
from landbridge.calibration.windows import Windows
from landbridge.robot import Robot
from landbridge.simulation.parameters import Parameter, at, to_scenario
from landbridge.simulation.scenario import Scenario

Array = NDArray[np.float64]

SOFT = 2.0  # residuals beyond as many sigma count linearly (soft L1)
FLOOR = 1e-5  # rad and rad/s; measured states are float32
FIRST = 40  # windows that the first round, from far away, makes do with
CLOSE = 10.0  # of cost: where that round ends
CONVERGED = 0.5  # of cost: one standard deviation; the last steps shrink thirtyfold, so what remains is far less
ITERATIONS = 50
STALLED = 1e8  # damping at which a step is no step


@dataclass(frozen=True)
class Problem:
    """P parameters to fit to W windows of H control periods, S states (`landbridge.calibration.state`).

    Attributes:
        robot: Whose simulator.
        free: The parameters.
        windows: The data.
        noise: (S,) standard deviation of the measured states.
        base: What the parameters are set in.
    """

    robot: Robot
    free: Sequence[Parameter]
    windows: Windows
    noise: Array
    base: Scenario = field(default_factory=Scenario)

    @property
    def loose(self) -> NDArray[np.intp]:
        """Which states (L,) of a window's start are estimated; the others are as measured."""
        return np.arange(len(self.noise) if self.descent.estimates_starts else 0)

    @property
    def descent(self) -> Smooth:
        """How the fit goes."""
        return descent(self.robot.spec)

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Lowest and highest z (P,)."""
        low, high = (np.array([p.coordinate(getattr(p, bound)) for p in self.free]) for bound in ("low", "high"))
        return low, high

    def point(self, z: Array, starts: Array) -> Point:
        """The problem at coordinates z (P,) and start states (W, S)."""
        states = self.predicted(at(self.free, z), starts)
        return Point(z, starts, ((states - self.windows.states) / self.noise).reshape(len(starts), -1))

    def predicted(self, values: Mapping[str, float], starts: Array) -> Array:
        """Measured states (W, H + 1, S) that parameters and start states (W, S) lead to."""
        return simulate(self.robot, to_scenario(self.robot, values, self.base), self.windows, starts)


@dataclass(frozen=True)
class Point:
    """Where a fit is: z (P,), start states (W, S), scaled errors (W, N), N = (H + 1) S, predicted minus measured."""

    z: Array
    starts: Array
    error: Array

    @property
    def cost(self) -> float:
        """Half the sum of squares of the prior, and that of the errors under soft L1."""
        return float(self.z @ self.z / 2 + self.losses.sum())

    @property
    def losses(self) -> Array:
        """(W,) each window's errors under soft L1."""
        losses: Array = SOFT**2 * (np.sqrt(1 + np.square(self.error / SOFT)) - 1).sum(1)
        return losses

    @property
    def weights(self) -> Array:
        """Of the squared errors (W, N) in a Gauss-Newton step: the derivative of soft L1."""
        return 1 / np.sqrt(1 + np.square(self.error / SOFT))

    @property
    def power(self) -> float:
        """Mean of the weighted squares of the errors."""
        return float((self.weights * np.square(self.error)).mean())

    @property
    def curvature(self) -> float:
        """Second derivative of the cost over what a Gauss-Newton step takes it for: that of soft L1 is weights^3."""
        return float((self.weights**3).mean() / self.weights.mean())


@dataclass(frozen=True)
class Linear:
    """The problem to first order about a point, rows weighted.

    Attributes:
        error: (W, N).
        slopes: (W, N, P) its change with z at fixed start states.
        reduced: (W, N, P) the same at the best start states.
        basis: (W, N, L) orthonormal: what start states can change.
        upper: (W, L, L) triangular: basis @ upper is the change with the scaled start states.
    """

    error: Array
    slopes: Array
    reduced: Array
    basis: Array
    upper: Array

    @property
    def information(self) -> Array:
        """(W, P, P) of z in each window, without the prior."""
        return np.swapaxes(self.reduced, 1, 2) @ self.reduced

    def where(self, mask: NDArray[np.bool_]) -> Linear:
        """The windows that `mask` (W,) chooses."""
        return Linear(*(getattr(self, part.name)[mask] for part in fields(self)))

    @property
    def gradient(self) -> Array:
        """(W, P) of each window's cost at the best start states."""
        return np.einsum("wnp,wn->wp", self.reduced, self.error)


def linearise(problem: Problem, here: Point) -> Linear:
    """By differences, each of one simulation of all windows."""
    root = np.sqrt(here.weights)
    slopes = [root * problem.descent.slope(problem, here, i) for i in range(len(problem.free))]
    of_starts = [
        root * (problem.point(here.z, here.starts + move).error - here.error) / STEP
        for move in STEP * problem.noise * np.eye(len(problem.noise))[problem.loose]
    ]
    none = np.empty((*here.error.shape, 0))
    basis, upper = np.linalg.qr(np.stack(of_starts, -1) if of_starts else none)
    whole = np.stack(slopes, -1) if slopes else none
    return Linear(root * here.error, whole, whole - basis @ (np.swapaxes(basis, 1, 2) @ whole), basis, upper)


def fit(problem: Problem, z: Array | None = None) -> tuple[Problem, Point]:
    """Estimate the parameters from z (P,), by default nominal.

    Returns the problem with the noise that residuals show, and the fit.
    """
    few = np.arange(len(problem.windows)) % max(1, len(problem.windows) // FIRST) == 0
    part = replace(problem, windows=problem.windows.where(few))
    start = _start(part, z)
    if problem.descent.noise_is_model_error:
        part = replace(part, noise=_noise(part, start))
        start = part.point(start.z, start.starts)
    rough = _solve(part, start, CLOSE)
    problem = replace(problem, noise=_noise(part, rough))
    return problem, solve(problem, rough.z, problem.windows.states[:, 0])


def solve(problem: Problem, z: Array, starts: Array) -> Point:
    """The best point near parameters z (P,) and start states (W, S)."""
    return _solve(problem, problem.point(z, starts), CONVERGED)


def refined(problem: Problem, z: Array, starts: Array) -> Point:
    """About the best point near z and start states, for comparisons."""
    return _solve(problem, problem.point(z, starts), CLOSE)


def settle(problem: Problem, z: Array, windows: Windows) -> Point:
    """The best start states of other windows, with the parameters held at z."""
    base = to_scenario(problem.robot, at(problem.free, z), problem.base)
    return solve(replace(problem, free=(), windows=windows, base=base), np.empty(0), windows.states[:, 0])


def unseen(problem: Problem, here: Point, linear: Linear, left_out: NDArray[np.bool_]) -> Array:
    """Losses of the windows that are left out (W,) under the fit to the others, which is one Newton step from `here`.

    As in approximate cross-validation (Rad and Maleki, Journal of the Royal Statistical Society B 82(4), 2020).
    """
    others, own = linear.where(~left_out), linear.where(left_out)
    z = _parameters(problem, here, others, 0.0)
    rest = replace(problem, windows=problem.windows.where(left_out))
    at_rest = replace(here, starts=here.starts[left_out])
    return rest.point(z, _starts(rest, at_rest, own, z)).losses


def _start(problem: Problem, z: Array | None) -> Point:
    """z, by default nominal, at the latency that fits best."""
    nominal = np.array([p.coordinate(p.nominal) for p in problem.free]) if z is None else z
    starts = problem.windows.states[:, 0]
    tried = [nominal]
    for i, parameter in enumerate(problem.free):
        if parameter.name == "latency_ms":
            values = np.linspace(parameter.low, parameter.high, 11)
            tried = [np.where(np.arange(len(nominal)) == i, parameter.coordinate(value), nominal) for value in values]
    return min((problem.point(z, starts) for z in tried), key=lambda point: point.cost)


def _noise(problem: Problem, at: Point) -> Array:
    error = np.abs(at.error).reshape(-1, len(problem.noise))
    return np.maximum(MAD * np.median(error, axis=0) * problem.noise, FLOOR)


def _solve(problem: Problem, here: Point, tolerance: float) -> Point:
    """Levenberg-Marquardt from `here` until a step gains less than `tolerance`."""
    damping = 1e-3
    for _ in range(ITERATIONS):
        linear = linearise(problem, here)
        while damping < STALLED:
            z = _parameters(problem, here, linear, damping)
            there = problem.point(z, _starts(problem, here, linear, z))
            if there.cost <= here.cost:
                break
            damping *= 10
        else:
            return here
        gain, here, damping = here.cost - there.cost, there, damping / 10
        if problem.descent.ended(gain, here.cost, tolerance):
            break
    return here


def _parameters(problem: Problem, here: Point, linear: Linear, damping: float) -> Array:
    """Where one damped step leads z (P,); one that presses against its bound stays there."""
    low, high = problem.bounds
    information = np.eye(len(here.z)) + linear.information.sum(0)
    gradient = here.z + linear.gradient.sum(0)
    free = ~pressing(problem, here, linear)
    damped = information + damping * np.diag(np.diag(information))
    step = np.zeros(len(free))
    step[free] = -np.linalg.solve(damped[np.ix_(free, free)], gradient[free])
    return np.clip(here.z + step, low, high)


def pressing(problem: Problem, here: Point, linear: Linear) -> NDArray[np.bool_]:
    """Which parameters (P,) are at a bound that the cost would have them cross."""
    low, high = problem.bounds
    gradient = here.z + linear.gradient.sum(0)
    return (here.z <= low) & (gradient > 0) | (here.z >= high) & (gradient < 0)


def _starts(problem: Problem, here: Point, linear: Linear, z: Array) -> Array:
    """The start states (W, S) that are best at z, to first order."""
    error = linear.error + linear.slopes @ (z - here.z)
    wanted = np.swapaxes(linear.basis, 1, 2) @ error[..., None]
    best, loose = here.starts.copy(), problem.loose
    best[:, loose] -= np.linalg.solve(linear.upper, wanted)[..., 0] * problem.noise[loose]
    return best
