"""The serial port as the vendors' SDKs see it.

Their own port handlers open the port for everybody, take the wall clock, spin while they wait, and allow every answer
the 16 ms of an FTDI adapter's default latency timer.
"""

from __future__ import annotations

import os
import select
import termios
from collections.abc import Sequence

import serial

from landbridge.deploy.clock import uptime
from landbridge.deploy.hardware.port import BITS_PER_BYTE, open_port

# How long an answer may begin to come: return delay (0.5 ms by default), USB frame or latency timer (1 ms), a hiccup of
# the scheduler. Outside of control loops longer, for one that comes too late is taken for that to the next question.
TURNAROUND_MS, PATIENT_MS = 4.0, 20.0
QUIET_S = 0.001  # longer than any pause within or between the answers to one packet
KEPT = 4096  # bytes that Linux keeps of a port; more than that after a question is no answer to it
SETTLE_S = 0.2  # after which a line that never falls quiet is spoken on nevertheless


class SdkPort:
    """What both SDKs ask of a port handler: exclusive, on the clock `uptime`, asleep while it waits.

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
        self._until, self._left = 0.0, 0

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
        until = min(self.deadline, uptime() + SETTLE_S)
        while uptime() < until and (self._serial.read(256) or self._readable(QUIET_S)):
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
        if length <= 0 or self._left <= 0 or not self._readable(self._until - uptime()):
            return b""
        data = os.read(self._serial.fileno(), length)  # pyserial's would ask once more whether there is any
        if not data:
            raise OSError("the port has gone")
        self._left -= len(data)
        return data

    def setPacketTimeout(self, length: int) -> None:  # noqa: N802
        """An answer of `length` bytes is expected from now on."""
        self.setPacketTimeoutMillis(1000 * length * self._byte_s + self.turnaround_ms)

    def setPacketTimeoutMillis(self, milliseconds: float) -> None:  # noqa: N802
        """An answer is expected from now on, within so long."""
        self._until, self._left = min(uptime() + milliseconds / 1000, self.deadline), KEPT

    def isPacketTimeout(self) -> bool:  # noqa: N802
        """Whether the answer is late, or none of what comes is one."""
        return self._left <= 0 or uptime() >= self._until
