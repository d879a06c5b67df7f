"""The words of the guard: what it says of a command, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Reason(str, Enum):
    """Why a command was written, refused, or replaced by a stop."""

    OK = "ok"
    LIMITED = "limited"
    ARMED = "armed"  # admissible, but the supervisor is not ACTIVE yet
    NOT_READY = "not_ready"  # ARMED, but still on the way to the pose from which the controller takes over
    NOT_FINITE = "not_finite"
    UNKNOWN_STAMP = "unknown_stamp"
    DUPLICATE = "duplicate"
    STALE = "stale"
    NOT_ACTIVE = "not_active"
    LATCHED = "latched"
    WRONG_NAMES = "wrong_names"
    PARKED = "parked"
    SILENT = "silent"
    MONITOR_LOST = "monitor_lost"
    STOPPED = "stopped"  # by the supervisor: HOLD, DAMP, FAULT or ESTOP was heard, and no reset since
    MONITOR_REPLACED = "monitor_replaced"  # in motion UNCONFIGURED or STANDBY was heard: another supervisor speaks
    NOT_ARMED = "not_armed"  # ACTIVE was heard, but not ARMED before it
    POSITION_LIMIT = "position_limit"
    VELOCITY_LIMIT = "velocity_limit"
    MEASUREMENT_NOT_FINITE = "measurement_not_finite"
    MEASUREMENT_INCOMPLETE = "measurement_incomplete"
    POSITION_JUMP = "position_jump"
    FROZEN_ENCODER = "frozen_encoder"
    TRACKING_ERROR = "tracking_error"
    TILT = "tilt"


ADMITTED = (Reason.OK, Reason.LIMITED)  # the command was written
ADMISSIBLE = (*ADMITTED, Reason.ARMED)  # it was, or would have been were the supervisor ACTIVE


@dataclass(frozen=True)
class Verdict:
    """The guard's answer.

    Attributes:
        command: What the motors are to get now, in `spec.actuated` order; unchanged when a command was refused.
        write: Whether to write it: the command was admitted, or this is a stop.
        release: Whether to take torque off instead.
    """

    command: tuple[float, ...]
    reason: Reason
    write: bool
    release: bool = False
