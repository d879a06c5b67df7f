"""One emulated servo: its memory, and what it does by itself when it is broken or hears nothing."""

from __future__ import annotations

import math
import struct

from landbridge.deploy.hardware.servo_bus import Family
from landbridge.deploy.hardware.servo_joints import TICKS, to_position, turns
from landbridge.joint import Joint

MEMORY = 256
REBOOT_S = 0.2  # silent for so long after a reboot
FULL_PWM = {"dynamixel": 885, "feetech": 1000}  # of register `goal_pwm`
# Share of the largest effort that is an overload after so many seconds. ROBOTIS names neither; Feetech's defaults of
# registers 34 to 36: 80 %, 2 s, and from then on 20 % of its torque, until a new goal is written.
OVERLOAD = {"dynamixel": (0.95, 1.0), "feetech": (0.8, 2.0)}
PROTECTIVE, OVERLOAD_BIT = 0.2, 32
# An STS3215 was 15 K warmer after 10 min at half of its stall torque (SO-ARM100, issue 134); heat goes with its square.
IDLE_C, HOTTEST_K, HEAT_S = 35.0, 60.0, 300.0
WATCHDOG_UNIT_S = 0.02  # e-Manual, Bus Watchdog(98)
DATA_RANGE_ERROR, DATA_LENGTH_ERROR, ACCESS_ERROR = 4, 5, 7  # e-Manual, Protocol 2.0, Error
ALERT = 0x80
INDIRECT_ADDRESS, INDIRECT_DATA = 168, 224  # e-Manual, Indirect Address 1 and Indirect Data 1
READ_ONLY = ("model_number", "hardware_error")  # and all that is called present_...


class Servo:
    """A servo of one family behind one joint.

    Attributes:
        gone: Off the bus: neither hears nor speaks, and holds its last goal.
        frozen: Its encoder has stopped, where it stands [ticks]; None while it works.
        shift: What its encoder is off by [ticks].
        wrapped: What it reports is off by [ticks]; it moves by what is right.
        stuck: Its gears are blocked.
        reversed: Its motor turns the wrong way.
        watchdog_dead: Its bus watchdog never stops it.
        strained: Loaded beyond what it bears, whatever it reports.
        celsius: Its temperature.
        alias: The id that it puts into its answers; None: its own.

    Args:
        model: Model number.
    """

    def __init__(self, family: Family, joint: Joint, id: int, baud: int, model: int) -> None:
        self.family, self.joint = family, joint
        self._memory = bytearray(MEMORY)
        self._values: dict[str, int] = {}  # of the registers in it
        self._driven, self._goal = False, 0.0  # what registers say, at hand for every physics step
        self._most = 1.0  # share of its largest effort that it may make
        self._silent_until = self._heard_at = -math.inf
        self._strained_at = math.inf
        self._lived_at = math.inf
        self._default = {"model_number": model, "id": id, "return_delay": 0, **family.plain}
        self._default |= {"min_position_limit": 0, "max_position_limit": TICKS - 1}
        self._default |= {"temperature_limit": 70, "max_voltage_limit": 140, "min_voltage_limit": 60}
        self._default["baud_rate"] = next(code for code, rate in family.bauds.items() if rate == baud)
        self._restore()
        self.show_at(INDIRECT_DATA)
        self.repair()

    def repair(self) -> None:
        """Undo what orders have broken, and clear the error; torque stays as it is."""
        self.gone = self.stuck = self.reversed = self.watchdog_dead = self.strained = False
        self.frozen: int | None = None
        self.alias: int | None = None
        self.shift = self.wrapped = 0
        self._restore()
        self._put("hardware_error", 0)
        self._put("present_voltage", 120)
        self._put("goal_pwm", FULL_PWM[self.family.name])
        self.celsius = IDLE_C

    @property
    def id(self) -> int:
        """What it answers to."""
        return self.get("id")

    @property
    def says(self) -> int:
        """The id in its answers."""
        return self.id if self.alias is None else self.alias

    @property
    def baud(self) -> int:
        """Its rate; 0 if its register holds none."""
        return self.family.bauds.get(self.get("baud_rate"), 0)

    @property
    def alert(self) -> int:
        """The alert bit of its Dynamixel status packets."""
        return ALERT if self.get("hardware_error") else 0

    @property
    def torque(self) -> bool:
        """Whether its motor is driven."""
        return bool(self.get("torque_enable"))

    def listens(self, baud: int, now: float) -> bool:
        """Whether it hears and speaks at this rate."""
        return not self.gone and now >= self._silent_until and self.baud == baud

    def heard(self, now: float) -> None:
        """Any instruction on the bus keeps the watchdog quiet."""
        self._heard_at = now

    def get(self, name: str) -> int:
        """Value of a register; 0 of one that the family does not have."""
        return self._values.get(name, 0)

    def read(self, address: int, size: int) -> bytes:
        """Bytes of its memory, those shown indirectly where they are; zeros beyond its end."""
        memory = bytes(self._memory)
        if self.family.name == "dynamixel" and address + size > self._shows_at:
            shown = bytes([memory[place] if place < MEMORY else 0 for place in self._shown])
            memory = memory[: self._shows_at] + shown
        return memory[address : address + size].ljust(size, b"\0")

    def show_at(self, address: int) -> None:
        """Have indirect bytes at `address`, as many as places before it; each shows itself, which is 0."""
        self._shows_at, count = address, (address - INDIRECT_ADDRESS) // 2
        self._show(INDIRECT_ADDRESS, struct.pack(f"<{count}H", *range(address, address + count)))

    def _show(self, address: int, places: bytes) -> None:
        """Take addresses of what the indirect bytes show, from register `address` on."""
        end = min(address + len(places), self._shows_at)
        self._memory[address:end] = places[: end - address]
        told = self._memory[INDIRECT_ADDRESS : self._shows_at]
        self._shown = struct.unpack(f"<{len(told) // 2}H", told)

    def write(self, address: int, data: bytes, now: float) -> int:
        """Take a write to a register, or refuse it; the error number of a Dynamixel status."""
        if self.family.name == "dynamixel" and INDIRECT_ADDRESS <= address < self._shows_at:
            self._show(address, data)
            return 0
        found = [(n, r) for n, r in self.family.table.items() if r.address == address]
        if not found or found[0][0] in READ_ONLY or found[0][0].startswith("present_"):
            return ACCESS_ERROR
        name, register = found[0]
        if len(data) != register.size:
            return DATA_LENGTH_ERROR
        if self.torque and address < self.family.table["torque_enable"].address and self.family.name == "dynamixel":
            return ACCESS_ERROR  # the EEPROM is locked
        value = register.decode(data)
        if name == "goal_position" and (self.get("bus_watchdog") < 0 or not self._takes(value)):
            return DATA_RANGE_ERROR
        if name == "torque_enable" and value and self.get("hardware_error"):
            return ACCESS_ERROR
        if name == "bus_watchdog" or (name == "torque_enable" and value and not self.torque):
            self._heard_at = now
        if name == "goal_position" and self.family.name == "feetech":
            self._put("hardware_error", 0)  # ends its protection from overload; what lasts comes back
        self._put(name, value)
        if name in self._default and not self.get("lock"):
            self._default[name] = value
        return 0

    def _takes(self, goal: int) -> bool:
        """Whether a goal is within its own limits."""
        return self.get("min_position_limit") <= goal <= self.get("max_position_limit")

    def become(self, model: int) -> None:
        """Be of another model; a known one bears a little less than it is made for: XL430 6.0 V, XM430 9.5 V."""
        self._put("model_number", model)
        if known := self.family.models.get(model):
            self._put("min_voltage_limit", round(10 * known.min_voltage) - 5)

    def reboot(self, now: float) -> None:
        """Begin anew: without torque, without error, silent for a while."""
        for name in ("torque_enable", "hardware_error", "bus_watchdog"):
            if name in self.family.table:
                self._put(name, 0)
        self._put("goal_pwm", FULL_PWM[self.family.name])
        self.show_at(self._shows_at)
        self._driven, self._goal = False, 0.0
        self._silent_until = now + REBOOT_S

    def force(self, name: str, value: int) -> None:
        """Set a register as nature does; raises ValueError if the family has none of this name."""
        if name not in self.family.table:
            raise ValueError(f"{self.family.name} has no {name}")
        self._put(name, value)

    def seen(self, position: float) -> int:
        """Ticks of its encoder at a joint position [rad]."""
        return self.frozen if self.frozen is not None else round(TICKS * turns(self.joint, position)) + self.shift

    def slack(self, position: float, velocity: float) -> float:
        """The goal [rad] at which the drive makes no effort."""
        return position + self.joint.damping / self.joint.stiffness * velocity

    def pull(self, position: float, velocity: float) -> float:
        """Where its drive pulls the joint [rad] that truly is at `position`: nowhere, without torque.

        The drive is the plant's: stiffness * (goal - position) - damping * velocity.
        """
        if not self._driven:
            return self.slack(position, velocity)
        true = self.frozen is None and not self.shift
        error = self._goal - (position if true else to_position(self.joint, self.seen(position)))
        goal = position - error if self.reversed else position + error
        if self._most >= 1:
            return goal
        slack, reach = self.slack(position, velocity), self._most * self.joint.effort_limit / self.joint.stiffness
        return min(max(goal, slack - reach), slack + reach)

    def live(self, position: float, velocity: float, now: float) -> None:
        """Measure, and watch itself."""
        ticks, encoder, joint = self.seen(position), self.joint.encoder, self.joint
        effort = joint.stiffness * (self.pull(position, velocity) - position) - joint.damping * velocity
        share = min(max(effort / joint.effort_limit, -1.0), 1.0)
        self._report("present_position", ticks + self.wrapped)
        self._report("present_velocity", round(encoder.sign * encoder.gear * velocity / self.family.velocity_unit))
        self._report("present_load", round(1000 * encoder.sign * share))
        self._watch_load(abs(share), now)
        if self.get("present_temperature") > self.get("temperature_limit"):
            self.fail("overheated")
        if not self.get("min_voltage_limit") <= self.get("present_voltage") <= self.get("max_voltage_limit"):
            self.fail("voltage")
        limit = self.get("bus_watchdog") * WATCHDOG_UNIT_S
        if self.torque and limit > 0 and not self.watchdog_dead and now - self._heard_at > limit:
            self._put("goal_position", min(max(ticks, 0), TICKS - 1))
            self._put("bus_watchdog", -1)

    def _watch_load(self, share: float, now: float) -> None:
        """Warm up with the square of the load, and find an overload that lasts."""
        weight = -math.expm1(-max(now - self._lived_at, 0.0) / HEAT_S)
        self._lived_at = now
        self.celsius += weight * (IDLE_C + HOTTEST_K * share**2 - self.celsius)
        self._put("present_temperature", min(max(round(self.celsius), 0), 255))
        most, seconds = OVERLOAD[self.family.name]
        if self.strained:
            self._strained_at = -math.inf
        elif share < most:
            self._strained_at = now
        if now - self._strained_at > seconds:
            self.fail("overload")

    def fail(self, error: str) -> None:
        """Set a bit of the error register; torque goes off with all but a wrong voltage, and Feetech's overload."""
        bit = next(bit for bit, name in self.family.errors.items() if name == error)
        self._put("hardware_error", self.get("hardware_error") | bit)
        if error != "voltage" and (error, self.family.name) != ("overload", "feetech"):
            self._put("torque_enable", 0)

    def _restore(self) -> None:
        """What survives a loss of power: with Feetech, what was written while the lock was open."""
        for name, value in self._default.items():
            self._put(name, value)
        if "lock" in self.family.table:
            self._put("lock", 1)

    def _report(self, name: str, value: int) -> None:
        """Set a register of either sign, as far as it goes."""
        register = self.family.table[name]
        bits = register.sign_bit if register.sign_bit > 0 else 8 * register.size - 1
        most = (1 << bits) - 1
        self._put(name, min(max(value, -most), most))

    def _put(self, name: str, value: int) -> None:
        if self._values.get(name) == value:
            return
        register = self.family.table[name]
        self._memory[register.address : register.address + register.size] = register.encode(value)
        self._values[name] = value
        if name == "torque_enable":
            self._driven = bool(value)
        if name == "goal_position":
            self._goal = to_position(self.joint, value)
        if name in ("goal_pwm", "hardware_error"):
            self._most = self.get("goal_pwm") / FULL_PWM[self.family.name]
            if self.family.name == "feetech" and self.get("hardware_error") & OVERLOAD_BIT:
                self._most = min(self._most, PROTECTIVE)
