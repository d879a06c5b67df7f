"""The clock of ages, where a computer has been suspended."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import pytest

from landbridge.deploy.clock import uptime

SUSPENDED = 5000  # s


def test_uptime_goes_on_as_the_monotonic_clock_does() -> None:
    before = uptime(), time.monotonic()
    while time.monotonic() - before[1] < 0.01:
        pass
    assert uptime() - before[0] == pytest.approx(time.monotonic() - before[1], abs=0.005)


def test_uptime_counts_the_time_for_which_the_computer_was_suspended() -> None:
    """In a time namespace, where the kernel adds to CLOCK_BOOTTIME alone, as it does for a suspend."""
    enter = ["unshare", "--user", "--time", "--fork", f"--boottime={SUSPENDED}"]
    if shutil.which("unshare") is None or subprocess.run([*enter, "true"], capture_output=True).returncode:
        pytest.skip("no time namespaces for users here")
    code = "from landbridge.deploy.clock import uptime; print(uptime())"
    before = uptime()
    told = subprocess.run([*enter, sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert SUSPENDED <= float(told.stdout) - before < SUSPENDED + 60
