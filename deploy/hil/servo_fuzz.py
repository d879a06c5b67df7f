"""Fuzzing the driver's side of a servo bus: emulated answers, damaged or hostile, through the vendor's own parser."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from landbridge.deploy.hardware.dynamixel import DYNAMIXEL, DynamixelBus
from landbridge.deploy.hardware.feetech import FEETECH, FeetechBus
from landbridge.deploy.hardware.servo_bus import Block, Bus, NoAnswerError, RefusedError
from landbridge.deploy.hil import dynamixel, feetech
from landbridge.deploy.hil.servo import Servo
from landbridge.deploy.hil.wire import FAULTS
from landbridge.joint import Joint

IDS, BAUD = (1, 2, 3), 1_000_000
UNTOUCHED = 0.5  # share of the answers that come as they were sent
MOVES = 20  # questions after which the servos are elsewhere


class _Line:
    """What a bus asks of its port, in memory: a question is answered, and the answers arrive, at once.

    Attributes:
        damage: What happens to the answers of one question.
        deadline: Of no meaning here.
    """

    def __init__(self, answers: Callable[[bytes], list[bytes]]) -> None:
        self._answers, self._arrived = answers, b""
        self.damage: Callable[[list[bytes]], bytes] = b"".join
        self.is_using, self.deadline = False, float("inf")

    def clearPort(self) -> None:  # noqa: N802, the SDKs' name; so below
        self._arrived = b""

    settle = close = clearPort

    def writePort(self, packet: Sequence[int]) -> int:  # noqa: N802
        self._arrived += self.damage(self._answers(bytes(packet)))
        return len(packet)

    def readPort(self, length: int) -> bytes:  # noqa: N802
        data, self._arrived = self._arrived[:length], self._arrived[length:]
        return data

    def setPacketTimeout(self, length: int) -> None:  # noqa: N802
        """Never waited for."""

    setPacketTimeoutMillis = setPacketTimeout  # noqa: N815

    def isPacketTimeout(self) -> bool:  # noqa: N802
        return not self._arrived


def fuzz_servos(kind: Literal["dynamixel", "feetech"], joint: Joint, frames: int, seed: int) -> dict[str, Any]:
    """Ask three emulated servos until `frames` answers have been sent, half of them damaged or hostile.

    Hostile is a right checksum around any id, error and data. Any exception but the driver's own is a crash, and ends
    it; so does an answer that came untouched and was not taken, or taken for another.

    Returns:
        Answers sent, taken and left out; `wrong`: taken, though not what the servo had said. A sum of eight bits lets
        one damaged packet of 256 through, which is for the guard to disbelieve.
    """
    protocol, family = {"dynamixel": (dynamixel, DYNAMIXEL), "feetech": (feetech, FEETECH)}[kind]
    rng = np.random.default_rng(seed)
    servos = [Servo(family, joint, id, BAUD, next(iter(family.models))) for id in IDS]
    line = _Line(lambda packet: protocol.answer(packet, servos, 0.0))
    bus = _on(line, DynamixelBus if kind == "dynamixel" else FeetechBus)
    blocks = [family.block(names) for names in (family.measured, *family.watched)]
    damages = [name for name in FAULTS if name != "length"]
    count: Counter[str] = Counter()

    def damaged(answers: list[bytes]) -> bytes:
        count["sent"] += len(answers)
        out = []
        for frame in answers:
            fault = rng.integers(len(damages) + 2)
            if fault < len(damages):
                frame = FAULTS[damages[fault]](frame, rng)
            elif fault == len(damages):
                frame = protocol.FRAMING.wrong_length(frame, rng)
            else:
                id = (*IDS, int(rng.integers(256)))[rng.integers(len(IDS) + 1)]
                frame = protocol.encode(id, int(rng.integers(256)), rng.bytes(12))
            out.append(frame)
        return b"".join(out)

    def sound(answers: list[bytes]) -> bytes:
        count["sent"] += len(answers)
        return b"".join(answers)

    started = time.perf_counter()
    for asked in range(frames):  # each question has an answer at least
        if count["sent"] >= frames:
            break
        if asked % MOVES == 0:
            _move(servos, rng)
        untouched = rng.random() < UNTOUCHED
        line.damage = sound if untouched else damaged
        _ask(bus, blocks[asked % len(blocks)], servos, untouched, bool(family.packed and asked % 2), count)
    return {"kind": kind, **count, "seconds": round(time.perf_counter() - started, 1)}


def _ask(bus: Bus, block: Block, servos: Sequence[Servo], untouched: bool, fast: bool, count: Counter[str]) -> None:
    """One question, and what came of it."""
    try:
        found = bus.sync_read(block, IDS, fast)
    except (NoAnswerError, RefusedError):
        if untouched:
            raise
        count["left_out"] += len(IDS)
        return
    wrong = [s.id for s in servos if any(found[s.id][name] != s.get(name) for name, _, _ in block.fields)]
    if untouched and wrong:
        raise RuntimeError(f"servos {wrong} did not say {found}")
    count["taken"] += len(IDS)
    count["wrong"] += len(wrong)


def _move(servos: Sequence[Servo], rng: np.random.Generator) -> None:
    """Any values in the registers that are read, as far as they hold them."""
    for servo in servos:
        for names in (servo.family.measured, *servo.family.watched):
            for name in names:
                register = servo.family.table[name]
                bits = register.sign_bit if register.sign_bit > 0 else 8 * register.size + register.sign_bit
                lowest = 0 if register.sign_bit == 0 else 1 - (1 << bits)
                servo.force(name, int(rng.integers(lowest, 1 << bits)))


def _on(line: _Line, bus: Callable[[str, int], Bus]) -> Bus:
    """A bus on this line; the SDK is opened on a pty that nobody reads."""
    near, far = os.openpty()
    made = bus(os.ttyname(far), BAUD)
    made.port.close()
    made.port = line  # type: ignore[assignment]
    os.close(near)
    os.close(far)
    return made
