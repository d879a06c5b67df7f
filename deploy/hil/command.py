"""`landbridge hil emulate`, `joints` and `protocol`: a board to test against, and what a real one is built with."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from landbridge.deploy.hil.headers import protocol_header, robot_header
from landbridge.hardware_spec import DynamixelHardware, FeetechHardware, ServoHardware
from landbridge.real_time import BOARD_PRIORITY, take_priority
from landbridge.robot import Robot, load_robot
from landbridge.spec import require_seed

if TYPE_CHECKING:
    from landbridge.deploy.hil.bench import Bench


def emulate(
    robot: str = "furuta",
    scenario: str = "none",
    seed: int = 0,
    link: Path | None = None,
    baud: int = 1_000_000,
    hardware: Literal["mcu", "dynamixel", "feetech"] = "mcu",
) -> None:
    """Emulate a robot's microcontroller or servo bus on a pty until standard input ends.

    Example: landbridge hil emulate --robot furuta --scenario none

    Example: landbridge hil emulate --robot arm --hardware dynamixel

    The emulated board runs the firmware of `deploy/firmware` itself, built for this machine; emulated servos answer the
    vendor's SDK register by register. The port is the first line printed; `landbridge up deploy --port PORT ...`
    connects to it. Orders on standard input act on wire and wiring, one a line: `flip to_board 3` damages the next
    three frames to the board; `status` shows the robot; any other word lists them all.

    Args:
        robot: Robot that ships with landbridge, or folder of one.
        scenario: Rung of the robot's scenarios.yaml.
        seed: Of start states, measurement noise and damage.
        link: Symbolic link to keep at the port, for a name that outlives a reconnection.
        baud: Baud rate of the board or the servos.
        hardware: What to emulate.
    """
    require_seed(seed)
    loaded = load_robot(robot)
    emulator = _bench(loaded, hardware, scenario, seed, link, baud)
    if not take_priority(BOARD_PRIORITY):
        Console(stderr=True).print("no right to real-time priority: a busy machine will make the board late")
    gc.collect()
    gc.freeze()  # what is loaded stays; later collections are short
    try:
        print(link or emulator.port, flush=True)
        emulator.run(sys.stdin.fileno(), sys.stdout)
    finally:
        emulator.close()


def joints(robot: str = "furuta") -> None:
    """Print the C table of a robot's joints that its board is built with.

    Example: landbridge hil joints --robot furuta > robot.h

    Args:
        robot: Robot that ships with landbridge, or folder of one.
    """
    print(robot_header(load_robot(robot)), end="")


def protocol() -> None:
    """Print the C header of the protocol, `deploy/firmware/protocol.h`.

    Example: landbridge hil protocol > deploy/firmware/protocol.h
    """
    print(protocol_header(), end="")


def _bench(robot: Robot, hardware: str, scenario: str, seed: int, link: Path | None, baud: int) -> Bench:
    if hardware == "mcu":
        from landbridge.deploy.hil.emulator import Emulator

        return Emulator(robot, scenario, seed, link, baud)
    from landbridge.deploy.hil.servo_bench import ServoBench

    own = robot.spec.hardware
    kind = DynamixelHardware if hardware == "dynamixel" else FeetechHardware
    settings = kind(baud=baud, ids=own.ids if isinstance(own, ServoHardware) else {})
    return ServoBench(robot, settings, scenario, seed, link)
