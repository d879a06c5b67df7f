"""`landbridge watch` against the real graph: what it shows, and what its keys do."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from textual.widgets import Static

from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge_nodes import bringup
from landbridge_nodes.listener import Listener
from landbridge_nodes.processes import Processes
from landbridge_nodes.watch import Watch, watched

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
                await shows(app, "#answer", "disarm: REFUSED", "STANDBY")
                await pilot.press("A")
                await shows(app, "#state", "ACTIVE")
                await shows(app, "#joints", "pendulum", "effort written")
                await shows(app, "#state", "guard: ok")
                await shows(app, "#rates", "/joint_states", "50.0")
                await shows(app, "#reports", "bridge: ok", "guard.ok", "policy: ok", "CPUExecutionProvider")
                await pilot.press("space")
                await shows(app, "#state", "ESTOP")
                await pilot.press("A")
                await shows(app, "#answer", "arm: REFUSED", "ESTOP")
                await pilot.press("r")
                await shows(app, "#state", "STANDBY")
            await shows(app, "#state", "MONITOR SILENT", "STANDBY")
            await pilot.press("space")
            await shows(app, "#answer", "estop: NO ANSWER")

    asyncio.run(operate())
