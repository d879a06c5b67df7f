"""Opening a bus of servos: the port, and whether those that answer are the robot's, in order and ready."""

from __future__ import annotations

from collections.abc import Mapping

from landbridge.deploy.hardware.servo_bus import Bus, Family, Model
from landbridge.deploy.hardware.servo_joints import to_ticks
from landbridge.errors import InputError
from landbridge.hardware_spec import DynamixelHardware, FeetechHardware
from landbridge.joint import Joint

LIMITS = ("min_position_limit", "max_position_limit")


def make_bus(settings: DynamixelHardware | FeetechHardware) -> Bus:
    """The bus that `settings` speak of; the SDKs are imported only when used.

    Raises:
        InputError: Its port cannot be opened.
    """
    if isinstance(settings, DynamixelHardware):
        from landbridge.deploy.hardware.dynamixel import DynamixelBus

        return DynamixelBus(settings.port, settings.baud)
    from landbridge.deploy.hardware.feetech import FeetechBus

    return FeetechBus(settings.port, settings.baud)


def models(bus: Bus, joints: Mapping[int, Joint], settings: DynamixelHardware | FeetechHardware) -> dict[int, Model]:
    """The model of each servo, by id.

    Raises:
        InputError: One is missing, of a model that the driver does not know, set up so that robot.yaml is not the
            whole truth about its positions, or switches off before there is a warning.
        NoAnswerError, RefusedError: See `Bus.read`.
    """
    port, family = str(settings.port), bus.family
    numbers = {id: bus.model(id) for id in joints}
    if missing := [f"{joints[id].name} ({id})" for id, number in numbers.items() if number is None]:
        problem = f"no answer at {settings.baud} baud from {', '.join(missing)}"
        raise InputError(port, problem, "check power and wiring; `landbridge servo scan` tries every rate and protocol")
    found = {}
    for id, number in numbers.items():
        who = f"servo {id} ({joints[id].name})"
        if number is None or number not in family.models:
            known = ", ".join(f"{number} {model.name}" for number, model in sorted(family.models.items()))
            problem = f"{who} has model number {number}; known to the {family.name} driver: {known}"
            raise InputError(port, problem, "connect the right servo, or choose another hardware.kind")
        said = bus.read_block(id, family.block([*family.plain, *LIMITS, "temperature_limit"]))
        if problem := _not_plain(family, said, joints[id]):
            remedy = f"landbridge servo setup {port} --hardware {family.name} --id {id}"
            raise InputError(port, f"{who} {problem}", remedy)
        if said["temperature_limit"] <= settings.max_temperature_c:
            most = f"{settings.max_temperature_c:g}"
            problem = f"{most}: {who} switches off at {said['temperature_limit']} deg C, and drops its joint"
            raise InputError("hardware.max_temperature_c", problem, "set one a few degrees below: there it is parked")
        found[id] = family.models[number]
    return found


def _not_plain(family: Family, found: Mapping[str, int], joint: Joint) -> str:
    """What stands between robot.yaml and this servo, "" if nothing does; a goal beyond its own limits is not taken."""
    if wrong := [
        f"has {name} {found[name]}, not {value}" for name, value in family.plain.items() if found[name] != value
    ]:
        return wrong[0]
    assert joint.position_limit is not None  # see `by_id`
    ends, (low, high) = sorted(to_ticks(joint, end) for end in joint.position_limit), (found[name] for name in LIMITS)
    if low <= ends[0] and ends[1] <= high:
        return ""
    return f"takes goals of {low} to {high} ticks, and position_limit in robot.yaml asks for {ends[0]} to {ends[1]}"
