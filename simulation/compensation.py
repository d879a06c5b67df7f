"""Feed-forward from a calibration: commands by which a robot's drives do what those of `robot.yaml` would.

For a policy that was trained for the nominal robot and is not trained again. With e* the effort that a command asks of
a nominal drive (`simulation.drive`), f* the friction of `robot.yaml` and f the robot's, against the motion,

    e = (e* - f*) / g + f / g

is the effort to ask for: through the gain g it gives e* - f* + f, and the robot's own friction leaves what the nominal
robot would have, e* - f*.

Little of it is safer than too much. Friction that is compensated by more than there is makes a joint hunt, by less
leaves it a little stiff (Putra, van de Wouw and Nijmeijer, Automatica 43(8), 2007); drives that do this by themselves
stay below it (Universal Robots' `ur_msgs/FrictionModelParameters`: by default 0.8 of Coulomb and 0.9 of viscous
friction). So here:

- every number is the end of its 95 % interval that does less, and what the data do not tell does nothing;
- the interval is that of f / g, friction as a command feels it: motion alone tells it, also where it does not tell
  gain, friction and masses apart;
- the Stribeck excess is left out on both sides: what breaks a joint loose pushes it once it turns;
- friction is only taken away. Where there is less than in `robot.yaml`, none is made: a brake on a velocity that is one
  delay old hunts, too;
- what is sent is no more than an action could ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, tanh
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.joint import Joint
from landbridge.manifest import CALIBRATION
from landbridge.observation import action_affine
from landbridge.robot import Robot
from landbridge.simulation.calibrated import Calibration, digest_of, read_calibration
from landbridge.simulation.parameters import friction_groups, parameters

Array = NDArray[np.float64]

NORMAL_95 = 1.96  # standard deviations to either end of a 95 % interval
GAIN = "actuator_gain"
FIELDS = ("frictionloss", "viscous")


class Compensation:
    """What to send for a command, given the measurement that it answers.

    The law above for all kinds of action, solved for it: sent = command / g - p pos + w vel + u tanh(vel / v_0).

    Args:
        robot: The nominal one.
        calibration: Of this robot.
        digest: SHA-256 of the calibration's file.

    Attributes:
        digest: The same.
        gain: What commands are divided by.
        frictionloss, viscous: Of each actuated joint, what is added (A,) [N m, N m s/rad], before gains of the drive.
    """

    def __init__(self, robot: Robot, calibration: Calibration, digest: str = "") -> None:
        spec, self.digest = robot.spec, digest
        joints = [spec.joint(name) for name in spec.actuated]
        self.gain = _nearest_one(calibration)
        self.frictionloss, self.viscous = (_added(robot, calibration, name, self.gain) for name in FIELDS)
        kind = spec.action.kind
        scale, origin = action_affine(spec)
        self._joints = [
            (spec.joint_names.index(joint.name), *self._law(robot, kind, joint, dry, viscous), float(low), float(high))
            for joint, dry, viscous, low, high in zip(
                joints, self.frictionloss, self.viscous, origin - scale, origin + scale, strict=True
            )
        ]
        self._command, self._sharpness = 1 / self.gain, 1 / spec.friction_smoothing

    def _law(self, robot: Robot, kind: str, joint: Joint, dry: float, viscous: float) -> tuple[float, float, float]:
        """The coefficients p, w, u of a joint."""
        boost = 1 / self.gain - 1
        if kind == "effort":
            return 0.0, viscous, dry
        slope = joint.damping if kind == "velocity" else joint.stiffness  # of the effort over the command
        if slope == 0:
            problem = f"joint {joint.name}'s {kind} command asks for no effort: its gain is 0"
            raise InputError(robot.folder / "robot.yaml", problem, "give it the drive's stiffness or damping")
        return (boost if kind == "position" else 0.0), (viscous - boost * joint.damping) / slope, dry / slope

    def __call__(self, command: Array, joint_pos: Array, joint_vel: Array) -> Array:
        """What to send (A,) for `command` (A,), which answers the measured `joint_pos` and `joint_vel` (J,).

        On Python floats, which for a dozen joints take less than numpy. A joint of which something is not finite is
        sent what was asked for.
        """
        position, velocity, found = joint_pos.tolist(), joint_vel.tolist(), []
        for asked, (index, p, w, u, low, high) in zip(command.tolist(), self._joints, strict=True):
            vel = velocity[index]
            sent = asked * self._command - p * position[index] + w * vel + u * tanh(vel * self._sharpness)
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


def _nearest_one(calibration: Calibration) -> float:
    """The gain in its interval that is the nearest to 1; between 1 and the estimate, whatever the interval says."""
    gain = calibration.estimates.get(GAIN)
    return 1.0 if gain is None else float(np.clip(1.0, min(gain.low, gain.value), max(gain.high, gain.value)))


def _added(robot: Robot, calibration: Calibration, field: str, gain: float) -> Array:
    """What to add for one coefficient of the friction of each actuated joint (A,): that of f / g - f* / gain, or 0."""
    every, values = parameters(robot), {name: e.value for name, e in calibration.estimates.items()}
    free = [p for p in every if p.name in values]
    nominal = {p.name: p.nominal for p in every}
    true_gain = values.get(GAIN, 1.0)
    found: dict[str, float] = {}
    for group, alike in friction_groups(robot).items():
        name = f"friction.{group}.{field}"
        felt = values.get(name, nominal[name]) / true_gain
        # By coordinate z of each parameter; a gain's is logarithmic (`parameters`).
        slope = np.array([p.sd / true_gain if p.name == name else -felt * p.sd if p.name == GAIN else 0 for p in free])
        spread = np.sqrt(max(0.0, slope @ np.reshape(calibration.covariance, (len(free), -1)) @ slope))
        found |= dict.fromkeys(alike, max(0.0, felt - NORMAL_95 * spread - nominal[name] / gain))
    return np.array([found[name] for name in robot.spec.actuated])
