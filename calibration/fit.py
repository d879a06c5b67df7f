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
from landbridge.calibration.shooting import Case, simulate_all
from landbridge.calibration.windows import Windows
from landbridge.robot import Robot
from landbridge.simulation.parameters import Parameter, at, to_scenario
from landbridge.simulation.scenario import Scenario

Array = NDArray[np.float64]

SOFT = 2.0  # residuals beyond as many sigma count linearly (soft L1)
FLOOR = 1e-5  # rad and rad/s; measured states are float32
FIRST = 40  # windows that the first round, from far away, makes do with
CLOSE = 10.0  # of cost: what a step may still promise where that round ends
CONVERGED = 0.05  # and where a fit does: it is within a third of a standard deviation
RELAXATIONS = 5  # of start states after one step
ITERATIONS = 50
WHOLE, STALLED = 1e-6, 1e8  # damping at which a step is as good as whole, and at which it is none


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
        return self.points([z], [starts])[0]

    def points(self, zs: Sequence[Array], starts: Sequence[Array]) -> list[Point]:
        """As `point`, at K of each, in one simulation."""
        values = [at(self.free, z) for z in zs]
        cases = [self.case(*each) for each in zip(values, starts, strict=True)]
        states = [self.seen(*each) for each in zip(values, simulate_all(self.robot, cases), strict=True)]
        errors = ((np.stack(states) - self.windows.states) / self.noise).reshape(*np.shape(starts)[:2], -1)
        return [Point(*each) for each in zip(zs, starts, errors, strict=True)]

    def case(self, values: Mapping[str, float], starts: Array) -> Case:
        """What to simulate at these parameters and measured start states (W, S)."""
        return Case(to_scenario(self.robot, values, self.base), self.windows, starts)

    def seen(self, values: Mapping[str, float], states: Array) -> Array:
        """What would be measured of simulated states (W, H + 1, S)."""
        return states


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

    def power(self, states: NDArray[np.bool_]) -> float:
        """Mean of the weighted squares of the errors in the states that the mask (S,) chooses."""
        squares = (self.weights * np.square(self.error)).reshape(-1, len(states))
        return float(squares[:, states].mean())

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


@dataclass(frozen=True)
class Fit:
    """A problem, where its cost is least, and the problem to first order about there."""

    problem: Problem
    here: Point
    linear: Linear

    @property
    def noise(self) -> Array:
        """(S,) what its own residuals show; it was made under an earlier guess."""
        return _noise(self.problem, self.here)


def linearise(problem: Problem, here: Point) -> Linear:
    """By differences."""
    probes = problem.descent.probes(problem, here.z)
    moves = STEP * problem.noise * np.eye(len(problem.noise))[problem.loose]
    zs = [*probes, *[here.z] * len(moves)]
    starts = [*[here.starts] * len(probes), *(here.starts + move for move in moves)]
    error, root = here.error, np.sqrt(here.weights)
    errors = np.array([point.error for point in problem.points(zs, starts)]) if zs else np.empty((0, *error.shape))
    slopes = problem.descent.slopes(problem, here, probes, errors[: len(probes)])
    whole = root[..., None] * np.moveaxis(slopes, 0, -1)
    basis, upper = np.linalg.qr(root[..., None] * np.moveaxis((errors[len(probes) :] - error) / STEP, 0, -1))
    return Linear(root * error, whole, whole - basis @ (np.swapaxes(basis, 1, 2) @ whole), basis, upper)


def fit(problem: Problem, z: Array | None = None) -> Fit:
    """Estimate the parameters from z (P,), by default nominal, under the noise that residuals show."""
    few = np.arange(len(problem.windows)) % max(1, len(problem.windows) // FIRST) == 0
    part = replace(problem, windows=problem.windows.where(few))
    start = begin(part, np.array([p.coordinate(p.nominal) for p in problem.free]) if z is None else z)
    if problem.descent.noise_is_model_error:
        part = replace(part, noise=_noise(part, start))
        start = part.point(start.z, start.starts)
    rough = descend(part, start, CLOSE).here
    starts = problem.windows.states[:, 0].copy()
    starts[few] = rough.starts
    problem = replace(problem, noise=_noise(part, rough))
    return descend(problem, problem.point(rough.z, starts))


def sharpened(found: Fit) -> Fit:
    """The fit again, with the noise level that its own residuals show: at first, model error was counted as noise."""
    problem = replace(found.problem, noise=found.noise)
    return descend(problem, problem.point(found.here.z, found.here.starts))


def settle(problem: Problem, z: Array, windows: Windows) -> Point:
    """The best start states of other windows, with the parameters held at z; the measured ones where these are held."""
    base = to_scenario(problem.robot, at(problem.free, z), problem.base)
    rest = replace(problem, free=(), windows=windows, base=base)
    measured = rest.point(np.empty(0), windows.states[:, 0])
    return descend(rest, measured).here if rest.descent.estimates_starts else measured


def unseen(found: Fit, left_out: NDArray[np.bool_]) -> Array:
    """Losses of the windows that are left out (W,) under the fit to the others, which is one Newton step away.

    As in approximate cross-validation (Rad and Maleki, Journal of the Royal Statistical Society B 82(4), 2020).
    """
    problem, here = found.problem, found.here
    others, own = found.linear.where(~left_out), found.linear.where(left_out)
    z = _parameters(problem, here, others, 0.0)
    rest = replace(problem, windows=problem.windows.where(left_out))
    at_rest = replace(here, starts=here.starts[left_out])
    return relaxed(rest, rest.point(z, _starts(rest, at_rest, own, z)), own).losses


def begin(problem: Problem, z: Array) -> Point:
    """Parameters z (P,) and measured start states, at the latency that fits best: of that a fit may have two minima."""
    starts, tried = problem.windows.states[:, 0], [z]
    for i, parameter in enumerate(problem.free):
        if parameter.name == "latency_ms":
            values = np.linspace(parameter.low, parameter.high, 11)
            tried += [np.where(np.arange(len(z)) == i, parameter.coordinate(value), z) for value in values]
    return min(problem.points(tried, [starts] * len(tried)), key=lambda point: point.cost)


def _noise(problem: Problem, at: Point) -> Array:
    error = np.abs(at.error).reshape(-1, len(problem.noise))
    return np.maximum(MAD * np.median(error, axis=0) * problem.noise, FLOOR)


def descend(problem: Problem, here: Point, tolerance: float = CONVERGED) -> Fit:
    """Levenberg-Marquardt from `here`, never upwards, until a whole step promises less than `tolerance`."""
    linear, damping, gain = linearise(problem, here), 1e-3, np.inf
    for _ in range(ITERATIONS):
        if problem.descent.ended(_promise(problem, here, linear), gain, here.cost, tolerance):
            break
        while damping < STALLED:
            z = _parameters(problem, here, linear, damping)
            there = relaxed(problem, problem.point(z, _starts(problem, here, linear, z)), linear)
            if there.cost <= here.cost:
                break
            damping *= 10
        else:
            break
        gain, here, damping = here.cost - there.cost, there, max(damping / 10, WHOLE)
        linear = linearise(problem, here)
    return Fit(problem, here, linear)


def relaxed(problem: Problem, here: Point, linear: Linear) -> Point:
    """`here` with start states that are better at its z, by their derivatives at a point nearby.

    A step goes along the parameters to first order, and a robot that is unstable or knocks in its gears punishes start
    states that are a bit off far more than the step gains. To mend them takes a simulation, a shorter step many.
    """
    for _ in range(RELAXATIONS):
        wanted = _wanted(linear, np.sqrt(here.weights) * here.error)
        if np.square(wanted).sum() / 2 < CONVERGED:
            break
        moved = problem.point(here.z, _moved(problem, here, linear, wanted))
        better = (moved.losses < here.losses)[:, None]
        if not better.any():
            break
        pairs = (moved.starts, here.starts), (moved.error, here.error)
        here = Point(here.z, *(np.where(better, new, old) for new, old in pairs))
    return here


def _promise(problem: Problem, here: Point, linear: Linear) -> float:
    """By how much a whole step would lower the cost, to second order."""
    step = _parameters(problem, here, linear, 0.0) - here.z
    of_starts = np.square(_wanted(linear, linear.error)).sum() / 2
    gradient, information = here.z + linear.gradient.sum(0), np.eye(len(step)) + linear.information.sum(0)
    return float(of_starts - step @ (gradient + information @ step / 2))


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
    return _moved(problem, here, linear, _wanted(linear, linear.error + linear.slopes @ (z - here.z)))


def _wanted(linear: Linear, error: Array) -> Array:
    """What of weighted errors (W, N) start states can undo (W, L), along the basis."""
    return np.einsum("wnl,wn->wl", linear.basis, error)


def _moved(problem: Problem, here: Point, linear: Linear, wanted: Array) -> Array:
    """Start states (W, S) that undo `wanted` (W, L)."""
    best, loose = here.starts.copy(), problem.loose
    best[:, loose] -= np.linalg.solve(linear.upper, wanted[..., None])[..., 0] * problem.noise[loose]
    return best
