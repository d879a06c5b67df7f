"""What the sensors say of the robot, as far as it can be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from landbridge.robot import RobotSpec
from landbridge.verdict import Reason

REST_PERIODS = 3  # measurements in a row at rest that end a stop
BLIND_PERIODS = 3  # without a sane measurement after which nothing is known of how the joints move
FROZEN_PERIODS = 3  # measurements in a row at which a turning joint reads the very same position
ENCODER_STEP = 2 * math.tau / 4096  # rad: two counts of 12 bits; a joint that turns less may rightly read the same


class Motion:
    """The last sane measurement, of all joints in `spec.joint_names` order.

    Attributes:
        position: [rad]
        velocity: As the encoders report it [rad/s].
        tilt: Of a floating base [rad].
        moved_at: Time of the newest measurement in which an actuated joint moved, that was not believed, or that was
            the first [s]: since then all rest.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self._dt = spec.control_dt
        # Sensors may be slower than the control rate, as long as a command may still answer what they say.
        self._blind = max(BLIND_PERIODS * self._dt, spec.safety.max_command_age_ms / 1000)
        self._held = spec.action.kind == "position"  # a stop holds where a measurement says that the joints are
        self._fastest = [joint.velocity_limit for joint in spec.joints]
        self._rest = [joint.rest_speed for joint in spec.joints]
        self._turning = [max(rest, ENCODER_STEP / (FROZEN_PERIODS * self._dt)) for rest in self._rest]
        self._range = [joint.position_range for joint in spec.joints]
        self._max_tilt = math.inf if spec.safety.max_tilt is None else spec.safety.max_tilt
        self._passive = [not joint.actuated for joint in spec.joints]
        self._at = -math.inf
        self._frozen = [0] * len(spec.joints)
        self._resting, self.moved_at = 0, 0.0
        self.position: Sequence[float] = [joint.default_joint_pos for joint in spec.joints]
        self.velocity: Sequence[float] = [0.0] * len(spec.joints)
        self.tilt = 0.0
        self._before: Sequence[float] = self.position
        self._elapsed = math.inf

    @property
    def rests(self) -> bool:
        """Whether every actuated joint has been at rest for `REST_PERIODS` sane measurements in a row."""
        return self._resting >= REST_PERIODS

    def take(
        self, position: Sequence[float], velocity: Sequence[float], now: float, tilt: float = 0.0
    ) -> Reason | None:
        """Take a measurement, or say what makes it useless, even to stop by, and keep the last one."""
        elapsed = max(now - self._at, self._dt)  # a late measurement may be followed soon by one on time
        if (broken := self._broken(position, velocity, tilt, elapsed)) is not None:
            self._resting, self.moved_at = 0, now
            return broken
        first, self._before, self._elapsed = self._at == -math.inf, self.position, elapsed
        self.position, self.velocity, self.tilt, self._at = tuple(position), tuple(velocity), tilt, now
        still = [abs(speed) <= rest for speed, rest in zip(velocity, self._rest, strict=True)]
        self._frozen = [
            0 if abs(speed) <= turning or new != old else count + 1
            for speed, turning, new, old, count in zip(
                velocity, self._turning, self.position, self._before, self._frozen, strict=True
            )
        ]
        rests = all(rests or passive for rests, passive in zip(still, self._passive, strict=True))
        self._resting = self._resting + 1 if rests else 0
        if first or not rests:
            self.moved_at = now
        return None

    def blind(self, now: float) -> bool:
        """Whether the last sane measurement is too old to say how the joints move at `now` [s]."""
        return now - self._at > self._blind

    def pace(self) -> list[float]:
        """The speed to stop from [rad/s]: the smaller of what is reported and what the last two positions show.

        So neither can make a stop move a robot that rests.
        """
        if self._elapsed == math.inf:
            return [0.0] * len(self.position)
        return [
            _smaller(speed, (new - old) / self._elapsed)
            for new, old, speed in zip(self.position, self._before, self.velocity, strict=True)
        ]

    @property
    def tilted(self) -> bool:
        """Whether a floating base has fallen, or is about to."""
        return self.tilt > self._max_tilt

    def outside(self, beyond: float) -> Reason | None:
        """What is wrong with the motion of the joints; a driven one may be `beyond` [rad] its position limit."""
        if any(abs(speed) > limit for speed, limit in zip(self.velocity, self._fastest, strict=True)):
            return Reason.VELOCITY_LIMIT
        for position, (lower, upper), passive in zip(self.position, self._range, self._passive, strict=True):
            slack = 0.0 if passive else beyond
            if not lower - slack <= position <= upper + slack:
                return Reason.POSITION_LIMIT
        return Reason.FROZEN_ENCODER if max(self._frozen) >= FROZEN_PERIODS else None

    def forget(self) -> None:
        """The robot may have been put elsewhere: the next measurement follows from nothing."""
        self._at = -math.inf

    def _broken(
        self, position: Sequence[float], velocity: Sequence[float], tilt: float, elapsed: float
    ) -> Reason | None:
        if not len(position) == len(velocity) == len(self._fastest):
            return Reason.MEASUREMENT_INCOMPLETE
        if not (all(map(math.isfinite, position)) and all(map(math.isfinite, velocity)) and math.isfinite(tilt)):
            return Reason.MEASUREMENT_NOT_FINITE
        for new, old, speed, limit in zip(position, self.position, velocity, self._fastest, strict=True):
            if abs(new - old) > limit * elapsed + ENCODER_STEP:  # it cannot have come so far, unless it is too fast
                if abs(speed) <= limit:
                    return Reason.POSITION_JUMP
                if self._held:
                    return Reason.VELOCITY_LIMIT
        return None


def _smaller(a: float, b: float) -> float:
    """The one nearer to zero; zero if they disagree about the direction."""
    if a * b <= 0:
        return 0.0
    return a if abs(a) < abs(b) else b
