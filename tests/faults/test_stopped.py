"""Processes that are stopped and go on, and a disk that takes no more: who notices, and who must not."""

from __future__ import annotations

import resource
import signal
import time
from typing import Any

import pytest

from landbridge.bag import BagReader
from landbridge.deploy.supervisor import State
from landbridge.verdict import ADMITTED
from landbridge_nodes import topics

from .rig import Rig

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
