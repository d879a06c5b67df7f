"""Where else the cost of a fit may be least: beside the gap and rotor of a gear that were found.

To cross a gap takes a rotor a time that goes with the root of gap times inertia. A wide gap with a light rotor is hence
much like a narrow one with a heavy rotor, and between the two, where knocks fall elsewhere, lies a ridge that no step
down crosses.
"""

from __future__ import annotations

import numpy as np

from landbridge.calibration.fit import CLOSE, Fit, descend, relaxed

ACROSS = (1.5, 1 / 1.5)  # times the gap, and the rotor divided by it; what was off in wrong minima was 1.3 to 2 times


def least_valley(found: Fit) -> Fit:
    """The least of a fit and of those that are found beyond the ridges to its sides."""
    names = {p.name for p in found.problem.free}
    for joint in found.problem.robot.spec.joint_names:
        if {f"backlash.{joint}", f"rotor_inertia_scale.{joint}"} <= names:
            fits = [found, *(_beyond(found, joint, factor) for factor in ACROSS)]
            found = min(fits, key=lambda each: each.here.cost)
    return found


def _beyond(found: Fit, joint: str, factor: float) -> Fit:
    """The fit from a gap wider by a factor and a rotor as much lighter; to its end if it may be the less."""
    problem, z = found.problem, found.here.z.copy()
    names = [p.name for p in problem.free]
    for name, times in ((f"backlash.{joint}", factor), (f"rotor_inertia_scale.{joint}", 1 / factor)):
        place = names.index(name)
        z[place] = problem.free[place].coordinate(problem.free[place].value(z[place]) * times)
    z = np.clip(z, *problem.bounds)
    other = descend(problem, relaxed(problem, problem.point(z, found.here.starts), found.linear), CLOSE)
    return descend(problem, other.here) if other.here.cost < found.here.cost + CLOSE else other
