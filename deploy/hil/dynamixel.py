"""The servos' side of Dynamixel's protocol 2.0: framing, and answers to each instruction.

After ROBOTIS' e-Manual, "DYNAMIXEL Protocol 2.0"; written without the SDK, against which it is tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from landbridge.deploy.hil.servo import MEMORY, Servo
from landbridge.deploy.hil.wire import Framing, off_by_one

HEADER = b"\xff\xff\xfd\x00"
BROADCAST = 0xFE
PING, READ, WRITE, REBOOT, STATUS = 0x01, 0x02, 0x03, 0x08, 0x55
SYNC_READ, SYNC_WRITE, FAST_SYNC_READ = 0x82, 0x83, 0x8A
INSTRUCTION_ERROR = 2
LENGTH_MAX = 1024  # of what follows the length field; longer is noise
FIRMWARE = 46


class Packet(NamedTuple):
    """An instruction or status packet, unstuffed."""

    id: int
    instruction: int
    parameters: bytes


def crc16(data: bytes) -> int:
    """CRC-16 of polynomial 0x8005, not reflected, from 0 (e-Manual, CRC Calculation)."""
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ _CRC[crc >> 8 ^ byte]
    return crc


def _crc_of(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = (crc << 1) ^ (0x8005 if crc & 0x8000 else 0)
    return crc & 0xFFFF


_CRC = [_crc_of(byte) for byte in range(256)]


def encode(id: int, instruction: int, parameters: bytes) -> bytes:
    """One packet as it goes over the wire."""
    stuffed = (bytes([instruction]) + parameters).replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")
    body = HEADER + bytes([id]) + (len(stuffed) + 2).to_bytes(2, "little") + stuffed
    return body + crc16(body).to_bytes(2, "little")


def decode(frame: bytes) -> Packet | None:
    """The packet in a frame of `split`; None if it is damaged."""
    if len(frame) < 10 or frame[:4] != HEADER or int.from_bytes(frame[5:7], "little") != len(frame) - 7:
        return None
    if crc16(frame[:-2]) != int.from_bytes(frame[-2:], "little"):
        return None
    inside = frame[7:-2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")
    return Packet(frame[4], inside[0], inside[1:])


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Frames, noise between them as frames of its own, and a rest that is none yet."""
    frames = []
    while data:
        at = data.find(HEADER)
        if at != 0:
            junk = data[:at] if at > 0 else data[: len(data) - _tail(data)]
            if not junk:
                break
            frames.append(junk)
            data = data[len(junk) :]
            continue
        size = 7 + int.from_bytes(data[5:7], "little") if len(data) >= 7 else 0
        if size > 7 + LENGTH_MAX:
            frames.append(data[:4])
            data = data[4:]
        elif len(data) < max(size, 7):
            break
        else:
            frames.append(data[:size])
            data = data[size:]
    return frames, data


def _tail(data: bytes) -> int:
    """How many of the last bytes may be the beginning of a header."""
    return next((n for n in range(len(HEADER) - 1, 0, -1) if data.endswith(HEADER[:n])), 0)


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
    for servo in servos:
        servo.heard(now)
    addressed = {servo.id: servo for servo in servos}
    parameters = packet.parameters
    if packet.instruction == SYNC_WRITE and len(parameters) >= 4:
        address, size = _pair(parameters)
        for at in range(4, len(parameters) - size, size + 1):
            if (target := addressed.get(parameters[at])) is not None:
                target.write(address, parameters[at + 1 : at + 1 + size], now)
        return []
    if packet.instruction in (SYNC_READ, FAST_SYNC_READ) and len(parameters) >= 4:
        asked = [addressed.get(id) for id in parameters[4:]]
        present = asked[: asked.index(None)] if None in asked else asked  # each waits for the one before it
        whole = packet.instruction == SYNC_READ
        chosen = [servo for servo in present if servo is not None]
        if _pair(parameters)[1] > MEMORY:
            return []
        return _statuses(chosen, *_pair(parameters)) if whole else _fast(chosen, *_pair(parameters), len(asked))
    if packet.id == BROADCAST:
        return [_ping(servo) for servo in servos] if packet.instruction == PING else []
    return [_single(addressed[packet.id], packet, now)] if packet.id in addressed else []


def _single(servo: Servo, packet: Packet, now: float) -> bytes:
    parameters = packet.parameters
    if packet.instruction == PING:
        return _ping(servo)
    if packet.instruction == READ and len(parameters) == 4 and _pair(parameters)[1] <= MEMORY:
        return _statuses([servo], *_pair(parameters))[0]
    says, error = servo.says, INSTRUCTION_ERROR  # an id that is written answers for the last time
    if packet.instruction == WRITE and len(parameters) > 2:
        error = servo.write(int.from_bytes(parameters[:2], "little"), parameters[2:], now)
    elif packet.instruction == REBOOT:
        error = 0
        servo.reboot(now)
    return encode(says, STATUS, bytes([servo.alert | error]))


def _ping(servo: Servo) -> bytes:
    model = servo.get("model_number").to_bytes(2, "little")
    return encode(servo.says, STATUS, bytes([servo.alert, *model, FIRMWARE]))


def _statuses(servos: Sequence[Servo], address: int, size: int) -> list[bytes]:
    return [encode(servo.says, STATUS, bytes([servo.alert]) + servo.read(address, size)) for servo in servos]


def _fast(servos: Sequence[Servo], address: int, size: int, asked: int) -> list[bytes]:
    """One packet of all, its length that of all who were asked; each block ends with the CRC so far."""
    length = 1 + asked * (size + 4)  # instruction; error, id, data, CRC
    data = HEADER + bytes([BROADCAST]) + length.to_bytes(2, "little") + bytes([STATUS])
    for servo in servos:
        data += bytes([servo.alert, servo.says]) + servo.read(address, size)
        data += crc16(data).to_bytes(2, "little")
    return [data] if servos else []


def _pair(parameters: bytes) -> tuple[int, int]:
    return int.from_bytes(parameters[:2], "little"), int.from_bytes(parameters[2:4], "little")
