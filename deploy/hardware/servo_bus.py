"""A bus of servos through the vendor's SDK: read, write, sync read and sync write by register.

ROBOTIS' `dynamixel_sdk` and Feetech's `scservo_sdk` (a descendant of it) share one shape. Their packet handlers are
used as they are; `SdkPort` takes the place of their port handlers.
"""

from __future__ import annotations

import itertools
import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from landbridge.deploy.hardware.servo_port import SdkPort

TRIES = 5  # of a question to one servo, which is asked outside of any control loop


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
class Block:
    """What one question reads of each servo.

    Attributes:
        start: Address of its first byte.
        length: [bytes]
        fields: Name, register, and where its bytes begin in the answer.
    """

    start: int
    length: int
    fields: tuple[tuple[str, Register, int], ...]

    def decode(self, data: bytes) -> dict[str, int]:
        """Values by name in `data`, which is as long as the block: as `Register.decode`, in one go."""
        found = dict(zip(self._names, self._layout.unpack_from(data), strict=True))
        for name, sign in self._signs:
            if found[name] & sign:
                found[name] = -(found[name] & ~sign)
        return found

    @cached_property
    def _layout(self) -> struct.Struct:
        code, end = "<", 0
        for _, register, at in self.fields:
            letter = {1: "B", 2: "H", 4: "I"}[register.size]
            code += f"{at - end}x" + (letter.lower() if register.sign_bit < 0 else letter)
            end = at + register.size
        return struct.Struct(code)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(name for name, _, _ in self.fields)

    @cached_property
    def _signs(self) -> tuple[tuple[str, int], ...]:
        """Registers of sign and magnitude, and the bit that is the sign."""
        return tuple((name, 1 << register.sign_bit) for name, register, _ in self.fields if register.sign_bit > 0)


class Model(NamedTuple):
    """One kind of servo of a family.

    Attributes:
        min_voltage: The least that it is made for [V].
    """

    name: str
    min_voltage: float


@dataclass(frozen=True)
class Family:
    """Servos with one protocol and one memory table.

    Attributes:
        name: As a `kind` of hardware.
        table: Registers by name; the names are those of `deploy.hardware.dynamixel`, wherever the meaning is the same.
        models: By model number.
        bauds: Rates by what the register `baud_rate` says.
        velocity_unit: [rad/s] of one count.
        return_delay_us: [us] of one count.
        measured: Neighbouring registers that are read in every control period.
        watched: Groups of neighbouring registers, read in turn.
        errors: Names of the bits of register `hardware_error`.
        plain: Settings under which the servo takes positions and its ticks are what `servo_joints` takes them for.
        prepared: What else is written before motion, so that a goal is followed at once.
        latches: Whether `hardware_error` stays until a reboot.
        packed: All that is measured or watched, and how many of its bytes ever say anything: servos show these side by
            side if they are told where they are ("indirect addressing"). The first is the servo's own id, for one that
            restarts has forgotten it.
        indirect: Address of the first place to be told [2 bytes each].
        shown: Addresses at which the first byte may be shown.
        speed_limit: Register of the largest speed, where it must be told one; "": none.
    """

    name: str
    table: Mapping[str, Register]
    models: Mapping[int, Model]
    bauds: Mapping[int, int]
    velocity_unit: float
    return_delay_us: int
    measured: Sequence[str]
    watched: Sequence[Sequence[str]]
    errors: Mapping[int, str]
    plain: Mapping[str, int]
    prepared: Mapping[str, int]
    latches: bool
    packed: Mapping[str, int] = field(default_factory=dict)
    indirect: int = 0
    shown: Sequence[int] = ()
    speed_limit: str = ""

    def block(self, names: Sequence[str]) -> Block:
        """Neighbouring registers, where they are."""
        names = sorted(names, key=lambda name: self.table[name].address)
        start = self.table[names[0]].address
        fields = tuple((name, self.table[name], self.table[name].address - start) for name in names)
        _, last, at = fields[-1]
        return Block(start, at + last.size, fields)

    def _low(self) -> list[Register]:
        """The low bytes of the registers `packed`."""
        return [self.table[name]._replace(size=size) for name, size in self.packed.items()]

    def places(self) -> list[int]:
        """The address of each byte that is to be shown, in turn."""
        return [register.address + i for register in self._low() for i in range(register.size)]

    def packed_blocks(self) -> list[Block]:
        """The registers `packed`, wherever they may be shown."""
        registers = self._low()
        ends = list(itertools.accumulate(register.size for register in registers))
        places = [end - register.size for end, register in zip(ends, registers, strict=True)]
        fields = tuple(zip(self.packed, registers, places, strict=True))
        return [Block(start, ends[-1], fields) for start in self.shown]


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
        return self.read_block(id, self.family.block([register]), tries)[register]

    def read_block(self, id: int, block: Block, tries: int = TRIES) -> dict[str, int]:
        """Values of the registers of `block` of one servo; raises NoAnswerError or RefusedError."""
        try:
            self._check(id, self._sent(self._handler.readTx, id, block.start, block.length))
            error, data = self._answer(id, block.length)
        except NoAnswerError:
            self.port.settle()
            if tries <= 1:
                raise
            return self.read_block(id, block, tries - 1)
        if self.refusal(error):
            raise RefusedError(id, error)
        return block.decode(data)

    def write(self, id: int, register: str, value: int) -> None:
        """Write a register of one servo; raises NoAnswerError or RefusedError."""
        found = self.family.table[register]
        data = list(found.encode(value))
        result, error = self._sent(self._handler.writeTxRx, id, found.address, found.size, data)
        self._check(id, result)
        if self.refusal(error):
            raise RefusedError(id, error)

    def sync_read(self, block: Block, ids: Sequence[int], fast: bool = False) -> dict[int, dict[str, int]]:
        """Values of the registers of `block` by id and name, and what the answers' error bytes say; see `alert`.

        Raises:
            NoAnswerError: Of the first servo without a whole answer.
        """
        try:
            answers = self._sync_read(block.start, block.length, ids, fast)
        except NoAnswerError:
            self.port.settle()
            raise
        found = {}
        for id, (error, data) in answers.items():
            found[id] = self.alert(error) | block.decode(data)
        return found

    def sync_write(self, register: str, values: Mapping[int, int]) -> None:
        """Write a register of several servos in one packet, which none of them answers."""
        found = self.family.table[register]
        data = [byte for id, value in values.items() for byte in (id, *found.encode(value))]
        self._sent(self._handler.syncWriteTxOnly, found.address, found.size, data, len(data))

    def pack(self, ids: Sequence[int]) -> None:
        """Tell the servos to show `packed` side by side; none of them answers."""
        told = b"".join(place.to_bytes(2, "little") for place in self.family.places())
        data = [byte for id in ids for byte in (id, *told)]
        self._sent(self._handler.syncWriteTxOnly, self.family.indirect, len(told), data, len(data))

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
