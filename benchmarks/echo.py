"""The whole chain at 500 Hz beside a bare rclpy echo of the same message between two processes, in one run.

    python benchmarks/echo.py [--seconds 60] [--rate 500] [--rounds 2]

The echo is the least that any rclpy controller costs: one process publishes a measurement on a timer, another answers
with the message it got, and the first stops its clock when the answer comes. Both run as the nodes of landbridge do:
events executor, SCHED_FIFO where it is allowed. Echo and chain take turns, so that both see the same machine; the chain
adds observation, inference, guard and the twin, and the traffic to monitor and operator.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
import tyro
from latency import random_bundle, robot_at
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rich.console import Console
from rich.table import Table

from landbridge.real_time import BRIDGE_PRIORITY, CONTROLLER_PRIORITY
from landbridge_nodes import topics
from landbridge_nodes.bringup import deploy
from landbridge_nodes.episodes import run_episodes
from landbridge_nodes.process import run
from landbridge_nodes.transport import stay_on_this_machine

RESULTS = Path(__file__).parent / "results" / "echo.json"
THERE = topics.Topic("/echo/measurement", topics.JOINT_STATES.message)
BACK = topics.Topic("/echo/command", topics.COMMAND.message)
JOINTS = ["arm", "pendulum"]
START_TIMEOUT = 30.0  # s for both processes to find each other


class Mirror(Node):  # type: ignore[misc]
    """Answers every measurement with itself."""

    def __init__(self) -> None:
        super().__init__("mirror")
        answers = topics.publish(self, BACK)
        topics.subscribe(self, THERE, answers.publish)

    def close(self) -> None:
        """Nothing to put in order."""


class Source(Node):  # type: ignore[misc]
    """Measures on a timer, and how long each answer takes; hands both over when it ends."""

    def __init__(self, rate: float, found: Any, results: Any) -> None:
        super().__init__("source")
        self._dt, self._found, self._results = 1 / rate, found, results
        self._sent: dict[int, float] = {}
        self._latency_ms: list[float] = []
        self._last, self._missed, self._ticks = 0.0, 0, 0
        self._publisher = topics.publish(self, THERE)
        topics.subscribe(self, BACK, self._on_answer)
        self.create_timer(self._dt, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _tick(self) -> None:
        at, stamp = time.monotonic(), time.time_ns()
        if self._latency_ms:
            self._ticks += 1
            self._missed += max(0, round((at - self._last) / self._dt) - 1)
        self._last = at
        message = topics.joint_message(stamp, JOINTS, "position", [0.1, 0.2])
        self._sent[stamp] = at
        self._publisher.publish(message)

    def _on_answer(self, message: Any) -> None:
        at = time.monotonic()
        self._latency_ms.append(1000 * (at - self._sent.pop(topics.to_ns(message.header.stamp))))
        self._found.set()

    def close(self) -> None:
        """Hand the figures over."""
        self._results.send((self._latency_ms, self._ticks, self._missed))


def mirror() -> None:
    """The process that answers."""
    run(Mirror, CONTROLLER_PRIORITY)


def source(rate: float, found: Any, results: Any) -> None:
    """The process that asks."""
    run(lambda: Source(rate, found, results), BRIDGE_PRIORITY)


def echo(rate: float, seconds: float) -> dict[str, float]:
    """Figures of the bare echo."""
    context = multiprocessing.get_context("spawn")
    found, (ours, theirs) = context.Event(), context.Pipe()
    processes = [context.Process(target=mirror), context.Process(target=source, args=(rate, found, theirs))]
    for process in processes:
        process.start()
    try:
        if not found.wait(START_TIMEOUT):
            raise TimeoutError("the echo's processes did not find each other")
        time.sleep(seconds)
        processes[1].terminate()
        latency_ms, ticks, missed = ours.recv()
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return _figures(latency_ms, ticks, missed)


def chain(rate: float, seconds: float) -> dict[str, float]:
    """Figures of twin, policy, monitor and bridge, as in `landbridge up deploy`."""
    with tempfile.TemporaryDirectory() as scratch:
        robot, bundle = robot_at(rate, Path(scratch) / "robot"), Path(scratch) / "bundle"
        random_bundle(robot, bundle)
        got = run_episodes(robot, deploy(str(robot.folder), "none", 0, str(bundle)), seconds=seconds)
    latency = {key: got[key] for key in ("latency_p50_ms", "latency_p99_ms", "latency_max_ms")}
    return {**latency, "ticks": got["bridge_ticks"], "missed_ticks": got["missed_ticks"]}


def _figures(latency_ms: list[float], ticks: int, missed: int) -> dict[str, float]:
    p50, p99, top = (round(float(p), 3) for p in np.percentile(latency_ms, [50, 99, 100]))
    return {
        "latency_p50_ms": p50,
        "latency_p99_ms": p99,
        "latency_max_ms": top,
        "ticks": ticks,
        "missed_ticks": missed,
    }


def main(seconds: float = 60.0, rate: float = 500.0, rounds: int = 2) -> None:
    """Measure, print a table, and write `benchmarks/results/echo.json`.

    Args:
        seconds: Of each, in each round.
        rate: Control rate [Hz].
        rounds: Turns that echo and chain take.
    """
    stay_on_this_machine()
    load = os.getloadavg()[0]
    rows = []
    for number in range(rounds):
        for name, measure in (("echo", echo), ("chain", chain)):
            rows.append({"what": name, "round": number, **measure(rate, seconds)})
    table = Table(*rows[0], title=f"measurement to command at {rate:g} Hz")
    for row in rows:
        table.add_row(*map(str, row.values()))
    ratios = {
        key: round(_median(rows, "chain", key) / _median(rows, "echo", key), 2)
        for key in ("latency_p50_ms", "latency_p99_ms")
    }
    console = Console()
    console.print(table)
    console.print("chain over echo, medians of the rounds: " + ", ".join(f"{k} {v:g}" for k, v in ratios.items()))
    record.write(RESULTS, load, rate_hz=rate, seconds_each=seconds, ratios=ratios, rows=rows)


def _median(rows: list[dict[str, Any]], what: str, key: str) -> float:
    return float(np.median([row[key] for row in rows if row["what"] == what]))


if __name__ == "__main__":
    tyro.cli(main)
