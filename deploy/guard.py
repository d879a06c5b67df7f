"""The guard: what stands between any policy and the motors.

Pure and small: plain floats, explicit state, time handed in, no ROS and no numpy. It lives in the process that holds
the only hardware handle. A command passes, in this order: finite, fresh, permitted, names, limits. What is invalid is
refused, what is merely large is limited; whatever comes in, what goes out is inside the limits of the robot.

The shape is run-time assurance as in ASTM F3269: an untrusted controller, a small trusted guard, a recovery controller
(here `Guard.tick`, which stops the robot).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from landbridge.deploy.supervisor import State
from landbridge.robot import Joint, RobotSpec

BRAKE_TIME = 0.1  # s to a position limit at the present speed below which effort towards it is taken back
RING = 256  # measurements that a command may answer; older ones count as unknown


class Reason(str, Enum):
    """Why a command was written, refused, or replaced by a stop."""

    OK = "ok"
    LIMITED = "limited"
    ARMED = "armed"  # admissible, but the supervisor is not ACTIVE yet
    NOT_FINITE = "not_finite"
    UNKNOWN_STAMP = "unknown_stamp"
    DUPLICATE = "duplicate"
    STALE = "stale"
    NOT_ACTIVE = "not_active"
    LATCHED = "latched"
    WRONG_NAMES = "wrong_names"
    SILENT = "silent"
    MONITOR_LOST = "monitor_lost"
    POSITION_LIMIT = "position_limit"
    VELOCITY_LIMIT = "velocity_limit"
    MEASUREMENT_NOT_FINITE = "measurement_not_finite"
    TRACKING_ERROR = "tracking_error"


@dataclass(frozen=True)
class Verdict:
    """The guard's answer.

    Attributes:
        command: What the motors are to get now, in `spec.actuated` order; unchanged when a command was refused.
        write: Whether to write it: the command was admitted, or this is a stop.
    """

    command: tuple[float, ...]
    reason: Reason
    write: bool


class Guard:
    """The guard of one robot. Times are seconds of one monotonic clock; a stamp [ns] names a measurement.

    Attributes:
        fault: The latched fault; every command is refused until the supervisor's next epoch.
        counters: Verdicts on commands and faults, by reason.
        epoch: Newest epoch heard of.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        self.fault: Reason | None = None
        self.counters: Counter[str] = Counter()
        self.epoch = 0
        self._fault_epoch = 0
        self._state = State.UNCONFIGURED
        self._heartbeat = -math.inf
        self._joints = [spec.joint(name) for name in spec.actuated]
        self._at = [spec.joint_names.index(name) for name in spec.actuated]
        self._measured: dict[int, tuple[int, float]] = {}  # stamp -> (number, time)
        self._number = 0
        self._answered = 0  # number of the newest measurement that an admissible command answered
        self._unanswered = 0  # measurements since the last admissible command
        self._refusal: Reason | None = None  # newest refusal since the last admissible command
        self._position: Sequence[float] = [joint.default_joint_pos for joint in spec.joints]
        self._velocity: Sequence[float] = [0.0] * len(spec.joints)
        self._written: tuple[float, ...] | None = None
        self._written_at = -math.inf
        self._hold: tuple[float, ...] | None = None

    @property
    def written(self) -> tuple[float, ...]:
        """The command in effect; before the first write: zero, or for position commands where the joints are."""
        if self._written is not None:
            return self._written
        return self._measured_actuated() if self.spec.action.kind == "position" else (0.0,) * len(self._joints)

    def supervise(self, state: State, epoch: int, now: float) -> None:
        """Hear the supervisor's heartbeat. A higher epoch than that of the fault is a reset and unlatches."""
        self._heartbeat = now
        if self.fault is not None and epoch > self._fault_epoch:
            self.fault = None
        self.epoch = max(self.epoch, epoch)
        if state is State.ACTIVE and self._state is not State.ACTIVE:
            self._unanswered, self._refusal, self._hold = 0, None, None
        self._state = state

    def measure(self, stamp: int, now: float, position: Sequence[float], velocity: Sequence[float]) -> None:
        """Take a measurement of all joints in `spec.joint_names` order, which commands answer by its stamp."""
        if not all(math.isfinite(value) for value in (*position, *velocity)):
            self._latch_if_moving(Reason.MEASUREMENT_NOT_FINITE)
            return  # nothing may answer it; the last sane measurement stays the anchor of the stop
        self._number += 1
        self._measured.pop(stamp, None)
        self._measured[stamp] = (self._number, now)
        if len(self._measured) > RING:
            del self._measured[next(iter(self._measured))]
        self._position, self._velocity = tuple(position), tuple(velocity)
        self._unanswered += 1
        self._check_measurement()

    def measured_at(self, stamp: int) -> float | None:
        """When the measurement `stamp` was taken; None if it is unknown or long past."""
        found = self._measured.get(stamp)
        return None if found is None else found[1]

    def admit(self, stamp: int, names: Sequence[str], values: Sequence[float], now: float) -> Verdict:
        """Judge one command that answers the measurement `stamp`; `values` are in the unit of `spec.action.kind`."""
        reason = self._refuse(stamp, names, values, now)
        if reason is None:
            by_name = dict(zip(names, values, strict=True))
            wanted = [by_name[joint.name] for joint in self._joints]
            command = self._limit(wanted, now)
            reason = Reason.OK if list(command) == wanted else Reason.LIMITED
            self._write(command, now)
        elif reason is not Reason.ARMED:
            self._refusal = reason
        if reason in (Reason.OK, Reason.LIMITED, Reason.ARMED):
            self._answered = self._measured[stamp][0]
            self._unanswered, self._refusal = 0, None
        self.counters[reason.value] += 1
        return Verdict(self.written, reason, reason in (Reason.OK, Reason.LIMITED))

    def tick(self, now: float) -> Verdict | None:
        """What to do once per control period: None while the last admitted command may stay, else a stop to write.

        After `max_silence_periods` measurements without an admissible command the reason for it is latched.
        """
        self._check_heartbeat(now)
        if self._state is State.ACTIVE and self._unanswered >= self.spec.safety.max_silence_periods:
            self._latch(self._refusal or Reason.SILENT)
        if self._state is State.ACTIVE and self.fault is None:
            return None
        command = self._limit(self._stop(), now)
        self._write(command, now)
        return Verdict(command, self.fault or Reason.NOT_ACTIVE, True)

    def _refuse(self, stamp: int, names: Sequence[str], values: Sequence[float], now: float) -> Reason | None:
        if not all(math.isfinite(value) for value in values):
            return Reason.NOT_FINITE
        number, measured_at = self._measured.get(stamp, (0, -math.inf))
        if number == 0:
            return Reason.UNKNOWN_STAMP
        if number == self._answered:
            return Reason.DUPLICATE
        if number < self._answered or now - measured_at > self.spec.safety.max_command_age_ms / 1000:
            return Reason.STALE
        self._check_heartbeat(now)
        if self.fault is not None:
            return Reason.LATCHED
        if self._state not in (State.ARMED, State.ACTIVE):
            return Reason.NOT_ACTIVE
        if len(names) != len(values) or sorted(names) != sorted(self.spec.actuated):
            return Reason.WRONG_NAMES
        return Reason.ARMED if self._state is State.ARMED else None

    def _check_heartbeat(self, now: float) -> None:
        if now - self._heartbeat > self.spec.safety.heartbeat_timeout_ms / 1000:
            self._latch_if_moving(Reason.MONITOR_LOST)

    def _check_measurement(self) -> None:
        for joint, position, velocity in zip(self.spec.joints, self._position, self._velocity, strict=True):
            if abs(velocity) > joint.velocity_limit:
                self._latch_if_moving(Reason.VELOCITY_LIMIT)
            lower, upper = joint.position_limit or (-math.inf, math.inf)
            if self.spec.action.kind != "position" and not lower <= position <= upper:
                self._latch_if_moving(Reason.POSITION_LIMIT)
        limit = self.spec.safety.max_tracking_error
        if self.spec.action.kind == "position" and limit is not None:
            pairs = zip(self.written, self._measured_actuated(), strict=True)
            if any(abs(target - position) > limit for target, position in pairs):
                self._latch_if_moving(Reason.TRACKING_ERROR)

    def _latch_if_moving(self, fault: Reason) -> None:
        if self._state in (State.ARMED, State.ACTIVE):
            self._latch(fault)

    def _latch(self, fault: Reason) -> None:
        if self.fault is None:
            self.fault, self._fault_epoch = fault, self.epoch
            self.counters[f"fault.{fault.value}"] += 1

    def _measured_actuated(self) -> tuple[float, ...]:
        return tuple(self._position[i] for i in self._at)

    def _stop(self) -> tuple[float, ...]:
        """The recovery controller: damp (effort), come to rest (velocity), or hold (position).

        Held is where the joints are after a fault, and the last target after a mere disarm: neither may jump.
        """
        if self.spec.action.kind == "effort":
            return tuple(-j.damping * self._velocity[i] for j, i in zip(self._joints, self._at, strict=True))
        if self.spec.action.kind == "velocity":
            return (0.0,) * len(self._joints)
        if self._hold is None:
            self._hold = self.written if self.fault is None else self._measured_actuated()
        return self._hold

    def _write(self, command: tuple[float, ...], now: float) -> None:
        self._written, self._written_at = command, now

    def _limit(self, wanted: Sequence[float], now: float) -> tuple[float, ...]:
        """`wanted` inside every limit. The joint's own bounds come last: nothing can undo them."""
        elapsed = min(max(now - self._written_at, 0.0), self.spec.control_dt)
        command = []
        for joint, i, value, last in zip(self._joints, self._at, wanted, self.written, strict=True):
            low, high = _bounds(joint, self.spec.action.kind)
            step = _rate(joint, self.spec.action.kind) * elapsed
            value = _clamp(value, *self._braking(joint, self._position[i], self._velocity[i], low, high))
            command.append(_clamp(_clamp(value, last - step, last + step), low, high))
        return tuple(command)

    def _braking(self, joint: Joint, position: float, velocity: float, low: float, high: float) -> tuple[float, float]:
        """Bounds narrowed near a position limit, continuously, so that they do not chatter.

        With t the time to the limit at the present speed, the bound towards it goes from the full one at t = BRAKE_TIME
        to full reversal at t = 0 (effort), or to standstill (velocity). It eases the approach; it cannot promise to
        stop any inertia in time, which is why a position beyond the limit is a fault besides.
        """
        if joint.position_limit is None or self.spec.action.kind == "position":
            return low, high
        lower, upper = joint.position_limit
        reversal = -1.0 if self.spec.action.kind == "effort" else 0.0

        def share(margin: float, speed: float) -> float:
            if margin <= 0:
                return reversal
            left = margin / speed / BRAKE_TIME if speed > 0 else math.inf
            return min(1.0, reversal + (1.0 - reversal) * left)

        return low * share(position - lower, -velocity), high * share(upper - position, velocity)


def _bounds(joint: Joint, kind: str) -> tuple[float, float]:
    if kind == "position":
        return joint.position_limit or (-math.inf, math.inf)
    limit = joint.effort_limit if kind == "effort" else joint.velocity_limit
    return -limit, limit


def _rate(joint: Joint, kind: str) -> float:
    assert joint.rate_limit is not None  # RobotSpec: actuated joints have one
    return min(joint.rate_limit, joint.velocity_limit) if kind == "position" else joint.rate_limit


def _clamp(value: float, low: float, high: float) -> float:
    """`value` within [low, high]; all three finite or infinite, never NaN (`admit` and `measure` see to it)."""
    return low if value < low else min(value, high)
