"""What servos say of themselves, and which of it is a fault, or a warning."""

from __future__ import annotations

import math
from collections.abc import Mapping

from landbridge.deploy.hardware.servo_bus import Family, Model
from landbridge.hardware_spec import DynamixelHardware, FeetechHardware
from landbridge.joint import Joint

READINGS = (  # registers, what they are called, and how many of that unit one count is
    ("present_load", "load", 1),
    ("present_voltage", "voltage_mv", 100),
    ("present_temperature", "temperature_c", 1),
)


class Health:
    """The newest that each servo has said of itself.

    Attributes:
        powered: Ids of those with torque.
        stopped: Ids of those that their bus watchdogs have stopped.
        broken: Bits of the errors of its own that each has reported since the last reset, by id; 0: none.
        models: Of those that have answered, by id.
    """

    def __init__(self, joints: Mapping[int, Joint], settings: DynamixelHardware | FeetechHardware) -> None:
        self._joints, self._settings = joints, settings
        self._said: dict[int, dict[str, int]] = {id: {} for id in joints}
        self.powered: set[int] = set()
        self.stopped: set[int] = set()
        self.broken: dict[int, int] = {}
        self.models: Mapping[int, Model] = {}
        self._borne: dict[int, int] = {}  # error bits that stay set after a reset although the servo works

    @property
    def readings(self) -> dict[str, int]:
        """Load (in its own unit), temperature [deg C] and voltage [mV] of each servo, as `elbow.load`."""
        return {
            f"{self._joints[id].name}.{label}": unit * said[register]
            for id, said in self._said.items()
            for register, label, unit in READINGS
            if register in said
        }

    def acknowledge(self, family: Family) -> None:
        """A reset: what is still wrong is said again.

        But not by a servo that goes on with torque in spite of its error, and keeps it until a reboot, which would let
        its joint fall. What it has reported is borne until it shows it no more, or is without torque.
        """
        if family.latches:
            self._borne = {id: self._borne.get(id, 0) | self.broken.get(id, 0) for id in self.powered}
        self.stopped.clear()
        self.broken.clear()

    def judge(self, family: Family, id: int, values: Mapping[str, int], powered: bool) -> str:
        """Take `values` of registers of servo `id`, whichever have been read; the fault that they show, "" if none.

        Args:
            powered: Whether it should have torque.
        """
        torque, fault = values.get("torque_enable"), ""
        self._said[id].update(values)
        if torque is not None:
            (self.powered.add if torque else self.powered.discard)(id)
        if (error := values.get("hardware_error")) is not None:
            self._borne[id] = self._borne.get(id, 0) & error if id in self.powered else 0
            self.broken[id] = self.broken.get(id, 0) | error
        if error := (error or 0) & ~self._borne.get(id, 0):
            bit = error & -error
            fault = f"servo_{family.errors.get(bit, f'error_{bit}')}"
        elif values.get("bus_watchdog", 0) < 0:
            self.stopped.add(id)
            fault = "bus_watchdog"
        elif powered and torque == 0:
            fault = "torque_lost"
        return fault and f"{fault}:{self._joints[id].name}"

    @property
    def warning(self) -> str:
        """The first servo that is too hot, or supplied with too little, to work on; it is not at its own limits yet."""
        for id, said in self._said.items():
            if said.get("present_temperature", 0) > self._settings.max_temperature_c:
                return f"servo_temperature:{self._joints[id].name}"
            least = self._settings.min_voltage or self.models[id].min_voltage
            if said.get("present_voltage", math.inf) < 10 * least:
                return f"servo_voltage:{self._joints[id].name}"
        return ""
