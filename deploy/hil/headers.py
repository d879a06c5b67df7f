"""C headers: the protocol from its one table, and a board's joints from `robot.yaml`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from landbridge.deploy.hardware import protocol
from landbridge.deploy.hardware.protocol import Field, Kind
from landbridge.errors import InputError
from landbridge.robot import Robot


def protocol_header() -> str:
    """The text of `deploy/firmware/protocol.h`."""
    lines = [
        "/* Rendered from deploy/hardware/protocol.py by `landbridge hil protocol`; do not edit. */",
        "#ifndef LANDBRIDGE_PROTOCOL_H",
        "#define LANDBRIDGE_PROTOCOL_H",
        "",
        "#ifndef LB_VERSION",
        f"#define LB_VERSION {protocol.VERSION}",
        "#endif",
        "",
        *_enum("LB", {name: getattr(protocol, name) for name in ("MAX_JOINTS", "NAME_SIZE", "WATCHDOG_MAX_MS")}),
        *_enum("LB", {name: getattr(protocol, name) for name in ("FRAME_MAX", "CODED_MAX", "CRC_SIZE")}),
        *_enum("LB", Kind.__members__),
        *_enum("LB", protocol.Mode.__members__),
        *_enum("LB", protocol.State.__members__),
        *_enum("LB_FAULT", protocol.Fault.__members__),
        "/* Where each field begins in a frame. Repeated fields follow at the end, from _SIZE on. */",
        *_offsets("HEADER", protocol.HEADER, 0),
    ]
    for kind, fields in protocol.PAYLOADS.items():
        lines += _offsets(kind.name, fields, protocol.HEADER_FORMAT.size)
    return "\n".join([*lines, "#endif", ""])


def robot_header(robot: Robot) -> str:
    """The joint table that a board of `robot` is built with.

    Raises:
        InputError: More joints, or longer names, than the protocol carries.
    """
    spec = robot.spec
    if len(spec.joints) > protocol.MAX_JOINTS:
        problem = f"has {len(spec.joints)} joints, the link carries {protocol.MAX_JOINTS}"
        raise InputError(robot.folder / "robot.yaml", problem, "use one board for each group of joints")
    for name in (spec.name, *spec.joint_names):
        try:
            protocol.name_bytes(name)
        except ValueError as error:
            raise InputError(robot.folder / "robot.yaml", str(error), "shorten it") from error
    lines = [
        f"/* Rendered from {spec.name}'s robot.yaml by `landbridge hil joints --robot {spec.name}`; do not edit. */",
        "/* name, actuated, lower, upper, velocity limit, effort limit, damping; SI units */",
        "static const lb_joint_t lb_joints[] = {",
    ]
    for joint in spec.joints:
        lower, upper = joint.position_range
        numbers = (lower, upper, joint.velocity_limit, joint.effort_limit, joint.damping)
        actuated = "true" if joint.actuated else "false"
        lines.append(f'    {{"{joint.name}", {actuated}, {", ".join(map(_literal, numbers))}}},')
    mode = f"LB_{spec.action.kind.upper()}"
    lines += ["};", f'static const lb_robot_t lb_robot = {{"{spec.name}", {mode}, {len(spec.joints)}, lb_joints}};', ""]
    return "\n".join(lines)


def _enum(prefix: str, members: Mapping[str, int]) -> Iterator[str]:
    values = ", ".join(f"{prefix}_{name} = {int(value)}" for name, value in members.items())
    yield f"enum {{ {values} }};"
    yield ""


def _offsets(name: str, fields: Sequence[Field], at: int) -> Iterator[str]:
    found = {}
    for field in fields:
        if field.per:
            break
        found[f"{name}_{field.name.upper()}"] = at
        at += protocol.size_of(field)
    yield from _enum("LB", found | {f"{name}_SIZE": at})


def _literal(value: float) -> str:
    if math.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    return f"{float(value)!r}f"
