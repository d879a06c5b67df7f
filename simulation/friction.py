"""Joint friction, computed here and nowhere else: both engines apply it as a torque in each physics step."""

from __future__ import annotations

from math import exp, tanh

from landbridge.robot import Friction

SMOOTHING_SPEED = 0.1  # rad/s; v_0: below it Coulomb friction is a steep damper, so that explicit integration is stable


class JointFriction:
    """Friction torque of one joint: tau(v) = -[c + (s - c) exp(-(v / v_s)^2)] tanh(v / v_0) - b v (`robot.Friction`).

    On Python floats, because two joints 500 times a second cost a tenth of what numpy would take.
    """

    def __init__(self, friction: Friction) -> None:
        self._coulomb = friction.frictionloss
        self._excess = 0.0 if friction.stiction is None else friction.stiction - friction.frictionloss
        self._stribeck_velocity = friction.stribeck_velocity
        self._viscous = friction.viscous

    def __call__(self, joint_vel: float) -> float:
        """Torque [N m] on a joint that turns with `joint_vel` [rad/s]."""
        dry = self._coulomb
        if self._excess:
            dry += self._excess * exp(-((joint_vel / self._stribeck_velocity) ** 2))
        return -dry * tanh(joint_vel / SMOOTHING_SPEED) - self._viscous * joint_vel
