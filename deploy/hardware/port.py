"""Serial ports: opened for one program alone, with low latency, and every failure named."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import termios
from pathlib import Path

import serial

from landbridge.errors import InputError

BY_ID = Path("/dev/serial/by-id")  # made by udev: keeps its name when the adapter is plugged in elsewhere
RATE = "name a serial port, and a rate that it has, such as 1000000: hardware.baud in robot.yaml, or --baud"
BITS_PER_BYTE = 10  # start, 8, stop
PTYS = Path("/dev/pts")
UDEV_RULE = 'SUBSYSTEM=="tty", ATTRS{idVendor}=="VVVV", GROUP="dialout", MODE="0660"'


def open_port(name: str | None, baud: int) -> serial.Serial:
    """Open `name`, raw 8N1; neither reads nor writes ever wait.

    Nobody else has it then: not who keeps to flock(2), as pyserial does where it is asked to, nor who had it open
    before, nor, unless root, who would open it later. Of another user's program that had it before only the first is
    known. A pty, whose emulator has it open too, is held by flock alone.

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
    try:
        if PTYS not in Path(name).resolve().parents:
            if holders := _others_with(name):
                raise _in_use(name, f": {', '.join(holders)}")
            fcntl.ioctl(port.fileno(), termios.TIOCEXCL)
    except (InputError, OSError) as error:  # the plug may be pulled just now
        port.close()
        raise error if isinstance(error, InputError) else _named(name, baud, error) from error
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
        return _in_use(name)
    if number in (errno.EIO, errno.ENODEV, errno.ENXIO):
        return InputError(name, "the port has gone", "plug it in again")
    cause = error.__context__
    if number == errno.EISDIR or (isinstance(cause, termios.error) and cause.args[0] == errno.ENOTTY):
        return InputError(name, "is no serial port", f"name one of {_found()}")
    return InputError(name, f"cannot be opened at {baud} baud: {error}", RATE)


def _in_use(name: str, by: str = "") -> InputError:
    return InputError(name, f"another program uses this port{by}", f"end it (`fuser {name}` names it)")


def _others_with(name: str) -> list[str]:
    """Other processes that have the port open, as far as this user may look into them."""
    device, found = os.stat(name).st_rdev, []
    for pid in filter(str.isdigit, set(os.listdir("/proc")) - {str(os.getpid())}):
        with contextlib.suppress(OSError):  # it is another user's, or has ended
            files = [f"/proc/{pid}/fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]
            if any(os.path.exists(file) and os.stat(file).st_rdev == device for file in files):
                found.append(f"{Path(f'/proc/{pid}/comm').read_text().strip()} ({pid})")
    return found


def _group(name: str) -> str:
    try:
        return grp.getgrgid(Path(name).stat().st_gid).gr_name
    except (OSError, KeyError):  # it has vanished in the meantime, or its group has no name
        return "dialout"


def _found() -> str:
    every = sorted(BY_ID.glob("*")) if BY_ID.is_dir() else []
    return ", ".join(map(str, every)) or f"{BY_ID}, once there is one"
