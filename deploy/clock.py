"""The clock by which the robot's side tells ages."""

from __future__ import annotations

import time


def uptime() -> float:
    """Seconds since the computer started, with those for which it was suspended.

    CLOCK_MONOTONIC stands still in a suspend (clock_gettime(2)): an arm that has held its last target while a laptop's
    lid was closed would wake to a heartbeat, a measurement and a command that all pass for fresh.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)
