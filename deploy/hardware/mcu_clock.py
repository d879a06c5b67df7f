"""When a board measured, on the host's clock."""

from __future__ import annotations

from collections import deque

WRAP = 2**32  # us: the board's clock begins anew after 71 minutes
WINDOW = 2.0  # s, in which crystals that are 100 ppm apart part by 0.2 ms, and a ceramic resonator, 0.5 % off, by 10


class BoardClock:
    """Host time [s] of what a board stamps with its own clock [us].

    Nothing is heard before it was sent, and of many frames some wait hardly at all: the least difference of the clocks
    within WINDOW is taken for their offset (the minimum filter of Mills, RFC 5905, section 10). So neither the time
    that bytes wait for a busy host, nor the phase of telemetry and control timer, passes for the time of a measurement.
    The window is one of the board's time: after a long pause a port gives out what was sent before it.
    """

    def __init__(self) -> None:
        self._newest: int | None = None  # us since the board began, without wraps
        self._least: deque[tuple[float, float]] = deque()  # times by the board's clock [s] and offsets, both rising

    def __call__(self, time_us: int, heard: float) -> float:
        """When the board stamped a frame that was heard at `heard` [s]; never later than that."""
        before = time_us if self._newest is None else self._newest
        self._newest = newest = before + (time_us - before + WRAP // 2) % WRAP - WRAP // 2
        offset = heard - 1e-6 * newest
        while self._least and self._least[-1][1] >= offset:
            self._least.pop()
        self._least.append((1e-6 * newest, offset))
        while self._least[0][0] < 1e-6 * newest - WINDOW:
            self._least.popleft()
        return min(1e-6 * newest + self._least[0][1], heard)
