"""Processes that are stopped and go on, and a disk that takes no more: who notices, and who must not."""

from __future__ import annotations

import io
import os
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from landbridge.bag import BagReader
from landbridge.deploy.supervisor import State
from landbridge.errors import InputError
from landbridge.verdict import ADMITTED
from landbridge_nodes import bringup, topics
from landbridge_nodes.operator import RETRY_SECONDS, START_TIMEOUT, Operator
from landbridge_nodes.processes import Processes

from .rig import FURUTA, WEIGHT, Rig

pytestmark = pytest.mark.ros


def goes_on(rig: Rig, verdicts: int = 20) -> None:
    seen = len(rig.verdicts)
    rig.operator.wait(lambda: len(rig.verdicts) > seen + verdicts, 5)
    assert {v.reason for v in rig.verdicts[seen:]} <= set(ADMITTED)
    assert rig.operator.state is State.ACTIVE


def test_a_recorder_that_is_stopped_or_has_no_disk_and_a_bridge_that_was_stopped(rig: Rig) -> None:
    """RLIMIT_FSIZE makes the kernel refuse the recorder's writes, as a full disk would."""
    said: list[str] = []

    def hear(message: Any) -> None:
        said.extend(status.message for status in message.status if status.name == "recorder")

    topics.subscribe(rig.operator.node, topics.DIAGNOSTICS, hear)
    rig.activate()
    rig.strike("recorder", signal.SIGSTOP)
    goes_on(rig)
    rig.strike("recorder", signal.SIGCONT)
    goes_on(rig)
    _, hard = resource.prlimit(rig.pid("recorder"), resource.RLIMIT_FSIZE)
    resource.prlimit(rig.pid("recorder"), resource.RLIMIT_FSIZE, (0, hard))
    goes_on(rig)
    rig.operator.wait(lambda: any(text.endswith("bag_0.mcap: File too large") for text in said), 5)
    goes_on(rig)
    rig.check()
    kept = list(BagReader(rig.bag).messages(("/guard/command",)))
    assert len(kept) > 20  # what was written before stays readable
    rig.strike("bridge", signal.SIGSTOP)
    rig.await_fault("bridge_lost")
    went_on = rig.strike("bridge", signal.SIGCONT)
    rig.operator.wait(lambda: sum(v.seen > went_on for v in rig.verdicts) > 10, 5)
    assert not {v.reason for v in rig.verdicts if v.seen > went_on} & set(ADMITTED)
    assert rig.operator.episode(20).ended == "STANDBY"


BUSY = """
import pathlib, sys, threading
from landbridge_nodes.recorder import main

def spin():
    while True:
        pass

threading.Thread(target=spin, daemon=True).start()
sys.exit(main())
"""


def test_a_recorder_that_is_started_anew_while_the_robot_moves_and_one_that_is_busy(rig: Rig) -> None:
    """Neither stops the robot, and each records from when it is there."""

    def records() -> bool:
        with suppress(InputError):  # the bag is empty at first
            return len(list(BagReader(rig.bag).messages(("/guard/command",)))) > 20
        return False

    rig.activate()
    for source in ("", BUSY):
        rig.strike("recorder", signal.SIGKILL)
        rig.start("recorder", source)
        rig.operator.wait(lambda: rig.operator.accepted("/recorder/ready", RETRY_SECONDS), START_TIMEOUT)
        rig.operator.wait(records, 5)
        goes_on(rig)


def test_a_computer_that_was_suspended_wakes_to_a_stop(rig: Rig) -> None:
    """Every process at once, so that none can have noticed: to stopped processes `uptime` is as to suspended ones."""
    rig.activate()
    nodes = ("monitor", "policy", "bridge")
    for name in nodes:
        struck = rig.strike(name, signal.SIGSTOP)
    rig.operator.wait(lambda: time.time_ns() - struck > 1e9, 5)
    woken = time.time_ns()
    for name in reversed(nodes):
        rig.strike(name, signal.SIGCONT)
    rig.operator.wait(lambda: rig.operator.state is State.FAULT, 5)  # the monitor may miss its bridge first
    rig.operator.wait(lambda: any(v.reason == "monitor_lost" for v in rig.verdicts), 5)
    assert not {v.reason for v in rig.verdicts if v.seen > woken} & set(ADMITTED)
    assert rig.operator.episode(20).ended == "STANDBY"


def test_what_a_monitor_was_asked_while_it_was_stopped_is_not_done_afterwards(rig: Rig) -> None:
    """Who asked has long been told that nobody answers, and may be at the robot."""
    states: list[str] = []
    topics.subscribe(rig.operator.node, topics.SAFETY_STATE, lambda message: states.append(message.name))
    rig.strike("monitor", signal.SIGSTOP)
    assert not rig.operator.accepted("/monitor/arm", seconds=1.5)
    states.clear()
    rig.strike("monitor", signal.SIGCONT)
    rig.operator.wait(lambda: len(states) > 10, 5)
    assert set(states) == {"STANDBY"}
    for state, ask in ((State.STANDBY, "/monitor/park"), (State.ESTOP, "/monitor/reset")):
        if state is State.ESTOP:
            rig.operator.wait(lambda: rig.operator.accepted("/monitor/estop"), 5)
            rig.operator.wait(lambda: rig.operator.state is State.ESTOP, 5)
        rig.strike("monitor", signal.SIGSTOP)
        assert not rig.operator.accepted(ask, seconds=1.5)
        states.clear()
        rig.strike("monitor", signal.SIGCONT)
        rig.operator.wait(lambda: len(states) > 10, 5)
        assert set(states) == {state.value}
    rig.operator.wait(rig.is_reset, 5)
    rig.operator.wait(lambda: rig.operator.accepted("/monitor/arm"), 5)
    rig.operator.wait(lambda: rig.operator.state is State.ACTIVE, 5)


def test_a_terminal_that_is_held_holds_no_node(
    ros_domain: None, tmp_path: Path, linear_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-S there, or a pipe that nobody reads: full from the start."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writes, bytes(4096))
    os.set_blocking(writes, True)
    with io.TextIOWrapper(io.FileIO(writes, "w"), write_through=True) as held:
        monkeypatch.setattr("sys.stderr", held)
        specs = bringup.deploy("furuta", "none", 0, str(linear_bundle(tmp_path / "bundle", WEIGHT)))
        with Processes(specs) as processes, Operator(FURUTA, processes.check) as operator:
            operator.wait_ready(recorded=False)
            assert operator.episode(20).ended == "STANDBY"
            operator.call("/monitor/arm")
            operator.wait(lambda: operator.state is State.ACTIVE, 5)
            operator.call("/monitor/estop")
            operator.wait(lambda: operator.accepted("/monitor/reset"), 5)
            operator.wait(lambda: operator.state is State.STANDBY, 5)
            os.close(reads)
