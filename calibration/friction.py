"""`landbridge calibrate friction`: how much of a friction model the data of each joint support.

Coulomb and viscous friction first, in all joints; then a Stribeck curve is added to one joint at a time, and stays
where it predicts windows that were not fitted so much better that chance does not explain it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from landbridge.calibration.fit import Point, Problem, first_guess, fit, linearise, solve, unseen
from landbridge.calibration.windows import Windows, open_windows, split
from landbridge.robot import Robot, load_robot
from landbridge.simulation.calibrated import FrictionChoice
from landbridge.simulation.parameters import (
    FRICTION,
    STRIBECK,
    Parameter,
    at,
    free_parameters,
    to_scenario,
    to_values,
    without_stribeck,
)

Array = NDArray[np.float64]
Model = Literal["coulomb", "stribeck", "auto"]

FOLDS = 5  # of the cross-validation
SHARES, SPEEDS = (0.2, 0.5), (0.5, 1.0, 2.0)  # of the Coulomb torque and of the nominal speed: where a curve begins
MARGIN_SE = 1.0  # standard errors over windows by which a Stribeck curve must predict better
MARGIN = 4.0  # and in log likelihood: less is small (Sivula, Magnusson and Vehtari, arXiv:2008.10296)


def friction(data: Path, /, robot: str = "furuta", known: tuple[str, ...] = (), horizon: float = 0.5) -> dict[str, Any]:
    """Find which joints have a Stribeck curve, and the friction of each.

    The other parameters are estimated along with it. A model's error is that of predictions over `horizon` from the
    best start states, in standard deviations of the sensor noise; each window is predicted by a fit to the others.

    Example: landbridge calibrate friction data/target --known link_mass_scale.arm_link

    Args:
        data: A dataset folder: 30 to 60 s of a robot with a fixed base, excited in all joints.
        robot: Name of a robot, or a folder with robot.yaml.
        known: Parameters that are as robot.yaml and the URDF say.
        horizon: Length of the windows that are simulated [s].

    Returns:
        By joint the chosen model, its values, the errors of both models on windows that were not fitted, and how much
        log likelihood the curve gains there, with its standard error.
    """
    machine = load_robot(robot)
    fitted, _ = split(open_windows(data, machine, horizon)[1])
    found = choose(machine, free_parameters(machine, known), fitted)
    return {"dataset": str(data), "windows": len(fitted), "friction": found.rows()}


@dataclass(frozen=True)
class Trial:
    """A fit with a Stribeck curve in one more joint.

    Attributes:
        problem: With the curve's parameters among the free ones.
        here: The fit.
        before: (W,) losses of the windows without the curve, each under a fit to others.
        losses: (W,) with it.
    """

    problem: Problem
    here: Point
    before: Array
    losses: Array

    @property
    def gain(self) -> float:
        """Log likelihood of the windows with the curve over that without."""
        return float((self.before - self.losses).sum())

    @property
    def error(self) -> float:
        """Standard error of `gain`."""
        return float(np.std(self.before - self.losses, ddof=1) * np.sqrt(len(self.losses)))

    @property
    def supported(self) -> bool:
        """Whether the curve predicts better beyond chance."""
        return self.gain > max(MARGIN, MARGIN_SE * self.error)

    def chosen(self, model: Literal["coulomb", "stribeck"]) -> FrictionChoice:
        """This trial as the reason for a model."""
        before, after = _rms(self.before, self.here), _rms(self.losses, self.here)
        return FrictionChoice(
            model=model, coulomb_error=before, stribeck_error=after, gain=self.gain, gain_se=self.error
        )


@dataclass(frozen=True)
class Choice:
    """The friction model of every joint and the fit.

    Attributes:
        problem: Free parameters are those of the chosen models.
        here: The fit.
        models: By joint, where the Stribeck curve is not known beforehand.
    """

    problem: Problem
    here: Point
    models: dict[str, FrictionChoice]

    def rows(self) -> list[dict[str, Any]]:
        """What the command line prints, one row a joint."""
        problem = self.problem
        values = to_values(problem.robot, to_scenario(problem.robot, at(problem.free, self.here.z), problem.base))
        return [
            {"joint": joint, "model": choice.model}
            | {field: values[f"friction.{joint}.{field}"] for field in FRICTION}
            | choice.model_dump(exclude={"model"})
            for joint, choice in self.models.items()
        ]


def choose(robot: Robot, free: Sequence[Parameter], windows: Windows, model: Model = "auto") -> Choice:
    """The friction model of each joint and the fit.

    Args:
        robot: Whose friction.
        free: All parameters to estimate, those of the Stribeck curves among them.
        windows: To fit and, by cross-validation, to predict.
        model: That of all joints, or `auto`.
    """
    names = {p.name for p in free}
    able = [joint for joint in robot.spec.joint_names if names >= _curve(joint)]
    if model == "stribeck":
        found = fit(Problem(robot, free, windows, first_guess(robot)))
        return Choice(*found, dict.fromkeys(able, FrictionChoice(model="stribeck")))
    curves = set().union(*map(_curve, able))
    simple = [p for p in free if p.name not in curves]
    problem, here = fit(Problem(robot, simple, windows, first_guess(robot), without_stribeck(robot, able)))
    plain = Choice(problem, here, dict.fromkeys(able, FrictionChoice(model="coulomb")))
    return plain if model == "coulomb" else _grown(plain, free)


def _grown(plain: Choice, free: Sequence[Parameter]) -> Choice:
    """Curves added one by one, that which gains most first, while they gain."""
    problem, here, models, joints = plain.problem, plain.here, dict(plain.models), list(plain.models)
    losses = _cross_validated(problem, here)
    while joints:
        tried = {joint: _with_curve(problem, here, losses, free, joint) for joint in joints}
        models |= {joint: trial.chosen("coulomb") for joint, trial in tried.items()}
        best = max(tried, key=lambda joint: tried[joint].gain)
        if not tried[best].supported:
            break
        models[best] = tried[best].chosen("stribeck")
        problem, here, losses = tried[best].problem, tried[best].here, tried[best].losses
        joints = [joint for joint in joints if joint != best and tried[joint].supported]
    return Choice(problem, here, models)


def _with_curve(problem: Problem, here: Point, losses: Array, free: Sequence[Parameter], joint: str) -> Trial:
    values = at(problem.free, here.z)
    richer = replace(problem, free=[p for p in free if p.name in values or p.name in _curve(joint)])
    tried = [_bent(richer, values, joint, share, speed) for share, speed in itertools.product(SHARES, SPEEDS)]
    start = min((richer.point(z, here.starts) for z in tried), key=lambda point: point.cost)
    found = solve(richer, start.z, start.starts)
    return Trial(richer, found, losses, _cross_validated(richer, found))


def _bent(richer: Problem, values: Mapping[str, float], joint: str, share: float, speed: float) -> Array:
    """Z (P,) with part of a joint's Coulomb torque made a curve: without one its speed has no slope to follow."""
    dry, excess, width = (f"friction.{joint}.{field}" for field in ("frictionloss", *STRIBECK))
    nominal = {p.name: p.nominal for p in richer.free}
    loss = values.get(dry, richer.robot.spec.joint(joint).friction.frictionloss)
    bent = {**values, dry: (1 - share / 2) * loss, excess: share * loss, width: speed * nominal[width]}
    return np.array([p.coordinate(bent[p.name]) for p in richer.free])


def _cross_validated(problem: Problem, here: Point) -> Array:
    """Losses (W,) of every window under the fit to the windows of the other folds, which are stretches of the data."""
    fold = np.arange(len(here.starts)) * FOLDS // len(here.starts)
    linear = linearise(problem, here)
    return np.concatenate([unseen(problem, here, linear, fold == part) for part in range(FOLDS)])


def _curve(joint: str) -> set[str]:
    return {f"friction.{joint}.{field}" for field in STRIBECK}


def _rms(losses: Array, here: Point) -> float:
    """Robust root mean square error that losses (W,) stand for, in standard deviations of the noise."""
    return float(np.sqrt(2 * losses.mean() / here.error.shape[1]))
