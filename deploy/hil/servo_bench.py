"""A bus of emulated servos on a pty, with the robot in Bullet behind their horns."""

from __future__ import annotations

import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from landbridge.deploy.hardware.dynamixel import DYNAMIXEL
from landbridge.deploy.hardware.feetech import FEETECH
from landbridge.deploy.hardware.port import BITS_PER_BYTE
from landbridge.deploy.hardware.servo_bus import Family
from landbridge.deploy.hardware.servo_joints import TICKS, by_id
from landbridge.deploy.hil import dynamixel, feetech
from landbridge.deploy.hil.bench import Bench, number
from landbridge.deploy.hil.servo import FULL_PWM, Servo
from landbridge.deploy.hil.wire import Framing
from landbridge.errors import InputError
from landbridge.hardware_spec import DynamixelHardware, FeetechHardware
from landbridge.robot import Robot

SPEED_S = 0.02  # time constant of the speed that a servo reports: it counts its encoder over a while
LIVE_S = 0.005  # between two looks of a servo at itself; it looks before each answer, too
PAUSE_S = 0.005  # after which a packet that has not come to its end is forgotten
Answer = Callable[[bytes, Sequence[Servo], float], list[bytes]]
FAMILIES: dict[str, tuple[Family, Framing, Answer, int]] = {  # and the model number of the servos
    "dynamixel": (DYNAMIXEL, dynamixel.FRAMING, dynamixel.answer, 1060),
    "feetech": (FEETECH, feetech.FRAMING, feetech.answer, 777),
}
FAULTS: dict[
    str, Callable[[Servo, float], None]
] = {  # orders about one servo: what they do, with a number where they take one
    "gone": lambda servo, _: setattr(servo, "gone", True),
    "torque_lost": lambda servo, _: servo.force("torque_enable", 0),
    "unwatched": lambda servo, _: servo.force("bus_watchdog", 0),
    "watchdog_dead": lambda servo, _: setattr(servo, "watchdog_dead", True),
    "overload": lambda servo, _: setattr(servo, "strained", True),
    "temperature": lambda servo, celsius: setattr(servo, "celsius", celsius),
    "switches_off": lambda servo, celsius: servo.force("temperature_limit", int(celsius)),
    "voltage": lambda servo, volts: servo.force("present_voltage", round(10 * volts)),
    "weak": lambda servo, share: servo.force("goal_pwm", round(share * FULL_PWM[servo.family.name])),
    "frozen": lambda servo, _: setattr(servo, "frozen", servo.get("present_position")),
    "jump": lambda servo, degrees: setattr(servo, "shift", round(degrees * TICKS / 360)),
    "wrap": lambda servo, _: setattr(servo, "wrapped", TICKS),
    "stuck": lambda servo, _: setattr(servo, "stuck", True),
    "reversed": lambda servo, _: setattr(servo, "reversed", True),
    "wrong_id": lambda servo, id: setattr(servo, "alias", bytes([int(id)])[0]),
    "model": lambda servo, number: servo.become(int(number)),
    "shows_at": lambda servo, address: servo.show_at(int(address)),
    "mode": lambda servo, number: servo.force("operating_mode", int(number)),
    "homing": lambda servo, ticks: servo.force("homing_offset", int(ticks)),
    "narrow": lambda servo, ticks: servo.force("max_position_limit", int(ticks)),
}


class ServoBench(Bench):
    """One servo for each joint; ids are those of `settings`. Bytes take the time that they take at the baud rate.

    Args:
        link: See `Bench`.

    Raises:
        InputError: A robot that servos on a bus cannot drive, a rate that they have not, or an unknown scenario.
    """

    def __init__(
        self,
        robot: Robot,
        settings: DynamixelHardware | FeetechHardware,
        scenario: str,
        seed: int = 0,
        link: Path | None = None,
    ) -> None:
        family, framing, self._answer, model = FAMILIES[settings.kind]
        if settings.baud not in family.bauds.values():
            problem = f"{family.name} servos have no rate {settings.baud}"
            raise InputError("--baud", problem, f"name one of {sorted(family.bauds.values())}")
        self.servos = [Servo(family, joint, id, settings.baud, model) for id, joint in by_id(robot, settings).items()]
        # mechanical stops: an arm without torque falls into them
        self._stops = [joint.position_range for joint in robot.spec.joints]
        super().__init__(robot, scenario, seed, link, settings.baud, framing)
        self._split, self._rest, self._came_at = framing.split, b"", 0.0
        self._lived_at, self._speed = 0.0, [0.0] * len(self.servos)
        self.plug()

    def reboot(self) -> None:
        """Interrupt the servos' power for a moment."""
        for servo in self.servos:
            servo.reboot(time.monotonic())

    def clear(self) -> None:
        """See `Bench`."""
        super().clear()
        for servo in self.servos:
            servo.repair()

    def status(self) -> dict[str, object]:
        """See `Bench`."""
        position, velocity = (list(map(float, values)) for values in self._plant.state())
        return {
            "port": self.port,
            "torque": [servo.torque for servo in self.servos],
            "goal": [servo.get("goal_position") for servo in self.servos],
            "watchdog": [servo.get("bus_watchdog") for servo in self.servos],
            "error": [servo.get("hardware_error") for servo in self.servos],
            "position": position,
            "velocity": velocity,
        }

    def _order(self, words: list[str]) -> str:
        match words:
            case [fault, joint, *amount] if fault in FAULTS and joint in self._spec.joint_names:
                servo = self.servos[self._spec.joint_names.index(joint)]
                FAULTS[fault](servo, number(amount[0]) if amount else 0.0)
                return "done"
        return f"{super()._order(words)}, {'|'.join(FAULTS)} JOINT [NUMBER]"

    def _move(self) -> None:
        position, velocity = self._plant.state()
        pulls = [
            servo.slack(q, v) if servo.stuck else servo.pull(q, v)  # a stuck one's effort ends in its own gears
            for servo, q, v in zip(self.servos, position, velocity, strict=True)
        ]
        self._plant.step([(0.0, np.array(pulls))])
        share = self._dt / SPEED_S
        self._speed = [seen + share * (v - seen) for seen, v in zip(self._speed, velocity, strict=True)]
        after, speed = self._plant.state()
        held = [
            q if servo.stuck else min(max(moved, low), high)
            for servo, q, moved, (low, high) in zip(self.servos, position, after, self._stops, strict=True)
        ]
        if held != after:  # at once: who rests on a stop has no speed
            still = [v if there == moved else 0.0 for v, there, moved in zip(speed, held, after, strict=True)]
            self._plant.place(np.array(held), np.array(still))

    def _serve(self, data: bytes, now: float) -> None:
        if data or now - self._lived_at > LIVE_S:
            self._lived_at = now
            position = self._measured[0].tolist()
            for servo, q, v in zip(self.servos, position, self._speed, strict=True):
                servo.live(q, v, now)
        if data:
            kept = self._rest if now - self._came_at < PAUSE_S else b""
            frames, self._rest = self._split(kept + data)
            self._came_at = now
            self._take(frames, now)

    def _take(self, frames: Sequence[bytes], now: float) -> None:
        rate = self._line_rate()
        byte_s = BITS_PER_BYTE / max(rate, 1)
        delay = self.servos[0].get("return_delay") * self.servos[0].family.return_delay_us * 1e-6
        listening = [servo for servo in self.servos if servo.listens(rate, now)]
        for frame in frames:
            at = now + len(frame) * byte_s
            for reply in self._answer(frame, listening, now):
                at += delay + len(reply) * byte_s
                self.to_host.send(reply, at)

    def _line_rate(self) -> int:
        """The host's baud rate; 0 if no servo can have it."""
        if self._ends is None:
            return 0
        speed = termios.tcgetattr(self._ends[1])[5]
        rates = {servo.baud for servo in self.servos if servo.baud}
        return next((rate for rate in rates if getattr(termios, f"B{rate}", None) == speed), 0)

    def _as_heard(self, data: bytes) -> bytes:
        return data  # each servo has a rate of its own, see `_serve`
