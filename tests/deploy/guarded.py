"""A guard in virtual time, on a robot of two motors and a free joint."""

from __future__ import annotations

import math
from typing import Any

from landbridge.deploy.guard import Guard
from landbridge.deploy.supervisor import State
from landbridge.robot import RobotSpec

DT = 0.02
ZEROS = (0.0, 0.0, 0.0)
MS = 1_000_000  # ns


def beyond(value: float) -> float:
    """The next float away from zero."""
    return math.nextafter(value, math.copysign(math.inf, value))


def spec(kind: str = "effort", default: tuple[float, float] = (0.0, 0.0), **safety: Any) -> RobotSpec:
    return RobotSpec.model_validate(
        {
            "schema_version": 1,
            "name": "two",
            "urdf": "two.urdf",
            "control_rate_hz": 1 / DT,
            "decimation": 1,
            "latency_budget_ms": 10,
            "joints": [
                {
                    "name": "left",
                    "position_limit": [-2.0, 1.0],
                    "velocity_limit": 30,
                    "effort_limit": 0.5,
                    "rate_limit": 20,
                    "default_joint_pos": default[0],
                    "acceleration_limit": 100,
                    "jerk_limit": 4000,
                    "damping": 0.1,
                },
                {"name": "free", "actuated": False, "velocity_limit": 60},
                {
                    "name": "right",
                    "velocity_limit": 10,
                    "effort_limit": 2.0,
                    "rate_limit": 5,
                    "default_joint_pos": default[1],
                    "acceleration_limit": 100,
                    "jerk_limit": 4000,
                    "damping": 0.2,
                },
            ],
            "observation": [{"kind": "joint_pos", "joints": ["left"]}],
            "action": {"kind": kind, "scale": {"left": 1.0, "right": 1.0}},
            "safety": {"max_command_age_ms": 30, "max_tracking_error": 100, **safety},  # no test comes near by chance
        }
    )


class Bench:
    """A guard with a clock: measure, then answer. It has been armed where `position` is."""

    def __init__(self, kind: str = "effort", state: State = State.ACTIVE, position: Any = ZEROS, **safety: Any) -> None:
        self.guard = Guard(spec(kind, **safety))
        self.now, self.stamp, self.state, self.epoch = 100.0, 0, state, 0
        self.guard.measure(0, self.now - DT, position, ZEROS)
        if state in (State.ACTIVE, State.ARMED):
            self.guard.supervise(State.ARMED, 0, self.now - DT)
            self.guard.tick(self.now - DT)
        self.measure(position, period=0.0)

    def measure(self, position: Any = ZEROS, velocity: Any = ZEROS, period: float = DT) -> int:
        self.now += period
        self.stamp += 20 * MS
        self.guard.supervise(self.state, self.epoch, self.now)
        self.guard.measure(self.stamp, self.now, position, velocity)
        return self.stamp

    def answer(
        self, *values: float, names: Any = ("left", "right"), stamp: int | None = None, age: float = 0.002
    ) -> Any:
        return self.guard.admit(self.stamp if stamp is None else stamp, names, values, self.now + age)
