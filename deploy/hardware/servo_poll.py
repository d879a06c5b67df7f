"""Asking all servos of a bus: what is measured in every control period, and in turn what changes slowly."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from landbridge.deploy.hardware.servo_bus import Block, Bus, NoAnswerError

WATCH_S = 0.03  # between two looks at one of the groups of `Family.watched`
# Ids that may be none: a servo that has forgotten what to show shows zeros, and where one of newer firmware shows its
# first byte, an older one keeps the place of its 21st, by default 244.
MISTAKEN = {0, 244}
Answers = Mapping[int, Mapping[str, int]]  # values by id and register


class Poll:
    """Questions that are asked again until the port's deadline.

    Servos that can (see `Family.packed`) answer all of it at once. One that restarts has forgotten how, which its id
    shows; from then on all are asked in turn, until `pack`.

    Args:
        clock: Monotonic seconds.
        counters: For `bad_answers`.

    Attributes:
        asked_at: When the newest question was asked, on `clock`: what it was answered was measured then.
    """

    def __init__(self, bus: Bus, ids: Sequence[int], clock: Callable[[], float], counters: Counter[str]) -> None:
        self._bus, self._ids, self._clock, self._counters = bus, ids, clock, counters
        self._missed: Counter[int] = Counter()  # who has been asked in vain since the last measurement
        self._whole = True  # whether the last answer was one
        self.asked_at = -math.inf
        self._plain = bus.family.block(bus.family.measured)
        self._groups = [bus.family.block(names) for names in bus.family.watched]
        self._turn, self._watched_at = itertools.cycle(self._groups), -math.inf
        self._alerted: set[int] = set()  # who had an error at the last measurement
        for self._fast in (True, True, False) if bus.family.packed else (False,):  # one answer may be lost
            self.pack()
            if self.packed:
                return
        self._fast = bool(bus.family.packed) and self._answers_fast()

    @property
    def packed(self) -> bool:
        """Whether everything comes in one answer."""
        return self._block is not self._plain

    @property
    def silent(self) -> int:
        """The servo that has been asked in vain most often."""
        return max(self._ids, key=lambda id: self._missed[id])

    def pack(self) -> None:
        """Have everything in one answer from now on, if the servos know how."""
        self._block = self._plain
        if not self._bus.family.packed or MISTAKEN & {*self._ids}:
            return
        self._bus.pack(self._ids)
        for block in self._bus.family.packed_blocks():
            with contextlib.suppress(NoAnswerError):
                if _own(self._bus.sync_read(block, self._ids, self._fast)):
                    self._block = block
                    return

    def measure(self) -> Answers | None:
        """What is measured, and more if it comes with it; None if not all have answered."""
        found = self.ask(self._block)
        if found is not None and self.packed and not _own(found):
            self._counters["servo_restarted"] += 1
            self._block = self._plain
            found = self.ask(self._block)
        if found is not None:
            self._missed.clear()
            alerted = {id for id, values in found.items() if values.get("alert")}
            if alerted - self._alerted:  # at once; but one that keeps its error must not hide the other groups
                self._turn, self._watched_at = itertools.cycle(self._groups), -math.inf
            self._alerted = alerted
        return found

    def watch(self, now: float) -> Answers:
        """After a measurement: in turn what it did not say, if it is time for that, and any left."""
        if self.packed or now - self._watched_at < WATCH_S or self._clock() >= self._bus.port.deadline:
            return {}
        self._watched_at = now
        return self.ask(next(self._turn)) or {}

    def ask(self, block: Block) -> Answers | None:
        """The answers of all servos, asked again while there is time; None if there is none left."""
        while True:
            fast, self.asked_at = self._fast and self._whole, self._clock()
            try:
                answers = self._bus.sync_read(block, self._ids, fast)
                self._whole = True
                return answers
            except NoAnswerError as error:
                self._whole = False  # next servo by servo: each packet has a chance of its own
                self._counters["bad_answers"] += 1
                self._missed[error.id] += 1
            if self._clock() >= self._bus.port.deadline:
                return None

    def _answers_fast(self) -> bool:
        """Whether the firmware of every servo knows the fast sync read (X series: from 45 on)."""
        try:
            self._bus.sync_read(self._plain, self._ids, fast=True)
        except NoAnswerError:
            return False
        return True


def _own(answers: Answers) -> bool:
    """Whether each packed answer begins with the servo's own id."""
    return all(values["id"] == id for id, values in answers.items())
