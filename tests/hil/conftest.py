"""A board to test against: the emulated one, or with `pytest tests/hil --port /dev/serial/by-id/...` a real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from landbridge.deploy.hardware.mcu import Mcu
from landbridge.deploy.hardware.servos import Servos
from landbridge.robot import Robot

from . import arm
from .rig import FURUTA, PATIENT_MS, Emulated, Rig, real_time, recover, until


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--port", default=None, help="serial port of a real board in place of the emulated one")


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
    """A link in order, patient; afterwards there must be no fault left, and no torque."""
    safety = FURUTA.spec.safety.model_copy(update={"max_command_age_ms": PATIENT_MS})
    patient = Robot(FURUTA.spec.model_copy(update={"safety": safety}), FURUTA.folder)
    with real_time(), left_in_order(rig, rig.connect(patient, PATIENT_MS)) as connected:
        yield connected


@pytest.fixture
def prompt_link(rig: Rig) -> Iterator[Mcu]:
    """The same with the furuta's own limits."""
    with real_time(), left_in_order(rig, rig.connect()) as connected:
        yield connected


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
        until(link, lambda: link.telemetry["torque"] == 0)
        assert link.fault == ""
        assert link.telemetry["faults"] == 0
        if rig.emulated is not None:
            assert rig.emulated.order("status")["torque"] is False
    finally:
        link.close()


@pytest.fixture(scope="session", params=["dynamixel", "feetech"])
def bus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Emulated]]:
    """Six arm_bus servos: their family, and the process."""
    link = tmp_path_factory.mktemp("by-id") / f"landbridge-{request.param}"
    started = Emulated(link, "--robot", "arm", "--hardware", request.param)
    yield request.param, started
    assert started.end() == 0


@pytest.fixture
def kind(bus: tuple[str, Emulated]) -> str:
    return bus[0]


@pytest.fixture
def arm_bus(bus: tuple[str, Emulated]) -> Emulated:
    for words in ("plug", "clear", "reset"):
        bus[1].order(words)
    return bus[1]


@pytest.fixture
def servos(kind: str, arm_bus: Emulated) -> Iterator[Servos]:
    """A driver in order, patient; afterwards there must be no fault left, and no torque."""
    with real_time(), servos_left_in_order(arm_bus, arm.connect_patiently(kind, arm_bus)) as connected:
        yield connected


@pytest.fixture
def prompt_servos(kind: str, arm_bus: Emulated) -> Iterator[Servos]:
    """The same with the arm's own limits."""
    with real_time(), servos_left_in_order(arm_bus, arm.connect(kind, arm_bus)) as connected:
        yield connected


@contextmanager
def servos_left_in_order(arm_bus: Emulated, servos: Servos) -> Iterator[Servos]:
    """Afterwards: mend what a test has broken, recover, take torque off, and look."""
    try:
        yield servos
        arm_bus.order("plug")
        arm_bus.order("clear")
        arm.recover(servos)
        servos.disable()
        arm.until(servos, lambda: not any(arm_bus.order("status")["torque"]))
        assert servos.fault == ""
    finally:
        servos.close()
