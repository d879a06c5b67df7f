"""Drivers behind one interface; the bridge owns the only handle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


class Hardware(Protocol):
    """Motors and encoders: joints in `spec.joint_names` order, commands in `spec.actuated` order, SI units."""

    def read(self) -> tuple[Sequence[float], Sequence[float]]:
        """Measured positions and velocities of all joints."""

    def write(self, command: Sequence[float]) -> None:
        """Send one command that the guard has admitted; it stays in effect until the next. Torque comes on with it."""

    def disable(self) -> None:
        """Take torque off; the next write brings it back. Called at the end of PARK only."""

    def close(self) -> None:
        """Release the bus. Torque is left as it is: off after PARK, else the last command written is a stop."""


@runtime_checkable
class Resettable(Protocol):
    """Hardware that can be put back to a start state by a program: a twin."""

    def reset(self) -> None:
        """Place the joints at the next start state of the task and hold them there."""

    def release(self) -> None:
        """Let go of the joints; without effect on a twin that is not held."""
