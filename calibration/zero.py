"""`landbridge calibrate zero`: whether each encoder's sign, offset and gear are as robot.yaml says.

A joint's true position is gain * measured + shift, with one gain and shift for each joint. They are parameters of the
fit that identifies masses and friction: what pulls a joint depends on where it truly is, if gravity does, and on the
way it truly turns. Where it does not, as with an axis along gravity, the prior alone remains, and the offset is named
untold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landbridge.calibration.descent import first_guess
from landbridge.calibration.fit import CLOSE, Problem, begin, descend, fit
from landbridge.calibration.posterior import inflation, resample
from landbridge.calibration.shooting import Case
from landbridge.calibration.windows import Windows, open_windows, require_fixed_base
from landbridge.joint import Encoder
from landbridge.robot import Robot, load_robot
from landbridge.simulation.parameters import (
    FACTOR_BOUND,
    FACTOR_SD,
    TERMS,
    Parameter,
    free_parameters,
    of_terms,
    to_scenario,
    without_terms,
)
from landbridge.spec import require_seed

Array = NDArray[np.float64]

OFFSET_SD = 1.0  # rad
TOLD = {"offset": 0.02, "gear": 0.02}  # rad, share: an interval that reaches farther tells nothing to act on
WRONG = {"offset": 0.01, "gear": 0.1}  # less is left as it is: wheels make a gear wrong by more, and lengths look alike
ANYWHERE = (0.0, -np.pi, np.pi)  # a shift that belongs to a sign that is in doubt
SHIFTS = np.linspace(-np.pi, np.pi, 8, endpoint=False)  # rad, from which the search begins
SEARCHED, PERIODS = 20, 10  # windows, and their control periods, that the search makes do with
SURE = 4.0  # of log likelihood, by which a sign must be better than the other


def zero(
    data: Path, /, robot: str = "furuta", known: tuple[str, ...] = (), horizon: float = 0.3, seed: int = 0
) -> dict[str, Any]:
    """Find encoders whose sign, offset or gear in robot.yaml is wrong, from rollouts.

    A value on which these rollouts do not depend is named untold. The offset of a joint that turns about a vertical
    axis, for instance, can only be set against a stop or a mark. A gear counts as wrong from 10 % on, since a wrong
    wheel is off by more and a wrong length looks much like it; an offset counts as wrong by what such a gear does not
    explain. Servos on a bus read `encoder` from robot.yaml. A microcontroller does not: put it into the firmware's own
    `measure`. Data recorded before a correction are of another robot: record again.

    Example: landbridge calibrate zero data/target

    Args:
        data: A dataset folder of a robot with a fixed base, moved in all joints.
        robot: Name of a robot, or a folder with robot.yaml.
        known: Other parameters that are as robot.yaml and the URDF say; a known link length tells gears better.
        horizon: Length of the windows that are simulated [s].
        seed: Of the bootstrap.

    Returns:
        By joint sign, offset [rad] and gear with 95 % intervals; what is untold; and the lines of robot.yaml to change.
    """
    require_seed(seed)
    machine = load_robot(robot)
    require_fixed_base(machine, "its encoders")
    windows = open_windows(data, machine, horizon)[1]
    found = encoders(machine, known, windows, np.random.default_rng(seed))
    return {
        "dataset": str(data),
        "windows": len(windows),
        "robot.yaml": [line for encoder in found if (line := encoder.line)],
        "untold": [f"{what} of {encoder.joint}" for encoder in found for what in encoder.untold],
        "encoders": [encoder.row() for encoder in found],
    }


@dataclass(frozen=True)
class Found:
    """What the data say of one joint's encoder.

    Attributes:
        joint: Its name.
        present: As robot.yaml has it.
        sign: +1, or -1 where the data want it turned; None if they do not tell.
        shift: Value and 95 % interval (3,) [rad] of true minus measured position, at a measured position of 0.
        gain: Likewise of the true over the measured angle.
    """

    joint: str
    present: Encoder
    sign: int | None
    shift: tuple[float, float, float]
    gain: tuple[float, float, float]

    @property
    def untold(self) -> list[str]:
        """Fields on which the data are silent."""
        gain, low, high = self.gain
        told = {
            "sign": self.sign is not None,
            "offset": self.shift[2] - self.shift[1] <= 2 * TOLD["offset"],
            "gear": high - low <= 2 * TOLD["gear"] * gain,
        }
        return [name for name, known in told.items() if not known]

    @property
    def encoder(self) -> Encoder:
        """What robot.yaml should say: raw = sign gear (measured + offset) stays what it was."""
        sign, gain, shift = self.sign or 1, self.gain[0], self.shift[0]
        unexplained = WRONG["offset"]
        if "gear" in self.untold or self.gain[1] <= 1 <= self.gain[2] or abs(gain - 1) < WRONG["gear"]:
            unexplained += abs(gain - 1) * math.pi  # a shift that half a turn under that gain would look like
            gain = 1.0
        if "offset" in self.untold or self.shift[1] <= 0 <= self.shift[2] or abs(shift) < unexplained:
            shift = 0.0
        present = self.present
        return Encoder(
            sign=1 if present.sign * sign > 0 else -1,
            offset=sign * gain * present.offset - shift,
            gear=present.gear / gain,
        )

    @property
    def line(self) -> str:
        """The line of robot.yaml to change, "" if it is right."""
        wanted = self.encoder
        if wanted == self.present:
            return ""
        return f"{self.joint}: encoder: {{sign: {wanted.sign}, offset: {wanted.offset:.4f}, gear: {wanted.gear:.4g}}}"

    def row(self) -> dict[str, Any]:
        """For a table; what the data do not tell is None."""
        present, wanted, untold = self.present, self.encoder, self.untold
        origin = (self.sign or 1) * present.gear / wanted.gear * present.offset
        offsets = [None if "offset" in untold else origin - shift for shift in self.shift]
        gears = [None if "gear" in untold else present.gear / gain for gain in self.gain]
        return {
            "joint": self.joint,
            "sign": None if "sign" in untold else wanted.sign,
            **dict(zip(("offset", "offset_high", "offset_low"), offsets, strict=True)),
            **dict(zip(("gear", "gear_high", "gear_low"), gears, strict=True)),
        }


@dataclass(frozen=True)
class EncoderProblem(Problem):
    """A problem whose measured states are seen through encoders that may be wrong.

    Attributes:
        signs: (J,) +1, or -1 where a joint truly turns the other way.
    """

    signs: tuple[int, ...] = ()

    def case(self, values: Mapping[str, float], starts: Array) -> Case:
        """See `Problem`; a position command goes through the encoder too."""
        spec, (gains, shifts) = self.robot.spec, self._encoders(values)
        commands, own = self.windows.commands, spec.driven_at
        if spec.action.kind != "effort":
            commands = gains[own] * commands + (shifts[own] if spec.action.kind == "position" else 0.0)
        states, before = gains * self.windows.states + shifts, gains * self.windows.before + shifts
        windows = replace(self.windows, states=states, commands=commands, before=before)
        return Case(to_scenario(self.robot, values, self.base), windows, gains * starts + shifts)

    def seen(self, values: Mapping[str, float], states: Array) -> Array:
        """See `Problem`."""
        gains, shifts = self._encoders(values)
        found: Array = (states - shifts) / gains
        return found

    def _encoders(self, values: Mapping[str, float]) -> tuple[Array, Array]:
        """What measured states are times (S,), and plus (S,), to be true ones."""
        joints = self.robot.spec.joint_names
        gain = np.array(self.signs) * [values[f"encoder.{joint}.gain"] for joint in joints]
        shift = np.array([values[f"encoder.{joint}.shift"] for joint in joints])
        return np.tile(gain, 2), np.concatenate([shift, np.zeros_like(shift)])

    def place(self, name: str) -> int:
        """Index of a parameter."""
        return [p.name for p in self.free].index(name)


def encoders(robot: Robot, known: Sequence[str], windows: Windows, rng: np.random.Generator) -> list[Found]:
    """The encoder of every joint, by a search for signs and rough shifts, then one fit of everything."""
    joints = robot.spec.joint_names
    terms = [(joint, term) for joint in joints for term in TERMS]
    free = [p for p in free_parameters(robot, known) if p.name not in of_terms(terms)]
    free += [parameter for joint in joints for parameter in _parameters(joint)]
    base, signs = without_terms(robot, terms), (1,) * len(joints)
    start = EncoderProblem(robot, free, windows, first_guess(robot), base, signs)
    searched, z = _searched(start)
    found = fit(searched, z)
    fitted, here = found.problem, found.here
    assert isinstance(fitted, EncoderProblem)
    sure = _sure(fitted, here.z)
    widening = inflation(here.error.reshape(windows.states.shape), 1.0)
    samples = resample(here, found.linear, widening, rng)
    ends = np.quantile(samples, (0.025, 0.975), axis=0)

    def interval(name: str) -> tuple[float, float, float]:
        place = fitted.place(name)
        low, high = (fitted.free[place].value(float(end)) for end in ends[:, place])
        return fitted.free[place].value(float(here.z[place])), low, high

    return [
        Found(
            joint.name,
            joint.encoder,
            sign if told else None,
            interval(f"encoder.{joint.name}.shift") if told or sign > 0 else ANYWHERE,
            interval(f"encoder.{joint.name}.gain"),
        )
        for joint, sign, told in zip(robot.spec.joints, fitted.signs, sure, strict=True)
    ]


def _parameters(joint: str) -> tuple[Parameter, Parameter]:
    prefix, pi = f"encoder.{joint}", float(np.pi)
    return (
        Parameter(f"{prefix}.shift", "rad", 0.0, OFFSET_SD, -2 * pi, 2 * pi, log=False),
        Parameter(f"{prefix}.gain", "", 1.0, FACTOR_SD, 1 / FACTOR_BOUND, FACTOR_BOUND, log=True),
    )


def _few(problem: EncoderProblem) -> EncoderProblem:
    every = problem.windows
    chosen = every.where(np.arange(len(every)) % max(1, len(every) // SEARCHED) == 0)
    return replace(problem, windows=chosen.first(PERIODS))


def _searched(problem: EncoderProblem) -> tuple[EncoderProblem, Array]:
    """Signs and shifts under which the nominal robot predicts best, joint by joint.

    At the latency that fits best: without it, a rod that is balanced late looks like one that hangs.
    """
    part = _few(problem)
    starts, signs = part.windows.states[:, 0], list(problem.signs)
    begun = begin(part, np.array([p.coordinate(p.nominal) for p in problem.free]))
    z, best, before = begun.z, begun.cost, np.inf
    while best < before:
        before = best
        for i, joint in enumerate(problem.robot.spec.joint_names):
            for sign in (1, -1):
                tried = [*signs[:i], sign, *signs[i + 1 :]]
                cost, there = _shifted(replace(part, signs=tuple(tried)), z, starts, joint)
                if cost < best - SURE:
                    best, z, signs = cost, there, tried
    return replace(problem, signs=tuple(signs)), z


def _shifted(problem: EncoderProblem, z: Array, starts: Array, joint: str) -> tuple[float, Array]:
    """The least cost over shifts of one joint, and its z."""
    place = problem.place(f"encoder.{joint}.shift")
    trials = [np.where(np.arange(len(z)) == place, shift / OFFSET_SD, z) for shift in (z[place] * OFFSET_SD, *SHIFTS)]
    costs = [point.cost for point in problem.points(trials, [starts] * len(trials))]
    return min(costs), trials[int(np.argmin(costs))]


def _sure(problem: EncoderProblem, z: Array) -> list[bool]:
    """By joint, whether its other sign, with all parameters fitted anew from z (P,), is worse beyond doubt."""
    part, told = _few(problem), []
    starts = part.windows.states[:, 0]
    own = descend(part, part.point(z, starts), CLOSE).here.cost
    for i, joint in enumerate(problem.robot.spec.joint_names):
        turned = replace(part, signs=(*part.signs[:i], -part.signs[i], *part.signs[i + 1 :]))
        start = turned.point(_shifted(turned, z, starts, joint)[1], starts)
        told.append(descend(turned, start, CLOSE).here.cost - own > SURE)
    return told
