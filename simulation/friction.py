"""Joint friction, computed here and nowhere else: both engines apply it as a torque in each physics step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from landbridge.robot import Friction

SMOOTHING_SPEED = 0.1  # rad/s; v_0: below it Coulomb friction is a steep damper, so that explicit integration is stable


class JointFriction:
    """Friction torque of J joints: tau(v) = -[c + (s - c) exp(-(v / v_s)^2)] tanh(v / v_0) - b v; see `robot.Friction`."""

    def __init__(self, joints: Sequence[Friction]) -> None:
        self._coulomb = np.array([f.frictionloss for f in joints])
        stiction = np.array([f.frictionloss if f.stiction is None else f.stiction for f in joints])
        self._excess = stiction - self._coulomb
        self._stribeck_rate = 1 / np.array([f.stribeck_velocity for f in joints])
        self._viscous = np.array([f.viscous for f in joints])
        self._has_stribeck = bool(self._excess.any())

    def __call__(self, joint_vel: NDArray[np.float64]) -> NDArray[np.float64]:
        """Torque (..., J) [N m] on joints that turn with joint_vel (..., J) [rad/s]."""
        dry = self._coulomb
        if self._has_stribeck:
            ratio = joint_vel * self._stribeck_rate
            dry = dry + self._excess * np.exp(-ratio * ratio)
        torque = dry * np.tanh(joint_vel * (1 / SMOOTHING_SPEED))
        torque += self._viscous * joint_vel
        return -torque
