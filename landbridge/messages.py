"""The messages of a robot's graph, for whoever speaks ROS 2 or only reads bags: topics, stamps, named values."""

from __future__ import annotations

from typing import Any

JOINT_STATES = "/joint_states"
IMU = "/imu/data"
ODOM = "/odom"
OBSERVATION = "/policy/observation"
ACTION = "/policy/action"
COMMAND = "/policy/command"
GUARD_COMMAND = "/guard/command"
GUARD_TIMING = "/guard/timing"
BRIDGE_FAULT = "/bridge/fault"
SAFETY_STATE = "/safety/state"
DIAGNOSTICS = "/diagnostics"


def to_ns(stamp: Any) -> int:
    """A message's stamp (builtin_interfaces/Time) in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def is_labelled(message: Any) -> bool:
    """Whether an array names its values, as all of ours do; anybody may publish another one."""
    dim = message.layout.dim
    return len(dim) == 1 and len(dim[0].label.split(",")) == len(message.data) >= 2


def named_values(message: Any) -> tuple[int, dict[str, float]]:
    """Stamp [ns] and values of an array whose label names them, the first two being the stamp."""
    _, _, *names = message.layout.dim[0].label.split(",")
    sec, nanosec, *values = message.data.tolist()
    return int(sec) * 1_000_000_000 + int(nanosec), dict(zip(names, values, strict=True))
