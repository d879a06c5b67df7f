"""A serial line with a fault switchboard: what electricity, cables and USB do to frames."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from landbridge.deploy.hardware import protocol
from landbridge.deploy.hardware.protocol import DELIMITER

NOISE_BYTES = 200


def _flip(frame: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(frame) - 1))
    return frame[:at] + bytes([frame[at] ^ int(rng.integers(1, 256))]) + frame[at + 1 :]


def _drop(frame: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(frame) - 1))
    return frame[:at] + frame[at + 1 :]


def _insert(frame: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(frame)))
    return frame[:at] + rng.bytes(1) + frame[at:]


def _wrong_length(frame: bytes, rng: np.random.Generator) -> bytes:
    found = protocol.decode(frame.strip(DELIMITER))
    size = int(rng.integers(1, 9))
    payload = (
        found.payload[:-size] if rng.integers(2) and len(found.payload) >= size else found.payload + rng.bytes(size)
    )
    return protocol.encode(found.kind, found.sequence, found.session, found.time_us, payload, found.version)


def off_by_one(payload: bytes, rng: np.random.Generator) -> bytes:
    """A payload of another length, for a frame whose checksum is right: one byte shorter, or longer."""
    return payload[:-1] if rng.integers(2) and payload else payload + rng.bytes(1)


FAULTS: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "flip": _flip,  # one byte changed
    "drop": _drop,  # one byte missing
    "joined": lambda frame, rng: frame[:-1],  # its delimiter missing
    "insert": _insert,  # one byte too many
    "duplicate": lambda frame, rng: frame + frame,
    "noise": lambda frame, rng: rng.bytes(NOISE_BYTES) + frame,
    "half": lambda frame, rng: frame[: len(frame) // 2],
    "length": _wrong_length,  # CRC right, length wrong
    "lost": lambda frame, rng: b"",  # the whole frame
    "garbled": lambda frame, rng: rng.bytes(len(frame)),  # as at another baud rate
}


class Framing(NamedTuple):
    """What a wire must know of the protocol on it.

    Attributes:
        split: Cuts bytes into frames and a rest that is none yet; their sum is what came in.
        wrong_length: The fault "length" of FAULTS.
    """

    split: Callable[[bytes], tuple[list[bytes], bytes]]
    wrong_length: Callable[[bytes, np.random.Generator], bytes]


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    *frames, rest = data.split(DELIMITER)
    return [frame + DELIMITER for frame in frames], rest


DELIMITED = Framing(_split, _wrong_length)  # the microcontroller's link


class Wire:
    """One direction of the line. Times are seconds of one monotonic clock.

    Attributes:
        latency: From a byte's entry to its exit [s].
    """

    def __init__(self, rng: np.random.Generator, framing: Framing = DELIMITED) -> None:
        self.latency = 0.0
        self._rng, self._framing = rng, framing
        self._rest = b""
        self._fault, self._left = "", 0
        self._passing: deque[tuple[float, bytes]] = deque()

    def inject(self, fault: str, frames: int) -> None:
        """Do `fault` (a key of FAULTS) to the next `frames` frames."""
        self._fault, self._left = fault, frames

    def clear(self) -> None:
        """Be a good wire again."""
        self._left, self.latency = 0, 0.0

    def push(self, data: bytes, now: float) -> None:
        """Bytes enter; they go on frame by frame."""
        frames, self._rest = self._framing.split(self._rest + data)
        for frame in frames:
            self.send(frame, now)

    def send(self, frame: bytes, now: float) -> None:
        """One frame enters, or as much of it as its sender had to say."""
        if frame != DELIMITER and self._left > 0:
            self._left -= 1
            damage = self._framing.wrong_length if self._fault == "length" else FAULTS[self._fault]
            frame = damage(frame, self._rng)
        self._passing.append((now + self.latency, frame))

    @property
    def due(self) -> float:
        """When the next bytes come through; infinite if none are on their way."""
        return self._passing[0][0] if self._passing else math.inf

    def pop(self, now: float) -> bytes:
        """What has come through by now."""
        out = b""
        while self._passing and self._passing[0][0] <= now:
            out += self._passing.popleft()[1]
        return out
