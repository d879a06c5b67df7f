"""`pytest tests/hil --port PORT --hardware dynamixel`: here PORT is an emulated bus, which is not told so."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .rig import Emulated

FILES = [
    f"tests/hil/test_{name}.py" for name in ("servo_motion", "servo_opening", "servo_reset", "servo_faults", "link")
]
KIND = "dynamixel"
ASKED = "will move the joints on"
MARKED = 4  # tests that may run on real servos


@pytest.fixture(scope="module")
def far_bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    started = Emulated(tmp_path_factory.mktemp("by-id") / "far", "--robot", "arm", "--hardware", KIND)
    yield started
    assert started.end() == 0


def run_on(port: str, repository: Path, answers: str) -> str:
    """What pytest says of these tests on a port, `answers` typed by the user."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *FILES, "--port", port, "--hardware", KIND]
    return subprocess.run(command, cwd=repository, input=answers, capture_output=True, text=True, timeout=240).stdout


def summary(said: str) -> dict[str, int]:
    """Pytest's last line, as "11 passed, 4 errors in 4 s", by word."""
    return {word: int(count) for count, word in re.findall(r"(\d+) (\w+)", said.splitlines()[-1])}


def test_marked_tests_run_on_a_port_after_the_user_has_agreed_and_no_others(
    far_bus: Emulated, repository: Path
) -> None:
    said = run_on(far_bus.port, repository, "\n" * MARKED)
    assert not {"failed", "error", "errors"} & set(summary(said)), said
    assert said.count(f"{ASKED} {far_bus.port}") == MARKED <= summary(said)["passed"]  # others need no hardware
    assert "breaks what it tests" in said and "of feetech, and dynamixel is on --port" in said
    assert "of mcu, and dynamixel is on --port" in said
    assert not any(far_bus.order("status")["torque"])


def test_nothing_moves_while_nobody_answers(far_bus: Emulated, repository: Path) -> None:
    far_bus.order("reset")
    before = far_bus.order("status")["goal"]
    said = run_on(far_bus.port, repository, "")
    assert summary(said)["errors"] == MARKED and "failed" not in summary(said), said
    assert far_bus.order("status")["goal"] == before
    assert not any(far_bus.order("status")["torque"])
