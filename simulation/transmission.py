"""Gears with play: the rotors behind geared joints, which are ours and no engine's, so that engines agree on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.joint import Transmission
from landbridge.robot import RobotSpec
from landbridge.simulation.friction import side_by_side
from landbridge.simulation.scenario import Scenario

Array = NDArray[np.float64]


def transmissions(spec: RobotSpec, scenario: Scenario) -> dict[str, Transmission]:
    """The gear of each joint that has one, in the spec's order."""
    found = {joint.name: scenario.transmission.get(joint.name, joint.transmission) for joint in spec.joints}
    return {name: gear for name, gear in found.items() if gear is not None}


class Rotors:
    """G rotors, each of which turns a joint through a gap and a shaft (`landbridge.joint.Transmission`).

    Of one robot, states (..., G), or of K robots, states (K, W, G).

    With p and v how far and how fast the rotor is ahead of the joint and h half the gap, each side of the gap is a
    spring and damper that pushes only, max(0, k (p - h) + d v) on the one. Without a gap that is k p + d v. So a side
    is felt d / k ahead; in return the torque is continuous in state and parameters, where a gap that ends at p = h
    exactly would jump by d v.

    One physics step is implicit in the rotor, with the joint's speed as it is at its beginning; see `require_bearable`.
    """

    def __init__(self, robots: Sequence[Sequence[Transmission]], dt: float) -> None:
        backlash, inertia, self._stiffness, self._damping = (
            side_by_side([[getattr(gear, name) for gear in gears] for gears in robots])
            for name in ("backlash", "rotor_inertia", "stiffness", "damping")
        )
        self._dt, self._half = dt, backlash / 2
        self._reach = self._stiffness * self._half
        self._gain = dt / inertia  # of speed by torque, in a step
        self._softening = 1 / (1 + (dt * self._stiffness + self._damping) * self._gain)
        self._state: tuple[Array, Array] | None = None  # angle [rad] and speed [rad/s], (..., G)

    def reset(self) -> None:
        """Forget where the rotors are: the next call places them at the side that the effort pushes to."""
        self._state = None

    def carry(self, position: Array, velocity: Array) -> None:
        """Move the rotors by (..., G) and make them faster by (..., G); before the first step they are nowhere yet."""
        if self._state is not None:
            self._state = self._state[0] + position, self._state[1] + velocity

    def __call__(self, joint_pos: Array, joint_vel: Array, effort: Array) -> Array:
        """Torques (..., G) on the joints from the drives' efforts (..., G), while the rotors advance by a step."""
        if self._state is None:
            self._state = joint_pos + self._half * np.sign(effort), joint_vel
        angle, speed = self._state
        speed = speed + self._gain * effort  # with the gap open
        ahead = speed - joint_vel
        push = self._stiffness * (angle - joint_pos + self._dt * ahead) + self._damping * ahead
        torque = self._softening * (push - np.minimum(np.maximum(push, -self._reach), self._reach))
        speed = speed - self._gain * torque
        self._state = angle + self._dt * speed, speed
        return torque


def require_bearable(
    spec: RobotSpec, gears: Mapping[str, Transmission], inertias: Mapping[str, float], where: str
) -> None:
    """Raise InputError if a shaft is too stiff for physics steps of dt and the inertia that its torque meets.

    The engine takes the shaft's torque as constant over a step. Then rotor and joint come together without overshoot
    if dt^2 stiffness + dt damping is at most the joint's inertia, whatever the rotor's; they part for ever, in a bad
    pose, from about 4/3 of that.
    """
    dt = spec.physics_dt
    for name, gear in gears.items():
        stiffness, damping, inertia = gear.stiffness, gear.damping, inertias[name]
        if dt * (dt * stiffness + damping) <= inertia:
            continue
        most = (inertia / dt - damping) / dt
        # The longest step that bears it: the positive root of dt^2 stiffness + dt damping = inertia.
        step = (sqrt(damping**2 + 4 * stiffness * inertia) - damping) / (2 * stiffness)
        bears = f"stiffness up to {most:.3g} N m/rad" if most > 0 else f"damping below {inertia / dt:.3g} N m s/rad"
        raise InputError(
            where,
            f"transmission of {name}: stiffness {stiffness:g} N m/rad with damping {damping:g} N m s/rad is too stiff "
            f"for physics steps of {1000 * dt:g} ms and a joint of {inertia:.3g} kg m^2, which bear {bears}",
            f"lower it, or set decimation to {ceil(spec.control_dt / step)}",
        )
