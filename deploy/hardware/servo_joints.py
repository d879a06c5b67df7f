"""Joints of a robot as servos: which bus id, and what an encoder's ticks mean."""

from __future__ import annotations

import math

from landbridge.errors import InputError
from landbridge.hardware_spec import DynamixelHardware, FeetechHardware
from landbridge.joint import Joint
from landbridge.robot import Robot

TICKS = 4096  # per turn of the horn, of both families
CENTRE = 2048  # ticks at which the encoder says 0 rad


def by_id(robot: Robot, settings: DynamixelHardware | FeetechHardware) -> dict[int, Joint]:
    """The joints by bus id, in the order of `spec.joint_names`; raises InputError if servos cannot be this robot."""
    spec, file = robot.spec, robot.folder / "robot.yaml"
    if spec.action.kind != "position" or spec.base != "fixed":
        problem = f"is {spec.action.kind}-commanded with a {spec.base} base"
        raise InputError(file, problem, "servos on a bus take positions, and no IMU is on it")
    ids = settings.ids or {name: id for id, name in enumerate(spec.joint_names, start=1)}
    if set(ids) != set(spec.joint_names):
        raise InputError(
            file, f"hardware.ids names {sorted(ids)}, joints are {spec.joint_names}", "name each joint once"
        )
    if isinstance(settings, DynamixelHardware) and settings.watchdog_ms < 2000 * spec.control_dt:
        problem = f"watchdog_ms {settings.watchdog_ms:g} is less than two control periods"
        raise InputError(file, problem, "one late command would stop the robot")
    for joint in spec.joints:
        ends = joint.position_range
        if not all(0 <= turns(joint, end) < 1 for end in ends):
            problem = f"joint {joint.name}: position_limit {joint.position_limit} is not within one turn of its encoder"
            raise InputError(file, problem, "give it one that is, or correct encoder.offset, sign and gear")
    return {ids[joint.name]: joint for joint in spec.joints}


def turns(joint: Joint, position: float) -> float:
    """Where the encoder is at a joint position, in turns; 0.5 is its centre."""
    encoder = joint.encoder
    return CENTRE / TICKS + encoder.sign * encoder.gear * (position + encoder.offset) / (2 * math.pi)


def to_ticks(joint: Joint, position: float) -> int:
    """The nearest goal to a joint position [rad] that the servo can take."""
    return min(max(round(TICKS * turns(joint, position)), 0), TICKS - 1)


def to_position(joint: Joint, ticks: int) -> float:
    """Joint position [rad] that an encoder shows."""
    angle = (ticks - CENTRE) * 2 * math.pi / TICKS
    return joint.encoder.sign * angle / joint.encoder.gear - joint.encoder.offset
