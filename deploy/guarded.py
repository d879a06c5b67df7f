"""What a guard and the only handle on its hardware pass to each other, in the bridge as in an acceptance run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from landbridge.deploy.clock import uptime
from landbridge.deploy.guard import Guard
from landbridge.deploy.hardware import BaseSensing, Hardware, Reporting, Timed
from landbridge.observation import Base
from landbridge.verdict import Verdict


class Measurement(NamedTuple):
    """One reading of the hardware.

    Attributes:
        now: When it was read [s, uptime].
        taken: When it was taken; that is earlier, where the hardware knows.
        news: Whether it is another than the last one, which under a new stamp would pass for fresh.
        position, velocity: Of all joints [rad, rad/s]; NaN while the hardware is faulty.
        base: State of a floating base, one row; None of a fixed one, and without news.
    """

    now: float
    taken: float
    news: bool
    position: Sequence[float]
    velocity: Sequence[float]
    base: Base | None

    @property
    def tilt(self) -> float:
        """Of the base from the vertical [rad]; 0 of a fixed one."""
        return 0.0 if self.base is None else float(self.base.tilt()[0])


class Guarded:
    """Hardware, and the guard that judges what it measures and what it is told.

    Args:
        guard: Of the robot; it outlives a handle.
        hardware: Open, as by `open_hardware`.
    """

    def __init__(self, guard: Guard, hardware: Hardware) -> None:
        self.guard, self.hardware = guard, hardware
        self._timed = hardware if isinstance(hardware, Timed) else None
        self._base: BaseSensing | None = None
        if guard.spec.base == "floating":
            assert isinstance(hardware, BaseSensing)  # `open_hardware` opens nothing else for such a robot
            self._base = hardware
        self._taken = -math.inf  # when the newest measurement was taken [s, uptime]

    def read(self) -> Measurement:
        """Take one measurement; whoever reads gives it a stamp, and hands what is new to `judge`."""
        position, velocity = self.hardware.read()
        now = uptime()
        taken = now if self._timed is None else self._timed.told_at
        news = taken > self._taken or bool(self.hardware.fault)
        self._taken = max(self._taken, taken)
        base = self._base.base() if news and self._base is not None else None
        return Measurement(now, taken, news, position, velocity, base)

    def judge(self, stamp: int, measured: Measurement) -> None:
        """Have the guard judge a measurement under its stamp [ns]."""
        self.guard.measure(stamp, measured.taken, measured.position, measured.velocity, measured.tilt)

    def apply(self, stop: Verdict) -> None:
        """Do what the guard asks for on its own."""
        if stop.release:
            self.hardware.disable()
        else:
            self.hardware.write(stop.command)

    def recover(self) -> None:
        """Clear the hardware's fault after a reset. Torque that one drive or more has lost comes back in ARMED only."""
        self.hardware.recover()
        if isinstance(self.hardware, Reporting) and self.hardware.limp:
            self.guard.torque_is_off()

    @property
    def holds(self) -> bool:
        """Whether torque is on: for all that the guard has commanded, or by the device's own report."""
        return self.guard.powered or (isinstance(self.hardware, Reporting) and self.hardware.torque)

    def has_ended(self, now: float) -> bool:
        """Whether a stop has ended; hardware that is gone stops by itself, and never again tells whether it rests."""
        return self.guard.settled(now, gone=bool(self.hardware.fault))
