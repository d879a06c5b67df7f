"""`calibration.yaml`: what `landbridge calibrate identify` found, and the simulators that follow from it."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, model_validator

from landbridge.errors import InputError
from landbridge.files import write_atomic
from landbridge.robot import Robot
from landbridge.simulation.parameters import at, parameters, to_scenario, without_terms
from landbridge.simulation.scenario import NOMINAL, Scenario, load_scenario
from landbridge.spec import Finite, NonNegative, Positive, Spec, read_model

ROUNDING = 1e-9
CALIBRATED = "calibrated"  # the scenario of a dataset that was simulated with a calibration


class Estimate(Spec):
    """One parameter.

    Attributes:
        value: In the unit of `landbridge.simulation.parameters`.
        low: Lower end of the 95 % interval.
        high: Upper end.
        identifiable: Whether the rollouts determine it on its own.
    """

    value: Finite
    low: Finite
    high: Finite
    identifiable: bool


Term = Literal["stribeck", "load"]


class TermChoice(Spec):
    """Why a joint's friction has a term besides Coulomb and viscous friction (`parameters.TERMS`), or does without it.

    Attributes:
        chosen: Whether it has.
        error_without: Of windows under fits to others, in standard deviations of the noise; None: the term promised too
            little to be fitted, or was asked for.
        error_with: The same with the term.
        gain: Log likelihood of those windows with the term over that without.
        gain_se: Its standard error.
    """

    chosen: bool
    error_without: NonNegative | None = None
    error_with: NonNegative | None = None
    gain: Finite | None = None
    gain_se: NonNegative | None = None


class Error(Spec):
    """Root mean square of the error that a simulator makes in `horizon_s` on rollouts it was not fitted to.

    Attributes:
        joint_pos: By joint [rad].
        joint_vel: By joint [rad/s].
        base: Of a floating base by column of the observation: height [m], gravity, rad/s, m/s.
    """

    joint_pos: dict[str, NonNegative]
    joint_vel: dict[str, NonNegative]
    base: dict[str, NonNegative] = Field(default_factory=dict)


class Calibration(Spec):
    """The file.

    Attributes:
        robot_hash: `RobotSpec.digest()` of the robot whose nominal parameters these replace.
        urdf_hash: `Robot.urdf_digest()` of the masses and lengths that factors are on.
        dataset_hash: SHA-256 of the observations and actions.
        friction: By joint, the terms of its friction that are not known beforehand.
        known: Parameters held at nominal by request.
        estimates: The others, by name.
        covariance: Of their coordinates z (`landbridge.simulation.parameters`), in the order of `estimates`; under the
            friction models chosen, while the intervals of `estimates` allow for a curve that was not found.
        overlooked: Second moment of what such a curve would shift them by; () in files of before.
        undetermined: Directions in which the data say less than the prior: z by parameter, of unit length.
        inflation: Factor on the standard deviations for model error.
        joint_pos_noise: Standard deviation of measured positions [rad]; of a floating robot what the fit leaves.
        joint_vel_noise: And velocities [rad/s].
        windows: Number of windows fitted.
        horizon_s: Their length [s].
        nominal_error: Of the nominal simulator, on held-out windows.
        calibrated_error: Of the calibrated one.
        doubts: Why the estimates should not be relied on, whatever their intervals say.
    """

    schema_version: Literal[2] = 2
    robot: str
    robot_hash: str
    urdf_hash: str
    dataset: str
    dataset_hash: str
    friction: dict[str, dict[Term, TermChoice]] = Field(default_factory=dict)
    known: tuple[str, ...]
    estimates: dict[str, Estimate]
    covariance: tuple[tuple[Finite, ...], ...]
    overlooked: tuple[tuple[Finite, ...], ...] = ()
    undetermined: tuple[dict[str, Finite], ...]
    inflation: Positive
    joint_pos_noise: NonNegative
    joint_vel_noise: NonNegative
    windows: int
    horizon_s: Positive
    nominal_error: Error
    calibrated_error: Error
    doubts: tuple[str, ...] = ()
    commit: str
    created: str

    @model_validator(mode="before")
    @classmethod
    def _migrate(cls, found: Any) -> Any:
        """Version 1 knew one term, the Stribeck curve."""
        if not isinstance(found, dict) or found.get("schema_version") != 1:
            return found
        choices = found.get("friction", {})
        if not isinstance(choices, dict) or not all(isinstance(choice, dict) for choice in choices.values()):
            return found  # which is refused
        renamed = {
            "coulomb_error": "error_without",
            "stribeck_error": "error_with",
            "gain": "gain",
            "gain_se": "gain_se",
        }
        friction = {
            joint: {
                "stribeck": {"chosen": choice.get("model") == "stribeck"}
                | {new: choice[old] for old, new in renamed.items() if old in choice}
            }
            for joint, choice in choices.items()
        }
        return found | {"schema_version": 2, "friction": friction}

    @property
    def absent(self) -> list[tuple[str, Term]]:
        """Terms of friction that were not chosen, as (joint, term)."""
        return [
            (joint, term) for joint, terms in self.friction.items() for term, its in terms.items() if not its.chosen
        ]

    def scenario(self, robot: Robot) -> Scenario:
        """The calibrated simulator."""
        return self._with(robot, {name: estimate.value for name, estimate in self.estimates.items()})

    def draw(self, robot: Robot, rng: np.random.Generator) -> Scenario:
        """A simulator from the posterior, for domain randomisation."""
        chosen = [p for p in parameters(robot) if p.name in self.estimates]
        mean = np.array([p.coordinate(self.estimates[p.name].value) for p in chosen])
        return self._with(robot, at(chosen, rng.multivariate_normal(mean, np.array(self.covariance), method="eigh")))

    def _with(self, robot: Robot, values: dict[str, float]) -> Scenario:
        fixed: dict[str, Any] = {"joint_pos_noise": self.joint_pos_noise, "joint_vel_noise": self.joint_vel_noise}
        if robot.spec.base == "floating":  # what a fit from measured states leaves is no sensor's noise; pushes stay
            fixed = {"push": load_scenario(robot, NOMINAL).push}
        return to_scenario(robot, values, without_terms(robot, self.absent).model_copy(update=fixed))

    def write(self, path: Path) -> None:
        """As YAML, numbers in full precision."""
        write_atomic(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120))


class Doubt(UserWarning):
    """Why a calibration should not be relied on."""


def read_calibration(path: Path, robot: Robot) -> Calibration:
    """Read a `calibration.yaml` of `robot`.

    Raises:
        InputError: Missing, malformed, of another robot, or changed to what no robot and no spread can be.

    Warns:
        Doubt: Each of its doubts.
    """
    if path.is_dir():
        raise InputError(path, "is a folder", f"name the calibration in it, such as {path / 'calibration.yaml'}")
    if not path.is_file():
        raise InputError(path, "no such file", "make it with `landbridge calibrate all` or `calibrate identify`")
    found = read_model(Calibration, path)
    if found.robot_hash != robot.spec.digest():
        spec, digest = robot.spec, robot.spec.digest()
        problem = f"calibrates another {found.robot!r} ({found.robot_hash[:12]}) than {spec.name!r} ({digest[:12]})"
        raise InputError(path, problem, "name the right --robot, restore that robot.yaml, or calibrate this one")
    if found.urdf_hash != robot.urdf_digest():
        problem = f"calibrates {robot.spec.name} with another {robot.spec.urdf}, on whose masses and lengths it builds"
        raise InputError(path, problem, "calibrate again")
    every = parameters(robot)
    if unknown := sorted(set(found.friction) - set(robot.spec.joint_names)):
        raise InputError(path, f"friction names unknown joints {unknown}", f"joints are {robot.spec.joint_names}")
    order = [p.name for p in every if p.name in found.estimates]
    square = (len(order), len(order))
    if list(found.estimates) != order or {np.shape(m) for m in _moments(found)} != {square}:
        raise InputError(path, "its estimates and covariance are not of this robot's parameters", "calibrate again")
    for p in every:
        if p.name in found.estimates and not p.low <= found.estimates[p.name].value <= p.high:
            problem = f"{p.name} is {found.estimates[p.name].value:g}, outside {p.low:g} .. {p.high:g} {p.unit}"
            raise InputError(path, problem.rstrip(), "calibrate again")
    for moments in _moments(found):
        _require_spread(path, np.array(moments))
    for doubt in found.doubts:
        warnings.warn(f"{path}: doubtful: {doubt}", Doubt, stacklevel=2)
    return found


def _moments(found: Calibration) -> list[tuple[tuple[float, ...], ...]]:
    return [found.covariance, *([found.overlooked] if found.overlooked else [])]


def _require_spread(path: Path, covariance: NDArray[np.float64]) -> None:
    """Raise InputError unless `covariance` (P, P) is one."""
    spread = np.linalg.eigvalsh((covariance + covariance.T) / 2) if len(covariance) else np.zeros(1)
    if not np.allclose(covariance, covariance.T) or spread.min() < -ROUNDING * max(1.0, spread.max()):
        raise InputError(path, "its covariance is not symmetric, or has a negative spread", "calibrate again")


def digest_of(path: Path) -> str:
    """SHA-256 of a calibration's file, by which datasets, bundles and bags name it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def recorded(path: Path, calibration: Calibration) -> dict[str, Any]:
    """What a dataset's metadata says of its calibration, which was read from `path`, by field."""
    latency = calibration.estimates.get("latency_ms")
    return {"calibration": digest_of(path), "latency_ms": None if latency is None else latency.value}


def require_either(rung: str | None, calibration: Path | None) -> None:
    """Raise InputError if both a rung of the ladder and a calibration are named."""
    if rung is not None and calibration is not None:
        raise InputError("--scenario", f"is {rung!r} beside a calibration", "give one of the two")


def choose_scenario(robot: Robot, rung: str | None, calibration: Path | None, default: str = NOMINAL) -> Scenario:
    """The calibrated simulator if there is a calibration, else the rung of the ladder, `default` unless one is named.

    Raises:
        InputError: Both are named, or there is no such rung or calibration.
    """
    require_either(rung, calibration)
    if calibration is None:
        return load_scenario(robot, default if rung is None else rung)
    return read_calibration(calibration, robot).scenario(robot)
