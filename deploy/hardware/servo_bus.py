"""A bus of servos through the vendor's SDK: read, write, sync read and sync write by register.

ROBOTIS' `dynamixel_sdk` and Feetech's `scservo_sdk` (a descendant of it) share one shape. Their packet handlers are
used as they are; their port handlers are not: those open the port for everybody, take the wall clock, spin while they
wait, and allow every answer the 16 ms of an FTDI adapter's default latency timer. `SdkPort` takes their place.
"""

from __future__ import annotations

import os
import select
import termios
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import serial

from landbridge.deploy.hardware.port import open_port

# How long an answer may begin to come: return delay (0.5 ms by default), USB frame or latency timer (1 ms), a hiccup of
# the scheduler. Outside of control loops longer, for one that comes too late is taken for that to the next question.
TURNAROUND_MS, PATIENT_MS = 4.0, 20.0
QUIET_S = 0.001  # longer than any pause within or between the answers to one packet
SETTLE_S = 0.2  # after which a line that never falls quiet is spoken on nevertheless
TRIES = 5  # of a question to one servo, which is asked outside of any control loop
BITS_PER_BYTE = 10  # start, 8, stop


class NoAnswerError(Exception):
    """No whole answer of servo `id` in time."""

    def __init__(self, id: int) -> None:
        super().__init__(f"servo {id}")
        self.id = id


class RefusedError(Exception):
    """A servo answered that it will not; `error` is its own number for why."""

    def __init__(self, id: int, error: int) -> None:
        super().__init__(f"servo {id}: error {error}")
        self.id, self.error = id, error


class Register(NamedTuple):
    """A place in a servo's memory, little endian.

    Attributes:
        sign_bit: 0: unsigned. -1: two's complement. Else this bit is the sign of the magnitude in the bits below it.
    """

    address: int
    size: int
    sign_bit: int = 0

    def decode(self, data: bytes) -> int:
        """The value in `data`, which is as long as the register."""
        if self.sign_bit <= 0:
            return int.from_bytes(data, "little", signed=self.sign_bit < 0)
        raw, sign = int.from_bytes(data, "little"), 1 << self.sign_bit
        return -(raw & ~sign) if raw & sign else raw

    def encode(self, value: int) -> bytes:
        """The inverse of `decode`; raises OverflowError if the register cannot hold `value`."""
        if self.sign_bit <= 0:
            return value.to_bytes(self.size, "little", signed=self.sign_bit < 0)
        if abs(value) >= 1 << self.sign_bit:
            raise OverflowError(f"{value} has more than {self.sign_bit} bits")
        return (abs(value) | (1 << self.sign_bit if value < 0 else 0)).to_bytes(self.size, "little")


@dataclass(frozen=True)
class Family:
    """Servos with one protocol and one memory table.

    Attributes:
        name: As a `kind` of hardware.
        table: Registers by name; the names are those of `deploy.hardware.dynamixel`, wherever the meaning is the same.
        models: Names by model number.
        bauds: Rates by what the register `baud_rate` says.
        velocity_unit: [rad/s] of one count.
        return_delay_us: [us] of one count.
        measured: Neighbouring registers that are read in every control period.
        watched: Groups of neighbouring registers, read in turn.
        errors: Names of the bits of register `hardware_error`.
        position_mode: What register `operating_mode` says when the servo takes positions.
        prepared: What else is written before motion, so that a goal is followed at once.
    """

    name: str
    table: Mapping[str, Register]
    models: Mapping[int, str]
    bauds: Mapping[int, int]
    velocity_unit: float
    return_delay_us: int
    measured: Sequence[str]
    watched: Sequence[Sequence[str]]
    errors: Mapping[int, str]
    position_mode: int
    prepared: Mapping[str, int]


class SdkPort:
    """What both SDKs ask of a port handler: exclusive, on the monotonic clock, asleep while it waits.

    Attributes:
        is_using: The SDKs' own lock.
        deadline: Monotonic seconds after which no answer is waited for.
        turnaround_ms: How long an answer may begin to come.

    Raises:
        InputError: The port cannot be opened.
    """

    def __init__(self, name: str | None, baud: int) -> None:
        self._serial: serial.Serial = open_port(name, baud)
        self._byte_s = BITS_PER_BYTE / baud
        self.is_using = False
        self.deadline, self.turnaround_ms = float("inf"), PATIENT_MS
        self._until = 0.0

    def close(self) -> None:
        """Release the port."""
        self._serial.close()

    def clearPort(self) -> None:  # noqa: N802, the SDKs' name; so below
        """Drop what an earlier question has left behind."""
        try:
            self._serial.reset_input_buffer()
        except termios.error as error:  # which is no OSError
            raise OSError(*error.args) from error

    def settle(self) -> None:
        """Wait until the line is quiet: who speaks while others still answer is not heard."""
        until = min(self.deadline, time.monotonic() + SETTLE_S)
        while time.monotonic() < until and (self._serial.read(256) or self._readable(QUIET_S)):
            pass

    def _readable(self, seconds: float) -> bool:
        return bool(select.select([self._serial], [], [], max(seconds, 0.0))[0])

    def writePort(self, packet: Sequence[int]) -> int:  # noqa: N802
        """Number of bytes that the port took at once."""
        try:
            return os.write(self._serial.fileno(), bytes(packet))
        except BlockingIOError:
            return 0

    def readPort(self, length: int) -> bytes:  # noqa: N802
        """At most `length` bytes; waits for the first one until the packet's timeout."""
        if length <= 0 or not self._readable(self._until - time.monotonic()):
            return b""
        return self._serial.read(length)

    def setPacketTimeout(self, length: int) -> None:  # noqa: N802
        """An answer of `length` bytes is expected from now on."""
        self.setPacketTimeoutMillis(1000 * length * self._byte_s + self.turnaround_ms)

    def setPacketTimeoutMillis(self, milliseconds: float) -> None:  # noqa: N802
        """An answer is expected from now on, within so long."""
        self._until = min(time.monotonic() + milliseconds / 1000, self.deadline)

    def isPacketTimeout(self) -> bool:  # noqa: N802
        """Whether the answer is late."""
        return time.monotonic() >= self._until


class Bus(ABC):
    """One bus. Everything here raises OSError if the port is lost, BlockingIOError if it takes no more bytes.

    Attributes:
        port: Its `deadline` bounds every wait.

    Args:
        handler: The SDK's packet handler.

    Raises:
        InputError: The port cannot be opened.
    """

    def __init__(self, family: Family, handler: Any, port: str | None, baud: int) -> None:
        self.family, self._handler = family, handler
        self.port = SdkPort(port, baud)

    def close(self) -> None:
        """Release the port."""
        self.port.close()

    def model(self, id: int, tries: int = TRIES) -> int | None:
        """Model number of servo `id`; None if it does not answer. The SDKs' own pings trip over short answers."""
        try:
            return self.read(id, "model_number", tries)
        except NoAnswerError:
            return None

    def read(self, id: int, register: str, tries: int = TRIES) -> int:
        """Value of a register of one servo; raises NoAnswerError or RefusedError."""
        found = self.family.table[register]
        try:
            self._check(id, self._sent(self._handler.readTx, id, found.address, found.size))
            error, data = self._answer(id, found.size)
        except NoAnswerError:
            self.port.settle()
            if tries <= 1:
                raise
            return self.read(id, register, tries - 1)
        if self.refusal(error):
            raise RefusedError(id, error)
        return found.decode(data)

    def write(self, id: int, register: str, value: int) -> None:
        """Write a register of one servo; raises NoAnswerError or RefusedError."""
        found = self.family.table[register]
        data = list(found.encode(value))
        result, error = self._sent(self._handler.writeTxRx, id, found.address, found.size, data)
        self._check(id, result)
        if self.refusal(error):
            raise RefusedError(id, error)

    def sync_read(self, registers: Sequence[str], ids: Sequence[int], fast: bool = False) -> dict[int, dict[str, int]]:
        """Values of neighbouring `registers` by id and name, and what the answers' error bytes say; see `alert`.

        Raises:
            NoAnswerError: Of the first servo without a whole answer.
        """
        table = [self.family.table[name] for name in registers]
        start = table[0].address
        length = table[-1].address + table[-1].size - start
        try:
            answers = self._sync_read(start, length, ids, fast)
        except NoAnswerError:
            self.port.settle()
            raise
        return {
            id: {
                **self.alert(error),
                **{
                    name: register.decode(data[register.address - start : register.address - start + register.size])
                    for name, register in zip(registers, table, strict=True)
                },
            }
            for id, (error, data) in answers.items()
        }

    def sync_write(self, register: str, values: Mapping[int, int]) -> None:
        """Write a register of several servos in one packet, which none of them answers."""
        found = self.family.table[register]
        data = [byte for id, value in values.items() for byte in (id, *found.encode(value))]
        self._sent(self._handler.syncWriteTxOnly, found.address, found.size, data, len(data))

    def errors(self, bits: int) -> str:
        """Names of the bits of register `hardware_error`."""
        names = [self.family.errors.get(1 << i, f"bit {i}") for i in range(8) if bits >> i & 1]
        return ", ".join(names)

    @abstractmethod
    def refusal(self, error: int) -> bool:
        """Whether an answer's error byte says that the request was not done."""

    @abstractmethod
    def alert(self, error: int) -> dict[str, int]:
        """What an answer's error byte says of the servo itself: `hardware_error`, or just that it has an `alert`."""

    @abstractmethod
    def reboot(self, id: int) -> None:
        """Restart one servo, where that is what clears its hardware error."""

    @abstractmethod
    def _sync_read(self, start: int, length: int, ids: Sequence[int], fast: bool) -> dict[int, tuple[int, bytes]]:
        """(error, data) of each servo; raises NoAnswerError."""

    @abstractmethod
    def _answer(self, id: int, length: int) -> tuple[int, bytes]:
        """(error, data) of the next packet of servo `id` with `length` bytes of data; raises NoAnswerError."""

    def _sent(self, method: Any, *arguments: Any) -> Any:
        """Call the SDK, for which a port that takes no more is a result like any other; here it is an exception."""
        self.port.is_using = False
        done = method(self.port, *arguments)
        if self._blocked in (done if isinstance(done, tuple) else (done,)):
            raise BlockingIOError("the port takes no more bytes")
        return done

    @property
    @abstractmethod
    def _blocked(self) -> int:
        """The SDK's COMM_TX_FAIL."""

    def _check(self, id: int, result: int) -> None:
        if result != 0:  # COMM_SUCCESS of both
            raise NoAnswerError(id)
