"""`landbridge calibrate friction`: how much of a friction model the data of each joint support.

Coulomb and viscous friction first, in all joints; then a term is added to one joint at a time, a Stribeck curve or what
its gears rub more under load, where a score test promises that it gains, and stays where it predicts windows that were
not fitted so much better that chance does not explain it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from landbridge.calibration.bend import Bend, bends
from landbridge.calibration.descent import first_guess
from landbridge.calibration.fit import Fit, Point, Problem, begin, descend, fit, sharpened, unseen
from landbridge.calibration.valley import least_valley
from landbridge.calibration.windows import Windows, open_windows, require_fixed_base, split
from landbridge.robot import Robot, load_robot
from landbridge.simulation.calibrated import Term, TermChoice
from landbridge.simulation.parameters import (
    FRICTION,
    LOAD_BOUND,
    Parameter,
    at,
    free_parameters,
    height,
    of_terms,
    to_scenario,
    to_values,
    without_terms,
)

Array = NDArray[np.float64]
Model = Literal["coulomb", "stribeck", "auto"]
Place = tuple[str, Term]  # a term of friction: of which joint, and which

FOLDS = 5  # of the cross-validation
MARGIN_SE = 1.0  # standard errors over windows by which a term must predict better
MARGIN = 4.0  # and in log likelihood: less is small (Sivula, Magnusson and Vehtari, arXiv:2008.10296)


def friction(data: Path, /, robot: str = "furuta", known: tuple[str, ...] = (), horizon: float = 0.5) -> dict[str, Any]:
    """Find which joints have a Stribeck curve, which rub more under load, and the friction of each.

    The other parameters are estimated along with it. A model's error is that of predictions over `horizon` from the
    best start states, in standard deviations of the sensor noise; each window is predicted by a fit to the others.

    Example: landbridge calibrate friction data/target --known link_mass_scale.arm_link

    Args:
        data: A dataset folder: 30 to 60 s of a robot with a fixed base, excited in all joints.
        robot: Name of a robot, or a folder with robot.yaml.
        known: Parameters that are as robot.yaml and the URDF say.
        horizon: Length of the windows that are simulated [s].

    Returns:
        By joint its friction; and of each term whether it was chosen, the errors without it and with it on windows that
        were not fitted, and how much log likelihood it gains there, with its standard error.
    """
    machine = load_robot(robot)
    require_fixed_base(machine, "a Stribeck curve, or friction by load,")
    fitted, _ = split(open_windows(data, machine, horizon)[1])
    found = choose(machine, free_parameters(machine, known), fitted)
    return {"dataset": str(data), "windows": len(fitted), "friction": found.rows(), "terms": term_rows(found.terms)}


@dataclass(frozen=True)
class Trial(Fit):
    """A fit with one more term of friction.

    Attributes:
        before: (W,) losses of the windows without the term, each under a fit to others.
        losses: (W,) with it.
    """

    before: Array
    losses: Array

    @property
    def gain(self) -> float:
        """Log likelihood of the windows with the term over that without."""
        return float((self.before - self.losses).sum())

    @property
    def error(self) -> float:
        """Standard error of `gain`."""
        return float(np.std(self.before - self.losses, ddof=1) * np.sqrt(len(self.losses)))

    @property
    def supported(self) -> bool:
        """Whether the term predicts better beyond chance."""
        return self.gain > max(MARGIN, MARGIN_SE * self.error)

    def chosen(self, chosen: bool) -> TermChoice:
        """This trial as the reason to have the term or not."""
        before, after = _rms(self.before, self.here), _rms(self.losses, self.here)
        return TermChoice(chosen=chosen, error_without=before, error_with=after, gain=self.gain, gain_se=self.error)


@dataclass(frozen=True)
class Choice(Fit):
    """The friction model of every joint and the fit, whose free parameters are those of the chosen terms.

    Attributes:
        trials: Of each term that is not known beforehand.
    """

    trials: Mapping[Place, TermChoice]

    @property
    def terms(self) -> dict[str, dict[Term, TermChoice]]:
        """`trials` by joint."""
        found: dict[str, dict[Term, TermChoice]] = {}
        for (joint, term), choice in self.trials.items():
            found.setdefault(joint, {})[term] = choice
        return found

    def rows(self) -> list[dict[str, Any]]:
        """The friction of each joint, as the command line prints it."""
        values = _values(self)
        return [
            {"joint": joint} | {field: values.get(f"friction.{joint}.{field}", 0.0) for field in FRICTION}
            for joint in self.problem.robot.spec.joint_names
        ]


def term_rows(friction: Mapping[str, Mapping[Term, TermChoice]]) -> list[dict[str, Any]]:
    """What the command line prints of terms by joint, one row a term."""
    return [
        {"joint": joint, "term": term} | choice.model_dump()
        for joint, terms in friction.items()
        for term, choice in terms.items()
    ]


def choose(robot: Robot, free: Sequence[Parameter], windows: Windows, model: Model = "auto") -> Choice:
    """The friction model of each joint and the fit.

    Args:
        robot: Whose friction.
        free: All parameters to estimate, those of all terms of friction among them.
        windows: To fit and, by cross-validation, to predict.
        model: That of all joints, Coulomb and viscous friction alone or with a Stribeck curve, or `auto`.
    """
    names = {p.name for p in free}
    every: list[Place] = [(joint, term) for joint in robot.spec.joint_names for term in get_args(Term)]
    able = [place for place in every if height(*place) in names]
    chosen = {place: TermChoice(chosen=place[1] == model) for place in able}
    absent = [place for place, choice in chosen.items() if not choice.chosen]
    kept = [p for p in free if p.name not in of_terms(absent)]
    plain = fit(Problem(robot, kept, windows, first_guess(robot), without_terms(robot, absent)))
    choice = Choice(plain.problem, plain.here, plain.linear, chosen)
    grown = _grown(choice, free) if model == "auto" else choice
    best = least_valley(grown)
    return replace(grown, problem=best.problem, here=best.here, linear=best.linear)


def _grown(choice: Choice, free: Sequence[Parameter]) -> Choice:
    """Terms added one by one, that which gains most first, while they gain."""
    places, losses = list(choice.trials), _cross_validated(choice)
    made: list[Fit] = [choice]
    while places:
        best_bends = {place: max(_bends(choice, free, place), key=lambda bend: bend.promise) for place in places}
        tried = {place: _with_term(bend, made, losses) for place, bend in best_bends.items() if bend.promise > MARGIN}
        untried = {place: TermChoice(chosen=False) for place in places}
        trials = {**choice.trials, **untried, **{place: trial.chosen(False) for place, trial in tried.items()}}
        choice = replace(choice, trials=trials)
        places = [place for place, trial in tried.items() if trial.supported]
        if places:
            best = max(places, key=lambda place: tried[place].gain)
            grown = sharpened(tried[best])
            choice = Choice(grown.problem, grown.here, grown.linear, trials | {best: tried[best].chosen(True)})
            losses, made = _cross_validated(choice), [*made, *tried.values(), choice]
            places = [place for place in trials if not choice.trials[place].chosen and _open(place, places, best)]
    return choice


def _open(place: Place, supported: Sequence[Place], taken: Place) -> bool:
    """Whether to ask again after `taken`: what was supported, and the same joint's, which `taken` may have hidden."""
    return place in supported or place[0] == taken[0]


def _richer(problem: Problem, free: Sequence[Parameter], place: Place) -> Problem:
    """With one more term among the free parameters."""
    names = {p.name for p in problem.free} | of_terms([place])
    return replace(problem, free=[p for p in free if p.name in names])


def overlooked(
    choice: Choice, free: Sequence[Parameter], widening: float, draws: int, rng: np.random.Generator
) -> Array:
    """Shifts of z (draws, P) by terms that were not found but may be there, each in half of the draws.

    As high as the data permit, and a curve at most as the joint's Coulomb torque.
    """
    shifts, values = np.zeros((draws, len(choice.here.z))), at(choice.problem.free, choice.here.z)
    for joint, term in (place for place, chosen in choice.trials.items() if not chosen.chosen):
        dry = choice.problem.robot.spec.joint(joint).friction.frictionloss
        highest = values.get(f"friction.{joint}.frictionloss", dry) if term == "stribeck" else LOAD_BOUND
        possible = _bends(choice, free, (joint, term))
        drawn = rng.integers(0, 2 * len(possible), draws)
        for i, bend in enumerate(possible):
            rows = drawn == i
            shifts[rows] -= bend.heights(highest, widening, int(rows.sum()), rng)[:, None] * bend.along
    return shifts


def _bends(choice: Choice, free: Sequence[Parameter], place: Place) -> list[Bend]:
    return bends(choice, _richer(choice.problem, free, place), *place)


def _with_term(bend: Bend, made: Sequence[Fit], losses: Array) -> Trial:
    """The fit with the term of `bend`, whose cost is no higher than that of any of the fits made without it."""
    names = {p.name for p in bend.richer.free}
    nested = [embedded(bend.richer, each) for each in made if {p.name for p in each.problem.free} <= names]
    found, best = descend(bend.richer, begin(bend.richer, bend.start())), min(nested, key=lambda point: point.cost)
    if found.here.cost > best.cost:  # it has ended in a wrong minimum
        found = descend(bend.richer, best)
    return Trial(found.problem, found.here, found.linear, losses, _cross_validated(found))


def embedded(richer: Problem, nested: Fit) -> Point:
    """The point of a richer problem that has the robot and start states of `nested`, and none of the further terms."""
    values = _values(nested)
    return richer.point(np.array([p.coordinate(values[p.name]) for p in richer.free]), nested.here.starts)


def _values(found: Fit) -> dict[str, float]:
    """Every parameter of the robot that was found, by name."""
    problem = found.problem
    return to_values(problem.robot, to_scenario(problem.robot, at(problem.free, found.here.z), problem.base))


def _cross_validated(found: Fit) -> Array:
    """Losses (W,) of every window under the fit to the windows of the other folds, which are stretches of the data."""
    windows = len(found.here.starts)
    fold = np.arange(windows) * FOLDS // windows
    return np.concatenate([unseen(found, fold == part) for part in range(FOLDS)])


def _rms(losses: Array, here: Point) -> float:
    """Robust root mean square error that losses (W,) stand for, in standard deviations of the noise."""
    return float(np.sqrt(2 * losses.mean() / here.error.shape[1]))
