"""Tests in real time on a machine that others use too: one that failed while the machine stood still is repeated.

No bound is loosened for it. A process of its own, which only sleeps and looks at the clock, says how late the machine
let it wake up; a failure on a machine that kept time is a failure.
"""

from __future__ import annotations

import atexit
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

FOLDERS = {"ros", "faults", "hil"}  # of tests that run in real time
STALL_MS = 30.0  # a control period and a half at 50 Hz; a robot counts as silent after three
ATTEMPTS = 3
SLEEPER = """
import select, sys, time
worst, began = 0.0, time.monotonic()
while True:
    time.sleep(0.002)
    now = time.monotonic()
    worst, began = max(worst, now - began), now
    if select.select([sys.stdin], [], [], 0)[0]:
        if not sys.stdin.readline():  # who asked has ended
            break
        print(worst * 1000, flush=True)
        worst = 0.0
"""
REPEATED = "repeated"  # property of a report, which reaches the summary also from a worker of pytest-xdist


def in_real_time(file: Path) -> bool:
    """Whether the tests of a file run in real time: one after another, with nothing beside them but what is idle."""
    return file.parent.name in FOLDERS


@cache
def sleeper() -> subprocess.Popen[str]:
    """One for all tests; it ends with this process."""
    command = [sys.executable, "-I", "-S", "-c", SLEEPER]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    atexit.register(process.communicate)  # closes its pipes, and waits
    return process


def longest_stall_ms() -> float:
    """The longest time since the last call in which this machine did not wake up a process that asked for 2 ms."""
    asked, answers = sleeper().stdin, sleeper().stdout
    assert asked is not None
    assert answers is not None
    asked.write("\n")
    return float(answers.readline())


def run(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Run one test, again if it failed while the machine stalled, its fixtures anew; report the last attempt."""
    for attempt in range(1, ATTEMPTS + 1):
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        longest_stall_ms()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        worst = longest_stall_ms()
        failed = any(report.failed for report in reports)
        if not failed or worst < STALL_MS or attempt == ATTEMPTS:
            break
        text = f"{item.nodeid}: failed while the machine stood still for {worst:.0f} ms, attempt {attempt}"
        item.user_properties.append((REPEATED, text))
        with suppress(Exception):  # of what the same failure has left behind
            item.session._setupstate.teardown_exact(None)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def repetitions(report: object) -> list[str]:
    """What is to be said of a test that was repeated, once: by the report of its teardown."""
    if getattr(report, "when", "") != "teardown":
        return []
    assert isinstance(report, pytest.TestReport)
    return [str(text) for name, text in report.user_properties if name == REPEATED]
