"""Who goes before whom on a busy machine: SCHED_FIFO, where a process has the right to it."""

from __future__ import annotations

import os

# The shorter the period, the higher: the monitor, at 25 Hz, takes no core from the tick that it watches. A controller
# that starved it would be stopped by the bridge, which is above both and needs the monitor's heartbeat. An emulated
# board is above all: a real one does not wait for the host either.
BOARD_PRIORITY, BRIDGE_PRIORITY, CONTROLLER_PRIORITY, MONITOR_PRIORITY = 75, 70, 60, 50


def take_priority(priority: int) -> bool:
    """Schedule this process by `priority` (1 to 99), or again as any other (0); whether it has the right to."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO if priority else os.SCHED_OTHER, os.sched_param(priority))
    except PermissionError:
        return False
    return True
