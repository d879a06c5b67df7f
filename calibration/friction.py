"""`landbridge calibrate friction`: how much of a friction model the data of each joint support.

Coulomb and viscous friction first, in all joints; then a Stribeck curve is added to one joint at a time, where a score
test promises that it gains, and stays where it predicts windows that were not fitted so much better that chance does
not explain it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from landbridge.calibration.bend import Bend, bends
from landbridge.calibration.descent import first_guess
from landbridge.calibration.fit import Linear, Point, Problem, fit, linearise, solve, unseen
from landbridge.calibration.windows import Windows, open_windows, require_fixed_base, split
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
    require_fixed_base(machine, "a Stribeck curve")
    fitted, _ = split(open_windows(data, machine, horizon)[1])
    found = choose(machine, free_parameters(machine, known), fitted)
    return {"dataset": str(data), "windows": len(fitted), "friction": found.rows()}


@dataclass(frozen=True)
class Trial:
    """A fit with a Stribeck curve in one more joint.

    Attributes:
        problem: With the curve's parameters among the free ones.
        here: The fit.
        linear: The problem about it.
        before: (W,) losses of the windows without the curve, each under a fit to others.
        losses: (W,) with it.
    """

    problem: Problem
    here: Point
    linear: Linear
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
        linear: The problem about it.
        models: By joint, where the Stribeck curve is not known beforehand.
    """

    problem: Problem
    here: Point
    linear: Linear
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
        return _fitted(Problem(robot, free, windows, first_guess(robot)), model, able)
    curves = set().union(*map(_curve, able))
    simple = [p for p in free if p.name not in curves]
    plain = _fitted(Problem(robot, simple, windows, first_guess(robot), without_stribeck(robot, able)), "coulomb", able)
    return plain if model == "coulomb" else _grown(plain, free)


def _fitted(problem: Problem, model: Literal["coulomb", "stribeck"], joints: Sequence[str]) -> Choice:
    problem, here = fit(problem)
    return Choice(problem, here, linearise(problem, here), dict.fromkeys(joints, FrictionChoice(model=model)))


def _grown(choice: Choice, free: Sequence[Parameter]) -> Choice:
    """Curves added one by one, that which gains most first, while they gain."""
    joints, losses = list(choice.models), _cross_validated(choice.problem, choice.here, choice.linear)
    while joints:
        best_bends = {joint: max(_bends(choice, free, joint), key=lambda bend: bend.promise) for joint in joints}
        tried = {
            joint: _with_curve(bend.richer, bend.start(), choice.here.starts, losses)
            for joint, bend in best_bends.items()
            if bend.promise > MARGIN
        }
        untried = {joint: FrictionChoice(model="coulomb") for joint in joints}
        models = choice.models | untried | {joint: trial.chosen("coulomb") for joint, trial in tried.items()}
        choice = replace(choice, models=models)
        joints = [joint for joint, trial in tried.items() if trial.supported]
        if joints:
            best = max(joints, key=lambda joint: tried[joint].gain)
            taken, losses = tried[best], tried[best].losses
            models = models | {best: taken.chosen("stribeck")}
            choice = Choice(taken.problem, taken.here, taken.linear, models)
            joints.remove(best)
    return choice


def _richer(problem: Problem, free: Sequence[Parameter], joint: str) -> Problem:
    """With the curve of one more joint among the free parameters."""
    names = {p.name for p in problem.free} | _curve(joint)
    return replace(problem, free=[p for p in free if p.name in names])


def overlooked(
    choice: Choice, free: Sequence[Parameter], widening: float, draws: int, rng: np.random.Generator
) -> Array:
    """Shifts of z (draws, P) by curves that were not found but may be there, each joint's in half of the draws.

    As high as the data permit, and at most as the joint's Coulomb torque.
    """
    shifts, values = np.zeros((draws, len(choice.here.z))), at(choice.problem.free, choice.here.z)
    for joint in (joint for joint, chosen in choice.models.items() if chosen.model == "coulomb"):
        dry = choice.problem.robot.spec.joint(joint).friction.frictionloss
        highest = values.get(f"friction.{joint}.frictionloss", dry)
        possible = _bends(choice, free, joint)
        drawn = rng.integers(0, 2 * len(possible), draws)
        for i, bend in enumerate(possible):
            rows = drawn == i
            shifts[rows] -= bend.heights(highest, widening, int(rows.sum()), rng)[:, None] * bend.along
    return shifts


def _bends(choice: Choice, free: Sequence[Parameter], joint: str) -> list[Bend]:
    return bends(choice.problem, choice.here, choice.linear, _richer(choice.problem, free, joint), joint)


def _with_curve(richer: Problem, z: Array, starts: Array, losses: Array) -> Trial:
    here = solve(richer, z, starts)
    linear = linearise(richer, here)
    return Trial(richer, here, linear, losses, _cross_validated(richer, here, linear))


def _cross_validated(problem: Problem, here: Point, linear: Linear) -> Array:
    """Losses (W,) of every window under the fit to the windows of the other folds, which are stretches of the data."""
    fold = np.arange(len(here.starts)) * FOLDS // len(here.starts)
    return np.concatenate([unseen(problem, here, linear, fold == part) for part in range(FOLDS)])


def _curve(joint: str) -> set[str]:
    return {f"friction.{joint}.{field}" for field in STRIBECK}


def _rms(losses: Array, here: Point) -> float:
    """Robust root mean square error that losses (W,) stand for, in standard deviations of the noise."""
    return float(np.sqrt(2 * losses.mean() / here.error.shape[1]))
