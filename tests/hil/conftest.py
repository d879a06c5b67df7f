"""A board to test against: the emulated one, or with `pytest tests/hil --port /dev/serial/by-id/...` a real one."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from landbridge.deploy.hardware.mcu import Mcu
from landbridge.robot import McuHardware, load_robot

FURUTA = load_robot("furuta")
DT = FURUTA.spec.control_dt


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--port", default=None, help="serial port of a real board in place of the emulated one")


class Emulated:
    """The process `landbridge hil emulate` and its orders."""

    def __init__(self, link: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "landbridge", "hil", "emulate", "--link", str(link), *arguments]
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
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(10)

    def _line(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 30)
        assert ready, "the emulator does not answer"
        return self.process.stdout.readline().strip()


class Rig(NamedTuple):
    """A board on a port, and, if it is emulated, its switchboard."""

    port: str
    emulated: Emulated | None

    def connect(self) -> Mcu:
        return Mcu(FURUTA, McuHardware(port=self.port))


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    started = Emulated(tmp_path_factory.mktemp("by-id") / "landbridge-furuta")
    yield started
    assert started.end() == 0


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Rig:
    port = request.config.getoption("--port", default=None)
    if port is None:
        emulated = request.getfixturevalue("emulated")
        for words in ("plug", "clear", "reset"):
            emulated.order(words)
        return Rig(emulated.port, emulated)
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        input(f"\n{request.node.name} will move the joints on {port}: step back and press Enter ")
    return Rig(port, None)


@pytest.fixture
def switchboard(rig: Rig) -> Emulated:
    if rig.emulated is None:
        pytest.skip("damages the wire: needs the emulated board, run without --port")
    return rig.emulated


@pytest.fixture
def link(rig: Rig) -> Iterator[Mcu]:
    """A link in order; afterwards there must be no fault left, and no torque."""
    connected = rig.connect()
    yield connected
    if rig.emulated is not None:
        rig.emulated.order("plug")
        rig.emulated.order("clear")
    recover(connected)
    connected.disable()
    until(connected, lambda: connected.telemetry["torque"] == 0)
    assert connected.fault == ""
    assert connected.telemetry["faults"] == 0
    if rig.emulated is not None:
        assert rig.emulated.order("status")["torque"] is False
    connected.close()


def until(link: Mcu, condition: Callable[[], bool], effort: float | None = None, seconds: float = 3.0) -> None:
    """A control loop on `link`, commanding `effort`, until `condition` holds."""
    deadline, next_tick = time.monotonic() + seconds, time.monotonic()
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not come true; fault {link.fault!r}, {link.telemetry}"
        link.read()
        if effort is not None:
            link.write([effort])
        next_tick += DT
        time.sleep(max(0.0, next_tick - time.monotonic()))


def recover(link: Mcu) -> None:
    """What an operator's reset does, until it helps."""

    def healthy() -> bool:
        if link.fault:
            link.recover()
        return not link.fault and link._started and link.telemetry["faults"] == 0

    until(link, healthy)


def scheduling_is_real_time() -> bool:
    return os.geteuid() == 0
