"""The supervisor: which states the robot may be in, and what leads from one to the next.

A pure state machine over monotonic time; the monitor node feeds it events and publishes its state. In every state but
ACTIVE the bridge's guard moves or stops the robot itself, in the words of IEC 60204-1:

    HOLD, DAMP   controlled stop after a fault, then FAULT: power stays on (category 2). DAMP where efforts are
                 commanded, since they hold no position; HOLD elsewhere.
    PARK         the end of work: controlled stop, slowly to the parking pose, torque off (category 1), then STANDBY.
                 Also on a warning of the hardware, while it still can; as long as that lasts, no arm is accepted.

FAULT and ESTOP are latched: they are left by a healthy reset only, and motion then needs a separate arm or park.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from landbridge.deploy.recovery import move_time
from landbridge.robot import RobotSpec

ARM_TIMEOUT = 20.0  # s from arm to the first admissible commands; 3 rad to the default pose at 0.5 rad/s take 11
RECOVERY_TIMEOUT = 30.0  # s that a stop, or PARK, may take; both are longer where `parking_speed` makes ways longer
WAY_MARGIN = 5.0  # s beyond the longest way of any joint
ADMISSIBLE_TO_ACTIVATE = 3  # consecutive admissible commands that show the controller to be alive


class State(str, Enum):
    """States of the robot as a whole."""

    UNCONFIGURED = "UNCONFIGURED"
    STANDBY = "STANDBY"
    ARMED = "ARMED"
    ACTIVE = "ACTIVE"
    HOLD = "HOLD"
    DAMP = "DAMP"
    PARK = "PARK"
    FAULT = "FAULT"
    ESTOP = "ESTOP"


class Event(str, Enum):
    """What can happen to it."""

    CONFIGURED = "configured"
    ARM = "arm"
    DISARM = "disarm"
    PARK = "park"
    ESTOP = "estop"
    RESET = "reset"
    ADMISSIBLE = "admissible"
    SETTLED = "settled"
    BRIDGE_FAULT = "bridge_fault"
    BRIDGE_WARNING = "bridge_warning"
    BRIDGE_LOST = "bridge_lost"
    CONTROLLER_LOST = "controller_lost"
    FOREIGN_PUBLISHER = "foreign_publisher"
    ARM_TIMEOUT = "arm_timeout"
    NOT_SETTLED = "not_settled"


RECOVERIES = (State.HOLD, State.DAMP, State.PARK)
STOPS = (State.HOLD, State.DAMP, State.FAULT, State.ESTOP)  # by a fault or an e-stop: a reset leads out of them
COMMANDED = (State.ARMED, State.ACTIVE)  # the controller is followed, or about to be
STOPPING = (Event.BRIDGE_FAULT, Event.CONTROLLER_LOST, Event.FOREIGN_PUBLISHER)


def transitions(stop: State) -> dict[tuple[State, Event], State]:
    """What every event leads to; a pair that is missing is refused. `stop` is HOLD or DAMP."""
    return {
        (State.UNCONFIGURED, Event.CONFIGURED): State.STANDBY,
        (State.UNCONFIGURED, Event.PARK): State.PARK,  # after a reset it may be held, and its controller gone
        (State.UNCONFIGURED, Event.BRIDGE_FAULT): State.FAULT,
        (State.STANDBY, Event.ARM): State.ARMED,
        (State.STANDBY, Event.PARK): State.PARK,
        (State.STANDBY, Event.BRIDGE_FAULT): State.FAULT,
        (State.STANDBY, Event.BRIDGE_LOST): State.UNCONFIGURED,  # nothing moves: wait for it, as after the start
        (State.ARMED, Event.ADMISSIBLE): State.ACTIVE,
        (State.ARMED, Event.ARM_TIMEOUT): stop,
        **{(state, event): State.PARK for state in COMMANDED for event in (Event.DISARM, Event.BRIDGE_WARNING)},
        **{(state, event): stop for state in COMMANDED for event in STOPPING},
        (State.PARK, Event.SETTLED): State.STANDBY,
        (State.PARK, Event.BRIDGE_FAULT): stop,
        (State.PARK, Event.NOT_SETTLED): State.FAULT,
        (stop, Event.SETTLED): State.FAULT,
        (stop, Event.NOT_SETTLED): State.FAULT,
        **{(state, Event.BRIDGE_LOST): State.FAULT for state in (*COMMANDED, stop, State.PARK)},
        **{(state, Event.RESET): State.UNCONFIGURED for state in (State.FAULT, State.ESTOP)},
        **{(state, Event.ESTOP): State.ESTOP for state in State},
    }


@dataclass(frozen=True)
class Answer:
    """Whether an event was accepted, and why not."""

    accepted: bool
    message: str


class Supervisor:
    """The state of one robot. Times are seconds of one monotonic clock.

    Attributes:
        reason: What led to the present state; after a stop, what made the robot stop.
        epoch: Number of resets; the guard unlatches when it rises.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self.state = State.UNCONFIGURED
        self.reason = "starting"
        self.epoch = 0
        self._transitions = transitions(State.DAMP if spec.action.kind == "effort" else State.HOLD)
        self._silence = spec.safety.heartbeat_timeout_ms / 1000
        self._unasked = spec.safety.max_silence_periods * spec.control_dt
        self._arm_timeout, self._recovery_timeout = timeouts(spec)
        self._entered_at = self._stopped_at = -math.inf
        self._bridge_at = self._ticked_at = -math.inf
        self._excused = False  # whether the newest tick took its own sleep for the reason of a silence
        self._admissible = 0
        self._rests = False  # in the present state, by the bridge's newest report
        self._warning = ""  # of the hardware, by the same

    def handle(self, event: Event, now: float, reason: str = "") -> Answer:
        """Take one event; one that the present state does not know is refused and changes nothing."""
        following = self._transitions.get((self.state, event))
        if following is None:
            return Answer(False, f"{event.value} refused in {self.state.value} ({self.reason})")
        if event is Event.ARM and self._warning:
            return Answer(False, f"arm refused while there is {self._warning}")
        if event in (Event.CONFIGURED, Event.RESET) and not self._bridge_alive(now):
            return Answer(False, f"{event.value} refused: nothing heard from the bridge")
        if event is Event.RESET:
            if not self._rests and now - self._stopped_at <= self._recovery_timeout:
                return Answer(False, "reset refused: the robot has not come to rest")
            self.epoch += 1
        if following is not self.state:
            if self.state not in STOPS or event is Event.ESTOP:
                self._stopped_at = now
            self._entered_at, self._admissible, self._rests = now, 0, event is Event.SETTLED
        if event is not Event.SETTLED:
            self.reason = reason or event.value
        self.state = following
        return Answer(True, self.state.value)

    def adopt_epoch(self, epoch: int) -> None:
        """Never count below the bridge's epoch: a restarted monitor is no reset, and its next reset must count."""
        self.epoch = max(self.epoch, epoch)

    def bridge_seen(self, now: float) -> None:
        """The bridge has published a measurement."""
        self._bridge_at = now

    def warned(self, warning: str, now: float) -> None:
        """What the hardware will not bear for long, "" once it has gone: the robot is parked while it can be."""
        self._warning = warning
        if warning:
            self.handle(Event.BRIDGE_WARNING, now, warning)

    def controller_lost(self, now: float) -> None:
        """The controller has fallen silent; without a measurement to answer, the bridge is the one that is lost."""
        asked = now - self._bridge_at <= self._unasked
        self.handle(Event.CONTROLLER_LOST if asked else Event.BRIDGE_LOST, now)

    def command_judged(self, admissible: bool, now: float) -> None:
        """The guard has judged a command; a few admissible ones in a row turn ARMED into ACTIVE."""
        self._admissible = self._admissible + 1 if admissible else 0
        if self.state is State.ARMED and self._admissible >= ADMISSIBLE_TO_ACTIVATE:
            self.handle(Event.ADMISSIBLE, now)

    def settled(self, state: str, now: float) -> None:
        """The robot rests in what the guard calls `state`, "" if it does not; news of an older one changes nothing.

        That ends a recovery; FAULT and ESTOP are only left after it.
        """
        self._rests = state == self.state.value
        if self._rests:
            self.handle(Event.SETTLED, now)

    def tick(self, now: float) -> None:
        """Turn silence into events. After a sleep of its own it gives its unread messages one tick to come in, once."""
        excused = not self._excused and now - self._ticked_at > self._silence / 2
        self._ticked_at, self._excused = now, excused
        if not excused and not self._bridge_alive(now):
            self.handle(Event.BRIDGE_LOST, now)
        if self.state is State.ARMED and now - self._entered_at > self._arm_timeout:
            self.handle(Event.ARM_TIMEOUT, now)
        if self.state in RECOVERIES and now - self._entered_at > self._recovery_timeout:
            self.handle(Event.NOT_SETTLED, now, "" if self.state is State.PARK else self.reason)

    def _bridge_alive(self, now: float) -> bool:
        return now - self._bridge_at <= self._silence


def timeouts(spec: RobotSpec) -> tuple[float, float]:
    """What a robot is given to be armed, and to come to rest or park [s]: the longest way to a pose must fit in.

    That is from one position limit of a joint to the other, or, where it has none, as far as a command can reach.
    """
    if spec.action.kind != "position":
        return ARM_TIMEOUT, RECOVERY_TIMEOUT
    driven = [joint for joint in spec.joints if joint.actuated]
    ranges = [(joint, joint.position_limit or (0.0, 2 * spec.action.scale[joint.name])) for joint in driven]
    ways = [move_time(joint, high - low, spec.safety.parking_speed) + WAY_MARGIN for joint, (low, high) in ranges]
    return max([ARM_TIMEOUT, *ways]), max([RECOVERY_TIMEOUT, *ways])
