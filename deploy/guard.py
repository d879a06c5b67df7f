"""The guard: what stands between any policy and the motors.

Pure and small: plain floats, explicit state, time handed in, no ROS and no numpy. It lives in the process that holds
the only hardware handle. A command passes, in this order: finite, fresh, permitted, names, limits. What is invalid is
refused, what is merely large is limited; whatever comes in, what goes out is inside the limits of the robot.

The shape is run-time assurance as in ASTM F3269: an untrusted controller, a small trusted guard, a recovery controller.
The latter is `Guard.tick`: it holds or damps wherever the controller may not be followed, and leads a robot that is
commanded in position slowly to where the controller takes over (ARMED), or where torque may go off (PARK).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from landbridge.deploy.limits import Limits
from landbridge.deploy.motion import Motion
from landbridge.deploy.recovery import Hold, Move
from landbridge.deploy.supervisor import COMMANDED, STOPS, State
from landbridge.robot import PARKED, RobotSpec
from landbridge.verdict import ADMISSIBLE, ADMITTED, Reason, Verdict

RING = 256  # measurements that a command may answer; older ones count as unknown
BEYOND = 0.05  # rad beyond a position limit at which torque may still come on: the first target is the limit itself
PAUSE_PERIODS = 3  # without a command written that end a trajectory: the robot has come to rest meanwhile
PAUSE_SECONDS = 0.06  # that it takes at least, however short a period is
SETTLE_SECONDS = 0.5  # of PARK before torque goes off where no pose is held: a loaded joint begins to sink
REST_SECONDS = 0.1  # of rest that end a stop or PARK there: a swing is slow where it turns, for some samples
GONE_SECONDS = 1.0  # after which a stop counts as ended if no measurement can show it
IDLE = (State.UNCONFIGURED, State.STANDBY)  # to which the supervisor leads no robot that moves, but by a reset
WATCHED = (*COMMANDED, State.PARK)  # the robot moves: what is wrong with a measurement is a fault


class Guard:
    """The guard of one robot. Times are seconds of one monotonic clock; a stamp [ns] names a measurement.

    The drives are powered from the first command written on (in ARMED) until PARK has ended.

    Attributes:
        fault: The latched fault; every command is refused until the supervisor's next epoch.
        counters: Verdicts on commands and faults, by reason.
        epoch: Newest epoch heard of.
        state: The supervisor's state as last heard.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        self.fault: Reason | None = None
        self.counters: Counter[str] = Counter()
        self.epoch = 0
        self.state = State.UNCONFIGURED
        self._heartbeat = self._since = -math.inf  # the newest one, and the first one of this state, or of this stop
        self._kind = spec.action.kind
        self._joints = [joint for joint in spec.joints if joint.actuated]
        self._order, self._names = spec.actuated, sorted(spec.actuated)
        self._at = [i for i, joint in enumerate(spec.joints) if joint.actuated]
        self._poses = {
            State.ARMED: [joint.default_joint_pos for joint in self._joints],
            State.PARK: [spec.parking[joint.name] for joint in self._joints],
        }
        self._limits = Limits(spec)
        self._motion = Motion(spec)
        self._measured: dict[int, tuple[int, float]] = {}  # stamp -> (number, time)
        self._number = 0
        self._answered = 0  # number of the newest measurement that an admissible command answered
        self._unanswered = 0  # measurements since the last admissible command
        self._refusal: Reason | None = None  # newest refusal since the last admissible command
        self._written: tuple[float, ...] | None = None
        self._written_at = -math.inf
        self._recovery: Hold | Move | None = None
        self._anew = True  # no measurement has said where the joints are: at the start, and after a reset

    @property
    def powered(self) -> bool:
        """Whether a command is in effect, so that the drives hold the robot."""
        return self._written is not None

    @property
    def written(self) -> tuple[float, ...]:
        """The command in effect; without one: zero, or for position commands where the joints are."""
        if self._written is not None:
            return self._written
        return self._actuated(self._motion.position) if self._kind == "position" else (0.0,) * len(self._joints)

    def supervise(self, state: State, epoch: int, now: float) -> None:
        """Hear the supervisor's heartbeat.

        A higher epoch is a reset, whatever had stopped the robot, and unlatches; ACTIVE counts only after ARMED. A stop
        is latched here too: a supervisor that is started anew does not know of it. A heartbeat that comes too late
        does not undo that one was missed: who was asleep may hear it first.
        """
        self._check_heartbeat(now)
        self._heartbeat = now
        if epoch > self.epoch:
            self.epoch, self.fault, self.state, self._anew = epoch, None, State.UNCONFIGURED, True
        if state is self.state:
            return
        left, self.state = self.state, state
        if left not in STOPS or state not in STOPS:
            self._since = now
        if self.fault is None and (left in WATCHED or state in self._poses):
            self._recovery = None  # the next one starts from where the robot is now
        if state in STOPS:
            self._latch(Reason.STOPPED)
        if state in IDLE and (left in COMMANDED or (left is State.PARK and self.powered)):
            self._latch(Reason.MONITOR_REPLACED)
        if state is State.ARMED:
            self._check_measurement()
        if state is State.ACTIVE:
            self._unanswered, self._refusal = 0, None
            if left is not State.ARMED:
                self._latch(Reason.NOT_ARMED)

    def measure(
        self, stamp: int, now: float, position: Sequence[float], velocity: Sequence[float], tilt: float = 0.0
    ) -> None:
        """Take a measurement, which commands answer by its stamp.

        Joints are in `spec.joint_names` order; `tilt` [rad] is the angle of a floating base from the vertical.
        """
        if (broken := self._motion.take(position, velocity, now, tilt)) is not None:
            self._latch_if(WATCHED, broken)
            if self.state not in WATCHED and not self.powered:
                self._motion.forget()  # a robot without torque may have been put elsewhere
            return  # nothing may answer it; the last sane measurement stays the anchor of the stop
        self._number += 1
        self._measured.pop(stamp, None)
        self._measured[stamp] = (self._number, now)
        if len(self._measured) > RING:
            del self._measured[next(iter(self._measured))]
        self._unanswered += 1
        if self._anew:
            self._start_anew()
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
            wanted = tuple([by_name[name] for name in self._order])
            reason = Reason.OK if self._write(wanted, now) == wanted else Reason.LIMITED
        elif reason is not Reason.ARMED:
            self._refusal = reason
        if reason in ADMISSIBLE:
            self._answered = self._measured[stamp][0]
            self._unanswered, self._refusal = 0, None
        self.counters[reason.value] += 1
        return Verdict(self.written, reason, reason in ADMITTED)

    def tick(self, now: float) -> Verdict | None:
        """What to do once per control period: None while nothing is to be changed, else a stop to write or a release.

        After `max_silence_periods` measurements without an admissible command the reason for it is latched. Torque
        comes on in ARMED only, with a measurement and without a fault, and goes off at the end of PARK only. That is at
        once, and again each period, where no command is in effect: drives may hold what this guard never commanded.
        """
        self._check_heartbeat(now)
        if self.state is State.ACTIVE and self._unanswered >= self.spec.safety.max_silence_periods:
            self._latch(self._refusal or Reason.SILENT)
        if self.fault is None and self.state is State.ACTIVE:
            return None
        if not self.powered and self.fault is None and self.state is State.PARK:
            return Verdict(self.written, Reason.PARKED, write=False, release=True)
        if self._anew and self._kind == "position":
            return None  # where to hold is not known before a measurement has come
        if not self.powered and (self.fault is not None or self.state is not State.ARMED or self._motion.blind(now)):
            return None
        command = self._write(self._recovery_command(now), now)
        if self.fault is None and self.state is State.PARK and self._rests(now) and self._may_let_go(now):
            self.torque_is_off()
            return Verdict(command, Reason.PARKED, write=False, release=True)
        return Verdict(command, self.fault or Reason.NOT_ACTIVE, write=True)

    def settled(self, now: float, gone: bool = False) -> bool:
        """Whether the stop has come to its end: every actuated joint at rest, and after PARK without torque.

        Of hardware that is `gone` nothing tells: it stops by itself, and is given GONE_SECONDS.
        """
        if gone:
            return now - self._since >= GONE_SECONDS
        return not self.powered or (self.state is not State.PARK and self._rests(now))

    def torque_is_off(self) -> None:
        """It has gone: the next command starts from where the joints will be then, wherever that is."""
        self._written = self._recovery = None
        self._written_at = -math.inf
        self._motion.forget()

    def _start_anew(self) -> None:
        """The robot may have moved during the fault, unseen or without torque: where it was is no place to go.

        One that sags beyond a position limit is held at the limit.
        """
        self._anew, self._recovery = False, None
        self._anchor()

    def _anchor(self) -> None:
        """Pull at no target that was not reached: where the joints are is the command in effect, within its limits."""
        if self._written is not None and self._kind == "position":
            here = self._actuated(self._motion.position)
            self._written = self._limits.apply(here, here, 0.0, self._motion.position, self._motion.velocity)

    def _refuse(self, stamp: int, names: Sequence[str], values: Sequence[float], now: float) -> Reason | None:
        if not all(map(math.isfinite, values)):
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
        if self.state not in COMMANDED:
            return Reason.NOT_ACTIVE
        if len(names) != len(values) or sorted(names) != self._names:
            return Reason.WRONG_NAMES
        if self.state is State.ARMED:
            return Reason.ARMED if self._kind != "position" or self._arrived(now) else Reason.NOT_READY
        return None

    def _check_heartbeat(self, now: float) -> None:
        if now - self._heartbeat > self.spec.safety.heartbeat_timeout_ms / 1000:
            self._latch_if(WATCHED, Reason.MONITOR_LOST)

    def _check_measurement(self) -> None:
        """The newest measurement against the limits.

        A target may lie on a position limit, and a joint under load then sags beyond it, which is no fault of a powered
        position-commanded robot; before torque comes on, it may be little.
        """
        targets = self._kind == "position"
        beyond = 0.0 if not targets else math.inf if self.powered else BEYOND
        fault = self._motion.outside(beyond)
        limit = self.spec.safety.max_tracking_error
        if fault is None and targets and limit is not None:
            positions = self._actuated(self._motion.position)
            if any(abs(target - position) > limit for target, position in zip(self.written, positions, strict=True)):
                fault = Reason.TRACKING_ERROR
        if fault is not None:
            self._latch_if(WATCHED, fault)
        elif self._motion.tilted:
            self._latch_if(COMMANDED, Reason.TILT)  # PARK takes torque off one that has fallen

    def _latch_if(self, states: tuple[State, ...], fault: Reason) -> None:
        if self.state in states:
            self._latch(fault)

    def _latch(self, fault: Reason) -> None:
        if self.fault is None:
            self.fault, self._recovery = fault, None
            self.counters[f"fault.{fault.value}"] += 1

    def _actuated(self, values: Sequence[float]) -> tuple[float, ...]:
        return tuple([values[i] for i in self._at])

    def _rests(self, now: float) -> bool:
        if self._kind == "position":
            return self._motion.rests and self._arrived(now)
        return self._motion.rests and now - self._motion.moved_at >= REST_SECONDS

    def _may_let_go(self, now: float) -> bool:
        """Whether torque may go off: the joints are at their pose, and not merely the trajectory: one may be blocked.

        Without a pose they have rested while they were damped: before, the policy's efforts may have held them.
        """
        if self._kind != "position":
            return now - self._since >= SETTLE_SECONDS
        joints, pose = self._actuated(self._motion.position), self._poses[State.PARK]
        return all(abs(joint - parked) <= PARKED for joint, parked in zip(joints, pose, strict=True))

    def _arrived(self, now: float) -> bool:
        return self._recovery is not None and now >= self._recovery.ends

    def _recovery_command(self, now: float) -> tuple[float, ...]:
        """The recovery controller: damp (effort), come to rest (velocity), or follow a trajectory (position)."""
        if self._kind != "position":
            command = self._damping(now) if self._kind == "effort" else (0.0,) * len(self._joints)
            if self.powered and self.fault is not None:
                self._written = command  # a stop acts at once, however low rate_limit is; PARK and ARMED are no stops
            return command
        if self._recovery is None or self._paused(self._recovery, now):
            self._recovery = self._plan(now)
        return self._recovery.at(now)

    def _damping(self, now: float) -> tuple[float, ...]:
        """Nothing while blind: to damp what was turning would in time drive what has come to rest."""
        paces = [0.0] * len(self._joints) if self._motion.blind(now) else self._actuated(self._motion.pace())
        return tuple(-joint.damping * pace for joint, pace in zip(self._joints, paces, strict=True))

    def _paused(self, recovery: Hold | Move, now: float) -> bool:
        """Whether the trajectory was left under way: to catch up with it would be as fast as the joints may be."""
        pause = max(PAUSE_PERIODS * self.spec.control_dt, PAUSE_SECONDS)
        return self._written_at < recovery.ends and now - self._written_at > pause

    def _plan(self, now: float) -> Hold | Move:
        """ARMED leads to the default pose, from which the controller takes over, and PARK to the parking pose.

        Both go on from the command in effect, so that nothing jumps. A stop starts from where the joints are: after a
        fault or an e-stop, a target that was not reached must not be pulled at.
        """
        pose = self._poses.get(self.state) if self.fault is None else None
        if pose is None:
            self._anchor()
        start = self.written
        hold = Hold(self._joints, start, self._actuated(self._motion.pace()), now)
        return hold if pose is None else Move(self._joints, hold, pose, self.spec.safety.parking_speed)

    def _write(self, wanted: tuple[float, ...], now: float) -> tuple[float, ...]:
        """`wanted` inside every limit; it is the command in effect from now on."""
        motion, elapsed = self._motion, now - self._written_at
        self._written = self._limits.apply(wanted, self.written, elapsed, motion.position, motion.velocity)
        self._written_at = now
        return self._written
