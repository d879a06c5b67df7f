"""The emulated board as tests drive it, and the control loop that drives a link."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from landbridge.deploy.hardware.mcu import Mcu
from landbridge.deploy.hardware.servos import Servos
from landbridge.hardware_spec import McuHardware
from landbridge.real_time import BRIDGE_PRIORITY, take_priority
from landbridge.robot import Robot, load_robot

FURUTA = load_robot("furuta")
DT = FURUTA.spec.control_dt
WATCHDOG_MS = McuHardware().watchdog_ms
PATIENT_MS = 200.0  # where time is not what is tested: a busy machine may be this late


class Emulated:
    """The process `landbridge hil emulate` and its orders."""

    def __init__(
        self, link: Path, *arguments: str, program: tuple[str, ...] = (sys.executable, "-m", "landbridge")
    ) -> None:
        command = [*program, "hil", "emulate", "--link", str(link), *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = self._line()

    def order(self, words: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        answer = self._line()
        if answer != "done":
            return json.loads(answer)
        return None

    def end(self) -> int:
        self.process.communicate(timeout=10)  # closes both pipes
        return self.process.returncode

    def _line(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 30)
        assert ready, "the emulator does not answer"
        return self.process.stdout.readline().strip()


class RealBus:
    """Servos on a port that the user has named; what the switchboard of emulated ones is asked, these say themselves.

    Attributes:
        port: The port.
        servos: The driver that has it open.
    """

    def __init__(self, port: str) -> None:
        self.port = port
        self.servos: Servos | None = None

    def order(self, words: str) -> Any:
        if words != "status":
            pytest.skip("breaks what it tests, or changes what servos remember: without --port only")
        assert self.servos is not None
        powered = self.servos._health.powered
        return {
            "position": list(self.servos._position.values()),
            "velocity": list(self.servos._velocity.values()),
            "torque": [id in powered for id in self.servos._joints],
        }


Bus = Emulated | RealBus


class Rig(NamedTuple):
    """A board on a port, and, if it is emulated, its switchboard."""

    port: str
    emulated: Emulated | None

    def connect(self, robot: Robot = FURUTA, watchdog_ms: float = WATCHDOG_MS) -> Mcu:
        return Mcu(robot, McuHardware(port=self.port, watchdog_ms=watchdog_ms))


@contextmanager
def real_time() -> Iterator[None]:
    """Scheduled as the bridge is, where that is allowed: the board's watchdog does not wait for a busy machine."""
    if not take_priority(BRIDGE_PRIORITY):
        yield
        return
    try:
        yield
    finally:
        take_priority(0)


def until(
    driver: Mcu | Servos, condition: Callable[[], bool], command: Sequence[float] | None = None, seconds: float = 3.0
) -> None:
    """A control loop, writing `command`, until `condition` holds."""
    deadline, next_tick = time.monotonic() + seconds, time.monotonic()
    while not condition():
        about = driver.telemetry if isinstance(driver, Mcu) else dict(driver.counters)
        assert time.monotonic() < deadline, f"not within {seconds} s; fault {driver.fault!r}, {about}"
        driver.read()
        if command is not None:
            driver.write(command)
        next_tick += driver._spec.control_dt
        time.sleep(max(0.0, next_tick - time.monotonic()))


def recover(link: Mcu) -> None:
    """What an operator's reset does, until it helps."""

    def healthy() -> bool:
        if link.fault:
            link.recover()
        return not link.fault and link._started and link.telemetry["faults"] == 0

    until(link, healthy)
