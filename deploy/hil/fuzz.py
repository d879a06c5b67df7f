"""Fuzzing both parsers with the same bytes: the C side under sanitizers, and the two must count alike."""

from __future__ import annotations

import math
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from landbridge.deploy.hardware import protocol
from landbridge.deploy.hardware.protocol import Kind, Receiver, encode
from landbridge.deploy.hil.board import FIRMWARE, compile_firmware
from landbridge.deploy.hil.wire import FAULTS
from landbridge.robot import Robot

SESSION_FRAMES = 200  # from one HELLO to the next
PASS = 4096  # bytes that host.c takes per pass of 100 us
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")


def stream(rng: np.random.Generator, frames: int, joints: int, actuated: int) -> bytes:
    """Bytes for a board: sessions of good frames, one third of them damaged, hostile or noise.

    Hostile is a right CRC around any kind, length, session and floats; infinities, NaN and huge values among them.
    """
    start = protocol.payload_format(Kind.START).pack(200_000, 1_000)
    command = protocol.payload_format(Kind.COMMAND, joints, actuated)
    specials = (0.0, -0.0, 3e38, -3e38, math.nan, math.inf, -math.inf, 1e-45)
    damage, kinds, values = list(FAULTS.values()), rng.integers(12, size=frames).tolist(), rng.uniform(-1, 1, frames)
    out, size, session = [], 0, 0
    for i in range(frames):
        at = i % SESSION_FRAMES
        now = size // PASS * 100  # us
        if at == 0:
            session = int(rng.integers(1, 2**32))
        if at < 2:
            data = encode((Kind.HELLO, Kind.START)[at], at, session, now, start if at else b"")
        elif (kind := kinds[i]) == 0:
            payload = rng.bytes(int(rng.integers(0, 60)))
            other = session if rng.integers(2) else int(rng.integers(0, 2**32))
            data = encode(int(rng.integers(0, 20)), int(rng.integers(2**16)), other, now, payload)
        elif kind == 1:
            data = rng.bytes(int(rng.integers(1, 400)))
        else:
            value = specials[i // 50 % len(specials)] if i % 50 == 0 else values[i]
            data = encode(Kind.COMMAND, at, session, now, command.pack(now, *[value] * actuated))
            if kind < 4:
                data = damage[i % len(damage)](data, rng)
        out.append(data)
        size += len(data)
    return b"".join(out) + protocol.DELIMITER


def fuzz(robot: Robot, folder: Path, frames: int, seed: int) -> dict[str, Any]:
    """Feed `frames` to the firmware, built with address and undefined-behaviour sanitizers, and to the Python parser.

    Returns:
        Frames, bytes, seconds of each parser, and the errors that each counted, modulo 2^16 as on the wire.

    Raises:
        RuntimeError: The firmware crashed, a sanitizer found something, or its output left the limits.
    """
    data = stream(np.random.default_rng(seed), frames, len(robot.spec.joints), len(robot.spec.actuated))
    program = compile_firmware(robot, folder, "fuzz", *SANITIZERS, str(FIRMWARE / "host.c"))
    started = time.perf_counter()
    done = subprocess.run([program], input=data, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    between = time.perf_counter()
    if done.returncode:
        raise RuntimeError(f"code {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}")
    receiver = Receiver()
    good = sum(len(receiver.feed(data[i : i + PASS])) for i in range(0, len(data), PASS))
    ended = time.perf_counter()
    crc_errors, framing_errors, refused, running = map(int, done.stderr.split())
    return {
        "frames": frames,
        "bytes": len(data),
        "whole_frames": good,
        "c": {"crc_errors": crc_errors, "framing_errors": framing_errors, "seconds": round(between - started, 2)},
        "c_refused": refused,
        "c_passes_running": running,
        "python": {
            "crc_errors": receiver.crc_errors & 0xFFFF,
            "framing_errors": receiver.framing_errors & 0xFFFF,
            "seconds": round(ended - between, 2),
        },
    }
