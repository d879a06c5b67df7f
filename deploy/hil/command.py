"""`landbridge hil`: a board to test against, and what a real one is built with."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from tyro.conf import Positional

from landbridge.deploy.hil.headers import protocol_header, robot_header
from landbridge.errors import InputError
from landbridge.hardware_spec import DynamixelHardware, FeetechHardware, ServoHardware
from landbridge.robot import Robot, load_robot

if TYPE_CHECKING:
    from landbridge.deploy.hil.bench import Bench

PRIORITY = 75  # SCHED_FIFO, above the bridge's: a board does not wait for the host's other work


def hil(
    action: Positional[Literal["emulate", "joints", "protocol"]],
    robot: str = "furuta",
    scenario: str = "none",
    seed: int = 0,
    link: Path | None = None,
    baud: int = 1_000_000,
    hardware: Literal["mcu", "dynamixel", "feetech"] = "mcu",
) -> None:
    """Emulate a robot's microcontroller or servo bus on a pty, or print the C headers that a real board is built with.

    Example: landbridge hil emulate --robot arm --hardware dynamixel

    The emulated board runs the firmware of `deploy/firmware` itself, built for this machine; emulated servos answer the
    vendor's SDK register by register. The port is the first line printed; `landbridge up deploy --port PORT ...`
    connects to it. Orders on standard input act on the wire, one a line: `flip to_board 3` damages the next three
    frames to the board; `status` shows the robot; any other word lists them all.

    Args:
        action: `emulate` is a board until standard input ends; `joints` and `protocol` print headers.
        robot: Robot that ships with landbridge, or folder of one.
        scenario: Rung of the robot's scenarios.yaml (emulate).
        seed: Of start states, measurement noise and damage (emulate).
        link: Symbolic link to keep at the port, for a name that outlives a reconnection (emulate).
        baud: Baud rate of the board or the servos (emulate).
        hardware: What to emulate.
    """
    if action == "protocol":
        print(protocol_header(), end="")
        return
    loaded = load_robot(robot)
    if action == "joints":
        print(robot_header(loaded), end="")
        return
    if link is not None and link.exists() and not link.is_symlink():
        raise InputError(link, "exists and is no link", "choose another name")
    emulator = _bench(loaded, hardware, scenario, seed, link, baud)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except PermissionError:
        Console(stderr=True).print("no right to real-time priority: a busy machine will make the board late")
    gc.collect()
    gc.freeze()  # what is loaded stays; later collections are short
    try:
        print(link or emulator.port, flush=True)
        emulator.run(sys.stdin.fileno(), sys.stdout)
    finally:
        emulator.close()


def _bench(robot: Robot, hardware: str, scenario: str, seed: int, link: Path | None, baud: int) -> Bench:
    if hardware == "mcu":
        from landbridge.deploy.hil.emulator import Emulator

        return Emulator(robot, scenario, seed, link, baud)
    from landbridge.deploy.hil.servo_bench import ServoBench

    own = robot.spec.hardware
    kind = DynamixelHardware if hardware == "dynamixel" else FeetechHardware
    settings = kind(baud=baud, ids=own.ids if isinstance(own, ServoHardware) else {})
    return ServoBench(robot, settings, scenario, seed, link)
