"""What drives the joints: the line `hardware` of `robot.yaml`, one model per `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from landbridge.spec import Positive, Spec

Baud = Annotated[int, Field(gt=0)]
ServoId = Annotated[int, Field(ge=0, le=252)]  # 253 and above mean something else to both protocols


class TwinHardware(Spec):
    """The robot in Bullet, inside the bridge."""

    kind: Literal["twin"] = "twin"


class McuHardware(Spec):
    """A board that runs `deploy/firmware`.

    Attributes:
        port: Serial port, best by the name that udev gives it in /dev/serial/by-id; None: to be named at the start.
        baud: Rate of the line; USB CDC has none of its own, so that a high one may be named.
        watchdog_ms: Time without an admissible command after which the board stops the robot; at least two control
            periods, at most what the firmware allows.
        telemetry_rate_hz: How often the board reports; within what `baud` carries.
    """

    kind: Literal["mcu"] = "mcu"
    port: str | None = None
    baud: Baud = 1_000_000
    watchdog_ms: Annotated[float, Field(gt=0, le=200)] = 60.0
    telemetry_rate_hz: Annotated[float, Field(ge=20, le=2000)] = 500.0


class ServoHardware(Spec):
    """Servos on one serial bus, commanded in position.

    Attributes:
        port: As for `McuHardware`.
        ids: Bus id of every joint, by the joint's name; empty: 1, 2, ... in the order of `joints`.
        max_temperature_c: A servo hotter than this ends the work, and the robot is parked [deg C]; below the limit at
            which the servo itself switches off.
        min_voltage: So does one that is supplied with less [V]; None: the least that its model is made for.
    """

    port: str | None = None
    baud: Baud = 1_000_000
    ids: dict[str, ServoId] = Field(default={})
    max_temperature_c: Positive = 65.0  # XL430 switches off at 72, XL330 and STS3215 at 70, XM430 at 80 by default
    min_voltage: Positive | None = None

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        if len(set(self.ids.values())) != len(self.ids):
            raise ValueError(f"two joints share a bus id: {self.ids}")
        return self


class DynamixelHardware(ServoHardware):
    """ROBOTIS Dynamixel of the X series, protocol 2.0.

    Attributes:
        watchdog_ms: Silence of the bus after which each servo stops by itself, in steps of 20 ms; at least two control
            periods.
    """

    kind: Literal["dynamixel"] = "dynamixel"
    watchdog_ms: Annotated[float, Field(ge=20, le=2540)] = 100.0


class FeetechHardware(ServoHardware):
    """Feetech STS series (STS3215 of SO-100 and SO-101). These servos have no bus watchdog."""

    kind: Literal["feetech"] = "feetech"


HardwareSpec = Annotated[TwinHardware | McuHardware | DynamixelHardware | FeetechHardware, Field(discriminator="kind")]
