"""What a command may be: inside the joint's bounds, no faster than its rate, eased towards a position limit."""

from __future__ import annotations

import math
from collections.abc import Sequence

from landbridge.joint import Joint
from landbridge.robot import RobotSpec

BRAKE_TIME = 0.1  # s to a position limit at the present speed below which effort towards it is taken back


class Limits:
    """The limits of a robot's actuated joints on commands of its action kind."""

    def __init__(self, spec: RobotSpec) -> None:
        self._kind, self._dt = spec.action.kind, spec.control_dt
        self._joints = [
            (
                i,
                *_bounds(joint, self._kind),
                _rate(joint, self._kind),
                self._braked(joint),
                joint.rest_speed,
            )
            for i, joint in enumerate(spec.joints)
            if joint.actuated
        ]

    def apply(
        self,
        wanted: Sequence[float],
        last: Sequence[float],
        elapsed: float,
        position: Sequence[float],
        velocity: Sequence[float],
    ) -> tuple[float, ...]:
        """`wanted` inside every limit, `elapsed` seconds after `last`, both in `spec.actuated` order.

        `position` and `velocity` are those of all joints. A pause earns no more than one control period of change. The
        joint's own bounds come last: nothing undoes them.
        """
        elapsed = min(max(elapsed, 0.0), self._dt)
        command = []
        for value, before, (i, low, high, rate, limit, rest) in zip(wanted, last, self._joints, strict=True):
            if limit is not None:
                value = _clamp(value, *self._braking(*limit, rest, position[i], velocity[i], low, high))
            step = rate * elapsed
            command.append(_clamp(_clamp(value, before - step, before + step), low, high))
        return tuple(command)

    def _braked(self, joint: Joint) -> tuple[float, float] | None:
        return None if self._kind == "position" else joint.position_limit

    def _braking(
        self, lower: float, upper: float, rest: float, position: float, velocity: float, low: float, high: float
    ) -> tuple[float, float]:
        """Bounds narrowed near a position limit, continuously, so that they do not chatter.

        With t the time to the limit at the present speed, the bound towards it goes from the full one at t = BRAKE_TIME
        to full reversal at t = 0 (effort), or to standstill (velocity). It eases the approach; it cannot promise to
        stop any inertia in time, which is why a position beyond the limit is a fault besides. A joint that rests there
        or beside it is not thrown back: it is pushed no farther out, and the stop damps how it returns.
        """
        reversal = -1.0 if self._kind == "effort" else 0.0

        def share(margin: float, speed: float) -> float:
            floor = reversal if speed > rest else 0.0
            left = max(margin, 0.0) / speed / BRAKE_TIME if speed > 0 else math.inf if margin > 0 else 0.0
            return min(1.0, floor + (1.0 - floor) * left)

        return low * share(position - lower, -velocity), high * share(upper - position, velocity)


def _clamp(value: float, low: float, high: float) -> float:
    """`value` within [low, high]; all three finite or infinite, never NaN (the guard sees to it)."""
    return low if value < low else high if value > high else value


def _bounds(joint: Joint, kind: str) -> tuple[float, float]:
    if kind == "position":
        return joint.position_range
    limit = joint.effort_limit if kind == "effort" else joint.velocity_limit
    return -limit, limit


def _rate(joint: Joint, kind: str) -> float:
    assert joint.rate_limit is not None  # RobotSpec: actuated joints have one
    return min(joint.rate_limit, joint.velocity_limit) if kind == "position" else joint.rate_limit
