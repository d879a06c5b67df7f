"""Bridge, monitor and operator of an acceptance run, in one thread: the same supervisor, guard and driver, without ROS.

Nothing reaches the hardware but what the guard has admitted or does itself; the guard is that of `reduced`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from landbridge.deploy.clock import uptime
from landbridge.deploy.guard import Guard
from landbridge.deploy.guarded import Guarded
from landbridge.deploy.hardware import Hardware, Reporting, Resettable
from landbridge.deploy.motion import REST_PERIODS
from landbridge.deploy.supervisor import COMMANDED, RECOVERIES, STOPS, Event, State, Supervisor
from landbridge.joint import Joint
from landbridge.robot import RobotSpec
from landbridge.verdict import ADMISSIBLE, Reason, Verdict

REPORT_SECONDS = 0.5  # for a report of the device to come
RESET_SECONDS = 3.0  # for link and device to be taken up again
REST_SECONDS = 5.0  # for a slow joint to come to rest
FALL_SECONDS = 20.0  # the same without torque: an arm sinks against the friction of its gears
UNNAMED = (Reason.POSITION_JUMP, Reason.VELOCITY_LIMIT, Reason.POSITION_LIMIT, Reason.TRACKING_ERROR)  # of which joint
POLL_SECONDS = 0.0002  # how finely reports of the device are seen


class Failed(Exception):  # noqa: N818  the outcome of a stage, not an error of the program
    """A stage has found something wrong; the message says what."""


class Skipped(Exception):  # noqa: N818
    """A stage cannot be done on this hardware; the message says why."""


@dataclass(frozen=True)
class Tick:
    """One control period.

    Attributes:
        time: When the measurement was taken [s, uptime].
        late: Whether it began a period or more after it was due.
        news: Whether there was a measurement that no command had answered yet.
        position: Of all joints [rad]; NaN while the hardware is faulty.
        velocity: [rad/s]
        written_at: When the guard's answer to the command was written [s, uptime]; None: nothing was.
        verdict: The guard's answer to the command, if there was one.
    """

    time: float
    late: bool
    news: bool
    position: tuple[float, ...]
    velocity: tuple[float, ...]
    written_at: float | None
    verdict: Verdict | None


def reduced(spec: RobotSpec, share: float) -> RobotSpec:
    """`spec` for a robot whose wiring is not proven: actuated joints have `share` of their effort and velocity limits.

    Commanded positions change by no more than the parking speed. Reduced speed is what ISO 10218-1 asks of a robot that
    a person stands beside; the limits here are those of the task, not of that standard.
    """

    def slower(joint: Joint) -> Joint:
        if not joint.actuated:
            return joint
        rate = spec.safety.parking_speed if spec.action.kind == "position" else joint.rate_limit
        limits = {"effort_limit": share * joint.effort_limit, "velocity_limit": share * joint.velocity_limit}
        return joint.model_copy(update=limits | {"rate_limit": rate})

    return spec.model_copy(update={"joints": tuple(slower(joint) for joint in spec.joints)})


class Loop:
    """The control loop of one robot.

    Attributes:
        spec: Reduced.
        hardware: Open; this loop is the only one that writes to it.
        ticks: Every control period since `clear`.
        trusted: Whether directions are proven; before, a stop takes torque off, since damping could drive a joint.
    """

    def __init__(self, spec: RobotSpec, hardware: Hardware) -> None:
        self.spec, self.hardware, self.trusted = spec, hardware, False
        self.ticks: list[Tick] = []
        self._guard, self._supervisor = Guard(spec), Supervisor(spec)
        self._guarded = Guarded(self._guard, hardware)
        self._stamp, self._due = 0, uptime()
        self._resting: deque[bool] = deque(maxlen=REST_PERIODS)
        self._targets: Sequence[float] = ()  # that the newest measurement was to follow

    @property
    def state(self) -> State:
        """Of the supervisor."""
        return self._supervisor.state

    @property
    def fault(self) -> str:
        """What is wrong: with the hardware, else by the guard; "" while nothing is but a stop of the supervisor's."""
        latched = self._guard.fault
        return self.hardware.fault or ("" if latched is None or latched is Reason.STOPPED else latched.value)

    @property
    def last(self) -> Tick:
        """The newest control period."""
        return self.ticks[-1]

    @property
    def due(self) -> float:
        """When the next control period begins [s, uptime]."""
        return self._due

    def clear(self) -> None:
        """Forget the control periods so far, but the newest."""
        self.ticks = self.ticks[-1:]

    def tick(self, wanted: Sequence[float] | None = None) -> Tick:
        """One control period: measure, stop if need be, and let `wanted` through the guard."""
        time.sleep(max(0.0, self._due - uptime()))
        found = self._guarded.read()
        now = found.now
        late = now > self._due + self.spec.control_dt
        self._due = max(self._due + self.spec.control_dt, now)  # what was missed is not made up for
        self._supervisor.bridge_seen(now)
        self._supervisor.tick(now)
        self._supervise(now)
        if found.news:
            self._stamp += 1
            self._guarded.judge(self._stamp, found)
        self._targets = self._guard.written
        if (stop := self._guard.tick(now)) is not None:
            self._guarded.apply(stop)
        verdict, written_at = None, None
        if found.news and wanted is not None:
            verdict, written_at = self.send(self._stamp, self.spec.actuated, wanted)
        self._judge(now)
        tick = Tick(now, late, found.news, tuple(found.position), tuple(found.velocity), written_at, verdict)
        joints = zip(found.velocity, self.spec.joints, strict=True)
        self._resting.append(all(abs(speed) <= joint.rest_speed for speed, joint in joints if joint.actuated))
        self.ticks.append(tick)
        return tick

    def send(self, stamp: int, names: Sequence[str], values: Sequence[float]) -> tuple[Verdict, float | None]:
        """A command as the bridge takes one from a policy: the guard's verdict, and when its answer was written."""
        now = uptime()
        verdict = self._guard.admit(stamp, names, values, now)
        written_at = None
        if verdict.write:
            written_at = uptime()
            self.hardware.write(verdict.command)
        self._supervisor.command_judged(verdict.reason in ADMISSIBLE, now)
        return verdict, written_at

    @property
    def stamp(self) -> int:
        """Of the newest measurement."""
        return self._stamp

    def idle(self) -> tuple[float, ...]:
        """The command that keeps the joints where they are: damping, no speed, or the position last commanded."""
        if self.spec.action.kind != "effort":
            return self._guard.written if self.spec.action.kind == "position" else (0.0,) * len(self.spec.actuated)
        speeds = dict(zip(self.spec.joint_names, self.last.velocity, strict=True)) if self.ticks else {}
        return tuple(-self.spec.joint(name).damping * speeds.get(name, 0.0) for name in self.spec.actuated)

    def inwards(self, joint: str) -> int:
        """The direction in which a joint has more room: away from the nearer limit; towards 0 if it has none."""
        lower, upper = self.spec.joint(joint).position_limit or (-1.0, 1.0)
        return 1 if self.last.position[self.spec.joint_names.index(joint)] < (lower + upper) / 2 else -1

    def wait(self, seconds: float) -> list[Tick]:
        """Control periods of `idle` for `seconds`; raises Failed at a fault."""
        count = len(self.ticks)
        for _ in range(max(1, round(seconds * self.spec.control_rate_hz))):
            self.step(self.idle())
        return self.ticks[count:]

    def step(self, wanted: Sequence[float]) -> Tick:
        """One control period of ACTIVE; raises Failed when it is left."""
        tick = self.tick(wanted)
        self._require_active()
        return tick

    def _require_active(self) -> None:
        if self.state is not State.ACTIVE:
            raise Failed(f"stopped by {self.fault or self._supervisor.reason}{self._astray()}")

    def _astray(self) -> str:
        """Where positions are commanded, the joint farthest from its target: faults of motion name none."""
        if self.spec.action.kind != "position" or self._guard.fault not in UNNAMED:
            return ""
        at = zip(self.spec.driven_at, self._targets, strict=True)
        off = [self.last.position[i] - target for i, target in at]
        way, name = max(zip(map(abs, off), self.spec.actuated, strict=True))
        return f"; farthest from its target is {name}, by {way:.2f} rad"

    def arm(self) -> None:
        """From STANDBY to ACTIVE; raises Failed at a fault.

        An arm that was let go falls on for a while: torque that holds a position waits until it rests. Where efforts
        or speeds are commanded, torque is what brings a joint to rest.
        """
        if self.spec.action.kind == "position":
            self._until_rest(self.tick, FALL_SECONDS, "without torque: support what falls, and keep still")
        self._handle(Event.ARM)
        while self.state in COMMANDED and self.state is not State.ACTIVE:
            self.tick(self.idle())
        self._require_active()
        if isinstance(self.hardware, Resettable):
            self.hardware.let_go()
        self.step(self.idle())

    def rest(self) -> float:
        """Brake until every actuated joint rests; returns the time it took [s]."""
        return self._until_rest(lambda: self.step(self.idle()), REST_SECONDS, "with torque: it swings")

    def _until_rest(self, period: Callable[[], Tick], seconds: float, how: str) -> float:
        """Control periods until every actuated joint rests; returns the time it took [s]."""
        started = uptime()
        self._resting.clear()
        while not (len(self._resting) == REST_PERIODS and all(self._resting)):
            period()
            if self.fault:
                raise Failed(f"stopped by {self.fault}")
            if uptime() - started > seconds:
                raise Failed(f"does not come to rest in {seconds:g} s {how}")
        return uptime() - started

    def stop(self) -> list[Tick]:
        """What the robot does when its controller is lost, HOLD or DAMP until it rests, which leaves it in FAULT.

        Raises:
            Failed: It does not come to rest.
        """
        count, started = len(self.ticks), uptime()
        self._handle(Event.CONTROLLER_LOST)
        while self.state in RECOVERIES:
            self.tick()
            if uptime() - started > REST_SECONDS:
                raise Failed(f"{self.state.value} does not end in {REST_SECONDS:g} s")
        return self.ticks[count:]

    def reset(self) -> None:
        """Leave FAULT for STANDBY; raises Failed if the fault stays."""
        deadline = uptime() + RESET_SECONDS
        while self.state is not State.STANDBY or self.fault:
            if uptime() > deadline:
                raise Failed(f"a reset does not clear {self.fault or self._supervisor.reason}")
            self.tick()
            if self.hardware.fault:
                self._guarded.recover()
            if self.state is State.FAULT and not self.hardware.fault:
                self._supervisor.handle(Event.RESET, uptime())  # refused until the robot rests

    def park(self) -> None:
        """To rest, to the parking pose, torque off; raises Failed unless that ends in STANDBY."""
        if self.state is State.FAULT:
            self.reset()
        self._handle(Event.DISARM if self.state in COMMANDED else Event.PARK)
        while self.state in RECOVERIES:
            self.tick()
        if self.state is not State.STANDBY or self.fault:
            raise Failed(f"not parked: {self.fault or self._supervisor.reason}")
        self.require_no_torque()

    def end(self) -> None:
        """After a failure: stop in the way that can be trusted, then take torque off; raises Failed if it stays on."""
        try:
            if self.trusted and self.state in (*COMMANDED, *RECOVERIES):
                if self.state in COMMANDED:
                    self._handle(Event.DISARM)
                while self.state in RECOVERIES:
                    self.tick()
        finally:  # also when it is interrupted once more
            self.hardware.disable()
            self._guard.torque_is_off()
            self._handle(Event.ESTOP)
        self.require_no_torque()

    def require_no_torque(self) -> None:
        """Raise Failed unless the device says that torque is off; hardware that does not report is believed."""
        hardware = self.hardware
        if isinstance(hardware, Reporting) and not self.listen(lambda: not hardware.torque, REPORT_SECONDS):
            raise Failed("the device still reports torque: cut its power")

    def listen(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Take reports without writing anything until `condition` holds; False if it does not in `seconds`."""
        deadline = uptime() + seconds
        while True:
            self.hardware.read()
            if condition():
                return True
            if (left := deadline - uptime()) <= 0:
                return False
            time.sleep(min(left, POLL_SECONDS))

    def _handle(self, event: Event) -> None:
        now = uptime()
        answer = self._supervisor.handle(event, now)
        if not answer.accepted:
            raise Failed(answer.message)
        self._supervise(now)

    def _supervise(self, now: float) -> None:
        self._guard.supervise(self.state, self._supervisor.epoch, now)

    def _judge(self, now: float) -> None:
        """Tell the supervisor of faults, warnings and the end of a recovery."""
        self._supervisor.warned(self.hardware.warning, now)
        if self.fault:
            self._supervisor.handle(Event.BRIDGE_FAULT, now, self.fault)
        elif self.state is State.UNCONFIGURED:
            self._supervisor.handle(Event.CONFIGURED, now)
        self._supervise(now)
        if self.state in (State.PARK, *STOPS) and self._guarded.has_ended(now):
            self._supervisor.settled(self.state.value, now)
            self._supervise(now)
