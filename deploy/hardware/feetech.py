"""Feetech STS series, through the vendor's SDK (`scservo_sdk`, of the package feetech-servo-sdk).

These servos have no bus watchdog: when the host falls silent, each holds its last goal for ever.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import scservo_sdk
from scservo_sdk import scservo_def

from landbridge.deploy.hardware.servo_bus import Bus, Family, Model, NoAnswerError, Register

# Feetech, "STS/SMS series memory table" (FT-SMS-STS-emanual). Sign and magnitude, with bit 15 or, for the load, bit 10.
FEETECH = Family(
    name="feetech",
    table={
        "model_number": Register(3, 2),
        "id": Register(5, 1),
        "baud_rate": Register(6, 1),
        "return_delay": Register(7, 1),
        "min_position_limit": Register(9, 2),
        "max_position_limit": Register(11, 2),
        "temperature_limit": Register(13, 1),
        "max_voltage_limit": Register(14, 1),
        "min_voltage_limit": Register(15, 1),
        "angle_resolution": Register(30, 1),
        "homing_offset": Register(31, 2, 11),
        "operating_mode": Register(33, 1),
        "torque_enable": Register(40, 1),
        "acceleration": Register(41, 1),
        "goal_position": Register(42, 2, 15),
        "goal_time": Register(44, 2),
        "goal_velocity": Register(46, 2, 15),
        "goal_pwm": Register(48, 2),  # Feetech: torque limit
        "lock": Register(55, 1),
        "present_position": Register(56, 2, 15),
        "present_velocity": Register(58, 2, 15),
        "present_load": Register(60, 2, 10),
        "present_voltage": Register(62, 1),
        "present_temperature": Register(63, 1),
        "hardware_error": Register(65, 1),
    },
    models={  # datasheets; of the STS3215 there is a type for 7.4 V, which does not work at all below 4.0 V
        777: Model("STS3215", 4.5),
        2825: Model("STS3250", 6.0),
    },
    # Of SMS_STS.h in Feetech's own library; LeRobot's table leaves out the sixth.
    bauds={0: 1_000_000, 1: 500_000, 2: 250_000, 3: 128_000, 4: 115_200, 5: 76_800, 6: 57_600, 7: 38_400},
    velocity_unit=2 * math.pi / 4096,  # a step per second
    return_delay_us=2,
    measured=("present_position", "present_velocity", "present_load", "present_voltage", "present_temperature"),
    watched=(("torque_enable",),),
    errors={1: "voltage", 2: "encoder", 4: "overheated", 8: "overcurrent", 32: "overload"},
    plain={"angle_resolution": 1, "homing_offset": 0, "operating_mode": 0},  # mode 0: position
    prepared={"acceleration": 254, "goal_time": 0},  # the largest; no time
    speed_limit="goal_velocity",  # of which 0 is no limit or a stop, by a bit of register 18
    latches=False,
)


class FeetechBus(Bus):
    """A bus of Feetech's protocol, which is Dynamixel's 1.0 with a sync read; see `Bus`."""

    def __init__(self, port: str | None, baud: int) -> None:
        super().__init__(FEETECH, scservo_sdk.PacketHandler(0), port, baud)  # 0: low byte first, as STS has it

    def refusal(self, error: int) -> bool:
        """Never: the error byte of these servos is their register `hardware_error`."""
        return False

    def alert(self, error: int) -> dict[str, int]:
        """See `Bus`."""
        return {"hardware_error": error}

    def reboot(self, id: int) -> None:
        """Nothing: they leave an error by themselves when its cause has gone."""

    @property
    def _blocked(self) -> int:
        return int(scservo_def.COMM_TX_FAIL)

    def _sync_read(self, start: int, length: int, ids: Sequence[int], fast: bool) -> dict[int, tuple[int, bytes]]:
        self._check(ids[0], self._sent(self._handler.syncReadTx, start, length, list(ids), len(ids)))
        return {id: self._answer(id, length) for id in ids}

    def _answer(self, id: int, length: int) -> tuple[int, bytes]:
        """Not by the SDK's `readRx`, which takes the checksum for data where a packet is too short."""
        packet, result = self._handler.rxPacket(self.port)
        if result != 0 or packet[2] != id or packet[3] != length + 2:
            raise NoAnswerError(id)
        return packet[4], bytes(packet[5 : 5 + length])
