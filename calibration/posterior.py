"""How well the data determine the parameters: block bootstrap over windows, widened for model error.

A robot that walks repeats itself, and so does what MuJoCo's contacts have wrong: it is no chance that evens out over
strides. However long it walks, its data are therefore worth one stride.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from landbridge.calibration.fit import FLOOR, Linear, Point
from landbridge.calibration.windows import Windows
from landbridge.robot import Robot
from landbridge.simulation.calibrated import Estimate
from landbridge.simulation.parameters import Parameter

Array = NDArray[np.float64]

RESAMPLES = 1000
IDENTIFIED = 0.05  # of its value: a parameter whose interval reaches farther was not identified
IDENTIFIED_MS = 2.0
WEAK = 0.5  # prior standard deviations: a direction that stays wider was not determined by the data
NAMED = 0.3  # of a direction of unit length: parameters with a smaller share are not named
CORRELATED = 0.05  # an autocorrelation below it counts as none
WHITE = 1.3  # highest `inflation` of a fit that found the robot; 59 with a fixed base had up to 1.07 (docs/FIGURES.md)
WORSE = 1.1  # times the nominal error, from which a calibrated simulator predicts worse


def resample(here: Point, linear: Linear, widening: float, rng: np.random.Generator, worth: float = 1.0) -> Array:
    """Coordinates (R, P): where the fit would have gone on windows, and a prior mean, drawn anew.

    One Gauss-Newton step from the fit for each draw; the blocks of the bootstrap are whole windows, so that errors may
    be correlated inside them. The prior's mean is drawn too: what only the prior determines is as uncertain as it.

    Args:
        here: The fit.
        linear: The problem about it.
        widening: Factor on the standard deviation of what the data say.
        rng: Of the draws.
        worth: Power of the likelihood, which says how much the data weigh against the prior; under model error less
            than 1 (Miller and Dunson, Journal of the American Statistical Association 114(527), 2019).
    """
    windows, size = linear.gradient.shape
    counts = rng.multinomial(windows, np.full(windows, 1 / windows), RESAMPLES)
    # The spread of an M-estimator: its score over the true curvature of its cost (Huber, Robust Statistics, 1981, 6.3).
    information = np.eye(size) + worth * here.curvature * np.einsum("rw,wij->rij", counts, linear.information)
    score = worth * widening * (counts - 1) @ linear.gradient + rng.standard_normal((RESAMPLES, size))
    return here.z - np.linalg.solve(information, score[..., None])[..., 0]


def stride_inflation(robot: Robot, windows: Windows) -> float:
    """Factor on standard deviations, at least 1, under errors that are the same in every stride.

    As if the data were one stride long: the root of the number of strides. A robot without a clock of its gait
    (`gait_phase`) may repeat itself in every window.
    """
    window_s = (windows.states.shape[1] - 1) * robot.spec.control_dt
    stride_s = max((term.period_s for term in robot.spec.observation if term.period_s is not None), default=window_s)
    return float(np.sqrt(max(1.0, len(windows) * window_s / stride_s)))


def inflation(error: Array, held_ratio: float) -> float:
    """Factor on standard deviations, at least 1.

    With the right model the errors are white noise, and as large on rollouts that the fit has not seen. The variance of
    a mean of correlated errors is larger by 1 + 2 sum of their autocorrelations (Priestley, 1981, section 5.3).

    Args:
        error: (W, H + 1, S) of the fit, of zero mean without model error.
        held_ratio: Mean square of the error on held-out over that on fitted windows.
    """
    longest = 1.0
    for channel in np.moveaxis(error, -1, 0):
        power, total = np.square(channel).mean(), 1.0
        for lag in range(1, channel.shape[1] // 2):
            correlation = (channel[:, lag:] * channel[:, :-lag]).mean() / power
            if correlation < CORRELATED:
                break
            total += 2 * correlation
        longest = max(longest, total)
    return float(np.sqrt(longest * max(1.0, held_ratio)))


def doubts(base: str, widening: float, nominal: Mapping[str, float], calibrated: Mapping[str, float]) -> list[str]:
    """Why a fit should not be relied on: what its own intervals cannot tell, for they are about where it has ended.

    A fit that has ended in a wrong minimum, or whose robot is none that the parameters can be, leaves errors that are
    no noise: they go on from one control period to the next. The contacts of what walks always leave such errors.

    Args:
        base: Of the robot, fixed or floating.
        widening: Of the fit, see `inflation`.
        nominal: Errors of the nominal simulator on held-out windows, by joint.
        calibrated: The same of the calibrated one.
    """
    found = []
    before, after = (float(np.linalg.norm(list(errors.values()))) for errors in (nominal, calibrated))
    if base == "fixed" and widening > WHITE:
        found.append(
            f"what the fit leaves is no noise (inflation {widening:.2f}, at most {WHITE:g} if the robot was found). "
            "Its intervals are wider for that, but they are about where it has ended: a wrong minimum, or what stands "
            "for something that no parameter is, or for a number of robot.yaml that is taken as true. Of rollouts "
            f"that were not fitted it is {after:.2g} rad off, and the nominal simulator {before:.2g}: if that is much "
            "more, go on, but rely on no single value, and train with the robot's rows too (train --alignment none)"
        )
    if after > WORSE * max(before, FLOOR):
        than = f"than the nominal simulator, by {after:.2g} and {before:.2g} rad"
        found.append(f"it predicts rollouts that were not fitted worse {than}")
    return found


def estimates(free: Sequence[Parameter], z: Array, samples: Array) -> dict[str, Estimate]:
    """Values with 95 % intervals, from coordinates (P,) and samples (R, P).

    Where an interval ends at a bound that is only a guess of how far a robot may be off, what is beyond is not known.
    """
    found = {}
    for parameter, own, ends in zip(free, z, np.quantile(samples, (0.025, 0.975), axis=0).T, strict=True):
        value, low, high = (parameter.value(float(c)) for c in (own, *ends))
        enough = IDENTIFIED_MS if parameter.unit == "ms" else IDENTIFIED * abs(value)
        inside = high < parameter.high and (low > parameter.low or parameter.low == 0)  # less than 0 nothing can be
        told = inside and (high - low) / 2 <= enough
        found[parameter.name] = Estimate(value=value, low=low, high=high, identifiable=told)
    return found


def covariance(samples: Array) -> Array:
    """Of samples (R, P): (P, P), of a single parameter too."""
    return np.atleast_2d(np.cov(samples.T))


def undetermined(free: Sequence[Parameter], samples: Array) -> list[dict[str, float]]:
    """Directions of z in which the samples (R, P) are about as wide as the prior, by the names of what they move.

    Their space has no basis of its own; the one in reduced echelon form names the fewest parameters a direction.
    """
    variances, directions = np.linalg.eigh(covariance(samples))
    space = directions[:, variances > WEAK**2]
    if space.shape[1] == 0:
        return []
    _, _, order = qr(space.T, pivoting=True)
    echelon = space @ np.linalg.inv(space[order[: space.shape[1]]])
    echelon /= np.linalg.norm(echelon, axis=0)
    return [
        {p.name: float(share) for p, share in zip(free, direction, strict=True) if abs(share) >= NAMED}
        for direction in echelon.T
    ]
