"""The firmware, built for this machine and called through its five hardware functions."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from landbridge.deploy.hardware import protocol
from landbridge.deploy.hil.headers import robot_header
from landbridge.errors import InputError
from landbridge.robot import Robot

FIRMWARE = Path(__file__).parents[1] / "firmware"
SOURCES = ("frame.c", "firmware.c")
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-O2")

_BYTES = ctypes.POINTER(ctypes.c_uint8)
_FLOATS = ctypes.POINTER(ctypes.c_float)
_TIME = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p)
_RECEIVE = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, _BYTES, ctypes.c_size_t)
_SEND = ctypes.CFUNCTYPE(None, ctypes.c_void_p, _BYTES, ctypes.c_size_t)
_MEASURE = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, _FLOATS, _FLOATS)
_ACTUATE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_bool, _FLOATS)


class _Hal(ctypes.Structure):
    _fields_ = (
        ("board", ctypes.c_void_p),
        ("time_us", _TIME),
        ("receive", _RECEIVE),
        ("send", _SEND),
        ("measure", _MEASURE),
        ("actuate", _ACTUATE),
    )


class Pins(Protocol):
    """What stands behind the firmware's hardware functions."""

    def time_us(self) -> int:
        """The board's clock."""

    def receive(self, size: int) -> bytes:
        """At most `size` bytes that have come from the host."""

    def send(self, data: bytes) -> None:
        """Bytes for the host."""

    def measure(self) -> tuple[Sequence[float], Sequence[float]] | None:
        """Positions and velocities of all joints, or None if the sensors fail."""

    def actuate(self, torque: bool, command: Sequence[float]) -> None:
        """The output for the actuated joints."""


def compile_firmware(robot: Robot, folder: Path, output: str, *flags: str) -> Path:
    """Build the firmware with the joint table of `robot` into `folder / output`.

    Args:
        flags: For gcc, after its warnings, which are errors; sources are taken from the firmware's folder.

    Raises:
        InputError: There is no C compiler.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise InputError("gcc", "no C compiler is installed", "apt install gcc")
    (folder / "robot.h").write_text(robot_header(robot))
    include = (f'-DROBOT_HEADER="{folder / "robot.h"}"', f"-I{FIRMWARE}")
    command = [compiler, *STRICT, *include, *flags, *(str(FIRMWARE / name) for name in SOURCES), "-o", output]
    subprocess.run(command, cwd=folder, check=True)
    return folder / output


def compile_library(robot: Robot, folder: Path, version: int = protocol.VERSION) -> Path:
    """The firmware as a shared library; another `version` shows what a host makes of it."""
    flags = ("-shared", "-fPIC", f"-DLB_VERSION={version}", str(FIRMWARE / "library.c"))
    return compile_firmware(robot, folder, "firmware.so", *flags)


class Board:
    """One board: the firmware as `compile_library` makes it, with `pins` behind it."""

    def __init__(self, robot: Robot, pins: Pins, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.lb_size.restype = ctypes.c_size_t
        self._firmware = ctypes.create_string_buffer(self._library.lb_size())
        self._failure: Exception | None = None
        actuated, joints = len(robot.spec.actuated), len(robot.spec.joints)

        def receive(_: object, data: ctypes._Pointer[ctypes.c_uint8], size: int) -> int:
            received = pins.receive(size)
            ctypes.memmove(data, received, len(received))
            return len(received)

        def measure(_: object, pos: ctypes._Pointer[ctypes.c_float], vel: ctypes._Pointer[ctypes.c_float]) -> bool:
            measured = pins.measure()
            if measured is not None:
                for i in range(joints):
                    pos[i], vel[i] = measured[0][i], measured[1][i]
            return measured is not None

        self._hal = _Hal(
            None,
            _TIME(self._safely(lambda _: pins.time_us() & 0xFFFFFFFF)),
            _RECEIVE(self._safely(receive)),
            _SEND(self._safely(lambda _, data, size: pins.send(ctypes.string_at(data, size)))),
            _MEASURE(self._safely(measure)),
            _ACTUATE(self._safely(lambda _, torque, command: pins.actuate(torque, command[:actuated]))),
        )
        self.restart()

    def restart(self) -> None:
        """As after power has come."""
        self._library.lb_start(self._firmware, ctypes.byref(self._hal))

    def poll(self) -> None:
        """One pass of the firmware's main loop; raises what a pin raised."""
        self._library.lb_poll(self._firmware)
        if self._failure is not None:
            raise self._failure

    def _safely(self, pin: Callable[..., Any]) -> Callable[..., Any]:
        """`pin`, keeping what it raises for `poll`: an exception cannot pass through C, ctypes would drop it."""

        def call(*args: Any) -> Any:
            try:
                return pin(*args)
            except Exception as failure:
                self._failure = failure
                return 0

        return call

    def encode(self, body: bytes) -> bytes:
        """The C side's coding of header and payload, without the delimiters."""
        frame = ctypes.create_string_buffer(body, protocol.FRAME_MAX)
        coded = ctypes.create_string_buffer(protocol.CODED_MAX + 2)
        self._library.lb_encode.restype = ctypes.c_size_t
        size = self._library.lb_encode(frame, ctypes.c_size_t(len(body)), coded)
        return coded.raw[1 : size - 1]

    def decode(self, coded: bytes) -> bytes | int:
        """The C side's decoding: header and payload, or its error."""
        frame = ctypes.create_string_buffer(protocol.FRAME_MAX)
        size = self._library.lb_decode(coded, ctypes.c_size_t(len(coded)), frame)
        return frame.raw[:size] if size > 0 else size
