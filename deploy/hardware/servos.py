"""The driver of servos on a bus, Dynamixel or Feetech: joints by name, positions in, positions out."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from landbridge.deploy.clock import uptime
from landbridge.deploy.guard import BEYOND
from landbridge.deploy.hardware.port import BITS_PER_BYTE
from landbridge.deploy.hardware.servo_bus import TRIES, Bus, NoAnswerError, RefusedError
from landbridge.deploy.hardware.servo_drive import Drive
from landbridge.deploy.hardware.servo_health import Health
from landbridge.deploy.hardware.servo_joints import by_id, to_position
from landbridge.deploy.hardware.servo_open import make_bus, models
from landbridge.deploy.hardware.servo_poll import Poll
from landbridge.deploy.hardware.servo_port import TURNAROUND_MS
from landbridge.errors import InputError
from landbridge.hardware_spec import DynamixelHardware, FeetechHardware
from landbridge.robot import Robot

READ_SHARE = 0.8  # of a control period in which an answer may be waited for and asked for again
RETRY_S = 0.5  # between two attempts to open a lost port
REOPEN_S = 0.05  # that one of them may take, while the robot is stopped for want of a port; and for each servo:
REOPEN_ANSWERS, REOPEN_BYTES = 2, 300  # it answers two questions alone; all its bytes, both ways, rounded up


class Servos:
    """Servos of one family on one bus.

    Every servo watches its own load, temperature, voltage and encoder; what it reports is a `fault` that names the
    joint, as `servo_overload:elbow`, and so are `servo_silent` and `torque_lost`. Before a servo gets that hot, or its
    supply that low, there is a `warning`, `servo_temperature` or `servo_voltage`.
    Dynamixel has a watchdog besides: servos that hear nothing for `watchdog_ms` stop where they are, and obey again
    after a reset (`bus_watchdog`). **Feetech has none**: if this process dies, its servos go on to their last goal and
    hold it. What limits the harm is that the guard's goals are never far ahead of the joint.

    Attributes:
        fault: What is wrong with servos or bus, "" while nothing is; latched until `recover`.
        warning: What one of them will not bear for long, by its newest answer; "" while there is nothing.
        counters: Answers that were missing or damaged, and the like.
        told_at: When the newest measurement was asked for, on `clock`.

    Args:
        clock: Monotonic seconds.

    Raises:
        InputError: The robot is not one of servos, the port cannot be opened, or what answers on it is not its servos.
    """

    def __init__(
        self, robot: Robot, settings: DynamixelHardware | FeetechHardware, clock: Callable[[], float] = uptime
    ) -> None:
        self.fault = self.warning = ""
        self.counters: Counter[str] = Counter()
        self._spec, self._settings, self._clock = robot.spec, settings, clock
        self._joints = by_id(robot, settings)
        self._drive = Drive(self._joints, settings, clock)
        self._stale = self._spec.safety.max_command_age_ms / 1000
        self._goals_taken = False  # by the answer to the last question of `in_effect`
        self._reopened = False  # after a loss of the port: no goal goes out before an operator's reset
        self._position = dict.fromkeys(self._joints, math.nan)
        self._velocity = dict(self._position)
        self.told_at = self._asked_at = -math.inf
        self._health = Health(self._joints, settings)
        self._holding: set[int] = set()  # who had torque at the last reset, where others had lost theirs
        self._bus: Bus | None = None
        self._open(beyond=BEYOND)
        if isinstance(settings, FeetechHardware):
            warnings.warn(
                "feetech servos have no bus watchdog: they hold their last goal if this process ends", stacklevel=2
            )

    def read(self) -> tuple[Sequence[float], Sequence[float]]:
        """Newest measurement in the order of `spec.joint_names`, at most `max_command_age_ms` old; NaN if faulty."""
        now = self._clock()
        if self._bus is None:
            self._reopen(now)
        else:
            self._safely(self._measure, now)
        if not self.fault and self._clock() - self.told_at > self._stale:
            self.fault = f"servo_silent:{self._joints[self._poll.silent].name}"
        if self.fault:
            nothing = [math.nan] * len(self._joints)
            return nothing, nothing
        return list(self._position.values()), list(self._velocity.values())

    def write(self, command: Sequence[float]) -> None:
        """Set the goals; torque comes on with the first one. Goals go out while faulty, too: then they are a stop.

        But none after a loss of the port: the servos have stopped meanwhile, and stay where they are until `recover`.
        Nor does a stop bring torque to servos that have none yet, because the port took no goal before the fault.
        """
        if not self._reopened and (self._drive.torque or not self.fault):
            self._safely(self._drive.write, command)

    def disable(self) -> None:
        """Take torque off. What a servo has not heard is repeated when its register shows it."""
        self._drive.torque = False
        self._holding.clear()
        self._safely(self._drive.power_off)

    @property
    def readings(self) -> dict[str, int]:
        """What each servo last said of its load (in its own unit), temperature [deg C] and voltage [mV].

        And whether all comes in one answer (`packed`): else more questions are asked, and some only in turn.
        """
        return self._health.readings | {"packed": int(self._poll.packed)}

    @property
    def identity(self) -> dict[str, str]:
        """Port, and the model of each servo."""
        servos = ", ".join(f"{self._joints[id].name} {model.name}" for id, model in self._health.models.items())
        return {"port": str(self._settings.port), "baud": str(self._settings.baud), "servos": servos}

    @property
    def watchdog(self) -> float:
        """What the servos were told [s], in whole units of 20 ms; Feetech has none."""
        return self._drive.watchdog

    @property
    def streams(self) -> bool:
        """A servo speaks only when it is asked."""
        return False

    @property
    def torque(self) -> bool:
        """Whether any servo is powered, by what each last said."""
        return bool(self._health.powered)

    @property
    def limp(self) -> Collection[str]:
        """By what each servo last said; `recover` has asked anew."""
        return [self._joints[id].name for id in self._drive.actuated if id not in self._health.powered]

    @property
    def stopped(self) -> Collection[str]:
        """By what each servo's register last said; all are asked at once."""
        return [self._joints[id].name for id in self._health.stopped]

    def in_effect(self, written: float) -> bool:
        """Asks the servos for their goals: whether they are the newest ones, and those not older than `written`."""
        self._goals_taken = False
        if self._drive.wrote_at >= written:
            self._safely(self._compare_goals)
        return self._goals_taken

    def _compare_goals(self, bus: Bus) -> None:
        bus.port.deadline = self._clock() + READ_SHARE * self._spec.control_dt
        with contextlib.suppress(NoAnswerError):
            self._goals_taken = self._drive.in_effect(bus)

    def recover(self) -> None:
        """Clear watchdogs and errors, and begin from where the joints are. What is still wrong comes back."""
        self._safely(self._recover)

    def close(self) -> None:
        """Release the port. Torque that was taken off is made sure of, for nobody repeats it afterwards.

        Else it is left as it is: Dynamixel stops by its watchdog, Feetech holds its last goal.
        """
        if self._drive.torque is False:
            off = False
            with contextlib.suppress(OSError):  # the port is lost: nothing more can be said
                off = self._bus is not None and self._drive.ensure_power_off(self._bus)
            if not off:
                problem = "not all servos say that torque is off: cut their power"
                logging.getLogger(__name__).error("%s: %s", self._settings.port, problem)
        self._release()

    def _release(self) -> None:
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    def _open(self, deadline: float = math.inf, beyond: float = math.inf) -> None:
        """Open the port, and find the servos in order by `deadline`, none `beyond` its limits; raises InputError."""
        self._bus = bus = make_bus(self._settings)
        bus.port.deadline = deadline
        with contextlib.ExitStack() as undo:
            undo.callback(self._release)
            try:
                self._health.models = models(bus, self._joints, self._settings)
                self._poll = Poll(bus, list(self._joints), self._clock, self.counters)
                self._await_measurement(bus, deadline)
                self._begin_here(bus, beyond)
            except (NoAnswerError, RefusedError, OSError) as error:
                problem = f"failed while opening: {error}"
                raise InputError(str(self._settings.port), problem, "check wiring and power") from error
            undo.pop_all()

    def _await_measurement(self, bus: Bus, deadline: float) -> None:
        """The first one, and who has torque, without which no goal may be set; raises NoAnswerError."""
        before = self.told_at
        for _ in range(TRIES):
            self._measure(bus, self._clock())
            if self.told_at > before and self._ask_torque(bus):
                bus.port.turnaround_ms = TURNAROUND_MS
                return
            if self._clock() > deadline:
                break
        raise NoAnswerError(self._poll.silent)

    def _ask_torque(self, bus: Bus) -> bool:
        """Whether all servos have said in time whether they have torque."""
        bus.port.deadline = self._clock() + self._spec.control_dt
        answers = self._poll.ask(bus.family.block(["torque_enable"])) or {}
        for id, values in answers.items():
            self._health.judge(bus.family, id, values, powered=False)
        return bool(answers)

    def _reopen(self, now: float) -> None:
        if now - self._asked_at < RETRY_S:
            return
        self._asked_at = now
        try:
            self._open(now + self._reopen_s)
            self._reopened = True
        except InputError:
            self.counters["reopen_failed"] += 1

    @property
    def _reopen_s(self) -> float:
        each = REOPEN_ANSWERS * TURNAROUND_MS / 1000 + REOPEN_BYTES * BITS_PER_BYTE / self._settings.baud
        return REOPEN_S + len(self._joints) * each

    def _safely(self, step: Callable[..., None], *arguments: object) -> None:
        """`step` of the bus, unless there is no port; what the port raises becomes a fault."""
        if self._bus is None:
            return
        try:
            step(self._bus, *arguments)
        except BlockingIOError:
            self.fault = self.fault or "port_blocked"
        except OSError:
            self._release()
            self.fault = self.fault or "port_lost"

    def _measure(self, bus: Bus, now: float) -> None:
        """One measurement, and what servos say of themselves."""
        bus.port.deadline = now + READ_SHARE * self._spec.control_dt
        if (found := self._poll.measure()) is None:
            return
        self.told_at = self._poll.asked_at
        for id, values in found.items():
            joint, speed = self._joints[id], values["present_velocity"] * bus.family.velocity_unit
            self._position[id] = to_position(joint, values["present_position"])
            self._velocity[id] = joint.encoder.sign * speed / joint.encoder.gear
        self._judge(bus, [*found.items(), *self._poll.watch(now).items()])

    def _judge(self, bus: Bus, said: Sequence[tuple[int, Mapping[str, int]]]) -> None:
        """What servos say of themselves, whichever of it has been read; what they have not heard is said again."""
        left_on = unwatched = False
        for id, values in said:
            powered = id in self._drive.actuated and (bool(self._drive.torque) or id in self._holding)
            fault = self._health.judge(bus.family, id, values, powered)
            self.fault = self.fault or fault
            left_on |= self._drive.torque is False and bool(values.get("torque_enable"))
            unwatched |= powered and values.get("bus_watchdog") == 0
        self.warning = self._health.warning
        if left_on:
            self._drive.power_off(bus)
        if unwatched:
            self.counters["watchdog_rearmed"] += 1
            self._drive.arm_watchdog(bus)

    def _begin_here(self, bus: Bus, beyond: float = math.inf) -> None:
        """Where they stand is the goal; one that sags beyond a limit is held at the limit, as the guard holds it."""
        here = {}
        for id in self._drive.actuated:
            if id in self._health.powered:
                lower, upper = self._joints[id].position_range
                here[id] = min(max(self._position[id], lower), upper)
                if abs(here[id] - self._position[id]) > beyond:  # it would move there, and nobody has armed it
                    where = f"{self._position[id]:.2f} rad, outside {lower:g} .. {upper:g}, with torque on"
                    remedy = "support the robot and cut the servos' power, or correct the joint in robot.yaml"
                    raise InputError(str(self._settings.port), f"{self._joints[id].name} stands at {where}", remedy)
        self._drive.begin(bus, here)

    def _recover(self, bus: Bus) -> None:
        if self._clock() - self.told_at > self._stale:
            return
        if not self._ask_torque(bus):
            return
        for id, error in self._health.broken.items():
            if error and id not in self._health.powered:  # it obeys again after a reboot only, silent for a while
                bus.reboot(id)
        self._health.acknowledge(bus.family)
        self._begin_here(bus)
        self._poll.pack()
        if (self._drive.torque or self._holding) and self.limp:
            self._drive.torque = None  # the next write brings it back where it was lost: whoever writes waits for ARMED
            self._holding = {*self._health.powered}
        self._reopened = False
        self.fault = ""
