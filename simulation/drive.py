"""From commands to joint torques: PD or direct effort, gain, effort limit and joint friction, in each physics step.

The same law twice: on Python floats, which is faster for a few joints, and on arrays, which is faster for many. A test
holds them together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from landbridge.robot import RobotSpec
from landbridge.simulation.friction import JointFriction, JointFrictions
from landbridge.simulation.scenario import Scenario

FEW = 4  # joints; floats take 2 us a joint, arrays 8 us whatever their number

Floats = Sequence[float] | NDArray[np.float64]
Drive = Callable[[Floats, Floats, Floats | None], Floats]
"""(joint_pos (J,), joint_vel (J,), commands (A,) or None for torque off) -> joint torques (J,), in SI units and the
spec's order."""


def make_drive(spec: RobotSpec, scenario: Scenario) -> Drive:
    """The drive of all joints of a robot under a scenario."""
    return ScalarDrive(spec, scenario) if len(spec.joints) <= FEW else ArrayDrive(spec, scenario)


class ScalarDrive:
    """The law on Python floats."""

    def __init__(self, spec: RobotSpec, scenario: Scenario) -> None:
        self._kind, self._gain = spec.action.kind, scenario.actuator_gain
        self._drives = [
            (spec.joint_names.index(joint.name), joint.stiffness, joint.damping, joint.effort_limit)
            for joint in spec.joints
            if joint.actuated
        ]
        self._friction = [
            JointFriction(scenario.friction.get(joint.name, joint.friction), spec.friction_smoothing)
            for joint in spec.joints
        ]

    def __call__(self, joint_pos: Floats, joint_vel: Floats, commands: Floats | None) -> list[float]:
        """See `Drive`."""
        torque = [friction(velocity) for friction, velocity in zip(self._friction, joint_vel, strict=True)]
        if commands is None:
            return torque
        for (index, stiffness, damping, limit), command in zip(self._drives, commands, strict=True):
            if self._kind == "effort":
                effort = command
            elif self._kind == "velocity":
                effort = damping * (command - joint_vel[index])
            else:
                effort = stiffness * (command - joint_pos[index]) - damping * joint_vel[index]
            torque[index] += max(-limit, min(limit, self._gain * effort))
        return torque


class ArrayDrive:
    """The law on arrays."""

    def __init__(self, spec: RobotSpec, scenario: Scenario) -> None:
        joints = [spec.joint(name) for name in spec.actuated]
        self._kind, self._gain = spec.action.kind, scenario.actuator_gain
        self._passive = len(joints) < len(spec.joints)
        self._index = np.array([spec.joint_names.index(joint.name) for joint in joints])
        stiffness, damping, self._limit = (
            np.array([getattr(joint, name) for joint in joints]) for name in ("stiffness", "damping", "effort_limit")
        )
        self._stiffness, self._damping = self._gain * stiffness, self._gain * damping
        self._friction = JointFrictions(
            [scenario.friction.get(joint.name, joint.friction) for joint in spec.joints], spec.friction_smoothing
        )

    def __call__(self, joint_pos: Floats, joint_vel: Floats, commands: Floats | None) -> NDArray[np.float64]:
        """See `Drive`."""
        position, velocity = np.asarray(joint_pos), np.asarray(joint_vel)
        torque = self._friction(velocity)
        if commands is None:
            return torque
        if self._passive:
            position, velocity = position[..., self._index], velocity[..., self._index]
        if self._kind == "effort":
            effort = self._gain * np.asarray(commands)
        elif self._kind == "velocity":
            effort = self._damping * (commands - velocity)
        else:
            effort = self._stiffness * (commands - position)
            effort -= self._damping * velocity
        np.minimum(effort, self._limit, out=effort)
        np.maximum(effort, -self._limit, out=effort)
        if self._passive:
            torque[..., self._index] += effort
        else:
            torque += effort
        return torque
