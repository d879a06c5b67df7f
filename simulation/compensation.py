"""Feed-forward from a calibration: commands by which a robot moves more like the one of `robot.yaml`.

For a policy that was trained for the nominal robot and is not trained again. With e* the effort that a command asks of
a nominal drive (`simulation.drive`), f* the friction of `robot.yaml` and f the robot's, both against the motion, g its
gain and m the factor on its masses, the effort to ask for is

    e = m / g (e* - f*) + f / g

Through the gain it gives m (e* - f*) + f: friction takes f, and what is left moves m times the mass as e* - f* would
move the nominal one. Motion tells these ratios, also where it does not tell gain, masses and friction apart.

Little of it is safer than too much. Friction that is compensated by more than there is makes a joint hunt, by less
leaves it a little stiff (Putra, van de Wouw and Nijmeijer, Automatica 43(8), 2007); drives that do this by themselves
stay below it (Universal Robots' `ur_msgs/FrictionModelParameters`: by default 0.8 of Coulomb and 0.9 of viscous
friction). So here:

- every ratio is the end of its 95 % interval that does less, and what the data do not tell does nothing;
- one m / g serves all joints, that of the link which asks for the least;
- the Stribeck excess is left out on both sides: what breaks a joint loose would push it once it turns;
- friction is only taken away. Where there is less than in `robot.yaml`, none is made: a brake on a velocity that is one
  delay old hunts, too;
- what is sent stays within the joint's limits in `robot.yaml`. The guard judges it like any other command.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite, tanh
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

    The law above for all kinds of action, solved for it: sent = m / g command - p pos + w vel + u tanh(vel / v_0).

    Args:
        robot: The nominal one.
        calibration: Of this robot.
        digest: SHA-256 of the calibration's file.

    Attributes:
        digest: The same.
        boost: m / g.
        frictionloss, viscous: Of each actuated joint (A,), what f / g is more than m / g f* [N m, N m s/rad].
    """

    def __init__(self, robot: Robot, calibration: Calibration, digest: str = "") -> None:
        spec, self.digest = robot.spec, digest
        self.boost = _boost(robot, calibration)
        self.frictionloss, self.viscous = (
            _more(robot, calibration, field, self.boost) for field in ("frictionloss", "viscous")
        )
        self._sharpness = 1 / spec.friction_smoothing
        self._joints = [
            (spec.joint_names.index(name), *self._law(robot, spec.joint(name), dry, viscous))
            for name, dry, viscous in zip(spec.actuated, self.frictionloss, self.viscous, strict=True)
        ]

    def _law(self, robot: Robot, joint: Joint, dry: float, viscous: float) -> tuple[float, ...]:
        """The coefficients p, w, u of a joint, and the bounds of what is sent."""
        kind, more = robot.spec.action.kind, self.boost - 1
        if kind == "effort":
            return 0.0, viscous, dry, -joint.effort_limit, joint.effort_limit
        slope = joint.damping if kind == "velocity" else joint.stiffness  # of the effort over the command
        if slope == 0:
            problem = f"joint {joint.name}'s {kind} command asks for no effort: its gain is 0"
            raise InputError(robot.folder / "robot.yaml", problem, "give it the drive's stiffness or damping")
        w, u = (viscous - more * joint.damping) / slope, dry / slope
        if kind == "velocity":
            return 0.0, w, u, -joint.velocity_limit, joint.velocity_limit
        return more, w, u, *(joint.position_limit or (-inf, inf))

    def __call__(self, command: Array, joint_pos: Array, joint_vel: Array) -> Array:
        """What to send (A,) for `command` (A,), which answers the measured `joint_pos` and `joint_vel` (J,).

        On Python floats, which for a dozen joints take less than numpy. A joint of which something is not finite is
        sent what was asked for.
        """
        position, velocity, found = joint_pos.tolist(), joint_vel.tolist(), []
        for asked, (index, p, w, u, low, high) in zip(command.tolist(), self._joints, strict=True):
            vel = velocity[index]
            sent = self.boost * asked - p * position[index] + w * vel + u * tanh(vel * self._sharpness)
            found.append(max(low, min(high, sent)) if isfinite(sent) else asked)
        return np.array(found)


def load_compensation(path: Path, robot: Robot) -> Compensation:
    """The compensation of a robot by the calibration at `path`.

    Raises:
        InputError: As `read_calibration`, or the robot's drives have no law to be compensated.
    """
    calibration = read_calibration(path, robot)
    return Compensation(robot, calibration, digest_of(path))


def require_nominal(policy: Path, provenance: Mapping[str, str]) -> None:
    """Raise InputError if a policy of this provenance was trained for a calibrated robot: it knows the friction."""
    if digest := provenance.get(f"source{CALIBRATION}"):
        problem = f"learned from logs of a simulator that was calibrated ({digest[:12]}): it would be compensated twice"
        raise InputError(policy, problem, "leave out --compensate, or use a policy for the nominal robot")


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
    spread = NORMAL_95 * np.sqrt(max(0.0, slope @ covariance @ slope))
    return value / gain - spread, value / gain + spread
