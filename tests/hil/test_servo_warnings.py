"""What the drivers of servo buses say without stopping: readings, heat, a low supply, no watchdog."""

from __future__ import annotations

import math
import warnings

import pytest

from landbridge.deploy.hardware.servos import Servos

from .arm import ARM, AWAY, HOME, at, connect, until
from .rig import Emulated

pytestmark = pytest.mark.filterwarnings("ignore:feetech")


def test_the_readings_of_each_servo_are_told(servos: Servos, arm_bus: Emulated) -> None:
    arm_bus.order("temperature wrist_roll 41")
    arm_bus.order("voltage gripper 11.1")
    until(servos, lambda: servos.readings.get("wrist_roll.temperature_c") == 41, HOME)
    until(servos, lambda: servos.readings.get("gripper.voltage_mv") == 11_100, HOME)
    assert servos.readings.get("elbow.temperature_c") == 35


def test_a_hot_servo_is_warned_of_and_goes_on(servos: Servos, arm_bus: Emulated) -> None:
    until(servos, lambda: at(HOME, arm_bus), HOME)
    arm_bus.order("temperature elbow 68")  # hot for us, not yet for the servo
    until(servos, lambda: servos.warning == "servo_temperature:elbow", HOME)
    until(servos, lambda: at(AWAY, arm_bus), AWAY)
    assert servos.fault == "" and all(map(math.isfinite, servos.read()[0]))
    arm_bus.order("temperature elbow 65")
    until(servos, lambda: servos.warning == "", AWAY)


def test_a_supply_is_low_by_what_the_model_is_made_for_or_by_what_is_set(bus: tuple[str, Emulated]) -> None:
    kind, arm_bus = bus

    def warning(model: int, volts: float, **settings: object) -> str:
        arm_bus.order("clear")
        for joint in ARM.spec.joint_names:
            arm_bus.order(f"model {joint} {model}")
            arm_bus.order(f"voltage {joint} {volts + (joint != 'elbow')}")
        servos = connect(kind, arm_bus, **settings)
        servos.close()
        assert servos.fault == ""
        return servos.warning

    low = "servo_voltage:elbow"
    made_for = {"dynamixel": {1200: 3.7, 1060: 6.5, 1020: 10.0}, "feetech": {777: 4.5, 2825: 6.0}}
    for model, least in made_for[kind].items():
        assert [warning(model, least), warning(model, least - 0.1)] == ["", low]
        assert [warning(model, least, min_voltage=least + 0.1), warning(model, least, min_voltage=3)] == [low, ""]
    arm_bus.order("clear")


def test_servos_without_a_watchdog_are_warned_of_and_no_others(kind: str, arm_bus: Emulated) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        connect(kind, arm_bus).close()
    assert ["no bus watchdog" in str(each.message) for each in told] == [True] * (kind == "feetech")
