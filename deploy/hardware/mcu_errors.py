"""Damaged frames on the microcontroller link: counted at either end, and whether they come in storms."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from landbridge.deploy.hardware.protocol import Receiver

STORM_ERRORS, STORM_SECONDS = 10, 1.0  # damaged frames, both ways together, that make a storm
WHOLE = 0xFFFF  # counts on the wire wrap


class FrameErrors:
    """What both ends count.

    Args:
        counters: To add to: `host_crc_errors`, `board_refused` and the like.
    """

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._seen: dict[str, int] = {}
        self._storm: deque[float] = deque(maxlen=STORM_ERRORS)

    def at_host(self, receiver: Receiver, now: float) -> None:
        """Take the counts of this end."""
        for key in ("crc_errors", "framing_errors"):
            self._count(now, f"host_{key}", getattr(receiver, key), before=0)

    def at_board(self, telemetry: Mapping[str, int], now: float) -> None:
        """Take those of the board, which may have counted before the session."""
        for key in ("crc_errors", "framing_errors", "refused", "limited"):
            self._count(now, f"board_{key}", telemetry[key], before=telemetry[key])

    def begin(self, end: str) -> None:
        """The `host` or the `board` counts anew."""
        self._seen = {key: value for key, value in self._seen.items() if not key.startswith(end)}

    def storming(self, now: float) -> bool:
        """Whether too many have come of late."""
        return len(self._storm) == STORM_ERRORS and now - self._storm[0] <= STORM_SECONDS

    def calm(self) -> None:
        """Forget a storm."""
        self._storm.clear()

    def _count(self, now: float, key: str, value: int, before: int) -> None:
        more = (value - self._seen.get(key, before)) & WHOLE
        self._seen[key] = value
        self._counters[key] += more
        if key.endswith("_errors"):
            self._storm.extend([now] * min(more, STORM_ERRORS))
