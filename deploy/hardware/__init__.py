"""Drivers behind one interface; the bridge owns the only handle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

from landbridge.errors import InputError
from landbridge.hardware_spec import DynamixelHardware, FeetechHardware, HardwareSpec, McuHardware, TwinHardware
from landbridge.observation import Base
from landbridge.robot import Robot, RobotSpec

KINDS: dict[str, type[HardwareSpec]] = {
    "twin": TwinHardware,
    "mcu": McuHardware,
    "dynamixel": DynamixelHardware,
    "feetech": FeetechHardware,
}


class Hardware(Protocol):
    """Motors and encoders: joints in `spec.joint_names` order, commands in `spec.actuated` order, SI units.

    Once open, nothing here raises: what goes wrong is named by `fault`. Nor does it wait, but for a reading that must
    be asked for, and for that no more than a part of the control period.

    Attributes:
        fault: What is wrong with hardware or link, latched until `recover`, read giving NaN; "" while nothing is.
        warning: What it will not bear for long, for as long as it lasts: it measures and obeys, and the supervisor
            parks the robot; "" while there is nothing.
        counters: Events worth a diagnosis, by name.
    """

    fault: str
    warning: str
    counters: Counter[str]

    def read(self) -> tuple[Sequence[float], Sequence[float]]:
        """Measured positions and velocities of all joints."""

    def write(self, command: Sequence[float]) -> None:
        """Send one command that the guard has admitted; it stays in effect until the next. Torque comes on with it."""

    def disable(self) -> None:
        """Take torque off; the next write brings it back. Called at the end of PARK only."""

    def recover(self) -> None:
        """Clear the fault after an operator's reset; one that persists comes back with the next read."""

    def close(self) -> None:
        """Release the bus. Torque is left as it is: off after PARK, else the last command written is a stop."""


@runtime_checkable
class Resettable(Protocol):
    """Hardware that can be put back to a start state by a program: a twin."""

    def reset(self) -> None:
        """Place the joints at the next start state of the task and hold them there."""

    def let_go(self) -> None:
        """Hold the joints no longer; without effect on a twin that is not held."""


@runtime_checkable
class Reporting(Protocol):
    """Hardware whose device tells of itself: what `landbridge hil run` holds against what it has asked for."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Who answers: device, version, port and the like, by name."""

    @property
    def watchdog(self) -> float:
        """Seconds of silence after which the device stops by itself, with a `fault` that has "watchdog" in its name.

        Infinite: it has none.
        """

    @property
    def stopped(self) -> Collection[str]:
        """The actuated joints that the device's watchdog has stopped, by the newest report."""

    @property
    def streams(self) -> bool:
        """Whether it reports unasked; else each `read` is a question, which keeps its watchdog quiet."""

    @property
    def torque(self) -> bool:
        """Whether any drive is powered, by the newest report."""

    @property
    def limp(self) -> Collection[str]:
        """The actuated joints without torque, by the newest report."""

    def in_effect(self, written: float) -> bool:
        """Whether the newest report shows a command in effect that was written at `written` [s, uptime] or later."""


@runtime_checkable
class Timed(Protocol):
    """Hardware that knows when what it reads was measured, and may have no news in a control period.

    Attributes:
        told_at: When the newest measurement was taken [s, uptime].
    """

    told_at: float


@runtime_checkable
class BaseSensing(Protocol):
    """Hardware that also measures its floating base: an IMU, and an estimate of the velocity."""

    def base(self) -> Base:
        """The base as of the last `read`, one row; NaN while there is a fault."""


def choose_hardware(spec: RobotSpec, kind: str = "", port: str = "") -> HardwareSpec:
    """What drives the joints: the robot's own line, unless `kind` names another back end, with `port` for its own.

    A port alone asks for a microcontroller where the robot's own line is the twin.

    Raises:
        InputError: No such back end, or a port for one that has none.
    """
    if kind and kind not in KINDS:
        raise InputError("hardware", f"no driver {kind!r}", f"name one of: {', '.join(KINDS)}")
    chosen = spec.hardware if kind in ("", spec.hardware.kind) else KINDS[kind]()
    if not port:
        return chosen
    if isinstance(chosen, TwinHardware):
        if kind:
            raise InputError("port", f"{port!r} is of no use to the twin", "leave out one of --hardware and --port")
        chosen = McuHardware()
    return chosen.model_copy(update={"port": port})


def open_hardware(robot: Robot, settings: HardwareSpec, scenario: str, seed: int) -> Hardware:
    """The driver that `settings` ask for; drivers are imported only when used. Scenario and seed are the twin's.

    Raises:
        InputError: It cannot be opened, or does not measure the base of a robot that has a floating one.
    """
    if robot.spec.base == "floating" and not isinstance(settings, TwinHardware):
        problem = f"driver {settings.kind!r} does not measure the floating base of {robot.spec.name}"
        raise InputError(
            "hardware", problem, "give the driver a `base()` from IMU and state estimator: see BaseSensing"
        )
    try:
        return _open(robot, settings, scenario, seed)
    except ModuleNotFoundError as error:
        problem = f"python package {error.name!r} is not installed"
        raise InputError(f"hardware {settings.kind}", problem, "pip install 'landbridge[serial]'") from error


def _open(robot: Robot, settings: HardwareSpec, scenario: str, seed: int) -> Hardware:
    if isinstance(settings, McuHardware):
        from landbridge.deploy.hardware.mcu import Mcu

        return Mcu(robot, settings)
    if isinstance(settings, TwinHardware):
        from landbridge.deploy.hardware.twin import Twin

        return Twin(robot, scenario, seed)
    from landbridge.deploy.hardware.servos import Servos

    return Servos(robot, settings)
