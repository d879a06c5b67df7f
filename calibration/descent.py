"""How a fit goes down its cost: that of a fixed base, which is smooth, and that of one that walks, which is not.

Where feet strike the ground a bit earlier or later a state jumps, and a derivative there says nothing of the way ahead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from landbridge.robot import Robot, RobotSpec

if TYPE_CHECKING:
    from landbridge.calibration.fit import Point, Problem

Array = NDArray[np.float64]

STEP = 1e-6  # of finite differences, in prior or noise standard deviations
SECANT = 0.3  # prior standard deviations to both sides
JAGGED = 1.0  # of cost: what a step may promise and not keep where gears knock
RIDGED = 3e-3  # of the cost: where a fit over secants ends, since the cost is no smoother than that
CUT = 4.0  # secants beyond as many sigma of those of their state are cut there
NOISE = (0.003, 0.05)  # rad, rad/s: of measured joints, a first guess
MAD = 1.4826  # from the median absolute deviation to the standard deviation of a normal distribution


class Smooth:
    """Of a fixed base: by derivatives, down to where a whole step promises less than what was asked for.

    What a step gains does not tell the end: one that was cut short gains little wherever it is.

    Attributes:
        width: Of the differences to both sides, in prior standard deviations.
        estimates_starts: Whether the start states of windows are estimated, or held at the measured ones.
        noise_is_model_error: Whether most of the noise is model error, which stays large until the fit is close.
        base_noise: Of measured states besides the joints', a first guess: m, of unit gravity, rad/s, m/s.
    """

    width = STEP
    estimates_starts = True
    noise_is_model_error = False
    base_noise: tuple[float, ...] = ()

    def probes(self, problem: Problem, z: Array) -> Array:
        """Where about z (P,) the errors are asked for (2 P, P): below, then above, inside the bounds.

        By one side alone, what a difference is off by would pass for information where the data have next to no noise.
        """
        low, high = problem.bounds
        own, inside = np.eye(len(z), dtype=bool), np.clip(z, low, high)  # rounding may have led beyond
        sides = (np.clip(inside + side, low, high) for side in (-self.width, self.width))
        return np.concatenate([np.where(own, side, z) for side in sides])

    def slopes(self, problem: Problem, here: Point, probes: Array, errors: Array) -> Array:
        """Change of the errors (P, W, N) with each parameter, by those (2 P, W, N) of the probes (2 P, P)."""
        below, above = np.split(np.arange(len(probes)), 2)
        change: Array = (errors[above] - errors[below]) / (probes[above] - probes[below]).sum(1)[:, None, None]
        return change

    def ended(self, promise: float, gain: float, cost: float, tolerance: float) -> bool:
        """Whether a fit has ended: what its next step promises, what the last one gained, and the cost that it left."""
        return promise < tolerance or (promise < JAGGED and gain < tolerance)


class Rough(Smooth):
    """Of a floating base: by secants, over a third of the prior's width to both sides and with the farthest cut.

    With derivatives, or without the cut, the fit stays near where it began. Start states are held at the measured ones:
    joints that a servo drives forget them within a few control periods.
    """

    width = SECANT
    estimates_starts = False
    noise_is_model_error = True
    base_noise = (0.003, *[0.01] * 3, *[0.1] * 3, *[0.05] * 3)

    def slopes(self, problem: Problem, here: Point, probes: Array, errors: Array) -> Array:
        """See `Smooth`."""
        change = super().slopes(problem, here, probes, errors)
        slopes = change.reshape(-1, *problem.windows.states.shape)
        spread = MAD * np.median(np.abs(slopes[:, :, 1:]), axis=(1, 2), keepdims=True)
        cut: Array = np.clip(slopes, -CUT * spread, CUT * spread)
        return cut.reshape(change.shape)

    def ended(self, promise: float, gain: float, cost: float, tolerance: float) -> bool:
        """See `Smooth`; whatever was asked for."""
        return gain < RIDGED * cost


def descent(spec: RobotSpec) -> Smooth:
    """That of a robot's base."""
    return Smooth() if spec.base == "fixed" else Rough()


def first_guess(robot: Robot) -> Array:
    """Noise (S,) of measured states, before anything is known of it."""
    return np.concatenate([np.repeat(NOISE, len(robot.spec.joints)), descent(robot.spec).base_noise])
