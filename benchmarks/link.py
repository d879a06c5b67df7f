"""Rate, latency and robustness of the microcontroller link, on the emulated board or a real one.

    python benchmarks/link.py [--seconds 30] [--rates 200 500] [--fuzz-frames 1000000] [--port /dev/serial/by-id/...]

The host's loop reads and writes at each rate through a pty whose other end is the board's firmware, with the furuta in
Bullet behind it in real time. A tick is missed when it begins a period late, or when the newest telemetry is older than
a period. Latency is from
the write of a command to the arrival of the telemetry that reports it in effect, on the host's clock.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from landbridge.deploy.hardware.mcu import Mcu
from landbridge.deploy.hil.fuzz import fuzz
from landbridge.episode import commit, now
from landbridge.hardware_spec import McuHardware
from landbridge.robot import Robot, load_robot
from landbridge_nodes.process import BRIDGE_PRIORITY

RESULTS = Path(__file__).parent / "results" / "link.json"
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
        stamp = int(1e6 * written) & 0xFFFFFFFF
        while (left := due - time.monotonic()) > 0:
            time.sleep(min(left, POLL_SECONDS))
            link.read()
            if (link.telemetry["command_us"] - stamp) % 2**32 < 2**31:
                latency_ms.append(1000 * (time.monotonic() - written))
                break
    fault, counters = link.fault, dict(link.counters)
    link.disable()
    link.close()
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
        "fault": fault,
        "counters": counters,
    }


@contextmanager
def emulated_board() -> Iterator[str]:
    """The port of `landbridge hil emulate`."""
    command = [sys.executable, "-m", "landbridge", "hil", "emulate"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as board:
        assert board.stdin is not None and board.stdout is not None
        yield board.stdout.readline().strip()
        board.stdin.close()


def scheduled(policy: int, priority: int) -> bool:
    """Whether this process may be, and is, scheduled so."""
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except PermissionError:
        return False
    return True


def main(
    seconds: float = 30.0,
    rates: tuple[float, ...] = (200.0, 500.0),
    fuzz_frames: int = 1_000_000,
    port: str | None = None,
) -> None:
    """Measure, print a table, and write `benchmarks/results/link.json`.

    Args:
        seconds: At each rate.
        rates: Of the control loop [Hz]; the board reports twice as often.
        fuzz_frames: For both parsers, the C side under sanitizers.
        port: A real board in place of the emulated one; its robot will be held at zero effort.
    """
    robot, load = load_robot("furuta"), os.getloadavg()[0]
    with emulated_board() if port is None else nullcontext(port) as board:
        gc.collect()
        gc.freeze()  # as in the bridge
        real_time = scheduled(os.SCHED_FIFO, BRIDGE_PRIORITY)
        rows = [measure(robot, board, rate, seconds) for rate in rates]
        scheduled(os.SCHED_OTHER, 0)
    with tempfile.TemporaryDirectory() as folder:
        fuzzed = fuzz(robot, Path(folder), fuzz_frames, seed=0)
    shown = ("rate_hz", "ticks", "missed_percent", "latency_p50_ms", "latency_p99_ms", "latency_max_ms")
    table = Table(*shown, title="write to telemetry")
    for row in rows:
        table.add_row(*(f"{row[key]:g}" for key in shown))
    Console().print(table)
    Console().print(f"fuzz: {fuzzed}")
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "load_before": load, "real_time": real_time}
    result = {"made": now(), "commit": commit(), "port": port or "emulated", **machine, "rates": rows, "fuzz": fuzzed}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
