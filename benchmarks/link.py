"""Rate, latency and robustness of the microcontroller link or a servo bus, emulated or real.

    python benchmarks/link.py [--seconds 30] [--rates 200 500] [--fuzz-frames 1000000] [--port /dev/serial/by-id/...]
    python benchmarks/link.py --hardware dynamixel --rates 200

The host's loop reads and writes at each rate through a pty whose other end is the board's firmware, with the furuta in
Bullet behind it in real time. A tick is missed when it begins a period late, or when the newest telemetry is older than
a period. Latency is from the write of a command to the arrival of the telemetry that reports it in effect, on the
host's clock. On a servo bus it is the time that a measurement of all six takes, question and answer; the arm holds its
default pose meanwhile. Beside it stands how often the machine alone is too late: as many bytes on a bare pty.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import record
import tyro
from rich.console import Console
from rich.table import Table

from landbridge.deploy.hardware.mcu import Mcu
from landbridge.deploy.hardware.servo_port import BITS_PER_BYTE
from landbridge.deploy.hardware.servos import READ_SHARE, Servos
from landbridge.deploy.hil.fuzz import fuzz
from landbridge.hardware_spec import DynamixelHardware, FeetechHardware, McuHardware
from landbridge.real_time import BOARD_PRIORITY, BRIDGE_PRIORITY, take_priority
from landbridge.robot import Robot, load_robot

RESULTS = Path(__file__).parent / "results"
Hardware = Literal["mcu", "dynamixel", "feetech"]
QUESTION, ANSWER = 20, 104  # bytes of a fast sync read of six Dynamixel servos
POLL_SECONDS = 0.0001  # how finely the arrival of telemetry is seen


def measure(robot: Robot, port: str, rate_hz: float, seconds: float) -> dict[str, Any]:
    """Figures of a control loop at one rate; the command is zero."""
    spec = robot.spec.model_copy(update={"control_rate_hz": rate_hz})
    link = Mcu(Robot(spec, robot.folder), McuHardware(port=port, telemetry_rate_hz=2 * rate_hz))
    dt, latency_ms, late, old = spec.control_dt, [], 0, 0
    due, ticks = time.monotonic(), round(seconds * rate_hz)
    for _ in range(ticks):
        time.sleep(max(0.0, due - time.monotonic()))
        late += time.monotonic() > due + dt
        link.read()
        old += time.monotonic() - link.told_at > dt
        written = time.monotonic()
        link.write([0.0])
        due = max(due + dt, written - dt)  # what was missed is not made up for
        while (left := due - time.monotonic()) > 0:
            time.sleep(min(left, POLL_SECONDS))
            link.read()
            if link.in_effect(written):
                latency_ms.append(1000 * (time.monotonic() - written))
                break
    fault, counters = link.fault, dict(link.counters)
    link.disable()
    link.close()
    return _row(rate_hz, ticks, late, old, latency_ms) | {"fault": fault, "counters": counters}


def measure_servos(robot: Robot, kind: Hardware, port: str, rate_hz: float, seconds: float) -> dict[str, Any]:
    """Figures of a control loop on a servo bus at one rate."""
    spec = robot.spec.model_copy(update={"control_rate_hz": rate_hz})
    settings = DynamixelHardware(port=port) if kind == "dynamixel" else FeetechHardware(port=port)
    servos = Servos(Robot(spec, robot.folder), settings)
    dt, read_ms, late, old = spec.control_dt, [], 0, 0
    due, ticks = time.monotonic(), round(seconds * rate_hz)
    for _ in range(ticks):
        time.sleep(max(0.0, due - time.monotonic()))
        started = time.monotonic()
        late += started > due + dt
        servos.read()
        read_ms.append(1000 * (time.monotonic() - started))
        old += servos.told_at < started
        servos.write([joint.default_joint_pos for joint in spec.joints])
        due = max(due + dt, started)  # what was missed is not made up for
    fault, bad = servos.fault, servos.counters["bad_answers"]
    servos.disable()
    servos.read()
    servos.close()
    return _row(rate_hz, ticks, late, old, read_ms) | {"fault": fault, "counters": {"bad_answers": bad}}


def bare_pty(rate_hz: float, seconds: float) -> dict[str, Any]:
    """How often a pty alone would cost a measurement: by the kernel's time and that of the bytes on a real line.

    Two processes of the priorities of bridge and emulator; the other one answers at once.
    """
    near, far = os.openpty()
    tty.setraw(far)
    child = os.fork()
    if child == 0:
        take_priority(BOARD_PRIORITY)
        while os.read(near, QUESTION) != bytes(QUESTION):
            os.write(near, b"x" * ANSWER)
        os._exit(0)
    took, period, due = [], 1 / rate_hz, time.monotonic()
    for _ in range(round(seconds * rate_hz)):
        time.sleep(max(0.0, due - time.monotonic()))
        started, left = time.monotonic(), ANSWER
        os.write(far, b"?" * QUESTION)
        while left:
            left -= len(os.read(far, left))
        took.append(time.monotonic() - started)
        due = max(due + period, started)
    os.write(far, bytes(QUESTION))
    os.waitpid(child, 0)
    line = (QUESTION + ANSWER) * BITS_PER_BYTE / DynamixelHardware().baud
    late = np.mean(np.array(took) + line > READ_SHARE * period)
    p50, p99 = np.percentile(took, [50, 99])
    return {"bare_p50_ms": round(1000 * p50, 3), "bare_p99_ms": round(1000 * p99, 3), "bare_percent": 100 * float(late)}


def _row(rate_hz: float, ticks: int, late: int, old: int, latency_ms: list[float]) -> dict[str, Any]:
    p50, p99, top = (round(float(p), 3) for p in np.percentile(latency_ms, [50, 99, 100]))
    return {
        "rate_hz": rate_hz,
        "ticks": ticks,
        "late_ticks": late,
        "ticks_on_old_telemetry": old,
        "missed_percent": round(100 * (late + old) / ticks, 3),
        "latency_p50_ms": p50,
        "latency_p99_ms": p99,
        "latency_max_ms": top,
    }


@contextmanager
def emulated_board(robot: str, kind: Hardware) -> Iterator[str]:
    """The port of `landbridge hil emulate`."""
    command = [sys.executable, "-m", "landbridge", "hil", "emulate", "--robot", robot, "--hardware", kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as board:
        assert board.stdin is not None and board.stdout is not None
        yield board.stdout.readline().strip()
        board.stdin.close()


def main(
    seconds: float = 30.0,
    rates: tuple[float, ...] = (200.0, 500.0),
    fuzz_frames: int = 1_000_000,
    port: str | None = None,
    hardware: Hardware = "mcu",
) -> None:
    """Measure, print a table, and write it into `benchmarks/results`.

    Args:
        seconds: At each rate.
        rates: Of the control loop [Hz]; the board reports twice as often.
        fuzz_frames: For both parsers of the microcontroller's link, the C side under sanitizers.
        port: A real board in place of the emulated one; its robot will be held at zero effort, or its default pose.
        hardware: The furuta's microcontroller, or six servos of the arm.
    """
    robot, load = load_robot("furuta" if hardware == "mcu" else "arm"), os.getloadavg()[0]
    with emulated_board(robot.spec.name, hardware) if port is None else nullcontext(port) as board:
        gc.collect()
        gc.freeze()  # as in the bridge
        real_time = take_priority(BRIDGE_PRIORITY)
        rows = [
            measure(robot, board, rate, seconds)
            if hardware == "mcu"
            else measure_servos(robot, hardware, board, rate, seconds) | bare_pty(rate, seconds)
            for rate in rates
        ]
        take_priority(0)
    result: dict[str, Any] = {"port": port or "emulated", "real_time": real_time, "rates": rows}
    if hardware == "mcu":
        with tempfile.TemporaryDirectory() as folder:
            result["fuzz"] = fuzz(robot, Path(folder), fuzz_frames, seed=0)
    shown = ["rate_hz", "ticks", "missed_percent", "latency_p50_ms", "latency_p99_ms", "latency_max_ms"]
    shown += [] if hardware == "mcu" else ["bare_percent", "bare_p99_ms"]
    table = Table(*shown, title="write to telemetry" if hardware == "mcu" else "measurement of six servos")
    for row in rows:
        table.add_row(*(f"{row[key]:g}" for key in shown))
    Console().print(table)
    if "fuzz" in result:
        Console().print(f"fuzz: {result['fuzz']}")
    name = "link.json" if hardware == "mcu" else f"link_{hardware}.json"
    record.write(RESULTS / name, load, **result)


if __name__ == "__main__":
    tyro.cli(main)
