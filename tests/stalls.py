"""Tests in real time on a machine that others use too: one that failed while the machine stood still is repeated.

No bound is loosened for it. A process of its own, which only sleeps and looks at the clock, says how late the machine
let it wake up; a failure on a machine that kept time is a failure.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from _pytest.runner import runtestprotocol

FOLDERS = {"ros", "faults", "hil"}  # of tests that run in real time; the Makefile names them too
STALL_MS = 30.0  # a control period and a half at 50 Hz; a robot counts as silent after three
ATTEMPTS = 3
SLEEPER = """
import select, sys, time
worst, began = 0.0, time.monotonic()
print(flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:  # until it is closed
    time.sleep(0.002)
    now = time.monotonic()
    worst, began = max(worst, now - began), now
print(worst * 1000)
"""
repeated: list[str] = []  # what the summary says


@contextmanager
def watched() -> Iterator[list[float]]:
    """Holds afterwards the longest time [ms] in which this machine did not wake up a process that asked for 2 ms."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    worst: list[float] = []
    try:
        yield worst
    finally:
        process.stdin.close()
        worst.append(float(process.stdout.readline()))
        process.stdout.close()
        process.wait()


def run(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Run one test, again if it failed while the machine stalled, its fixtures anew; report the last attempt."""
    for attempt in range(1, ATTEMPTS + 1):
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        with watched() as worst:
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
        failed = any(report.failed for report in reports)
        if not failed or worst[0] < STALL_MS or attempt == ATTEMPTS:
            break
        repeated.append(f"{item.nodeid}: failed while the machine stood still for {worst[0]:.0f} ms, attempt {attempt}")
        item.session._setupstate.teardown_exact(None)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
