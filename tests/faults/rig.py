"""The running bring-up as tests strike it, mended in between: what its bridge did, and when."""

from __future__ import annotations

import itertools
import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from std_srvs.srv import Trigger

from landbridge.deploy.supervisor import COMMANDED, State
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge_nodes import bringup, topics
from landbridge_nodes.operator import START_TIMEOUT, Operator
from landbridge_nodes.processes import Processes

FURUTA = load_robot("furuta")
DT_MS = 1000 * FURUTA.spec.control_dt
SILENCE = FURUTA.spec.safety.max_silence_periods
HEARTBEAT_MS = FURUTA.spec.safety.heartbeat_timeout_ms
BUSY_MS = 20  # allowed for a scheduler that is late on a busy machine

WEIGHT = np.zeros((Observer(FURUTA.spec).size, 1), np.float32)
WEIGHT[0] = -0.5  # pulls the arm softly back to the middle: an episode that could go on for ever


ENDING = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT}


class Verdict(NamedTuple):
    stamp: int  # of the measurement it answers, ns
    seen: int  # when it arrived here, ns
    reason: str
    effort: float


class Rig:
    """One bring-up for many tests; a process that one of them has ended is started anew for the next.

    Attributes:
        verdicts: What the bridge has said since the test began, or since its last `activate`.
        specs: Of the processes, by name, as they are meant to be.
        bag, black_box: What the recorder writes.
        logs: Where ROS keeps what the processes say.
        substitute: Folder of the program that runs in place of one of ours.
    """

    def __init__(self, folder: Path, bundle: Path, operator: Operator) -> None:
        self._folder, self.bundle, self.operator = folder, bundle, operator
        self.logs, self.substitute = folder / "log", folder
        self.verdicts: list[Verdict] = []
        self._processes: dict[str, tuple[bringup.NodeSpec, Processes]] = {}
        self._ended: set[str] = set()  # or about to end
        self._count = itertools.count()
        topics.subscribe(operator.node, topics.GUARD_COMMAND, self._on_verdict)
        self._name_what_is_recorded()

    def record_anew(self) -> None:
        """A recorder that remembers nothing of other tests."""
        self.strike("recorder", signal.SIGKILL)
        self.mend()

    def _name_what_is_recorded(self) -> None:
        folder = self._folder / f"recorded_{next(self._count)}"
        self.bag, self.black_box = folder / "bag", folder / "black_box"
        specs = bringup.deploy("furuta", "none", 0, str(self.bundle), str(self.bag), black_box=str(self.black_box))
        self.specs = {spec.name: spec for spec in specs}

    def mend(self, name: str = "", source: str = "") -> None:
        """What an operator does before work: start what has ended, lead to STANDBY, see that all works.

        `source` runs in place of the process `name` until the next time.
        """
        if not self.runs("recorder"):
            self._name_what_is_recorded()
        wanted = dict(self.specs)
        if name:
            self.substitute = self._folder / f"substitute_{next(self._count)}"
            self.substitute.mkdir()
            (self.substitute / f"{name}.py").write_text(source)
            wanted[name] = replace(self.specs[name], package=self.substitute.name)
        lost = [spec for spec in wanted.values() if not self.runs(spec.name) or self._processes[spec.name][0] != spec]
        for spec in lost:
            self._start(spec)
        self._await_heartbeat()
        self.operator.wait(self._is_led_to_standby, START_TIMEOUT)
        self.operator.wait_ready(recorded=False)
        for service in ("/bridge/reset_plant", "/recorder/ready"):
            self.operator.wait(partial(self._accepted, service), START_TIMEOUT)
        self.operator.wait(self._is_led_to_standby, START_TIMEOUT)  # again: the loss of a bridge is noticed late
        if lost and not name:
            assert self.operator.episode(5).ended == "STANDBY"
        self.verdicts.clear()

    def resume(self) -> None:
        """A stopped process does not hear SIGTERM."""
        for name in filter(self.runs, self._processes):
            self.strike(name, signal.SIGCONT)

    def end(self) -> None:
        for _, processes in reversed(self._processes.values()):
            processes.end()

    def pid(self, name: str) -> int:
        return self._processes[name][1].pid(name)

    def _start(self, spec: bringup.NodeSpec) -> None:
        if spec.name in self._processes:
            self.strike(spec.name, signal.SIGKILL)
            self._processes.pop(spec.name)[1].end()
        self._ended.discard(spec.name)
        path = os.pathsep.join([str(self._folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        processes = Processes([spec], {"ROS_LOG_DIR": str(self.logs), "PYTHONPATH": path})
        self._processes[spec.name] = spec, processes.__enter__()

    def runs(self, name: str) -> bool:
        if name not in self._processes or name in self._ended:
            return False
        process = psutil.Process(self.pid(name))
        return process.status() != psutil.STATUS_ZOMBIE

    def _is_led_to_standby(self) -> bool:
        state = self.operator.state
        if state in COMMANDED:
            self._accepted("/monitor/disarm")
        elif state in (State.FAULT, State.ESTOP):
            self._accepted("/monitor/reset")
        return state is State.STANDBY

    def _await_heartbeat(self) -> None:
        """Hear the monitor that runs now: a new subscription hears of no other."""
        heard: list[Any] = []
        subscription = topics.subscribe(self.operator.node, topics.SAFETY_STATE, heard.append)
        self.operator.wait(lambda: bool(heard), START_TIMEOUT)
        self.operator.node.destroy_subscription(subscription)

    def _accepted(self, service: str) -> bool:
        """Whether it was answered, and not refused; a new client knows no server that has ended."""
        node = self.operator.node
        client = node.create_client(Trigger, service)
        try:
            self.operator.wait(client.service_is_ready, 1.0)
            future = client.call_async(Trigger.Request())
            self.operator.wait(future.done, 1.0)
        except InputError:
            return False
        finally:
            node.destroy_client(client)
        return bool(future.result().success)

    def _on_verdict(self, message: Any) -> None:
        stamp = topics.to_ns(message.header.stamp)
        self.verdicts.append(Verdict(stamp, time.time_ns(), message.header.frame_id, message.effort[0]))

    def activate(self) -> None:
        self.verdicts.clear()
        self.operator.call("/monitor/arm")
        self.operator.wait(lambda: sum(v.reason == "ok" for v in self.verdicts) > 25, 10)
        assert self.operator.state is State.ACTIVE

    def strike(self, name: str, number: signal.Signals) -> int:
        if number in ENDING:
            self._ended.add(name)
        os.kill(self.pid(name), number)
        return time.time_ns()

    def reset(self) -> None:
        """As an operator does who has started a process anew; a busy machine may need long to start it."""
        self.operator.wait(lambda: self._accepted("/monitor/reset"), START_TIMEOUT)
        self.operator.wait(lambda: self.operator.state is State.STANDBY, START_TIMEOUT)
        self.operator.wait(lambda: self._accepted("/bridge/reset_plant"), START_TIMEOUT)

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
