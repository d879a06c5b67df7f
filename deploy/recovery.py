"""Recovery trajectories: how the guard brings a position-commanded robot to rest, and to another pose, on its own.

Closed forms on plain floats: nothing is searched for and nothing can fail, so the cost of a tick is the same in every
tick, and a bound on speed, acceleration and jerk can be checked by hand. `Hold` stops each joint from the speed it has;
`Move` follows it with one minimum-jerk move of all joints together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from landbridge.joint import Joint

Pose = tuple[float, ...]


class Stop:
    """One joint's way to rest: v(s) = v_0 (1 - 3 s^2 + 2 s^3) with s = t / T, from acceleration zero to zero.

    The largest deceleration is 3/2 v_0 / T, in the middle, the largest jerk 6 v_0 / T^2, at both ends, the distance
    v_0 T / 2; T is the shortest time that keeps both within the joint's limits. A position limit comes first: where the
    distance does not fit, T is as short as it must be. The acceleration before the stop counts as zero: a policy's
    commands are steps, which have none.

    Attributes:
        duration: T [s].
        end: Where the joint comes to rest [rad].
    """

    def __init__(self, joint: Joint, position: float, velocity: float) -> None:
        assert joint.acceleration_limit is not None and joint.jerk_limit is not None and joint.rate_limit is not None
        self._lower, self._upper = joint.position_range
        self._start = min(max(position, self._lower), self._upper)
        fastest = min(joint.velocity_limit, joint.rate_limit)  # a target that lags behind would be crept after
        self._speed = min(max(velocity, -fastest), fastest)
        speed = abs(self._speed)
        wanted = max(1.5 * speed / joint.acceleration_limit, math.sqrt(6 * speed / joint.jerk_limit))
        room = self._upper - self._start if self._speed > 0 else self._start - self._lower
        self.duration = min(wanted, 2 * room / speed) if speed > 0 else 0.0
        self.end = self._clamp(self._start + self._speed * self.duration / 2)

    def at(self, elapsed: float) -> float:
        """The position [rad] `elapsed` seconds after the start."""
        if elapsed >= self.duration:
            return self.end
        s = max(elapsed, 0.0) / self.duration
        return self._clamp(self._start + self._speed * self.duration * s * (1 - s * s + s * s * s / 2))

    def _clamp(self, position: float) -> float:
        return min(max(position, self._lower), self._upper)


class Hold:
    """Every joint to rest on its own, then held there.

    Attributes:
        ends: When the last one rests, on the clock of `start` [s].
        end: Where they rest.
    """

    def __init__(self, joints: Sequence[Joint], position: Sequence[float], velocity: Sequence[float], start: float):
        self._stops = [Stop(*each) for each in zip(joints, position, velocity, strict=True)]
        self._start = start
        self.ends = start + max(stop.duration for stop in self._stops)
        self.end: Pose = tuple(stop.end for stop in self._stops)

    def at(self, now: float) -> Pose:
        """The targets [rad] at `now`."""
        if now >= self.ends:
            return self.end
        return tuple(stop.at(now - self._start) for stop in self._stops)


class Move:
    """After `hold`, all joints to `goal` at once: x(s) = x_0 + d (10 s^3 - 15 s^4 + 6 s^5), the minimum-jerk move.

    (Flash and Hogan, J. Neuroscience 5(7), 1985.) Its largest speed is 15/8 d / T, its largest acceleration
    10/sqrt(3) d / T^2 and its largest jerk 60 d / T^3; T is the shortest that keeps every joint within its own limits
    and its speed within `speed` [rad/s]. The way is straight in joint space: it must be free from everywhere.
    """

    def __init__(self, joints: Sequence[Joint], hold: Hold, goal: Sequence[float], speed: float) -> None:
        self._hold, self._goal = hold, tuple(goal)
        self._way = [to - rest for to, rest in zip(self._goal, hold.end, strict=True)]
        self._duration = max(move_time(*each, speed) for each in zip(joints, self._way, strict=True))
        self.ends = hold.ends + self._duration

    def at(self, now: float) -> Pose:
        """The targets [rad] at `now`."""
        if now >= self.ends:
            return self._goal
        if now < self._hold.ends:
            return self._hold.at(now)
        s = (now - self._hold.ends) / self._duration
        share = s * s * s * (10 - 15 * s + 6 * s * s)
        return tuple(rest + way * share for rest, way in zip(self._hold.end, self._way, strict=True))


def move_time(joint: Joint, way: float, speed: float) -> float:
    """T [s] of one joint's `way` [rad] from rest to rest, at no more than `speed` [rad/s]; see `Move`."""
    assert joint.acceleration_limit is not None and joint.jerk_limit is not None and joint.rate_limit is not None
    distance = abs(way)
    return max(
        15 / 8 * distance / min(speed, joint.velocity_limit, joint.rate_limit),
        math.sqrt(10 / math.sqrt(3) * distance / joint.acceleration_limit),
        (60 * distance / joint.jerk_limit) ** (1 / 3),
    )
