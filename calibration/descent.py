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
RIDGED = 3e-3  # of the cost: where a fit over secants ends, since the cost is no smoother than that
CUT = 4.0  # secants beyond as many sigma of those of their state are cut there
NOISE = (0.003, 0.05)  # rad, rad/s: of measured joints, a first guess
MAD = 1.4826  # from the median absolute deviation to the standard deviation of a normal distribution


class Smooth:
    """Of a fixed base: by derivatives, down to where a step gains less than what was asked for.

    Attributes:
        estimates_starts: Whether the start states of windows are estimated, or held at the measured ones.
        noise_is_model_error: Whether most of the noise is, which is large until the fit is near.
        base_noise: Of measured states besides the joints', a first guess: m, of unit gravity, rad/s, m/s.
    """

    estimates_starts = True
    noise_is_model_error = False
    base_noise: tuple[float, ...] = ()

    def slope(self, problem: Problem, here: Point, i: int) -> Array:
        """Change of the errors (W, N) with the i-th parameter."""
        parameter = problem.free[i]
        step = STEP if parameter.value(here.z[i] + STEP) < parameter.high else -STEP
        moved = problem.point(here.z + step * (np.arange(len(here.z)) == i), here.starts)
        return (moved.error - here.error) / step

    def ended(self, gain: float, cost: float, tolerance: float) -> bool:
        """Whether a step that gained so much, and left this cost, was the last."""
        return gain < tolerance


class Rough(Smooth):
    """Of a floating base: by secants, over a third of the prior's width to both sides and with the farthest cut.

    With derivatives, or without the cut, the fit stays near where it began. Start states are held at the measured ones:
    joints that a servo drives forget them within a few control periods.
    """

    estimates_starts = False
    noise_is_model_error = True
    base_noise = (0.003, *[0.01] * 3, *[0.1] * 3, *[0.05] * 3)

    def slope(self, problem: Problem, here: Point, i: int) -> Array:
        """See `Smooth`; inside the bounds."""
        low, high = problem.bounds
        ends = np.clip(here.z[i] + SECANT * np.array([-1, 1]), low[i], high[i])
        below, above = (
            problem.point(np.where(np.arange(len(low)) == i, end, here.z), here.starts).error for end in ends
        )
        slope = ((above - below) / (ends[1] - ends[0])).reshape(*problem.windows.states.shape)
        spread = MAD * np.median(np.abs(slope[:, 1:]), axis=(0, 1))
        cut: Array = np.clip(slope, -CUT * spread, CUT * spread)
        return cut.reshape(here.error.shape)

    def ended(self, gain: float, cost: float, tolerance: float) -> bool:
        """See `Smooth`; whatever was asked for."""
        return gain < RIDGED * cost


def descent(spec: RobotSpec) -> Smooth:
    """That of a robot's base."""
    return Smooth() if spec.base == "fixed" else Rough()


def first_guess(robot: Robot) -> Array:
    """Noise (S,) of measured states, before anything is known of it."""
    return np.concatenate([np.repeat(NOISE, len(robot.spec.joints)), descent(robot.spec).base_noise])
