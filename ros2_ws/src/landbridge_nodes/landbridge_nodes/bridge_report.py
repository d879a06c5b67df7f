"""What the bridge says of itself: `/bridge/fault`, with every news and once a second, and `/diagnostics`."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from landbridge_nodes import topics

LATENCIES = 4096  # newest ones, whose percentiles are reported


class News(NamedTuple):
    """What `/bridge/fault` holds.

    Attributes:
        fault: What is wrong, the cause before its consequence in the guard; "" if nothing is.
        warning: What the hardware will not bear for long; "" if there is nothing.
        settled: The guard's state in which the robot has come to rest; "" if it has not.
        epoch: The guard's.
        powered: Whether a command of the guard is in effect.
    """

    fault: str
    warning: str
    settled: str
    epoch: int
    powered: bool


class BridgeReport:
    """Publishes for the lifecycle node `node`, whose control period is `control_dt` [s].

    Attributes:
        news: Newest that was published; None before the first.
        latency_ms: Measurement to write, of the newest admitted commands.
    """

    def __init__(self, node: Any, control_dt: float) -> None:
        self.news: News | None = None
        self.latency_ms: deque[float] = deque(maxlen=LATENCIES)
        self._control_dt = control_dt
        self._last_tick: float | None = None
        self._ticks = self._missed = 0
        self._id = uuid.uuid4().hex  # of this process: another one in its place has not been armed
        self._faults = topics.publish(node, topics.BRIDGE_FAULT)
        self._diagnostics = topics.publish(node, topics.DIAGNOSTICS)

    def tell(self, news: News) -> None:
        """Publish `news` if it is new."""
        if news != self.news:
            self.news = news
            self._publish(news)

    def count_tick(self, now: float) -> None:
        """A control period has begun at `now` [s]."""
        if self._last_tick is not None:
            self._ticks += 1
            self._missed += max(0, round((now - self._last_tick) / self._control_dt) - 1)
        self._last_tick = now

    def restart_ticks(self) -> None:
        """The next control period follows no other."""
        self._last_tick = None

    def diagnose(self, more: Mapping[str, object]) -> None:
        """Publish periods, latency and `more`; the news too, again, for a monitor to notice if there are two of us."""
        values: dict[str, object] = {"ticks": self._ticks, "missed_ticks": self._missed}
        values |= {"fault": "", "warning": ""}
        if self.news is not None:
            values |= {"fault": self.news.fault, "warning": self.news.warning}
            self._publish(self.news)
        if self.latency_ms:
            p50, p99 = np.percentile(self.latency_ms, [50, 99])
            values |= {"latency_p50_ms": p50, "latency_p99_ms": p99, "latency_max_ms": max(self.latency_ms)}
        self._diagnostics.publish(topics.diagnostics_message("bridge", "", {**values, **more}))

    def _publish(self, news: News) -> None:
        values = {"epoch": news.epoch, "settled": news.settled, "warning": news.warning, "bridge": self._id}
        values |= {"powered": "yes" if news.powered else ""}
        level = DiagnosticStatus.ERROR if news.fault else DiagnosticStatus.WARN if news.warning else DiagnosticStatus.OK
        self._faults.publish(topics.status_message("bridge", news.fault, values, level))
