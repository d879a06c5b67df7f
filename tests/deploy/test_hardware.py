"""Which back end drives the joints: the robot's own line, and what overrides it."""

from __future__ import annotations

from pathlib import Path

import pytest

from landbridge.deploy.hardware import choose_hardware, open_hardware
from landbridge.errors import InputError
from landbridge.hardware_spec import McuHardware, TwinHardware
from landbridge.robot import load_robot

FURUTA = load_robot("furuta")
BOARD = "/dev/serial/by-id/usb-board"


def furuta_with(folder: Path, hardware: str) -> Path:
    text = (FURUTA.folder / "robot.yaml").read_text()
    (folder / "robot.yaml").write_text(text.replace("hardware: {kind: twin}", f"hardware: {hardware}"))
    (folder / "furuta.urdf").write_text(FURUTA.urdf.read_text())
    return folder


def test_the_robots_own_line_and_what_overrides_it(tmp_path: Path) -> None:
    spec = load_robot(furuta_with(tmp_path, f"{{kind: mcu, port: {BOARD}, watchdog_ms: 80}}")).spec
    own = McuHardware(port=BOARD, watchdog_ms=80)
    assert choose_hardware(spec) == choose_hardware(spec, "mcu") == own
    assert choose_hardware(spec, port="/dev/ttyACM1") == own.model_copy(update={"port": "/dev/ttyACM1"})
    assert choose_hardware(spec, "twin") == TwinHardware()
    assert choose_hardware(FURUTA.spec) == TwinHardware()
    assert (
        choose_hardware(FURUTA.spec, port=BOARD)
        == choose_hardware(FURUTA.spec, "mcu", BOARD)
        == McuHardware(port=BOARD)
    )
    with pytest.raises(InputError, match="no driver 'can'"):
        choose_hardware(spec, "can")
    with pytest.raises(InputError, match="of no use to the twin"):
        choose_hardware(spec, "twin", BOARD)


def test_what_drives_the_joints_is_not_what_a_policy_was_trained_for(tmp_path: Path) -> None:
    assert load_robot(furuta_with(tmp_path, "{kind: mcu}")).spec.digest() == FURUTA.spec.digest()


@pytest.mark.parametrize(
    ("hardware", "said"),
    [
        ("{kind: can}", "hardware"),
        ("{kind: mcu, speed: 9600}", "hardware.mcu.speed"),
        ("{kind: mcu, watchdog_ms: 500}", "hardware.mcu.watchdog_ms"),
        ("{kind: twin, port: x}", "hardware.twin.port"),
    ],
)
def test_a_line_that_is_not_understood_is_refused(tmp_path: Path, hardware: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_robot(furuta_with(tmp_path, hardware))


def test_a_board_without_a_port_is_refused_with_the_ports_there_are() -> None:
    with pytest.raises(InputError, match=r"set it in robot\.yaml or with --port; found: "):
        open_hardware(FURUTA, McuHardware(), "none", 0)


def test_a_driver_that_does_not_measure_a_floating_base_is_refused() -> None:
    with pytest.raises(InputError, match="driver 'mcu' does not measure the floating base of quadruped"):
        open_hardware(load_robot("quadruped"), McuHardware(port="/dev/null"), "none", 0)
