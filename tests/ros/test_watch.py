"""`landbridge watch` against the real graph: what it shows, and what its keys do."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rclpy.serialization import serialize_message
from rich.console import Console
from sensor_msgs.msg import JointState
from textual.widgets import Static

from landbridge.deploy.supervisor import Answer, Event
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge_nodes import bringup, topics
from landbridge_nodes.listener import Listener
from landbridge_nodes.processes import Processes
from landbridge_nodes.watch import Watch, watch, watched

pytestmark = pytest.mark.ros
FURUTA = load_robot("furuta")
STILL = np.zeros((Observer(FURUTA.spec).size, 1), np.float32)


@pytest.fixture
def listener(ros_domain: None) -> Iterator[Listener]:
    with Listener(watched(FURUTA)) as listener:
        yield listener


async def shows(app: Watch, widget: str, *texts: str, seconds: float = 20.0) -> None:
    """Wait until a part of the screen says all of `texts`."""
    deadline = time.monotonic() + seconds
    while not all(text in said(app, widget) for text in texts):
        assert time.monotonic() < deadline, f"{widget} says {said(app, widget)!r}, not {texts}"
        await asyncio.sleep(0.02)


def said(app: Watch, widget: str) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(app.query_one(widget, Static).content)
    return console.file.getvalue()


def rate(app: Watch, topic: str) -> float:
    line = next(line for line in said(app, "#rates").splitlines() if topic in line)
    return float(line.split()[1])


def test_an_operator_arms_stops_and_resets_a_robot(
    listener: Listener, tmp_path: Path, linear_bundle: Callable[..., Path]
) -> None:
    specs = bringup.deploy("furuta", "none", 0, str(linear_bundle(tmp_path / "bundle", STILL)))

    async def operate() -> None:
        app = Watch(FURUTA, listener)
        async with app.run_test(size=(120, 40)) as pilot:
            await shows(app, "#state", "no monitor heard yet")
            with Processes(specs):
                await shows(app, "#state", "STANDBY")
                await pilot.press("d")
                await shows(app, "#answer", "disarm refused in STANDBY")
                await pilot.press("A")
                await shows(app, "#state", "ACTIVE", "guard: ok")
                await shows(app, "#joints", "pendulum", "effort written")
                async with asyncio.timeout(20):
                    while not 45 < rate(app, "/joint_states") < 55:
                        await asyncio.sleep(0.02)
                await shows(app, "#reports", "bridge: ok", "guard.ok", "policy: ok", "CPUExecutionProvider")
                await pilot.press("space")
                await shows(app, "#state", "ESTOP")
                await pilot.press("A")
                await shows(app, "#answer", "arm refused in ESTOP")
                await pilot.press("r")
                await shows(app, "#state", "STANDBY")
            await shows(app, "#state", "MONITOR SILENT", "STANDBY")
            await pilot.press("space")
            await shows(app, "#answer", "estop: NO ANSWER")

    asyncio.run(operate())


def test_joints_of_another_robot_are_named_and_ctrl_c_leaves(listener: Listener) -> None:
    other = JointState(name=["hip", "knee"], position=[0.0, 1.0], velocity=[0.0, 0.0])
    listener.heard[topics.JOINT_STATES].raw = serialize_message(other)

    async def look() -> None:
        app = Watch(FURUTA, listener)
        async with app.run_test(size=(120, 40)) as pilot:
            words = "another robot than furuta", "arm, pendulum", "Heard: hip, knee", "landbridge watch --robot ROBOT"
            await shows(app, "#joints", *words)
            assert "nan" not in said(app, "#joints")
            listener.heard[topics.JOINT_STATES].raw = serialize_message(JointState(name=["arm", "pendulum"]))
            await pilot.resize_terminal(80, 24)
            await shows(app, "#joints", "pendulum", "effort written")
            assert "from" not in said(app, "#joints")
            await pilot.press("ctrl+c")
            await pilot.pause()
            assert not app.is_running

    asyncio.run(look())


def test_a_key_that_is_held_does_not_keep_an_estop_waiting(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a monitor: every question waits a second for its answer, in a thread of which there are few."""
    asked: list[tuple[Event, float]] = []

    def ask(event: Event) -> Answer:
        asked.append((event, time.monotonic()))
        return answer(event)

    async def hold() -> None:
        app = Watch(FURUTA, listener)
        async with app.run_test(size=(120, 40)) as pilot:
            await pilot.press(*40 * ["A"])
            pressed = time.monotonic()
            await pilot.press("space")
            await shows(app, "#answer", "estop: NO ANSWER")
            assert next(at for event, at in asked if event is Event.ESTOP) - pressed < 0.5
            assert asked[-1][0] is Event.ESTOP  # no question waits for a thread
            await pilot.press("A")
            await shows(app, "#answer", "arm: NO ANSWER")

    answer = listener.ask
    monkeypatch.setattr(listener, "ask", ask)
    asyncio.run(hold())


def test_without_a_terminal_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(InputError, match=r"needs a terminal .* use `landbridge state` in scripts"):
        watch()


def test_what_it_shows_does_not_end_it(listener: Listener) -> None:
    """Numbers that are none, and text that looks like markup, come from the very robots that are in trouble."""
    wild = [float("inf"), float("nan")]
    heard = listener.heard
    heard[topics.JOINT_STATES].raw = serialize_message(JointState(name=["arm", "pendulum"], position=wild[::-1]))
    fault = topics.status_message("FAULT", "port [/dev/ttyUSB0] [b]lost", {})
    heard[topics.SAFETY_STATE].raw, heard[topics.SAFETY_STATE].at = serialize_message(fault), time.monotonic() + 60
    listener.reports["bridge"] = topics.status_message("bridge", "[/odd]", {"a": "[red]b"})
    for name, level in (("lidar", b"\x03"), ("other", b"\x2a")):  # of drivers that are not ours; 3 is STALE
        listener.reports[name] = topics.status_message(name, "here", {})
        listener.reports[name].level = level

    async def look() -> None:
        app = Watch(FURUTA, listener)
        async with app.run_test(size=(120, 40)):
            await shows(app, "#state", "FAULT   port [/dev/ttyUSB0] [b]lost")
            await shows(app, "#joints", "+inf", "+nan")
            await shows(app, "#reports", "bridge: [/odd]", "a [red]b", "lidar: STALE here", "other: LEVEL? here")
            heard[topics.SAFETY_STATE].raw = serialize_message(topics.status_message("OK", "of a lidar", {}))
            await shows(app, "#state", "no monitor's: 'OK' on /safety/state")

    asyncio.run(look())
