"""Joint friction, computed here and nowhere else: both engines apply it as a torque in each physics step."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, tanh

import numpy as np
from numpy.typing import NDArray

from landbridge.joint import Friction


class JointFriction:
    """Friction torque of one joint (`joint.Friction`).

    tau(v, e) = -[c + l |e| + (s - c) exp(-(v / v_s)^2)] tanh(v / v_0) - b v.

    `smoothing` is v_0, the robot's `friction_smoothing` [rad/s].

    On Python floats, because two joints 500 times a second cost a tenth of what numpy would take.
    """

    def __init__(self, friction: Friction, smoothing: float) -> None:
        self._smoothing = smoothing
        self._coulomb = friction.frictionloss
        self._excess, self._stribeck_velocity = friction.excess, friction.stribeck_velocity
        self._viscous, self._load = friction.viscous, friction.load

    def __call__(self, joint_vel: float, effort: float) -> float:
        """Torque [N m] on a joint that turns with `joint_vel` [rad/s] while its drive pulls with `effort` [N m]."""
        dry = self._coulomb
        if self._load:
            dry += self._load * abs(effort)
        if self._excess:
            dry += self._excess * exp(-((joint_vel / self._stribeck_velocity) ** 2))
        return -dry * tanh(joint_vel / self._smoothing) - self._viscous * joint_vel


def side_by_side(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Numbers of each joint (J,), or of the joints of K > 1 robots (K, 1, J), to meet states (..., J) or (K, W, J)."""
    found = np.array(rows, dtype=np.float64)
    return found[0] if len(found) == 1 else found[:, None]


class JointFrictions:
    """`JointFriction` of all joints of K robots at once, on arrays (K, W, J), or (..., J) of one robot."""

    def __init__(self, robots: Sequence[Sequence[Friction]], smoothing: float) -> None:
        self._slope = 1 / smoothing
        coulomb, self._excess, self._stribeck_velocity, self._viscous, self._load = (
            side_by_side([[getattr(friction, name) for friction in joints] for joints in robots])
            for name in ("frictionloss", "excess", "stribeck_velocity", "viscous", "load")
        )
        self._against = -coulomb
        self._stribeck, self._loaded = bool(self._excess.any()), bool(self._load.any())

    def __call__(self, joint_vel: NDArray[np.float64], effort: NDArray[np.float64]) -> NDArray[np.float64]:
        """Torques (..., J) [N m] on joints that turn with `joint_vel` [rad/s] while their drives pull with `effort`."""
        dry = self._against
        if self._loaded:
            dry = dry - self._load * np.abs(effort)
        if self._stribeck:
            dry = dry - self._excess * np.exp(-np.square(joint_vel / self._stribeck_velocity))
        torque = joint_vel * self._slope
        np.tanh(torque, out=torque)
        torque *= dry
        torque -= self._viscous * joint_vel
        return torque
