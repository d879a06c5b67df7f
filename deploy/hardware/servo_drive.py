"""What servos are told: goals, torque, and their bus watchdogs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence

from landbridge.deploy.hardware.servo_bus import TRIES, Bus, NoAnswerError
from landbridge.deploy.hardware.servo_joints import to_ticks
from landbridge.hardware_spec import DynamixelHardware, FeetechHardware
from landbridge.joint import Joint

WATCHDOG_UNIT_MS = 20  # ROBOTIS e-Manual, Bus Watchdog(98)
TOP_SPEED = 2**15 - 1  # that a register holds
OFF_S = 0.05  # in which all servos can say at any rate that torque is off; asked when no loop is left to be late


class Drive:
    """The servos of one robot, on whichever bus is open; everything but the watchdog's time raises as `Bus` does.

    Attributes:
        torque: Whether they are to have it; None: left as it was found.
        wrote_at: When the newest goals were written, on `clock`.
        watchdog: Silence after which servos stop by themselves [s], in whole units of 20 ms; infinite: they have none.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        joints: Mapping[int, Joint],
        settings: DynamixelHardware | FeetechHardware,
        clock: Callable[[], float],
    ) -> None:
        self._joints, self._clock = joints, clock
        self.actuated = [id for id, joint in joints.items() if joint.actuated]
        self.torque: bool | None = None
        self.wrote_at = -math.inf
        self._goals: dict[int, int] = {}
        self._watchdog_units = 0
        if isinstance(settings, DynamixelHardware):
            self._watchdog_units = math.ceil(settings.watchdog_ms / WATCHDOG_UNIT_MS)
        self.watchdog = WATCHDOG_UNIT_MS * self._watchdog_units / 1000 or math.inf

    def begin(self, bus: Bus, here: Mapping[int, float]) -> None:
        """Goals at the joints' own places [rad], then watchdogs anew: a servo whose watchdog is cleared may go on.

        And what a servo forgets when its supply breaks down. `here` has those with torque: without it there is no goal
        before the first `write`, so that none can bring torque with it.
        """
        self._set_watchdog(bus, 0)  # makes goals writable again
        for register, value in bus.family.prepared.items():
            bus.sync_write(register, dict.fromkeys(self._joints, value))
        if register := bus.family.speed_limit:
            unit = bus.family.velocity_unit
            bus.sync_write(register, {id: _top_speed(joint, unit) for id, joint in self._joints.items()})
        if here:
            bus.sync_write("goal_position", {id: to_ticks(self._joints[id], place) for id, place in here.items()})
        self.arm_watchdog(bus)

    def write(self, bus: Bus, command: Sequence[float]) -> None:
        """Goals of the actuated joints [rad]; torque comes on with the first ones."""
        goals = {id: to_ticks(self._joints[id], value) for id, value in zip(self.actuated, command, strict=True)}
        bus.sync_write("goal_position", goals)
        self.wrote_at, self._goals = self._clock(), goals
        if not self.torque:
            self.arm_watchdog(bus)
            bus.sync_write("torque_enable", dict.fromkeys(self.actuated, 1))
            self.torque = True

    def in_effect(self, bus: Bus) -> bool:
        """Whether the servos' goals are the newest ones; raises NoAnswerError."""
        answers = bus.sync_read(bus.family.block(["goal_position"]), self.actuated)
        return {id: values["goal_position"] for id, values in answers.items()} == self._goals

    def arm_watchdog(self, bus: Bus) -> None:
        """Where they have one; no servo answers the packet."""
        self._set_watchdog(bus, self._watchdog_units)

    def _set_watchdog(self, bus: Bus, units: int) -> None:
        if self._watchdog_units:
            bus.sync_write("bus_watchdog", dict.fromkeys(self.actuated, units))

    def power_off(self, bus: Bus) -> None:
        """Say it to all; none of them answers."""
        bus.sync_write("torque_enable", dict.fromkeys(self._joints, 0))

    def ensure_power_off(self, bus: Bus) -> bool:
        """Repeat it until every servo says so, a few times at most; returns whether they do."""
        for _ in range(TRIES):
            self.power_off(bus)
            bus.port.deadline = self._clock() + OFF_S
            with contextlib.suppress(NoAnswerError):
                answers = bus.sync_read(bus.family.block(["torque_enable"]), list(self._joints))
                if not any(values["torque_enable"] for values in answers.values()):
                    return True
        return False


def _top_speed(joint: Joint, unit: float) -> int:
    """What a servo may do at most, in its own unit [rad/s]; more than its register holds is no limit."""
    return min(math.ceil(joint.encoder.gear * joint.velocity_limit / unit), TOP_SPEED)
