"""From commands to joint torques: PD or direct effort, gain, effort limit and joint friction, in each physics step.

The same law twice: on Python floats, which is faster for a few joints, and on arrays, which is faster for many. A test
holds them together. Robots with gears have rotors besides, on arrays however few their joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from landbridge.robot import RobotSpec
from landbridge.simulation.friction import JointFriction, JointFrictions, side_by_side
from landbridge.simulation.scenario import Scenario
from landbridge.simulation.transmission import Rotors, transmissions

FEW = 4  # joints; floats take 2 us a joint, arrays 8 us whatever their number

Array = NDArray[np.float64]
Floats = Sequence[float] | Array


class Drive(Protocol):
    """What turns commands into joint torques, in SI units and the spec's order, once in each physics step."""

    def __call__(self, joint_pos: Floats, joint_vel: Floats, commands: Floats | None) -> list[float] | Array:
        """Joint torques (J,) from positions (J,), velocities (J,) and commands (A,), or None for torque off."""

    def reset(self) -> None:
        """Forget what went before: the robot is somewhere else now."""


def make_drive(spec: RobotSpec, scenario: Scenario) -> Drive:
    """The drive of all joints of a robot under a scenario."""
    few = len(spec.joints) <= FEW and not transmissions(spec, scenario)
    return ScalarDrive(spec, scenario) if few else array_drive(spec, scenario)


def array_drive(spec: RobotSpec, *scenarios: Scenario) -> ArrayDrive | GearedDrive:
    """The drive on arrays, which also takes many robots at once.

    Under one scenario (..., J) and (..., A); under K of them, with the same gears in each, (K, W, J) and (K, W, A).
    """
    return (GearedDrive if transmissions(spec, scenarios[0]) else ArrayDrive)(spec, *scenarios)


class ScalarDrive:
    """The law on Python floats."""

    def __init__(self, spec: RobotSpec, scenario: Scenario) -> None:
        self._kind, self._gain = spec.action.kind, scenario.actuator_gain
        self._drives = [
            (index, joint.stiffness, joint.damping, joint.effort_limit)
            for index, joint in zip(spec.driven_at, spec.driven, strict=True)
        ]
        self._friction = [
            JointFriction(scenario.friction.get(joint.name, joint.friction), spec.friction_smoothing)
            for joint in spec.joints
        ]

    def __call__(self, joint_pos: Floats, joint_vel: Floats, commands: Floats | None) -> list[float]:
        """See `Drive`."""
        if commands is None:
            return [rubs(speed, 0.0) for rubs, speed in zip(self._friction, joint_vel, strict=True)]
        efforts = [0.0] * len(self._friction)
        for (index, stiffness, damping, limit), command in zip(self._drives, commands, strict=True):
            if self._kind == "effort":
                effort = command
            elif self._kind == "velocity":
                effort = damping * (command - joint_vel[index])
            else:
                effort = stiffness * (command - joint_pos[index]) - damping * joint_vel[index]
            efforts[index] = max(-limit, min(limit, self._gain * effort))
        acting = zip(self._friction, joint_vel, efforts, strict=True)
        return [effort + rubs(speed, effort) for rubs, speed, effort in acting]

    def reset(self) -> None:
        """Nothing: the law knows no past."""


class ArrayDrive:
    """The law on arrays, see `array_drive`.

    Attributes:
        index: (A,) of the actuated joints among all.
    """

    def __init__(self, spec: RobotSpec, *scenarios: Scenario) -> None:
        self._kind, self._gain = spec.action.kind, side_by_side([[each.actuator_gain] for each in scenarios])
        self._passive = len(spec.driven) < len(spec.joints)
        self.index = np.array(spec.driven_at)
        stiffness, damping, self._limit = (
            np.array([getattr(joint, name) for joint in spec.driven])
            for name in ("stiffness", "damping", "effort_limit")
        )
        self._stiffness, self._damping = self._gain * stiffness, self._gain * damping
        self._friction = JointFrictions(
            [[each.friction.get(joint.name, joint.friction) for joint in spec.joints] for each in scenarios],
            spec.friction_smoothing,
        )

    def __call__(self, joint_pos: Floats, joint_vel: Floats, commands: Floats | None) -> Array:
        """See `Drive`."""
        position, velocity = np.asarray(joint_pos), np.asarray(joint_vel)
        return self.rubbed(velocity, None if commands is None else self.effort(position, velocity, commands))

    def reset(self) -> None:
        """Nothing: the law knows no past."""

    def effort(self, position: Array, velocity: Array, commands: Floats) -> Array:
        """Of the drives (..., A), at positions and velocities (..., J) of all joints."""
        if self._passive:
            position, velocity = position[..., self.index], velocity[..., self.index]
        if self._kind == "effort":
            effort = self._gain * np.asarray(commands)
        elif self._kind == "velocity":
            effort = self._damping * (commands - velocity)
        else:
            effort = self._stiffness * (commands - position)
            effort -= self._damping * velocity
        np.minimum(effort, self._limit, out=effort)
        np.maximum(effort, -self._limit, out=effort)
        return effort

    def rubbed(self, velocity: Array, effort: Array | None) -> Array:
        """Torques (..., J) on joints that turn with velocities (..., J), drives pulling with efforts (..., A)."""
        if self._passive or effort is None:
            every = np.zeros_like(velocity, dtype=np.float64)
            if effort is not None:
                every[..., self.index] = effort
        else:
            every = effort
        torque = self._friction(velocity, every)
        torque += every
        return torque


class GearedDrive:
    """The law on arrays, some drives acting on a rotor, which turns the joint: the one drive that has a memory."""

    def __init__(self, spec: RobotSpec, *scenarios: Scenario) -> None:
        gears = transmissions(spec, scenarios[0])
        self._law = ArrayDrive(spec, *scenarios)
        every = [list(transmissions(spec, each).values()) for each in scenarios]
        self._rotors = Rotors(every, spec.physics_dt)
        self._joints = np.array([spec.joint_names.index(name) for name in gears])
        self._drives = np.array([spec.actuated.index(name) for name in gears])

    def __call__(self, joint_pos: Floats, joint_vel: Floats, commands: Floats | None) -> Array:
        """See `Drive`."""
        position, velocity = np.asarray(joint_pos), np.asarray(joint_vel)
        if commands is None:
            effort = np.zeros_like(position[..., self._law.index])
        else:
            effort = self._law.effort(position, velocity, commands)
        joints, drives = self._joints, self._drives
        effort[..., drives] = self._rotors(position[..., joints], velocity[..., joints], effort[..., drives])
        return self._law.rubbed(velocity, effort)

    def carry(self, position: Array, velocity: Array) -> None:
        """Take the rotors along with joints that are moved by (..., J) and are faster by (..., J) all at once."""
        self._rotors.carry(position[..., self._joints], velocity[..., self._joints])

    def reset(self) -> None:
        """The rotors are at the side of their gap that the next command pushes to."""
        self._rotors.reset()
