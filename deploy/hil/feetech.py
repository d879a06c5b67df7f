"""The servos' side of Feetech's protocol: framing, and answers to each instruction.

After Feetech's "Communication Protocol Manual" of the STS and SMS series; written without the SDK, against which it is
tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from landbridge.deploy.hil.servo import Servo
from landbridge.deploy.hil.wire import Framing, off_by_one

HEADER = b"\xff\xff"
BROADCAST = 0xFE
PING, READ, WRITE, SYNC_READ, SYNC_WRITE = 0x01, 0x02, 0x03, 0x82, 0x83
LONGEST = 0xFF - 2  # bytes of parameters that a packet's length can tell


class Packet(NamedTuple):
    """An instruction or status packet; of a status, `instruction` is the error byte."""

    id: int
    instruction: int
    parameters: bytes


def encode(id: int, instruction: int, parameters: bytes) -> bytes:
    """One packet as it goes over the wire; its last byte is the inverse of the sum of all after the header."""
    body = bytes([id, len(parameters) + 2, instruction]) + parameters
    return HEADER + body + bytes([~sum(body) & 0xFF])


def decode(frame: bytes) -> Packet | None:
    """The packet in a frame of `split`; None if it is damaged."""
    if len(frame) < 6 or frame[:2] != HEADER or frame[3] != len(frame) - 4 or ~sum(frame[2:-1]) & 0xFF != frame[-1]:
        return None
    return Packet(frame[2], frame[4], frame[5:-1])


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Frames, noise between them as frames of its own, and a rest that is none yet."""
    frames = []
    while data:
        at = data.find(HEADER)
        if at != 0:
            junk = data[:at] if at > 0 else data[: len(data) - data.endswith(b"\xff")]
            if not junk:
                break
            frames.append(junk)
            data = data[len(junk) :]
        elif len(data) >= 3 and data[2] == 0xFF:  # no id: the header begins one later
            frames.append(data[:1])
            data = data[1:]
        elif len(data) < 4 or len(data) < data[3] + 4:
            break
        else:
            frames.append(data[: max(data[3], 2) + 4])
            data = data[max(data[3], 2) + 4 :]
    return frames, data


def _wrong_length(frame: bytes, rng: np.random.Generator) -> bytes:
    packet = decode(frame)
    if packet is None:
        return frame
    return encode(packet.id, packet.instruction, off_by_one(packet.parameters, rng))


FRAMING = Framing(split, _wrong_length)


def answer(frame: bytes, servos: Sequence[Servo], now: float) -> list[bytes]:
    """What `servos` say to a frame, in the order in which they say it."""
    packet = decode(frame)
    if packet is None:
        return []
    addressed = {servo.id: servo for servo in servos}
    parameters = packet.parameters
    if packet.instruction == SYNC_WRITE and len(parameters) >= 2:
        address, size = parameters[:2]
        for at in range(2, len(parameters) - size, size + 1):
            if (servo := addressed.get(parameters[at])) is not None:
                servo.write(address, parameters[at + 1 : at + 1 + size], now)
        return []
    if packet.instruction == SYNC_READ and len(parameters) >= 2:
        asked = [addressed.get(id) for id in parameters[2:]]
        present = asked[: asked.index(None)] if None in asked else asked  # each waits for the one before it
        return [reply for servo in present if servo is not None for reply in _read(servo, *parameters[:2])]
    if packet.id == BROADCAST or packet.id not in addressed:
        return []
    servo = addressed[packet.id]
    if packet.instruction == READ and len(parameters) == 2:
        return _read(servo, *parameters)
    if packet.instruction == WRITE and len(parameters) > 1:
        says = servo.says  # an id that is written answers for the last time
        servo.write(parameters[0], parameters[1:], now)
        return [encode(says, servo.get("hardware_error"), b"")]
    return _read(servo, 0, 0) if packet.instruction == PING else []


def _read(servo: Servo, address: int, size: int) -> list[bytes]:
    """Its answer; none to a read that no packet can carry."""
    data = servo.read(address, size)
    return [encode(servo.says, servo.get("hardware_error"), data)] if size <= LONGEST else []
