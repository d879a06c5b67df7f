"""The running bring-up as tests strike it: what its bridge did, and when."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from landbridge.deploy.supervisor import State
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge_nodes import bringup
from landbridge_nodes.operator import START_TIMEOUT, Operator
from landbridge_nodes.processes import Processes

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
    black_box: Path
    bundle: Path
    specs: dict[str, bringup.NodeSpec]

    def activate(self) -> None:
        self.verdicts.clear()
        self.operator.call("/monitor/arm")
        self.operator.wait(lambda: sum(v.reason == "ok" for v in self.verdicts) > 25, 10)
        assert self.operator.state is State.ACTIVE

    def strike(self, name: str, number: signal.Signals) -> int:
        os.kill(self.processes.pid(name), number)
        return time.time_ns()

    def reset(self) -> None:
        """As an operator does who has started a process anew; a busy machine may need long to start it."""
        self.operator.wait(self._is_reset, START_TIMEOUT)
        self.operator.wait(lambda: self.operator.state is State.STANDBY, START_TIMEOUT)

    def _is_reset(self) -> bool:
        try:
            self.operator.call("/monitor/reset")
        except InputError:
            return False
        return True

    def await_fault(self, reason: str) -> None:
        self.operator.wait(lambda: self.operator.state is State.FAULT, 5)
        assert self.operator.reason == reason

    def await_silence(self) -> tuple[int, float]:
        """Index of the stop for a silent policy, and its periods after the last measurement that was answered."""
        self.await_fault("silent")
        self.operator.wait(lambda: any(v.reason == "silent" for v in self.verdicts), 5)
        at = next(i for i, v in enumerate(self.verdicts) if v.reason == "silent")
        answered = [v for v in self.verdicts[:at] if v.reason in ("ok", "limited")]
        return at, (self.verdicts[at].stamp - answered[-1].stamp) / 1e6 / DT_MS

    def stop_after(self, struck: int, *reasons: str) -> tuple[float, float]:
        """Ms from the blow to the bridge's first stop for one of `reasons`, and to the last admitted command before."""
        self.operator.wait(lambda: any(v.reason in reasons and v.seen > struck for v in self.verdicts), 5)
        at = next(i for i, v in enumerate(self.verdicts) if v.reason in reasons and v.seen > struck)
        admitted = [v for v in self.verdicts if v.reason in ("ok", "limited")]
        assert admitted[-1].stamp <= self.verdicts[at].stamp, "a command was admitted after the stop"
        return (self.verdicts[at].seen - struck) / 1e6, (admitted[-1].seen - struck) / 1e6


def report(what: str, stopped_ms: float, last_ms: float) -> None:
    print(
        f"{what}: last admitted command {last_ms:+.1f} ms, stop {stopped_ms:.1f} ms = {stopped_ms / DT_MS:.1f} periods"
    )
