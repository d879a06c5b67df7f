"""What the recorder costs and what it loses: five topics at 500 Hz, messages as long as the furuta's.

    python benchmarks/recorder.py [--seconds 20] [--rate 500]

The recorder runs in a process of its own as in `landbridge up deploy`, the publisher in another. Messages are counted
in the bag; the share of a core is the recorder's CPU time. Last, it is killed with SIGKILL while it records.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import rclpy
import record
import tyro
from mcap.exceptions import EndOfFile
from mcap.records import Message
from mcap.stream_reader import StreamReader
from rclpy.executors import SingleThreadedExecutor
from rich.console import Console
from rich.table import Table
from std_srvs.srv import Trigger

from landbridge_nodes import topics
from landbridge_nodes.bringup import NodeSpec
from landbridge_nodes.processes import Processes
from landbridge_nodes.transport import stay_on_this_machine

RESULTS = Path(__file__).parent / "results" / "recorder.json"
FILLED = (topics.JOINT_STATES, topics.OBSERVATION, topics.ACTION, topics.COMMAND, topics.GUARD_COMMAND)
VALUES = 8
NAMES = [f"joint_{i}" for i in range(VALUES)]
SETTLE_SECONDS = 1.0  # for what is still on its way


def publish(seconds: float, rate: float, begun: Any, ended: Any) -> None:
    """Publish `FILLED` at `rate` once the recorder has found every topic, and say when."""
    rclpy.init()
    node = rclpy.create_node("publisher")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    publishers = {topic: topics.publish(node, topic) for topic in topics.TOPICS}
    ready = node.create_client(Trigger, "/recorder/ready")
    ready.wait_for_service()
    while True:
        future = ready.call_async(Trigger.Request())
        executor.spin_until_future_complete(future)
        if future.result().success:
            break
    begun.set()
    start = time.monotonic()
    for tick in range(round(seconds * rate)):
        stamp = time.time_ns()
        joints = topics.joint_message(stamp, NAMES, "position", [float(tick)] * VALUES)
        array = topics.array_message(stamp, NAMES, [float(tick)] * VALUES)
        for topic in FILLED:
            publishers[topic].publish(joints if topic.message is topics.JOINT_STATES.message else array)
        time.sleep(max(0.0, start + (tick + 1) / rate - time.monotonic()))
    ended.set()
    time.sleep(SETTLE_SECONDS)
    rclpy.shutdown()


def run(sinks: dict[str, str], seconds: float, rate: float, kill: bool = False) -> tuple[float, int]:
    """The recorder's share of a core while it records, and when [ns] it was ended."""
    context = multiprocessing.get_context("spawn")
    begun, ended = context.Event(), context.Event()
    publisher = context.Process(target=publish, args=(seconds, rate, begun, ended))
    spec = NodeSpec("recorder", "recorder", {"robot": "furuta", **sinks}, lifecycle=False)
    with Processes([spec]) as processes:
        publisher.start()
        recorder = psutil.Process(processes.pid("recorder"))
        begun.wait()
        before, start = sum(recorder.cpu_times()[:2]), time.monotonic()
        ended.wait(timeout=seconds / 2 if kill else None)
        share = (sum(recorder.cpu_times()[:2]) - before) / (time.monotonic() - start)
        if kill:
            recorder.send_signal(signal.SIGKILL)
        at = time.time_ns()
        publisher.join()
    return share, at


def recorded(bag: Path) -> tuple[Counter[str], int]:
    """Messages by topic, and when [ns] the newest was received; up to the cut, if there is one."""
    counts, names, newest = Counter[str](), dict[int, str](), 0
    with (bag / f"{bag.name}_0.mcap").open("rb") as stream, suppress(EndOfFile):
        for record in StreamReader(stream).records:
            if hasattr(record, "topic"):
                names[record.id] = record.topic
            elif isinstance(record, Message):
                counts[names[record.channel_id]] += 1
                newest = max(newest, record.log_time)
    return counts, newest


def measure(seconds: float, rate: float) -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bag, box, cut = folder / "bag", folder / "box", folder / "cut"
        both, _ = run({"out": str(folder / "both"), "black_box": str(box)}, seconds, rate)
        share, _ = run({"out": str(bag)}, seconds, rate)
        alone, _ = run({"black_box": str(box)}, seconds, rate)
        _, killed = run({"out": str(cut)}, 10.0, rate, kill=True)
        counts, (_, newest) = recorded(bag)[0], recorded(cut)
        sent = round(seconds * rate)
        return {
            "topics": len(FILLED),
            "rate_hz": rate,
            "seconds": seconds,
            "sent": sent * len(FILLED),
            "lost": sum(sent - counts[topic.name] for topic in FILLED),
            "bag_share_of_a_core": round(share, 3),
            "black_box_share_of_a_core": round(alone, 3),
            "both_share_of_a_core": round(both, 3),
            "lost_by_kill_ms": round((killed - newest) / 1e6, 1),
        }


def main(seconds: float = 20.0, rate: float = 500.0) -> None:
    """Measure, print a table, and write `benchmarks/results/recorder.json`.

    Args:
        seconds: Of publishing, three times.
        rate: Messages per second of each topic [Hz].
    """
    stay_on_this_machine()
    load = os.getloadavg()[0]
    figures = measure(seconds, rate)
    table = Table("what", "figure", title="recorder")
    for key, value in figures.items():
        table.add_row(key, f"{value:g}")
    Console().print(table)
    record.write(RESULTS, load, **figures)


if __name__ == "__main__":
    tyro.cli(main)
