"""ROBOTIS Dynamixel, X series, protocol 2.0, through ROBOTIS' own SDK."""

from __future__ import annotations

import math
from collections.abc import Sequence

import dynamixel_sdk
from dynamixel_sdk import robotis_def

from landbridge.deploy.hardware.servo_bus import Bus, Family, Model, NoAnswerError, Register

ALERT = 0x80  # bit of a status packet's error: the register `hardware_error` is not zero (e-Manual, Protocol 2.0)

# e-Manual, XL430-W250 and XM430-W350, Control Table; a test holds addresses and sizes to the SDK's own model files.
# At 126 the XL430 reports its load [0.1 %], the XM430 its current [2.69 mA].
DYNAMIXEL = Family(
    name="dynamixel",
    table={
        "model_number": Register(0, 2),
        "id": Register(7, 1),
        "baud_rate": Register(8, 1),
        "return_delay": Register(9, 1),
        "drive_mode": Register(10, 1),
        "operating_mode": Register(11, 1),
        "homing_offset": Register(20, 4, -1),
        "temperature_limit": Register(31, 1),
        "max_voltage_limit": Register(32, 2),
        "min_voltage_limit": Register(34, 2),
        "max_position_limit": Register(48, 4),
        "min_position_limit": Register(52, 4),
        "torque_enable": Register(64, 1),
        "hardware_error": Register(70, 1),
        "bus_watchdog": Register(98, 1, -1),
        "goal_pwm": Register(100, 2, -1),
        "profile_acceleration": Register(108, 4, -1),
        "profile_velocity": Register(112, 4, -1),
        "goal_position": Register(116, 4, -1),
        "present_load": Register(126, 2, -1),
        "present_velocity": Register(128, 4, -1),
        "present_position": Register(132, 4, -1),
        "present_voltage": Register(144, 2),
        "present_temperature": Register(146, 1),
    },
    models={  # dynamixel_easy_sdk/control_table/dynamixel.model: those with this table; e-Manual, Specifications
        1020: Model("XM430-W350", 10.0),
        1030: Model("XM430-W210", 10.0),
        1060: Model("XL430-W250", 6.5),
        1070: Model("XC430-W150", 6.5),
        1080: Model("XC430-W240", 6.5),
        1120: Model("XM540-W270", 10.0),
        1130: Model("XM540-W150", 10.0),
        1190: Model("XL330-M077", 3.7),
        1200: Model("XL330-M288", 3.7),
        1220: Model("XC330-T288", 6.5),
        1240: Model("XC330-M288", 3.7),
    },
    bauds={
        0: 9_600,
        1: 57_600,
        2: 115_200,
        3: 1_000_000,
        4: 2_000_000,
        5: 3_000_000,
        6: 4_000_000,
    },
    velocity_unit=0.229 * 2 * math.pi / 60,
    return_delay_us=2,
    measured=("present_load", "present_velocity", "present_position"),
    watched=(("torque_enable", "hardware_error"), ("bus_watchdog",), ("present_voltage", "present_temperature")),
    errors={1: "voltage", 4: "overheated", 8: "encoder", 16: "electric_shock", 32: "overload"},
    plain={  # mode 3: position. Drive Mode(10) can also turn the direction, and torque on with a goal
        "drive_mode": 0,
        "operating_mode": 3,
        "homing_offset": 0,
    },
    prepared={"profile_acceleration": 0, "profile_velocity": 0},  # 0: no profile
    latches=True,  # e-Manual, Shutdown(63)
    packed={  # voltages below 25.6 V, positions within eight turns, speeds of less than 700 rad/s
        "id": 1,
        "torque_enable": 1,
        "hardware_error": 1,
        "bus_watchdog": 1,
        "present_load": 2,
        "present_velocity": 2,
        "present_position": 2,
        "present_voltage": 1,
        "present_temperature": 1,
    },
    indirect=168,  # Indirect Address 1
    shown=(224, 208),  # Indirect Data 1; the second one of XL330 and XC330 from firmware 52 on
)


class DynamixelBus(Bus):
    """A bus of protocol 2.0; see `Bus`."""

    def __init__(self, port: str | None, baud: int) -> None:
        super().__init__(DYNAMIXEL, dynamixel_sdk.PacketHandler(2.0), port, baud)

    def refusal(self, error: int) -> bool:
        """See `Bus`."""
        return bool(error & ~ALERT)

    def alert(self, error: int) -> dict[str, int]:
        """See `Bus`."""
        return {"alert": error & ALERT}

    def reboot(self, id: int) -> None:
        """See `Bus`; torque is off afterwards."""
        self._sent(self._handler.reboot, id)

    @property
    def _blocked(self) -> int:
        return int(robotis_def.COMM_TX_FAIL)

    def _sync_read(self, start: int, length: int, ids: Sequence[int], fast: bool) -> dict[int, tuple[int, bytes]]:
        self._check(ids[0], self._sent(self._handler.syncReadTx, start, length, list(ids), len(ids), fast))
        return self._fast_answer(ids, length) if fast else {id: self._answer(id, length) for id in ids}

    def _fast_answer(self, ids: Sequence[int], length: int) -> dict[int, tuple[int, bytes]]:
        """One packet of all: for each servo error, id, data and the CRC so far; it is never stuffed."""
        size = length + 4
        packet, result = self._handler.rxPacket(self.port, True)
        if result != 0 or packet[4] != robotis_def.BROADCAST_ID or len(packet) != 8 + size * len(ids):
            came = max(len(packet) - 8, 0) // size  # servos answer in turn, each after the one before it
            raise NoAnswerError(ids[min(came, len(ids) - 1)])
        blocks = [packet[at : at + size] for at in range(8, len(packet), size)]
        found = {block[1]: (block[0], bytes(block[2 : 2 + length])) for block in blocks}
        if missing := [id for id in ids if id not in found]:
            raise NoAnswerError(missing[0])
        return found

    def _answer(self, id: int, length: int) -> tuple[int, bytes]:
        """Not by the SDK's `readRx`, which takes the CRC for data where a packet is too short."""
        packet, result = self._handler.rxPacket(self.port, False)
        if result != 0 or packet[4] != id or packet[5] | packet[6] << 8 != length + 4:
            raise NoAnswerError(id)
        return packet[8], bytes(packet[9 : 9 + length])
