"""The microcontroller link: a board that runs `deploy/firmware` on a serial port.

The board sends telemetry at a rate of its own and obeys commands that answer a recent one; its watchdog stops the robot
when they cease to come. Nothing here waits once the port is open, and nothing raises: what goes wrong is latched as
`fault`, and the link is taken up again by itself, so that a reset finds it in order or is answered by the same fault.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import secrets
import struct
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import serial

from landbridge.deploy.clock import uptime
from landbridge.deploy.hardware.mcu_clock import BoardClock
from landbridge.deploy.hardware.mcu_errors import WHOLE, FrameErrors
from landbridge.deploy.hardware.mcu_table import BoardTable, require_board
from landbridge.deploy.hardware.port import open_port
from landbridge.deploy.hardware.protocol import (
    VERSION,
    Fault,
    Frame,
    Kind,
    Receiver,
    State,
    encode,
    member_name,
    read,
)
from landbridge.errors import InputError
from landbridge.hardware_spec import McuHardware
from landbridge.robot import Robot

OPEN_SECONDS = 2.0  # for a board that restarts when its port is opened
RETRY_SECONDS = 0.1  # between two HELLOs, STARTs or attempts to open the port
DEAF_SECONDS = 0.35  # without an answer to anything sent: three STARTs
OFF_SECONDS = 0.05  # and two telemetries: for a board to say that torque is off; asked when no loop is left to be late
READS = 20  # at most in one control period, so that it ends; Linux gives out no more than 4 KiB of a port at a time


class Mcu:
    """A robot behind a microcontroller.

    Attributes:
        fault: What is wrong with hardware or link, "" while nothing is; latched until `recover`.
        warning: Always "": a board tells of faults only.
        counters: Damaged and refused frames of either end, and the like.
        telemetry: Fields of the newest one, see `protocol.PAYLOADS`.
        told_at: When the board sent it, on `clock`.

    Args:
        clock: Monotonic seconds.

    Raises:
        InputError: The port cannot be opened, nothing answers on it, or what answers has another protocol version or
            other joints than `robot`.
    """

    def __init__(self, robot: Robot, settings: McuHardware, clock: Callable[[], float] = uptime) -> None:
        self.fault = self.warning = ""
        self.counters: Counter[str] = Counter()
        self.telemetry: dict[str, Any] = {}
        self._spec, self._settings, self._clock = robot.spec, settings, clock
        self._name = settings.port or ""
        self._stale = self._spec.safety.max_command_age_ms / 1000
        self._port: serial.Serial | None = None
        self._sequence = self._answers_us = 0
        self._off = False  # torque was taken off, and no command has brought it back
        self.told_at = self._heard_at = self._asked_at = -math.inf  # newest telemetry, and its hearing; newest request
        self._waiting: tuple[int, float] | None = None  # the first frame that is not answered yet: sequence, time
        self._greeted = self._started = False
        self._errors = FrameErrors(self.counters)
        require_board(robot, settings)
        self._open(clock())
        self._await_start()

    def read(self) -> tuple[Sequence[float], Sequence[float]]:
        """Newest measurement in the order of `spec.joint_names`, at most `max_command_age_ms` old; NaN if faulty."""
        now = self._clock()
        self._serve(now)
        self._judge(now)
        if self.fault:
            nothing = [math.nan] * len(self._spec.joints)
            return nothing, nothing
        position, velocity = self.telemetry["position"], self.telemetry["velocity"]
        return [position[i] for i in self._joint_at], [velocity[i] for i in self._joint_at]

    def write(self, command: Sequence[float]) -> None:
        """Send one command; it says which telemetry it answers, and the board refuses it if that is too old.

        While faulty, the board is told to stop instead: it has the sensors that a stop from here would lack.
        """
        if self.fault:
            self._send(Kind.STOP)
        elif self._greeted:
            self._off = False
            values = [command[i] for i in self._command_at]
            self._send(Kind.COMMAND, struct.pack(f"<I{len(values)}f", self._answers_us, *values))

    def disable(self) -> None:
        """Take torque off; the next write brings it back. What the board has not heard is repeated."""
        self._off = True
        self._send(Kind.DISABLE)

    @property
    def identity(self) -> dict[str, str]:
        """Port, and what the board has said of itself."""
        port, baud = self._name, str(self._settings.baud)
        return {"port": port, "baud": baud, "board of": self._table.robot, "protocol": f"{VERSION}"}

    @property
    def watchdog(self) -> float:
        """What the board was told at the start [s]."""
        return self._settings.watchdog_ms / 1000

    @property
    def streams(self) -> bool:
        """Telemetry comes unasked."""
        return True

    @property
    def torque(self) -> bool:
        """Whether the board's output is on, by its newest telemetry."""
        return bool(self.telemetry.get("torque"))

    @property
    def limp(self) -> Collection[str]:
        """One switch is for all joints."""
        return () if self.torque else self._spec.actuated

    @property
    def stopped(self) -> Collection[str]:
        """All or none: the joints share the board's watchdog."""
        return self._spec.actuated if "watchdog" in self.fault else ()

    def in_effect(self, written: float) -> bool:
        """By the time that the command in effect carries; it wraps after 71 minutes."""
        since = (self.telemetry["command_us"] - int(1e6 * written)) % 2**32
        return self.telemetry["state"] == State.RUNNING and since < 2**31

    def recover(self) -> None:
        """Clear the faults of board and link. What is still wrong comes back with the next read."""
        now = self._clock()
        self._serve(now)
        if self._greeted and now - self.told_at <= self._stale:
            if self._deaf(now):  # for so long, perhaps, that numbers have wrapped: the next one is newer again
                self._sequence = self.telemetry["answered"]
            self._waiting = None
            self._start(now)
            self._errors.calm()
            self.fault = ""

    def close(self) -> None:
        """Release the port. Torque that was taken off is made sure of, for nobody repeats it afterwards.

        Else it is left as it is: with a command in effect, the watchdog stops the robot.
        """
        deadline = self._clock() + OFF_SECONDS + 2 / self._settings.telemetry_rate_hz
        while self._left_on and self._port is not None and (now := self._clock()) < deadline:
            self._serve(now)
            time.sleep(0.001)
        if self._left_on:
            problem = "the board does not say that torque is off: cut its power"
            logging.getLogger(__name__).error("%s: %s", self._name, problem)
        self._release()

    @property
    def _left_on(self) -> bool:
        """Whether torque that was taken off may be on: the board says so, or has not answered yet."""
        return self._off and (self.torque or self._waiting is not None)

    def _release(self) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None

    def _open(self, now: float) -> None:
        self._port = open_port(self._settings.port, self._settings.baud)
        self._receiver, self._frames = Receiver(), 0
        self._errors.begin("host")
        self._greet(now)

    def _await_start(self) -> None:
        deadline = self._clock() + OPEN_SECONDS
        while not self._started:
            self._serve(self._clock())
            if self._refusal is not None or self.fault or self._clock() > deadline:
                self._release()
                raise self._refusal or self._silence()
            time.sleep(0.001)
        self._errors.calm()  # a board that restarts when its port is opened says what is no frame

    def _silence(self) -> InputError:
        if self.fault:
            return InputError(self._name, f"failed while opening: {self.fault}", "check cable and power")
        if self._greeted:
            return InputError(self._name, "the board refuses to start", "flash the firmware of this version")
        if self._receiver.received and not self._frames:
            problem = f"{self._receiver.received} bytes came, and no frame in them"
            remedy = f"the baud rate is {self._settings.baud}: set hardware.baud to that of the board"
            return InputError(self._name, problem, remedy)
        remedy = f"check power, wiring, firmware and baud rate ({self._settings.baud}); servos are another --hardware"
        return InputError(self._name, f"no microcontroller answers in {OPEN_SECONDS:g} s", remedy)

    def _serve(self, now: float) -> None:
        """Take what has come, and keep the session going."""
        if self._port is None:
            if now - self._asked_at >= RETRY_SECONDS:
                self._asked_at = now
                try:
                    self._open(now)
                except InputError:
                    self.counters["reopen_failed"] += 1
            return
        try:
            data = b"".join(itertools.takewhile(bool, (self._port.read(4096) for _ in range(READS))))
        except serial.SerialException:
            self._lose()
            return
        heard = self._clock()  # once all is read: else a frame might be heard before it was sent
        for frame in self._receiver.feed(data):
            self._frames += 1
            if frame.session == self._session:
                self._take(frame, heard)
        self._errors.at_host(self._receiver, heard)
        if self._left_on and self._heard_at == heard:
            self._send(Kind.DISABLE)
        if now - self._asked_at >= RETRY_SECONDS:
            silent = now - self.told_at > max(RETRY_SECONDS, self._stale)
            if not self._greeted or (silent and (self._started or self._deaf(now))):
                self._greet(now)
            elif not self._started:
                self._start(now)

    def _greet(self, now: float) -> None:
        """Begin a session, with a number that no frame in flight can have. One that must begin anew is a fault."""
        if self._started:
            self.fault = self.fault or "telemetry_stale"
        self._session = secrets.randbelow(2**32 - 1) + 1
        self._table = BoardTable()
        self._greeted = self._started = False
        self._refusal: InputError | None = None
        self._errors.begin("board")
        self._waiting = None
        self._asked_at = now
        self._sent_at = BoardClock()
        self._send(Kind.HELLO)

    def _start(self, now: float) -> None:
        self._started, self._asked_at = False, now
        watchdog_us = round(1000 * self._settings.watchdog_ms)
        telemetry_us = round(1e6 / self._settings.telemetry_rate_hz)
        self._send(Kind.START, struct.pack("<II", watchdog_us, telemetry_us))
        self._start_sequence = self._sequence

    def _take(self, frame: Frame, now: float) -> None:
        if frame.version != VERSION:
            problem = f"the board speaks protocol version {frame.version}, this program {VERSION}"
            self._refuse(InputError(self._name, problem, "flash the firmware of this version"))
        elif frame.kind == Kind.TELEMETRY and self._greeted:
            self._take_telemetry(frame, now)
        elif not self._greeted:
            self._asked_at = now  # a slow line is not asked anew while it answers
            self._table.take(frame)
            if self._table.complete:
                self._agree()
            if self._greeted:
                self._start(now)

    def _agree(self) -> None:
        """Match the board's joints with the robot's by name."""
        if (refusal := self._table.disagreement(self._spec, self._name)) is not None:
            self._refuse(refusal)
            return
        self._joint_at, self._command_at = self._table.places(self._spec)
        self._greeted = True

    def _refuse(self, refusal: InputError) -> None:
        self._refusal, self.fault = refusal, "wrong_board"

    def _take_telemetry(self, frame: Frame, now: float) -> None:
        joints, actuated = len(self._spec.joints), len(self._spec.actuated)
        found = read(Kind.TELEMETRY, frame.payload, joints, actuated)
        if found is None:
            self.counters["host_malformed"] += 1
            return
        self.telemetry, self._answers_us, self._heard_at = found, frame.time_us, now
        self.told_at = self._sent_at(frame.time_us, now)
        if not self._started and (found["answered"] - self._start_sequence) & WHOLE < 0x8000:
            self._started = True
        if self._waiting is not None and (found["answered"] - self._waiting[0]) & WHOLE < 0x8000:
            self._waiting = None
        if self._started and found["faults"] and not self.fault:
            self.fault = "board_" + member_name(Fault, found["faults"] & -found["faults"])
        self._errors.at_board(found, now)

    def _judge(self, now: float) -> None:
        if self.fault:
            return
        if self._errors.storming(now):
            self.fault = "crc_storm"
        elif now - self.told_at > self._stale:
            self.fault = "telemetry_stale"
        elif self._deaf(now):
            self.fault = "board_deaf"

    def _deaf(self, now: float) -> bool:
        return self._waiting is not None and now - self._waiting[1] > DEAF_SECONDS

    def _send(self, kind: Kind, payload: bytes = b"") -> None:
        if self._port is None:
            return
        now = self._clock()
        self._sequence = (self._sequence + 1) & WHOLE
        self._waiting = self._waiting or (self._sequence, now)
        data = encode(kind, self._sequence, self._session, int(1e6 * now), payload)
        try:
            sent = os.write(self._port.fileno(), data)  # pyserial's own write spins while the port takes nothing
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lose()
            return
        if sent != len(data):
            self.fault = self.fault or "port_blocked"

    def _lose(self) -> None:
        self._release()
        self._greeted = self._started = False
        self.fault = self.fault or "port_lost"
