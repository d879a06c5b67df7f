"""The smallest move that shows how a joint is wired: a command that grows slowly until an encoder answers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from landbridge.deploy.hil.loop import Loop, Tick

DISTANCE = 0.1  # rad: that much is a move
RAMP_SECONDS = 2.0  # from nothing to the largest command
LINGER_SECONDS = 1.0  # at the largest command
STILL_SECONDS = 1.0  # before the move, to see what swings without it: a period of a free link of 0.3 m
OTHERS = 0.5  # of the joint's own way: how far another driven joint may go
LOOSE = 1.0  # the same of a passive one, which hangs on what is moved
SPEED_RATIO = 3.0  # of the way that the reported speed adds up to: a unit that is wrong, rpm or degrees, is off by more


@dataclass(frozen=True)
class Move:
    """What a nudge has done.

    Attributes:
        joint: Whose motor was commanded.
        sign: Which way.
        command: The largest one, in the unit of `action.kind`.
        ways: How far each joint went [rad], signed, in `spec.joint_names` order.
        allowed: How far each of the others may go [rad].
        ticks: Its control periods.
    """

    joint: str
    sign: int
    command: float
    names: list[str]
    ways: list[float]
    allowed: list[float]
    ticks: list[Tick]

    @property
    def way(self) -> float:
        """How far the joint itself went, positive if it went as commanded [rad]."""
        return self.sign * self.ways[self.names.index(self.joint)]

    def farthest(self) -> tuple[str, float]:
        """The other joint that went farthest beyond what it may, and its way [rad]; "" if none did."""
        others = [
            (abs(way) - most, name, way)
            for name, way, most in zip(self.names, self.ways, self.allowed, strict=True)
            if name != self.joint and abs(way) > most
        ]
        _, name, way = max(others, default=(0.0, "", 0.0))
        return name, way

    def problem(self) -> str:
        """What is wrong with it, "" if nothing is."""
        said = f"{self.joint}: commanded {self.command:+.3g}, its encoder moved by {self.sign * self.way:+.3f} rad"
        other, way = self.farthest()
        if other:
            return f"{said}, that of {other} by {way:+.3f}: motors or encoders are swapped"
        if self.way <= -DISTANCE:
            return f"{said}: the motor or the encoder is reversed (encoder.sign)"
        if self.way < DISTANCE:
            return f"{said}: it is blocked, or motor, encoder or power is not connected"
        if not 1 / SPEED_RATIO <= self.sign * self.by_speed / self.way <= SPEED_RATIO:
            return f"{said}, and its speed adds up to {self.by_speed:+.3f} rad: the speed has a wrong sign or unit"
        return ""

    @property
    def by_speed(self) -> float:
        """How far the joint went by its measured speed, signed [rad]: what damping goes by."""
        at = self.names.index(self.joint)
        return sum((a.velocity[at] + b.velocity[at]) / 2 * (b.time - a.time) for a, b in pairwise(self.ticks))

    def row(self) -> dict[str, Any]:
        """Figures for a table."""
        others = [(abs(way), name) for name, way in zip(self.names, self.ways, strict=True) if name != self.joint]
        most, other = max(others, default=(0.0, "none"))
        return {
            "joint": self.joint,
            "commanded": self.command,
            "moved_rad": self.sign * self.way,
            "in_s": self.ticks[-1].time - self.ticks[0].time,
            "most_moved_other": other,
            "by_rad": most,
        }


def nudge(loop: Loop, joint: str, sign: int) -> Move:
    """Let the command of `joint` grow until its encoder, or one that should not, has moved; leaves it in motion.

    Raises:
        Failed: A fault.
    """
    spec = loop.spec
    at, own = spec.joint_names.index(joint), spec.actuated.index(joint)
    still = loop.wait(STILL_SECONDS)
    swing = [max(xs) - min(xs) for xs in zip(*(tick.position for tick in still), strict=True)]
    share = {True: OTHERS, False: LOOSE}
    allowed = [share[j.actuated] * DISTANCE + drift for j, drift in zip(spec.joints, swing, strict=True)]
    start, count = loop.last, len(loop.ticks)
    base, largest = loop.idle(), _largest(loop, joint)
    in_position = spec.action.kind == "position"
    ways, command = [0.0] * len(swing), 0.0
    periods = round(RAMP_SECONDS * spec.control_rate_hz)
    for period in range(periods + round(LINGER_SECONDS * spec.control_rate_hz)):
        command = sign * largest * min(1.0, (period + 1) / periods)
        wanted = list(base if in_position else loop.idle())
        wanted[own] = command + (base[own] if in_position else 0.0)
        tick = loop.step(wanted)
        ways = [now - before for now, before in zip(tick.position, start.position, strict=True)]
        others = (abs(way) > most for i, (way, most) in enumerate(zip(ways, allowed, strict=True)) if i != at)
        if abs(ways[at]) >= DISTANCE or any(others):
            break
    return Move(joint, sign, command, spec.joint_names, ways, allowed, loop.ticks[count - 1 :])


def _largest(loop: Loop, name: str) -> float:
    """The command at which a joint must have moved: what the reduced limits allow, or twice the way."""
    joint = loop.spec.joint(name)
    if loop.spec.action.kind == "position":
        return 2 * DISTANCE
    return joint.effort_limit if loop.spec.action.kind == "effort" else joint.velocity_limit
