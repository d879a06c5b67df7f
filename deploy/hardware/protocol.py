"""The protocol of the microcontroller link: the one table that both ends are made from.

A frame is header, payload and CRC-32 (that of zlib, over header and payload), little endian, coded by COBS (Cheshire
and Baker, IEEE/ACM Trans. Networking 7(2), 1999) between two zero bytes. `deploy/firmware/protocol.h` is rendered
from this module by `landbridge hil protocol`; a test holds the two together.

The host opens a session: HELLO is answered by DEVICE and one JOINT for each joint of the board, so that joints are
matched by name; START sets the watchdog and begins the telemetry. Version, kind and session keep their places in every
version of the protocol.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum, IntFlag
from typing import Any, NamedTuple

from cobs import cobs

VERSION = 1
MAX_JOINTS = 16
NAME_SIZE = 24  # bytes of a joint's or robot's name, zero-padded
WATCHDOG_MAX_MS = 200
FRAME_MAX = 254  # bytes of header, payload and CRC: COBS then adds exactly one
CODED_MAX = FRAME_MAX + 1
DELIMITER = b"\0"


class Kind(IntEnum):
    """What a frame is; below 16 from the host, from 16 on from the board."""

    HELLO = 1  # begin a session: tell me your joints
    START = 2  # begin to measure and to obey; clears latched faults
    COMMAND = 3  # one value for each actuated joint, in the board's order; torque comes on with it
    DISABLE = 4  # torque off
    STOP = 5  # come to a stop by your own sensors, until the next START
    DEVICE = 16
    JOINT = 17
    TELEMETRY = 18


class Mode(IntEnum):
    """What the values of a command are."""

    POSITION = 0
    VELOCITY = 1
    EFFORT = 2


class State(IntEnum):
    """The board's state machine. In all but RUNNING the output is a stop, or nothing while torque is off."""

    IDLE = 0  # no session
    READY = 1  # a session and no command yet
    RUNNING = 2  # the newest command is in effect
    STOPPED = 3  # a fault is latched until the next START


class Fault(IntFlag):
    """Latched faults of the board."""

    WATCHDOG = 1  # no admissible command in time
    NOT_FINITE = 2  # a command with NaN or an infinity
    SENSOR = 4  # a measurement that failed or is not finite
    POSITION_LIMIT = 8
    VELOCITY_LIMIT = 16
    HOST = 32  # STOP was asked for


class Field(NamedTuple):
    """One field; `per` is the group it is repeated for: "" (once), "joint" or "actuated"."""

    name: str
    code: str
    per: str = ""


HEADER = (
    Field("version", "B"),
    Field("kind", "B"),
    Field("sequence", "H"),  # of the sender, rising by one
    Field("session", "I"),  # drawn by the host for each HELLO, never 0
    Field("time_us", "I"),  # the sender's clock
)
PAYLOADS: dict[Kind, tuple[Field, ...]] = {
    Kind.HELLO: (),
    Kind.START: (Field("watchdog_us", "I"), Field("telemetry_us", "I")),
    Kind.COMMAND: (Field("answers_us", "I"), Field("value", "f", "actuated")),  # time_us of the telemetry it answers
    Kind.DISABLE: (),
    Kind.STOP: (),
    Kind.DEVICE: (Field("joints", "B"), Field("mode", "B"), Field("robot", f"{NAME_SIZE}s")),
    Kind.JOINT: (
        Field("index", "B"),
        Field("actuated", "B"),
        Field("name", f"{NAME_SIZE}s"),
        Field("lower", "f"),  # position limits, infinite where there are none
        Field("upper", "f"),
        Field("velocity_limit", "f"),
        Field("effort_limit", "f"),
    ),
    Kind.TELEMETRY: (
        Field("state", "B"),
        Field("torque", "B"),
        Field("faults", "H"),
        Field("answered", "H"),  # sequence of the newest frame taken from the host
        Field("crc_errors", "H"),  # all counts wrap
        Field("framing_errors", "H"),
        Field("refused", "H"),  # frames that were whole and yet not admissible
        Field("limited", "H"),  # commands that had to be brought inside the limits
        Field("command_us", "I"),  # the host's time_us of the command in effect
        Field("position", "f", "joint"),
        Field("velocity", "f", "joint"),
    ),
}
CRC_SIZE = 4
HEADER_FORMAT = struct.Struct("<" + "".join(field.code for field in HEADER))
FRAME_MIN = HEADER_FORMAT.size + CRC_SIZE


class Frame(NamedTuple):
    """A frame whose CRC is right; nothing else about it has been checked."""

    version: int
    kind: int
    sequence: int
    session: int
    time_us: int
    payload: bytes


class FramingError(ValueError):
    """Not COBS, too long, or too short to be a frame."""


class CrcError(ValueError):
    """The frame has been damaged."""


def size_of(field: Field) -> int:
    """Bytes of one value of `field`."""
    return struct.calcsize("<" + field.code)


def payload_format(kind: Kind, joints: int = 0, actuated: int = 0) -> struct.Struct:
    """The layout of a payload for a board with so many joints."""
    repeats = {"": 1, "joint": joints, "actuated": actuated}
    return struct.Struct("<" + "".join(field.code * repeats[field.per] for field in PAYLOADS[kind]))


def encode(kind: int, sequence: int, session: int, time_us: int, payload: bytes = b"", version: int = VERSION) -> bytes:
    """One frame as it goes over the wire; sequence and time wrap.

    There is a delimiter at either end, so that a damaged frame never takes the next one along.
    """
    body = HEADER_FORMAT.pack(version, kind, sequence & 0xFFFF, session, time_us & 0xFFFFFFFF) + payload
    return DELIMITER + bytes(cobs.encode(body + struct.pack("<I", zlib.crc32(body)))) + DELIMITER


def decode(coded: bytes) -> Frame:
    """The frame in what came between two delimiters; raises FramingError or CrcError."""
    if len(coded) > CODED_MAX:
        raise FramingError(f"{len(coded)} bytes without a delimiter")
    try:
        raw = cobs.decode(coded)
    except cobs.DecodeError as error:
        raise FramingError(str(error)) from error
    if len(raw) < FRAME_MIN:
        raise FramingError(f"{len(raw)} bytes are no frame")
    body, crc = raw[:-CRC_SIZE], int.from_bytes(raw[-CRC_SIZE:], "little")
    if zlib.crc32(body) != crc:
        raise CrcError(f"CRC {crc:#010x}")
    version, kind, sequence, session, time_us = HEADER_FORMAT.unpack_from(body)
    return Frame(version, kind, sequence, session, time_us, body[HEADER_FORMAT.size :])


class Receiver:
    """Cuts a stream of bytes into frames.

    Attributes:
        crc_errors: Frames dropped because they were damaged.
        framing_errors: Stretches between delimiters that were no frame at all.
        received: Bytes so far.
    """

    def __init__(self) -> None:
        self._rest = b""
        self.crc_errors = self.framing_errors = self.received = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The whole frames that end in `data`, in order."""
        self.received += len(data)
        *coded, rest = (self._rest + data).split(DELIMITER)
        self._rest = rest[: CODED_MAX + 1]  # enough to know that it is too long
        frames = []
        for piece in coded:
            if not piece:
                continue  # delimiters in a row
            try:
                frames.append(decode(piece))
            except CrcError:
                self.crc_errors += 1
            except FramingError:
                self.framing_errors += 1
        return frames


def name_bytes(name: str) -> bytes:
    """`name` as the wire carries it; raises ValueError if it is too long to be told apart."""
    data = name.encode()
    if len(data) > NAME_SIZE:
        raise ValueError(f"name {name!r} has more than {NAME_SIZE} bytes")
    return data


def name_text(data: bytes) -> str:
    """The inverse of `name_bytes`, padded or not."""
    return data.rstrip(b"\0").decode(errors="replace")


def member_name(table: type[IntEnum] | type[IntFlag], value: int) -> str:
    """Name of `value` in lower case; one that this version does not know is told by its number, as `fault_64`."""
    known = (name.lower() for name, member in table.__members__.items() if member == value)
    return next(known, f"{table.__name__.lower()}_{value}")


def read(kind: Kind, payload: bytes, joints: int = 0, actuated: int = 0) -> dict[str, Any] | None:
    """The fields of a payload by name, repeated ones as tuples; None if its length is not that of its kind."""
    layout = payload_format(kind, joints, actuated)
    if len(payload) != layout.size:
        return None
    values, found = iter(layout.unpack(payload)), {}
    for field in PAYLOADS[kind]:
        count = {"joint": joints, "actuated": actuated}.get(field.per)
        found[field.name] = next(values) if count is None else tuple(next(values) for _ in range(count))
    return found
