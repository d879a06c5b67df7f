"""What one more term of friction would do to a fit, to first order: whether to try it, what it may hide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import truncnorm

from landbridge.calibration.descent import STEP
from landbridge.calibration.fit import Fit, Problem, pressing
from landbridge.simulation.parameters import height, of_terms

Array = NDArray[np.float64]

SPEEDS = (0.5, 1.0, 2.0)  # of the nominal Stribeck speed; without height a curve has no slope with its speed


@dataclass(frozen=True)
class Bend:
    """A Stribeck curve of one speed in one joint, or a load that one rubs under.

    Attributes:
        richer: The problem with the term among its P free parameters.
        z: (P,) the fit without it.
        place: Index in z of the term's height: that of the curve, or the share of the load.
        others: Indices (O,) in z of what was fitted.
        along: (O,) by how much these sink per unit of height; not at all where they press against a bound.
        height: Where the cost is least, in coordinates above none; negative where the term makes things worse.
        curvature: Of the cost in the height.
    """

    richer: Problem
    z: Array
    place: int
    others: list[int]
    along: Array
    height: float
    curvature: float

    @property
    def promise(self) -> float:
        """Log likelihood that it would gain on the fitted windows: a score test (Rao, 1948)."""
        return self.curvature * max(0.0, self.height) ** 2 / 2

    def start(self) -> Array:
        """The point `z` (P,) to which it leads."""
        z, raised = self.z.copy(), max(0.0, self.height)
        z[self.place] += raised
        z[self.others] -= raised * self.along
        return z

    def heights(self, highest: float, widening: float, draws: int, rng: np.random.Generator) -> Array:
        """Coordinates (draws,) that the data permit, of values up to `highest`, the spread widened."""
        scale = widening / np.sqrt(self.curvature)
        low, high = (0 - self.height) / scale, (highest / self.richer.free[self.place].sd - self.height) / scale
        if not low < high:
            return np.zeros(draws)
        found: Array = truncnorm.rvs(low, high, self.height, scale, draws, random_state=rng)
        return found


def bends(plain: Fit, richer: Problem, joint: str, term: str) -> list[Bend]:
    """The forms of a term in a joint, parameters of `richer`.

    Args:
        plain: The fit without the term.
        richer: The problem with it.
        joint: Which joint.
        term: One of `parameters.TERMS`: of a Stribeck curve of unknown speed one form for each of SPEEDS.
    """
    here, linear = plain.here, plain.linear
    names = [p.name for p in richer.free]
    place = names.index(height(joint, term))
    speed = [names.index(name) for name in of_terms([(joint, term)]) & {*names} - {names[place]}]  # unless it is known
    others = [i for i in range(len(richer.free)) if i not in (place, *speed)]
    root, moving = np.sqrt(here.weights), np.flatnonzero(~pressing(plain.problem, here, linear))
    # Second derivatives are those of soft L1, as in `posterior.resample`.
    information = np.eye(len(others)) + here.curvature * linear.information.sum(0)
    found = []
    for factor in SPEEDS if speed else (1.0,):
        z = np.zeros(len(richer.free))
        z[others], z[place] = here.z, richer.free[place].coordinate(0.0)
        z[speed] = [richer.free[i].coordinate(factor * richer.free[i].nominal) for i in speed]
        moved = richer.point(z + STEP * (np.arange(len(z)) == place), here.starts)
        slope = (root * (moved.error - here.error) / STEP)[..., None]
        slope = (slope - linear.basis @ (np.swapaxes(linear.basis, 1, 2) @ slope))[..., 0]
        across, along = here.curvature * np.einsum("wnp,wn->p", linear.reduced, slope), np.zeros(len(others))
        along[moving] = np.linalg.solve(information[np.ix_(moving, moving)], across[moving])
        gradient = z[place] + float((slope * linear.error).sum()) - float(along @ (here.z + linear.gradient.sum(0)))
        own = here.curvature * float(np.square(slope).sum())
        curvature = 1 + max(0.0, own - float(along @ information @ along))
        found.append(Bend(richer, z, place, others, along, -gradient / curvature, curvature))
    return found
