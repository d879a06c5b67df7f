"""What a board says of itself, and whether it is that of the robot."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from landbridge.deploy.hardware.port import BITS_PER_BYTE
from landbridge.deploy.hardware.protocol import Frame, Kind, Mode, encode, member_name, name_text, payload_format, read
from landbridge.errors import InputError
from landbridge.hardware_spec import McuHardware
from landbridge.joint import Encoder, Joint
from landbridge.robot import Robot, RobotSpec

BUSY = 0.8  # of what a line carries


class BoardTable:
    """The device and the joints of a board, as they come in one session.

    Attributes:
        robot: Name of the robot that the board was built for, "" before it has said so.
    """

    def __init__(self) -> None:
        self.robot = ""
        self._device: dict[str, Any] | None = None
        self._joints: dict[int, dict[str, Any]] = {}

    def take(self, frame: Frame) -> None:
        """Take a frame, if it is one of this table."""
        if frame.kind == Kind.DEVICE and (device := read(Kind.DEVICE, frame.payload)):
            self._device, self.robot = device, name_text(device["robot"])
        elif frame.kind == Kind.JOINT and (joint := read(Kind.JOINT, frame.payload)):
            self._joints[joint["index"]] = joint

    @property
    def complete(self) -> bool:
        """Whether device and joints are all there."""
        return self._device is not None and len(self._joints) == self._device["joints"]

    def places(self, spec: RobotSpec) -> tuple[list[int], list[int]]:
        """Where each joint of `spec` is in the board's telemetry, and where in `spec.actuated` each of its commands."""
        names = [name_text(joint["name"]) for joint in self._rows]
        actuated = [name for name, joint in zip(names, self._rows, strict=True) if joint["actuated"]]
        return [names.index(name) for name in spec.joint_names], [spec.actuated.index(name) for name in actuated]

    def disagreement(self, spec: RobotSpec, port: str) -> InputError | None:
        """What is not as robot.yaml has it; None if all is. The table must be complete."""
        assert self._device is not None
        mode = self._device["mode"]
        mine = {joint.name: _limits(joint) for joint in spec.joints}
        its = {
            name_text(j["name"]): (j["actuated"], j["lower"], j["upper"], j["velocity_limit"], j["effort_limit"])
            for j in self._rows
        }
        if its.keys() != mine.keys():
            whose = f"the board is that of {self.robot!r} with joints {sorted(its)}"
            problem = f"{whose}, {spec.name!r} has {sorted(mine)}"
        elif mode != Mode[spec.action.kind.upper()]:
            problem = f"the board takes {member_name(Mode, mode)} commands, robot.yaml says {spec.action.kind}"
        elif wrong := [name for name in mine if its[name] != mine[name]]:
            problem = f"joint {wrong[0]}: the board has (actuated, limits) {its[wrong[0]]}, robot.yaml {mine[wrong[0]]}"
        else:
            return None
        remedy = "connect the right board, or build its firmware with the table that `landbridge hil joints` prints"
        return InputError(port, problem, remedy)

    @property
    def _rows(self) -> list[dict[str, Any]]:
        return [self._joints[i] for i in sorted(self._joints)]


def require_board(robot: Robot, settings: McuHardware) -> None:
    """Raise InputError unless `robot` can be behind a board with these settings."""
    file: Path = robot.folder / "robot.yaml"
    if settings.watchdog_ms < 2000 * robot.spec.control_dt:
        problem = f"watchdog_ms {settings.watchdog_ms:g} is less than two control periods"
        raise InputError(file, problem, "one late command would stop the robot")
    if settings.telemetry_rate_hz < 1000 / settings.watchdog_ms:
        problem = f"telemetry_rate_hz {settings.telemetry_rate_hz:g} is less than once in watchdog_ms"
        raise InputError(file, problem, "let the board report more often: a command answers a report")
    if 1000 / settings.telemetry_rate_hz > (age := robot.spec.safety.max_command_age_ms):
        problem = f"telemetry_rate_hz {settings.telemetry_rate_hz:g} is less than once in max_command_age_ms {age:g}"
        raise InputError(file, problem, "let the board report more often: an older report is answered no more")
    frame = encode(Kind.TELEMETRY, 0, 0, 0, bytes(payload_format(Kind.TELEMETRY, len(robot.spec.joints)).size))
    needed = settings.telemetry_rate_hz * BITS_PER_BYTE * len(frame)
    if needed > BUSY * settings.baud:
        problem = f"telemetry_rate_hz {settings.telemetry_rate_hz:g} takes {needed:.0f} of {settings.baud} baud"
        remedy = f"lower it or raise hardware.baud (by USB a name only): beyond {BUSY:.0%} frames wait, and come old"
        raise InputError(file, problem, remedy)
    if named := [joint.name for joint in robot.spec.joints if joint.encoder != Encoder()]:
        problem = f"joints {named} have an encoder of their own, which nothing on a microcontroller's link reads"
        raise InputError(
            file, problem, "put sign, offset and gear into the board's own `measure`, and take them out here"
        )


def _limits(joint: Joint) -> tuple[int, float, float, float, float]:
    """What a board's table says of a joint, in its precision."""
    numbers = (*joint.position_range, joint.velocity_limit, joint.effort_limit)
    lower, upper, velocity, effort = struct.unpack("<4f", struct.pack("<4f", *numbers))
    return int(joint.actuated), lower, upper, velocity, effort
