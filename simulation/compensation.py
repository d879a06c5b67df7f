"""Feed-forward from a calibration: commands by which a robot moves more like the one of `robot.yaml`.

For a policy that was trained for the nominal robot and is not trained again. With e* the effort that a command asks of
a nominal drive (`simulation.drive`), f* the friction of `robot.yaml` and f the robot's, both against the motion, g its
gain and m the factor on its masses, the effort to ask for is

    e = b (e* - f*) + f / g     with b = m / g

Through the gain it gives m (e* - f*) + f: friction takes f, and what is left moves m times the mass as e* - f* would
move the nominal one. Motion tells these ratios, also where it does not tell gain, masses and friction apart.

Little of it is safer than too much. Friction that is compensated by more than there is makes a joint hunt, by less
leaves it a little stiff (Putra, van de Wouw and Nijmeijer, Automatica 43(8), 2007); drives that do this by themselves
stay below it (Universal Robots' `ur_msgs/FrictionModelParameters`: by default 0.8 of Coulomb and 0.9 of viscous
friction). So here:

- every ratio is the end of its 95 % interval that does less, and what the data do not tell does nothing;
- one m / g serves all joints, that of the link which asks for the least;
- b is 1 where commands are positions or velocities: the drive closes its loop itself, and to mend its gain from outside
  would feed the measurement back once more, a delay late;
- the Stribeck excess is left out on both sides: what breaks a joint loose would push it once it turns;
- friction is only taken away. Where there is less than in `robot.yaml`, none is made: a brake on a velocity that is one
  delay old hunts, too;
- what is sent stays within the joint's limits in `robot.yaml`. The guard judges it like any other command.

What is left feeds a late velocity back all the same. Where legs or a loaded arm lean on their friction it wins nothing
and can cost much (docs/RESULTS.md), so of robots that are not commanded in effort a warning tells.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from math import isfinite, tanh
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.joint import Joint
from landbridge.manifest import CALIBRATION
from landbridge.robot import Robot
from landbridge.simulation.calibrated import Calibration, digest_of, read_calibration
from landbridge.simulation.parameters import friction_groups, moving_links, parameters

Array = NDArray[np.float64]

NORMAL_95 = 1.96  # standard deviations to either end of a 95 % interval
GAIN = "actuator_gain"


class Compensation:
    """What to send for a command, given the measurement that it answers.

    The law above for all kinds of action, solved for it: sent = b command + w vel + u tanh(vel / v_0).

    Args:
        robot: The nominal one.
        calibration: Of this robot.
        digest: SHA-256 of the calibration's file.

    Attributes:
        digest: The same.
        boost: b.
        frictionloss, viscous: Of each actuated joint (A,), what f / g is more than b f* [N m, N m s/rad].
    """

    def __init__(self, robot: Robot, calibration: Calibration, digest: str = "") -> None:
        spec, self.digest = robot.spec, digest
        self.boost = _boost(robot, calibration) if spec.action.kind == "effort" else 1.0
        self.frictionloss, self.viscous = (
            _more(robot, calibration, field, self.boost) for field in ("frictionloss", "viscous")
        )
        self._sharpness = 1 / spec.friction_smoothing
        self._joints = []
        found = zip(spec.driven_at, spec.driven, self.frictionloss.tolist(), self.viscous.tolist(), strict=True)
        for index, joint, dry, viscous in found:
            slope, low, high = _command(robot, joint)
            self._joints.append((index, viscous / slope, dry / slope, low, high))

    def __call__(self, command: Array, joint_vel: Array) -> Array:
        """What to send (A,) for `command` (A,), which answers the measured velocities `joint_vel` (J,).

        On Python floats, which for a dozen joints take less than numpy. A joint of which something is not finite is
        sent what was asked for.
        """
        velocity, found = joint_vel.tolist(), []
        for asked, (index, w, u, low, high) in zip(command.tolist(), self._joints, strict=True):
            vel = velocity[index]
            sent = self.boost * asked + w * vel + u * tanh(vel * self._sharpness)
            found.append(max(low, min(high, sent)) if isfinite(sent) else asked)
        return np.array(found)


def load_compensation(path: Path, robot: Robot) -> Compensation:
    """The compensation of a robot by the calibration at `path`.

    Raises:
        InputError: As `read_calibration`, or the robot's drives have no law to be compensated.
    """
    calibration = read_calibration(path, robot)
    if robot.spec.action.kind != "effort":
        problem = f"{robot.spec.name} is commanded in {robot.spec.action.kind}, where feed-forward has won nothing yet"
        warnings.warn(f"{problem}: ask `landbridge evaluate --compensate` first", stacklevel=2)
    return Compensation(robot, calibration, digest_of(path))


def require_nominal(policy: Path, provenance: Mapping[str, str]) -> None:
    """Raise InputError if a policy of this provenance was trained for a calibrated robot: it knows the friction."""
    if digest := provenance.get(f"source{CALIBRATION}"):
        problem = f"learned from logs of a simulator that was calibrated ({digest[:12]}): it would be compensated twice"
        raise InputError(policy, problem, "leave out --compensate, or use a policy for the nominal robot")


def _command(robot: Robot, joint: Joint) -> tuple[float, float, float]:
    """How much more effort a joint's command asks for per unit of it, and the command's bounds in `robot.yaml`."""
    kind = robot.spec.action.kind
    slope = {"effort": 1.0, "velocity": joint.damping, "position": joint.stiffness}[kind]
    if slope == 0:
        problem = f"joint {joint.name}'s {kind} command asks for no effort: its gain is 0"
        raise InputError(robot.folder / "robot.yaml", problem, "give it the drive's stiffness or damping")
    return slope, *joint.command_range(kind)


def _boost(robot: Robot, calibration: Calibration) -> float:
    """The m / g nearest to 1 in the intervals of all moving links."""
    low, high = zip(
        *(_over_gain(robot, calibration, f"link_mass_scale.{link}", 1.0) for link in moving_links(robot).values()),
        strict=True,
    )
    return float(np.clip(1.0, min(low), max(high)))


def _more(robot: Robot, calibration: Calibration, field: str, boost: float) -> Array:
    """What one coefficient of f / g surely is more than boost times that of f*, of each actuated joint (A,)."""
    found: dict[str, float] = {}
    for group, alike in friction_groups(robot).items():
        nominal = getattr(robot.spec.joint(alike[0]).friction, field)
        low, _ = _over_gain(robot, calibration, f"friction.{group}.{field}", nominal)
        found |= dict.fromkeys(alike, max(0.0, low - boost * nominal))
    return np.array([found[name] for name in robot.spec.actuated])


def _over_gain(robot: Robot, calibration: Calibration, name: str, nominal: float) -> tuple[float, float]:
    """The 95 % interval of a parameter over the gain, to first order; one that was not estimated is `nominal`."""
    values = {key: estimate.value for key, estimate in calibration.estimates.items()}
    free = [p for p in parameters(robot) if p.name in values]
    value, gain = values.get(name, nominal), values.get(GAIN, 1.0)
    # By each coordinate z (`parameters`), in which a value is linear, or its logarithm.
    slope = np.zeros(len(free))
    for i, p in enumerate(free):
        if p.name == name:
            slope[i] = p.sd * (value if p.log else 1.0) / gain
        elif p.name == GAIN:
            slope[i] = -p.sd * value / gain
    covariance = np.reshape(calibration.covariance, (len(free), len(free)))
    if calibration.overlooked:
        covariance = covariance + np.reshape(calibration.overlooked, covariance.shape)
    spread = NORMAL_95 * np.sqrt(max(0.0, slope @ covariance @ slope))
    return value / gain - spread, value / gain + spread
