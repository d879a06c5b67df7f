"""Serial ports: opened for one program alone, with low latency, and every failure named."""

from __future__ import annotations

import contextlib
import errno
import grp
import termios
from pathlib import Path

import serial

from landbridge.errors import InputError

BY_ID = Path("/dev/serial/by-id")  # made by udev: keeps its name when the adapter is plugged in elsewhere
RATE = "name a serial port, and a rate that it has, such as 1000000: hardware.baud in robot.yaml, or --baud"
UDEV_RULE = 'SUBSYSTEM=="tty", ATTRS{idVendor}=="VVVV", GROUP="dialout", MODE="0660"'


def open_port(name: str | None, baud: int) -> serial.Serial:
    """Open `name`, raw 8N1; neither reads nor writes ever wait.

    Raises:
        InputError: No name, no such port, no permission, used by another program, or not a serial port at that speed.
    """
    if name is None:
        raise InputError("hardware.port", "is not set", f"set it in robot.yaml or with --port; found: {_found()}")
    if baud <= 0:  # 0 would hang up
        raise InputError(name, f"cannot be opened at {baud} baud", RATE)
    try:
        port = serial.Serial(name, baud, timeout=0, write_timeout=0, exclusive=True)
    except (OSError, ValueError, termios.error) as error:  # serial.SerialException is an OSError
        raise _named(name, baud, error) from error
    with contextlib.suppress(OSError, ValueError, NotImplementedError):
        port.set_low_latency_mode(True)  # FTDI adapters have a latency timer; USB CDC, UARTs and ptys have none
    return port


def _named(name: str, baud: int, error: Exception) -> InputError:
    number = getattr(error, "errno", None)
    if number == errno.ENOENT:
        return InputError(name, "no such port", f"plug it in, or name one of {_found()}")
    if number in (errno.EACCES, errno.EPERM):
        remedy = f"sudo usermod -aG {_group(name)} $USER and log in again, or a udev rule: {UDEV_RULE}"
        return InputError(name, "permission denied", remedy)
    if number in (errno.EAGAIN, errno.EBUSY):
        return InputError(name, "another program uses this port", f"end it (`fuser {name}` names it)")
    cause = error.__context__
    if number == errno.EISDIR or (isinstance(cause, termios.error) and cause.args[0] == errno.ENOTTY):
        return InputError(name, "is no serial port", f"name one of {_found()}")
    return InputError(name, f"cannot be opened at {baud} baud: {error}", RATE)


def _group(name: str) -> str:
    try:
        return grp.getgrgid(Path(name).stat().st_gid).gr_name
    except (OSError, KeyError):  # it has vanished in the meantime, or its group has no name
        return "dialout"


def _found() -> str:
    every = sorted(BY_ID.glob("*")) if BY_ID.is_dir() else []
    return ", ".join(map(str, every)) or f"{BY_ID}, once there is one"
