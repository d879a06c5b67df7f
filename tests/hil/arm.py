"""The arm on an emulated bus of servos: its driver, and the control loop that drives it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from landbridge.deploy.hardware.servos import Servos
from landbridge.hardware_spec import DynamixelHardware, FeetechHardware
from landbridge.robot import Robot, load_robot

from .rig import Emulated

ARM = load_robot("arm")
DT = ARM.spec.control_dt
HOME = [joint.default_joint_pos for joint in ARM.spec.joints]
AWAY = [0.3, -0.3, 0.4, 0.3, 0.5, 0.2]  # rad
SETTINGS: dict[str, type[DynamixelHardware | FeetechHardware]] = {
    "dynamixel": DynamixelHardware,
    "feetech": FeetechHardware,
}
PATIENT_MS = 400.0  # where time is not what is tested: a busy machine may be this late


def connect(kind: str, arm_bus: Emulated, robot: Robot = ARM, **changes: object) -> Servos:
    return Servos(robot, SETTINGS[kind](port=arm_bus.port, **changes))


def connect_patiently(kind: str, arm_bus: Emulated) -> Servos:
    safety = ARM.spec.safety.model_copy(update={"max_command_age_ms": PATIENT_MS})
    patient = Robot(ARM.spec.model_copy(update={"safety": safety}), ARM.folder)
    return connect(kind, arm_bus, patient, **({"watchdog_ms": PATIENT_MS} if kind == "dynamixel" else {}))


def until(
    servos: Servos, condition: Callable[[], bool], command: Sequence[float] | None = None, seconds: float = 4.0
) -> None:
    """A control loop, commanding positions, until `condition` holds."""
    deadline, next_tick = time.monotonic() + seconds, time.monotonic()
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s; fault {servos.fault!r}, {dict(servos.counters)}"
        servos.read()
        if command is not None:
            servos.write(command)
        next_tick += DT
        time.sleep(max(0.0, next_tick - time.monotonic()))


def recover(servos: Servos) -> None:
    """What an operator's reset does, until the servos stay well."""

    def healthy() -> bool:
        if servos.fault:
            servos.recover()
            well.clear()
        well.append(not servos.fault)
        return len(well) > 8  # more than one round of all that is watched

    well: list[bool] = []
    until(servos, healthy)


def at(pose: Sequence[float], arm_bus: Emulated, joint: int = 0, within: float = 0.1) -> bool:
    return abs(arm_bus.order("status")["position"][joint] - pose[joint]) < within
