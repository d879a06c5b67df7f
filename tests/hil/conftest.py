"""A board or a bus of servos to test against: emulated ones, or with `--port /dev/serial/by-id/...` real ones.

With `--hardware dynamixel` or `feetech` the port is that of the robot `arm` on servos 1 to 6; then only tests marked
`real_servos` run on it, for the others break what they test.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from landbridge.deploy.hardware.mcu import Mcu
from landbridge.deploy.hardware.servos import Servos
from landbridge.robot import Robot, load_robot

from . import arm
from .rig import FURUTA, PATIENT_MS, Bus, Emulated, RealBus, Rig, real_time, recover, until


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--port", default=None, help="serial port of a real board or bus in place of an emulated one")
    parser.addoption("--hardware", default="mcu", choices=("mcu", *arm.SETTINGS), help="what is on --port")


def altered(robot: Robot, folder: Path, *changes: tuple[str, str]) -> Robot:
    """`robot` in a new `folder`, with other lines in its robot.yaml."""
    shutil.copytree(robot.folder, folder)
    text = (folder / "robot.yaml").read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "robot.yaml").write_text(text)
    return load_robot(folder)


def asked_before_it_moves(request: pytest.FixtureRequest, port: str) -> None:
    """Ask the user, past pytest's capture; without an answer (EOFError) nothing moves."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    capture.suspend_global_capture(in_=True)
    try:
        input(f"\n{request.node.name} will move the joints on {port}: support them, step back and press Enter ")
    finally:
        capture.resume_global_capture()


def real_port(request: pytest.FixtureRequest, driver: str) -> str | None:
    """The port that the user names, None for an emulated one; skips a test of what is not on it."""
    port: str | None = request.config.getoption("--port", default=None)
    if port is not None and driver != (named := request.config.getoption("--hardware")):
        pytest.skip(f"of {driver}, and {named} is on --port: see --hardware")
    return port


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    started = Emulated(tmp_path_factory.mktemp("by-id") / "landbridge-furuta")
    yield started
    assert started.end() == 0


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Rig:
    port = real_port(request, "mcu")
    if port is None:
        emulated = request.getfixturevalue("emulated")
        for words in ("plug", "clear", "reset"):
            emulated.order(words)
        return Rig(emulated.port, emulated)
    asked_before_it_moves(request, port)
    return Rig(port, None)


@pytest.fixture
def switchboard(rig: Rig) -> Emulated:
    if rig.emulated is None:
        pytest.skip("damages the wire: needs the emulated board, run without --port")
    return rig.emulated


@pytest.fixture
def link(rig: Rig) -> Iterator[Mcu]:
    """A link in order, patient; afterwards there must be no fault left, and no torque."""
    safety = FURUTA.spec.safety.model_copy(update={"max_command_age_ms": PATIENT_MS})
    patient = Robot(FURUTA.spec.model_copy(update={"safety": safety}), FURUTA.folder)
    with real_time(), left_in_order(rig, rig.connect(patient, PATIENT_MS)) as connected:
        yield connected


@pytest.fixture
def prompt_link(rig: Rig) -> Iterator[Mcu]:
    """As `link`, with the furuta's own limits."""
    with real_time(), left_in_order(rig, rig.connect()) as connected:
        yield connected


def torque(emulated: Emulated) -> bool:
    return bool(emulated.order("status")["torque"])


@contextmanager
def left_in_order(rig: Rig, link: Mcu) -> Iterator[Mcu]:
    """Afterwards: recover what a test has broken, park, and look."""
    try:
        yield link
        if rig.emulated is not None:
            rig.emulated.order("plug")
            rig.emulated.order("clear")
        recover(link)
        link.disable()
        until(link, lambda: link.telemetry["torque"] == 0 and (rig.emulated is None or not torque(rig.emulated)))
        assert link.fault == ""
        assert link.telemetry["faults"] == 0
    finally:
        link.close()


@pytest.fixture(scope="session", params=["dynamixel", "feetech"])
def bus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Bus]]:
    """Six servos: their family, and the process or the port."""
    if (port := real_port(request, request.param)) is not None:
        yield request.param, RealBus(port)
        return
    link = tmp_path_factory.mktemp("by-id") / f"landbridge-{request.param}"
    started = Emulated(link, "--robot", "arm", "--hardware", request.param)
    yield request.param, started
    assert started.end() == 0


@pytest.fixture
def kind(bus: tuple[str, Bus]) -> str:
    return bus[0]


@pytest.fixture
def arm_bus(request: pytest.FixtureRequest, bus: tuple[str, Bus]) -> Bus:
    found = bus[1]
    if isinstance(found, RealBus):
        if request.node.get_closest_marker("real_servos") is None:
            found.order("")
        asked_before_it_moves(request, found.port)
        return found
    for words in ("plug", "clear", "reset"):
        found.order(words)
    return found


@pytest.fixture
def servos(kind: str, arm_bus: Bus) -> Iterator[Servos]:
    """A driver in order, patient; afterwards there must be no fault left, and no torque."""
    with real_time(), servos_left_in_order(arm_bus, arm.connect_patiently(kind, arm_bus)) as connected:
        yield connected


@pytest.fixture
def prompt_servos(kind: str, arm_bus: Bus) -> Iterator[Servos]:
    """As `servos`, with the arm's own limits."""
    with real_time(), servos_left_in_order(arm_bus, arm.connect(kind, arm_bus)) as connected:
        yield connected


@contextmanager
def servos_left_in_order(arm_bus: Bus, servos: Servos) -> Iterator[Servos]:
    """Afterwards: mend what a test has broken, recover, take torque off, and look."""
    try:
        if isinstance(arm_bus, RealBus):
            arm_bus.servos = servos
        yield servos
        if isinstance(arm_bus, Emulated):
            arm_bus.order("plug")
            arm_bus.order("clear")
        arm.recover(servos)
        servos.disable()
        arm.until(servos, lambda: not any(arm_bus.order("status")["torque"]))
        assert servos.fault == ""
    finally:
        servos.close()
