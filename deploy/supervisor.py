"""The supervisor: which states the robot may be in, and what leads from one to the next.

A pure state machine over monotonic time; the monitor node feeds it events and publishes its state. FAULT and ESTOP are
latched: they are left by a healthy reset only, and motion then needs a separate arm. In every state but ACTIVE the
bridge stops the robot itself (in the words of IEC 60204-1 a stop of category 2: standstill with power kept).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from landbridge.robot import RobotSpec

ARM_TIMEOUT = 5.0  # s from arm to the first admissible commands; an activation takes well under one
ADMISSIBLE_TO_ACTIVATE = 3  # consecutive admissible commands that show the controller to be alive


class State(str, Enum):
    """States of the robot as a whole."""

    UNCONFIGURED = "UNCONFIGURED"
    STANDBY = "STANDBY"
    ARMED = "ARMED"
    ACTIVE = "ACTIVE"
    FAULT = "FAULT"
    ESTOP = "ESTOP"


class Event(str, Enum):
    """What can happen to it."""

    CONFIGURED = "configured"
    ARM = "arm"
    DISARM = "disarm"
    ESTOP = "estop"
    RESET = "reset"
    ADMISSIBLE = "admissible"
    BRIDGE_FAULT = "bridge_fault"
    BRIDGE_LOST = "bridge_lost"
    CONTROLLER_LOST = "controller_lost"
    ARM_TIMEOUT = "arm_timeout"


FAULTS = (Event.BRIDGE_FAULT, Event.BRIDGE_LOST, Event.CONTROLLER_LOST, Event.ARM_TIMEOUT)

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.UNCONFIGURED, Event.CONFIGURED): State.STANDBY,
    (State.STANDBY, Event.ARM): State.ARMED,
    (State.ARMED, Event.ADMISSIBLE): State.ACTIVE,
    (State.ARMED, Event.DISARM): State.STANDBY,
    (State.ACTIVE, Event.DISARM): State.STANDBY,
    (State.FAULT, Event.RESET): State.UNCONFIGURED,
    (State.ESTOP, Event.RESET): State.UNCONFIGURED,
    (State.UNCONFIGURED, Event.BRIDGE_FAULT): State.FAULT,
    (State.STANDBY, Event.BRIDGE_FAULT): State.FAULT,
    (State.STANDBY, Event.BRIDGE_LOST): State.UNCONFIGURED,  # nothing moves: wait for it, as after the start
    **{(state, fault): State.FAULT for state in (State.ARMED, State.ACTIVE) for fault in FAULTS},
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
        reason: What led to the present state.
        epoch: Number of resets; the guard unlatches when it rises.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self.state = State.UNCONFIGURED
        self.reason = "starting"
        self.epoch = 0
        self._silence = spec.safety.heartbeat_timeout_ms / 1000
        self._unasked = spec.safety.max_silence_periods * spec.control_dt
        self._armed_at = -math.inf
        self._bridge_at = self._ticked_at = -math.inf
        self._admissible = 0

    def handle(self, event: Event, now: float, reason: str = "") -> Answer:
        """Take one event; one that the present state does not know is refused and changes nothing."""
        following = TRANSITIONS.get((self.state, event))
        if following is None:
            return Answer(False, f"{event.value} refused in {self.state.value} ({self.reason})")
        if event in (Event.CONFIGURED, Event.RESET) and not self._bridge_alive(now):
            return Answer(False, f"{event.value} refused: nothing heard from the bridge")
        if event is Event.RESET:
            self.epoch += 1
        if following is State.ARMED:
            self._armed_at, self._admissible = now, 0
        self.state, self.reason = following, reason or event.value
        return Answer(True, self.state.value)

    def adopt_epoch(self, epoch: int) -> None:
        """Never count below the bridge's epoch: a restarted monitor is no reset, and its next reset must count."""
        self.epoch = max(self.epoch, epoch)

    def bridge_seen(self, now: float) -> None:
        """The bridge has published a measurement."""
        self._bridge_at = now

    def controller_lost(self, now: float) -> None:
        """The controller has fallen silent; without a measurement to answer, the bridge is the one that is lost."""
        asked = now - self._bridge_at <= self._unasked
        self.handle(Event.CONTROLLER_LOST if asked else Event.BRIDGE_LOST, now)

    def command_judged(self, admissible: bool, now: float) -> None:
        """The guard has judged a command; a few admissible ones in a row turn ARMED into ACTIVE."""
        self._admissible = self._admissible + 1 if admissible else 0
        if self.state is State.ARMED and self._admissible >= ADMISSIBLE_TO_ACTIVATE:
            self.handle(Event.ADMISSIBLE, now)

    def tick(self, now: float) -> None:
        """Turn silence into events. After a sleep of its own it gives its unread messages one tick to come in."""
        slept = now - self._ticked_at > self._silence / 2
        self._ticked_at = now
        if not slept and not self._bridge_alive(now):
            self.handle(Event.BRIDGE_LOST, now)
        if self.state is State.ARMED and now - self._armed_at > ARM_TIMEOUT:
            self.handle(Event.ARM_TIMEOUT, now)

    def _bridge_alive(self, now: float) -> bool:
        return now - self._bridge_at <= self._silence
