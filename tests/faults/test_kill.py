"""Processes that die or hang in the middle of an episode, against the real graph: what the bridge did, and when.

Times are wall-clock times of measurements and verdicts of one machine; the figures are printed for the record.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from mcap.exceptions import McapError
from mcap.stream_reader import StreamReader

from landbridge.deploy.supervisor import State
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge_nodes import bringup, topics
from landbridge_nodes.operator import Operator
from landbridge_nodes.processes import Processes

pytestmark = pytest.mark.ros
FURUTA = load_robot("furuta")
DT_MS = 1000 * FURUTA.spec.control_dt
SILENCE = FURUTA.spec.safety.max_silence_periods
HEARTBEAT_MS = FURUTA.spec.safety.heartbeat_timeout_ms
BUSY_MS = 20  # allowed for a scheduler that is late on a busy machine

WEIGHT = np.zeros((Observer(FURUTA.spec).size, 1), np.float32)
WEIGHT[0] = -0.5  # pulls the arm softly back to the middle: an episode that could go on for ever


class Verdict(NamedTuple):
    stamp: int  # of the measurement it answers, ns
    seen: int  # when it arrived here, ns
    reason: str
    effort: float


class Rig(NamedTuple):
    processes: Processes
    operator: Operator
    verdicts: list[Verdict]
    bag: Path

    def activate(self) -> None:
        self.operator.call("/monitor/arm")
        self.operator.wait(lambda: sum(v.reason == "ok" for v in self.verdicts) > 25, 10)
        assert self.operator.state is State.ACTIVE

    def strike(self, name: str, number: signal.Signals) -> int:
        os.kill(self.processes.pid(name), number)
        return time.time_ns()

    def stop_after(self, struck: int, reason: str) -> tuple[float, float]:
        """Ms from the blow to the bridge's first stop for `reason`, and to the last admitted command before it."""
        self.operator.wait(lambda: any(v.reason == reason for v in self.verdicts), 5)
        at = next(i for i, v in enumerate(self.verdicts) if v.reason == reason)
        admitted = [v for v in self.verdicts if v.reason in ("ok", "limited")]
        assert admitted[-1].stamp <= self.verdicts[at].stamp, "a command was admitted after the stop"
        return (self.verdicts[at].seen - struck) / 1e6, (admitted[-1].seen - struck) / 1e6


@pytest.fixture
def rig(tmp_path: Path, ros_domain: None, linear_bundle: Callable[..., Path]) -> Iterator[Rig]:
    bag = tmp_path / "bag"
    bundle = linear_bundle(tmp_path / "bundle", WEIGHT)
    specs = bringup.deploy("furuta", "none", 0, str(bundle), str(bag))
    with Processes(specs) as processes, Operator(FURUTA, lambda: None) as operator:
        verdicts: list[Verdict] = []

        def keep(message: Any) -> None:
            stamp = topics.to_ns(message.header.stamp)
            verdicts.append(Verdict(stamp, time.time_ns(), message.header.frame_id, message.effort[0]))

        topics.subscribe(operator.node, topics.GUARD_COMMAND, keep)
        operator.wait_ready(recorded=True)
        yield Rig(processes, operator, verdicts, bag)
        for spec in specs:  # a stopped process does not hear SIGTERM
            if (Path("/proc") / str(processes.pid(spec.name))).exists():
                os.kill(processes.pid(spec.name), signal.SIGCONT)


def report(what: str, stopped_ms: float, last_ms: float) -> None:
    print(
        f"{what}: last admitted command {last_ms:+.1f} ms, stop {stopped_ms:.1f} ms = {stopped_ms / DT_MS:.1f} periods"
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_policy_dies_or_hangs(rig: Rig, number: signal.Signals) -> None:
    rig.activate()
    stopped, last = rig.stop_after(rig.strike("policy", number), "silent")
    report(f"policy {number.name}", stopped, last)
    assert stopped <= SILENCE * DT_MS + BUSY_MS
    assert last <= BUSY_MS
    rig.operator.wait(lambda: rig.operator.state is State.FAULT, 2)
    assert rig.operator.reason == "silent"
    assert abs(rig.verdicts[-1].effort) < FURUTA.spec.joint("arm").effort_limit


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_monitor_dies_or_hangs(rig: Rig, number: signal.Signals) -> None:
    rig.activate()
    stopped, last = rig.stop_after(rig.strike("monitor", number), "monitor_lost")
    report(f"monitor {number.name}", stopped, last)
    assert stopped <= HEARTBEAT_MS + DT_MS + BUSY_MS
    assert last <= stopped
    seen = len(rig.verdicts)
    rig.operator.wait(lambda: len(rig.verdicts) > seen + 20, 5)
    assert {v.reason for v in rig.verdicts[seen:]} <= {"monitor_lost", "latched"}


def test_the_recorder_dies_and_control_does_not_notice(rig: Rig) -> None:
    rig.activate()
    struck = rig.strike("recorder", signal.SIGKILL)
    seen = len(rig.verdicts)
    rig.operator.wait(lambda: len(rig.verdicts) > seen + 50, 5)
    assert {v.reason for v in rig.verdicts[seen:]} <= {"ok", "limited"}
    assert rig.operator.state is State.ACTIVE
    assert not (rig.bag / "metadata.yaml").exists()
    newest = 0
    with (rig.bag / "bag_0.mcap").open("rb") as stream:
        try:
            for record in StreamReader(stream).records:
                newest = max(newest, getattr(record, "log_time", 0))
        except McapError:
            pass  # the file ends in the middle of a record
    lost = (struck - newest) / 1e6
    print(f"recorder SIGKILL: last {lost:.0f} ms lost")
    assert newest > 0
    assert lost <= 250


def test_the_bridge_dies_and_the_monitor_says_so(rig: Rig) -> None:
    rig.activate()
    struck = rig.strike("bridge", signal.SIGKILL)
    rig.operator.wait(lambda: rig.operator.state is State.FAULT, 5)
    took = (time.time_ns() - struck) / 1e6
    print(f"bridge SIGKILL: FAULT after {took:.0f} ms")
    assert rig.operator.reason == "bridge_lost"
    assert took <= HEARTBEAT_MS + 2 * DT_MS + BUSY_MS + 40  # 40: the supervisor's tick


def test_a_restarted_monitor_neither_resets_nor_moves(rig: Rig) -> None:
    """The bridge's latch outlives the monitor that died; a new one must reset, and then arm."""
    rig.activate()
    rig.strike("monitor", signal.SIGKILL)
    rig.operator.wait(lambda: any(v.reason == "monitor_lost" for v in rig.verdicts), 5)
    with Processes([bringup.deploy("furuta", "none", 0, "")[-1]]):
        rig.operator.wait(lambda: rig.operator.state is State.FAULT and rig.operator.reason == "monitor_lost", 15)
        assert rig.verdicts[-1].reason in ("monitor_lost", "latched")
        outcome = rig.operator.episode(30)
        assert (outcome.ended, outcome.ticks) == ("STANDBY", 30)
