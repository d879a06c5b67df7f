"""The arm on an emulated bus of servos: and its driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from landbridge.deploy.clock import uptime
from landbridge.deploy.hardware.servos import Servos
from landbridge.hardware_spec import DynamixelHardware, FeetechHardware
from landbridge.robot import Robot, load_robot

from . import rig
from .rig import Emulated

ARM = load_robot("arm")
DT = ARM.spec.control_dt
HOME = [joint.default_joint_pos for joint in ARM.spec.joints]
AWAY = [0.3, -0.3, 0.4, 0.3, 0.5, 0.2]  # rad
SETTINGS: dict[str, type[DynamixelHardware | FeetechHardware]] = {
    "dynamixel": DynamixelHardware,
    "feetech": FeetechHardware,
}
until = partial(rig.until, seconds=4.0)  # an arm takes longer from pose to pose
PATIENT_MS = 400.0  # where time is not what is tested: a busy machine may be this late


def connect(kind: str, arm_bus: Emulated, robot: Robot = ARM, **changes: object) -> Servos:
    return Servos(robot, SETTINGS[kind](port=arm_bus.port, **changes))


def connect_patiently(kind: str, arm_bus: Emulated) -> Servos:
    safety = ARM.spec.safety.model_copy(update={"max_command_age_ms": PATIENT_MS})
    patient = Robot(ARM.spec.model_copy(update={"safety": safety}), ARM.folder)
    return connect(kind, arm_bus, patient, **({"watchdog_ms": PATIENT_MS} if kind == "dynamixel" else {}))


def power(servos: Servos, arm_bus: Emulated) -> None:
    """Have torque, and nothing left on its way to the servos: they have answered after the last write."""
    until(servos, lambda: all(arm_bus.order("status")["torque"]), HOME)
    written = uptime()
    until(servos, lambda: servos.told_at > written)


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


def tell(record_property: Callable[[str, object], None], kind: str, order: str, after_ms: float) -> None:
    """Print how long after an order something happened, and leave it for `benchmarks/servo_faults.py`."""
    print(f"{kind}, {order}: after {after_ms:.0f} ms")
    for name, value in {"kind": kind, "order": order, "after_ms": after_ms}.items():
        record_property(name, value)


def at(pose: Sequence[float], arm_bus: Emulated, joint: int = 0, within: float = 0.1) -> bool:
    return abs(arm_bus.order("status")["position"][joint] - pose[joint]) < within
