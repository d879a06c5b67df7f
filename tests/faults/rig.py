"""The running bring-up as tests strike it: what its bridge did, and when."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import psutil
from typing_extensions import Self

from landbridge.deploy.supervisor import State
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge.verdict import ADMITTED
from landbridge_nodes import bringup, topics
from landbridge_nodes.operator import RETRY_SECONDS, START_TIMEOUT, Operator
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


class Rig:
    """A bring-up that the tests of a module share; a context manager. It is in order after `renew`.

    Attributes:
        verdicts: Those of the bridge's guard, since `activate`.
        bag: What the recorder writes, and `black_box` the folder of its others.
    """

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.bundle = bundle
        self.verdicts: list[Verdict] = []
        self.bag = self.black_box = folder
        self.specs = {spec.name: spec for spec in bringup.deploy("furuta", "none", 0, str(bundle), "bag")}
        self.replaced = folder / "replaced"  # programs that tests start in place of the nodes'
        self.replaced.mkdir()
        self.operator = Operator(FURUTA, lambda: None)
        self._folder, self._numbers = folder, itertools.count()
        self._running: dict[str, Processes] = {}
        self._sound: set[str] = set()  # nodes that run as they are shipped, and that no test has struck

    def __enter__(self) -> Self:
        for name in self.specs:
            self.start(name)
        self.operator.__enter__()
        topics.subscribe(self.operator.node, topics.GUARD_COMMAND, self._keep)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.operator.__exit__(kind, error, trace)
        for name in reversed(self.specs):
            self._end(name)

    def start(self, name: str, source: str = "") -> None:
        """Start a node in place of the one that is there, or a program `source`; a recorder writes into new folders."""
        self._end(name)
        spec, path = self.specs[name], [str(self._folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        if name == "recorder":
            folder = self._folder / str(next(self._numbers))
            folder.mkdir()
            self.bag, self.black_box = folder / "bag", folder / "black_box"
            written = {"out": str(self.bag), "black_box": str(self.black_box)}
            spec = replace(spec, parameters={**spec.parameters, **written})
        if source:
            (self.replaced / f"{name}.py").write_text(source)
            spec = replace(spec, package="replaced")
        environment = {"PYTHONPATH": os.pathsep.join(path), "ROS_LOG_DIR": str(self._folder / "ros_log")}
        self._running[name] = Processes([spec], environment).__enter__()
        if not source:
            self._sound.add(name)

    def renew(self, **programs: str) -> None:
        """Start what a test has struck or replaced, and sources in place of the nodes named; STANDBY."""
        started = [name for name in self.specs if name in programs or name not in self._sound]
        for name in started:
            self.start(name, programs.get(name, ""))
        self.operator.state = State.UNCONFIGURED  # until it is heard
        self.operator.wait(lambda: self.operator.state is not State.UNCONFIGURED, START_TIMEOUT)
        if started or self.operator.state is not State.STANDBY:
            # A reset then leads bridge and policy to where they should be. A new monitor may not reach who asked yet.
            self.operator.wait(lambda: self.operator.accepted("/monitor/estop", RETRY_SECONDS), START_TIMEOUT)
            self.reset()
        self.operator.wait_ready(recorded=True)

    def pid(self, name: str) -> int:
        return self._running[name].pid(name)

    def check(self) -> None:
        """As `landbridge up` does: whatever ends it has not happened."""
        for processes in self._running.values():
            processes.check()

    def log(self, name: str) -> str:
        """What the node that was started last has said."""
        (log,) = (self._folder / "ros_log").glob(f"*_{self.pid(name)}_*.log")
        return log.read_text()

    def activate(self) -> None:
        self.verdicts.clear()
        self.operator.call("/monitor/arm")
        self.operator.wait(lambda: sum(v.reason == "ok" for v in self.verdicts) > 25, 10)
        assert self.operator.state is State.ACTIVE

    def strike(self, name: str, number: signal.Signals) -> int:
        self._sound.discard(name)
        os.kill(self.pid(name), number)
        return time.time_ns()

    def reset(self) -> None:
        """As an operator does who has started a process anew; a busy machine may need long to start it."""
        self.operator.wait(self.is_reset, START_TIMEOUT)
        self.operator.wait(lambda: self.operator.state is State.STANDBY, START_TIMEOUT)

    def is_reset(self) -> bool:
        return self.operator.accepted("/monitor/reset")

    def await_fault(self, reason: str, seconds: float = 5) -> None:
        self.operator.wait(lambda: self.operator.state is State.FAULT, seconds)
        assert self.operator.reason == reason

    def await_silence(self) -> tuple[int, float]:
        """Index of the stop for a silent policy, and its periods after the last measurement that was answered."""
        self.await_fault("silent")
        self.operator.wait(lambda: any(v.reason == "silent" for v in self.verdicts), 5)
        at = next(i for i, v in enumerate(self.verdicts) if v.reason == "silent")
        answered = [v for v in self.verdicts[:at] if v.reason in ADMITTED]
        return at, (self.verdicts[at].stamp - answered[-1].stamp) / 1e6 / DT_MS

    def stop_after(self, struck: int, *reasons: str) -> tuple[float, float]:
        """Ms from the blow to the bridge's first stop for one of `reasons`, and to the last admitted command before."""
        self.operator.wait(lambda: any(v.reason in reasons and v.seen > struck for v in self.verdicts), 5)
        at = next(i for i, v in enumerate(self.verdicts) if v.reason in reasons and v.seen > struck)
        admitted = [v for v in self.verdicts if v.reason in ADMITTED]
        assert admitted[-1].stamp <= self.verdicts[at].stamp, "a command was admitted after the stop"
        return (self.verdicts[at].seen - struck) / 1e6, (admitted[-1].seen - struck) / 1e6

    def _keep(self, message: Any) -> None:
        stamp = topics.to_ns(message.header.stamp)
        self.verdicts.append(Verdict(stamp, time.time_ns(), message.header.frame_id, message.effort[0]))

    def _end(self, name: str) -> None:
        if name in self._running:
            if psutil.Process(self.pid(name)).status() == psutil.STATUS_STOPPED:
                self.strike(name, signal.SIGKILL)  # it would not hear SIGTERM
            self._running.pop(name).end()
            self._sound.discard(name)


Record = Callable[[str, object], None]  # pytest's `record_property`


def tell(record: Record, what: str, value: float, unit: str = "ms") -> None:
    """Print a figure of this run, and leave it for `benchmarks/process_faults.py`."""
    print(f"{what}: {value:.1f} {unit}")
    record(what, value)
