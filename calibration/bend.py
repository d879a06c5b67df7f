"""What a Stribeck curve in one more joint would do to a fit, to first order: whether to try it, what it may hide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import truncnorm

from landbridge.calibration.descent import STEP
from landbridge.calibration.fit import Linear, Point, Problem, pressing
from landbridge.simulation.parameters import STRIBECK

Array = NDArray[np.float64]

SPEEDS = (0.5, 1.0, 2.0)  # of the nominal Stribeck speed; without height a curve has no slope with its speed


@dataclass(frozen=True)
class Bend:
    """A curve of one speed.

    Attributes:
        richer: The problem with the curve among its P free parameters.
        z: (P,) the fit without it.
        excess: Index in z of the curve's height.
        others: (P - 2,) indices of what was fitted.
        along: (P - 2,) by how much these sink per unit of height; not at all where they press against a bound.
        height: Where the cost is least, in coordinates above none; negative where a curve makes things worse.
        curvature: Of the cost in the height.
    """

    richer: Problem
    z: Array
    excess: int
    others: list[int]
    along: Array
    height: float
    curvature: float

    @property
    def promise(self) -> float:
        """Log likelihood that it would gain on the fitted windows: a score test (Rao, 1948)."""
        return self.curvature * max(0.0, self.height) ** 2 / 2

    def start(self) -> Array:
        """Z (P,) where it leads."""
        z, height = self.z.copy(), max(0.0, self.height)
        z[self.excess] += height
        z[self.others] -= height * self.along
        return z

    def heights(self, highest: float, widening: float, draws: int, rng: np.random.Generator) -> Array:
        """Coordinates (draws,) that the data permit, of torques up to `highest` [N m], the spread widened."""
        scale = widening / np.sqrt(self.curvature)
        low, high = (0 - self.height) / scale, (highest / self.richer.free[self.excess].sd - self.height) / scale
        if not low < high:
            return np.zeros(draws)
        found: Array = truncnorm.rvs(low, high, self.height, scale, draws, random_state=rng)
        return found


def bends(plain: Problem, here: Point, linear: Linear, richer: Problem, joint: str) -> list[Bend]:
    """The curves of a joint, parameters of `richer`, that `plain` was fitted without: to `here`, `linear` about it."""
    excess, speed = ([p.name for p in richer.free].index(f"friction.{joint}.{field}") for field in STRIBECK)
    others = [i for i in range(len(richer.free)) if i not in (excess, speed)]
    root, moving = np.sqrt(here.weights), np.flatnonzero(~pressing(plain, here, linear))
    # Second derivatives are those of soft L1, as in `posterior.resample`.
    information = np.eye(len(others)) + here.curvature * linear.information.sum(0)
    found = []
    for factor in SPEEDS:
        z = np.zeros(len(richer.free))
        z[others], z[excess] = here.z, richer.free[excess].coordinate(0.0)
        z[speed] = richer.free[speed].coordinate(factor * richer.free[speed].nominal)
        moved = richer.point(z + STEP * (np.arange(len(z)) == excess), here.starts)
        slope = (root * (moved.error - here.error) / STEP)[..., None]
        slope = (slope - linear.basis @ (np.swapaxes(linear.basis, 1, 2) @ slope))[..., 0]
        across, along = here.curvature * np.einsum("wnp,wn->p", linear.reduced, slope), np.zeros(len(others))
        along[moving] = np.linalg.solve(information[np.ix_(moving, moving)], across[moving])
        gradient = z[excess] + float((slope * linear.error).sum()) - float(along @ (here.z + linear.gradient.sum(0)))
        own = here.curvature * float(np.square(slope).sum())
        curvature = 1 + max(0.0, own - float(along @ information @ along))
        found.append(Bend(richer, z, excess, others, along, -gradient / curvature, curvature))
    return found
