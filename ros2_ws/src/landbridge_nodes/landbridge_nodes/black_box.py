"""The black box: the last seconds of every topic in memory, and an ordinary bag of them for every fault."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from landbridge.errors import InputError
from landbridge_nodes import topics
from landbridge_nodes.bag import BagWriter, describe

MAX_BYTES = 256 * 2**20  # of messages in memory, whatever their age
AFTER_SECONDS = 5.0  # that a bag goes on after its fault
MOST_SECONDS = 15.0  # in all, where the fault comes again meanwhile
SLICE = 20  # messages of the past that a bag takes in with each new one, so that no new one waits long
FLUSHED = 1000  # with each flush, for a robot that has fallen silent

Message = tuple[str, bytes, int]  # topic, serialised, time of receipt [ns]


@dataclass
class Dump:
    """One fault's bag, and what it has yet to take in, in the order of receipt."""

    fault: str
    bag: BagWriter
    waiting: deque[Message]
    ends: float  # on the black box's clock [s]
    latest: float  # to which the same fault can put that off
    saved: bool = False  # the disk has its past, and somebody was told

    def take(self, most: int) -> None:
        """Write up to `most` of the waiting messages."""
        for _ in range(min(most, len(self.waiting))):
            self.bag.write(*self.waiting.popleft())


class BlackBox:
    """Keeps the last `seconds` of every topic; each fault turns them into a bag `<UTC time>_<fault>` in `folder`.

    A bag goes on for `AFTER_SECONDS`; the disk has its past before it is told of, for a robot with a fault is often
    switched off at once. Another fault that comes sooner than that has a bag of its own, which overlaps; the same one
    goes on in its bag, up to `MOST_SECONDS`. Once made, nothing here raises: a bag that cannot be written is given up,
    and the next fault tries anew.

    Args:
        about: Noted in every bag, beside the fault.
        listed: The topics that may be written.
        tell: Called with each bag once its past is on the disk.
        clock: Seconds that no step of the wall clock changes.

    Attributes:
        fault: Why the last bag that was given up was; "" while none was.

    Raises:
        InputError: `folder` cannot be made, or `seconds` is not positive.
    """

    def __init__(
        self,
        folder: Path,
        seconds: float,
        about: dict[str, str],
        listed: Sequence[topics.Topic],
        tell: Callable[[Path], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not seconds > 0:
            raise InputError("black box seconds", f"are {seconds:g}", "ask for more than 0")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(folder, f"cannot be made: {error.strerror}", "choose another folder") from error
        self._folder, self._seconds, self._clock = folder, seconds, clock
        self._about, self._listed, self._tell = about, listed, tell
        self._ring: deque[tuple[float, Message]] = deque()
        self._bytes = 0
        self._dumps: list[Dump] = []
        self._said: dict[str, str] = {}
        self.fault = ""
        for topic in listed:
            describe(topic)  # now, so that no fault waits for it

    def write(self, topic: str, raw: bytes, now: int) -> None:
        """Take one serialised message that was received at `now` [ns]."""
        message, received = (topic, raw, now), self._clock()
        self._ring.append((received, message))
        self._bytes += len(raw)
        while received - self._ring[0][0] > self._seconds or self._bytes > MAX_BYTES:
            self._bytes -= len(self._ring.popleft()[1][1])
        for dump in self._dumps:
            dump.waiting.append(message)
            dump.take(SLICE)

    def hear(self, source: str, fault: str) -> None:
        """`source` says what is wrong, "" for nothing; unless it was said before, that begins a bag or extends it."""
        new, now = fault and fault not in self._said.values(), self._clock()
        self._said[source] = fault
        if not new:
            return
        if (running := next((dump for dump in self._dumps if dump.fault == fault), None)) is not None:
            running.ends = min(now + AFTER_SECONDS, running.latest)
            return
        name = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%fZ}_{_slug(fault)}"
        try:
            bag = BagWriter(self._folder / name, self._about | {"fault": fault}, self._listed)
        except InputError as error:
            self.fault = str(error)
            return
        past = deque(message for _, message in self._ring)
        self._dumps.append(Dump(fault, bag, past, now + AFTER_SECONDS, now + MOST_SECONDS))

    def flush(self) -> None:
        """Hand what the bags have to the operating system, and complete those whose time is up."""
        now = self._clock()
        for dump in self._dumps:
            if now < dump.ends:
                self._save(dump)
            else:
                self._complete(dump)
            self.fault = dump.bag.fault or self.fault
        self._dumps = [dump for dump in self._dumps if now < dump.ends]

    def close(self) -> None:
        """Complete the bags."""
        for dump in self._dumps:
            self._complete(dump)
            self.fault = dump.bag.fault or self.fault
        self._dumps.clear()

    def _save(self, dump: Dump) -> None:
        dump.take(FLUSHED)
        if dump.waiting or dump.saved:
            dump.bag.flush()
        else:
            dump.bag.sync()
            self._told(dump)

    def _complete(self, dump: Dump) -> None:
        dump.take(len(dump.waiting))
        dump.bag.close()
        self._told(dump)

    def _told(self, dump: Dump) -> None:
        if not (dump.saved or dump.bag.fault):
            dump.saved = True
            self._tell(dump.bag.path)


def _slug(fault: str) -> str:
    """A fault's name, or its whole message, as part of a folder's name."""
    return re.sub(r"[^a-z0-9]+", "_", fault.lower()).strip("_")[:60]
