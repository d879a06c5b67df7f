"""`landbridge watch`: a running robot on a terminal, with the operator's keys."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, ClassVar

from diagnostic_msgs.msg import DiagnosticStatus
from rich.table import Column, Table
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Footer, Static

from landbridge.deploy.supervisor import Event, State
from landbridge.errors import InputError
from landbridge.joint import Joint
from landbridge.robot import Robot, load_robot
from landbridge_nodes import topics
from landbridge_nodes.listener import Listener
from landbridge_nodes.process import require_one_ros

REFRESH_HZ = 5
RATE_SECONDS = 1.0  # over which rates are counted
SILENT_SECONDS = 0.5  # without the monitor's heartbeat (25 Hz) what is shown of the state is history
COLOURS = {State.ACTIVE: "green", State.ARMED: "teal", State.STANDBY: "navy", State.UNCONFIGURED: "dimgrey"}
STOPPING, STOPPED = "darkgoldenrod", "darkred"
LEVELS = {
    DiagnosticStatus.OK: "",
    DiagnosticStatus.WARN: "WARN ",
    DiagnosticStatus.ERROR: "ERROR ",
    DiagnosticStatus.STALE: "STALE ",
}
BAR, CODE = 24, 20  # characters
WIDE = 100  # characters of a terminal that has room for a bar between each joint's limits


def watch(robot: str = "furuta") -> None:
    """Show state, joints, rates, latencies, guard counters and faults of a running robot; arm, disarm, park, stop it.

    Leaving changes nothing: an armed robot stays armed. The e-stop key asks the monitor as any other client would; it
    does not replace a switch that cuts the power.

    Example: landbridge watch --robot furuta

    Args:
        robot: Name of a robot, or a folder with robot.yaml: whose limits the joints are shown against.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):  # it would draw into a file for ever, and hear no key
        raise InputError(
            "watch", "needs a terminal to draw on and to hear keys from", "use `landbridge state` in scripts"
        )
    require_one_ros()
    machine = load_robot(robot)
    with Listener(watched(machine)) as listener:
        Watch(machine, listener).run()


def watched(robot: Robot) -> tuple[topics.Topic, ...]:
    """What is listened to."""
    return (
        *topics.measured(robot.spec),
        topics.COMMAND,
        topics.GUARD_COMMAND,
        topics.SAFETY_STATE,
        topics.DIAGNOSTICS,
    )


class Watch(App[None]):
    """The screen: what the supervisor says, the joints within their limits, what every node reports of itself."""

    TITLE = "landbridge watch"
    CSS = """
    #state { text-style: bold; padding: 1 2; color: white; }
    #joints, #rates, #reports { margin: 1 1 0 1; }
    #rates { width: 40; }
    #answer { padding: 0 2; }
    """
    BINDINGS: ClassVar[Any] = [
        ("space", f"ask('{Event.ESTOP.value}')", "E-STOP"),
        ("A", f"ask('{Event.ARM.value}')", "Arm"),
        ("d", f"ask('{Event.DISARM.value}')", "Disarm"),
        ("p", f"ask('{Event.PARK.value}')", "Park"),
        ("r", f"ask('{Event.RESET.value}')", "Reset"),
        ("q", "quit", "Leave"),
        Binding("ctrl+c", "quit", show=False),  # textual's own only says how to leave
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, robot: Robot, listener: Listener) -> None:
        super().__init__()
        self.robot, self.listener = robot, listener
        self._counts: deque[tuple[float, dict[topics.Topic, int]]] = deque()
        self._asking: set[str] = set()  # what the monitor has not answered yet
        # Held, and not looked up: while the screen closes there is none, and a last look or answer may still come.
        self._parts = {name: Static(id=name) for name in ("state", "joints", "rates", "reports", "answer")}

    def compose(self) -> ComposeResult:
        """State on top, then joints, rates and reports, answers and keys at the bottom."""
        yield self._parts["state"]
        with VerticalScroll():
            yield self._parts["joints"]
            with Horizontal():
                yield self._parts["rates"]
                yield self._parts["reports"]
        yield self._parts["answer"]
        yield Footer()

    def on_mount(self) -> None:
        """Look, and go on looking."""
        self.set_interval(1 / REFRESH_HZ, self.look)
        self.look()

    def look(self) -> None:
        """Show what has been heard by now."""
        now = time.monotonic()
        self._count(now)
        text, colour = self._state(now)
        self._parts["state"].update(Text(text))
        self._parts["state"].styles.background = colour
        self._parts["joints"].update(self._joints())
        self._parts["rates"].update(self._rates(now))
        self._parts["reports"].update(self._read_reports())

    def action_ask(self, event: str) -> None:
        """Ask the monitor, once while a key is held: each question takes a thread, of which an e-stop needs one."""
        if event not in self._asking:
            self._asking.add(event)
            self._ask_monitor(event)

    @work(thread=True)
    def _ask_monitor(self, event: str) -> None:
        """Show its answer."""
        answer = self.listener.ask(Event(event))
        self.call_from_thread(self._answered, event, answer.message)

    def _answered(self, event: str, answer: str) -> None:
        self._asking.discard(event)
        self._parts["answer"].update(Text(answer))

    def _state(self, now: float) -> tuple[str, str]:
        message, verdict = (self.listener.message(topic) for topic in (topics.SAFETY_STATE, topics.GUARD_COMMAND))
        if message is None:
            return "no monitor heard yet", STOPPED
        silent = now - self.listener.heard[topics.SAFETY_STATE].at
        if silent > SILENT_SECONDS:
            return f"MONITOR SILENT for {silent:.1f} s; it last said {message.name}", STOPPED
        if message.name not in {state.value for state in State}:
            return f"no monitor's: {message.name!r} on {topics.SAFETY_STATE.name}", STOPPED
        state = State(message.name)
        judged = now - self.listener.heard[topics.GUARD_COMMAND].at < SILENT_SECONDS
        guard = f"   guard: {verdict.header.frame_id}" if verdict is not None and judged else ""
        fault = STOPPED if state in (State.FAULT, State.ESTOP) else STOPPING
        return f"{state.value}   {message.message}{guard}", COLOURS.get(state, fault)

    def _joints(self) -> Table | Text:
        measured, command = (self.listener.message(t) for t in (topics.JOINT_STATES, topics.GUARD_COMMAND))
        if measured is not None and {*measured.name} != {*self.robot.spec.joint_names}:
            return _another(self.robot, measured.name)
        kind = self.robot.spec.action.kind
        positions, speeds = _by_name(measured, "position"), _by_name(measured, "velocity")
        commands = _by_name(command, kind)
        within = ("from", "", "to") if self.size.width >= WIDE else ()
        table = _table("joint", "rad", *within, "rad/s", "of limit", f"{kind} written")
        for joint in self.robot.spec.joints:
            position, speed = positions.get(joint.name, math.nan), speeds.get(joint.name, math.nan)
            share = abs(speed) / joint.velocity_limit
            table.add_row(
                joint.name,
                f"{position:+.3f}",
                *(_within(position, joint) if within else ()),
                f"{speed:+.2f}",
                f"{share:.0%}" if math.isfinite(share) else "",
                f"{commands[joint.name]:+.4f}" if joint.name in commands else "",
            )
        return table

    def _rates(self, now: float) -> Table:
        table = _table("topic", "Hz", "s ago")
        then, before = self._counts[0]
        for topic, inbox in self.listener.heard.items():
            rate = (inbox.count - before[topic]) / max(now - then, 1e-9)
            table.add_row(topic.name, f"{rate:.1f}", f"{now - inbox.at:.2f}" if inbox.count else "never")
        return table

    def _read_reports(self) -> Table:
        reports = sorted(self.listener.reports.items())
        titles = (
            Text(f"{name}: {LEVELS.get(status.level, 'LEVEL? ')}{status.message or 'ok'}") for name, status in reports
        )
        table = Table(*(Column(title) for title in titles), box=None, header_style="bold", padding=(0, 3, 0, 0))
        for row in zip_longest(*(_values(status) for _, status in reports), fillvalue=Text()):
            table.add_row(*row)
        return table

    def _count(self, now: float) -> None:
        self._counts.append((now, {topic: inbox.count for topic, inbox in self.listener.heard.items()}))
        while now - self._counts[0][0] > RATE_SECONDS and len(self._counts) > 2:
            self._counts.popleft()


def _another(robot: Robot, heard: Sequence[str]) -> Text:
    """What to say of joints that are not those of `robot`."""
    whose = f"This is another robot than {robot.spec.name}, whose joints are {', '.join(robot.spec.joint_names)}."
    return Text(
        f"{whose}\nHeard: {', '.join(heard)}.\nThe keys are for the robot that is heard. "
        "To see its joints, leave and give its name or folder: landbridge watch --robot ROBOT",
        "bold",
    )


def _by_name(message: Any | None, field: str) -> dict[str, float]:
    """A JointState's values by joint; those it does not carry are left out."""
    return {} if message is None else dict(zip(message.name, getattr(message, field), strict=False))


def _table(first: str, *others: str) -> Table:
    table = Table(
        Column(first, no_wrap=True), *(Column(name, justify="right", no_wrap=True) for name in others), box=None
    )
    table.header_style, table.padding = "bold", (0, 2, 0, 0)
    return table


def _within(position: float, joint: Joint) -> tuple[str, Text, str]:
    """Where a position is between its limits, with these; of a continuous joint, where in its turn."""
    low, high = joint.position_limit or (-math.pi, math.pi)
    if not math.isfinite(position):
        return f"{low:+.2f}", Text(), f"{high:+.2f}"
    turned = position if joint.position_limit else math.remainder(position, 2 * math.pi)
    share = (turned - low) / (high - low)
    at = min(max(round(share * (BAR - 1)), 0), BAR - 1)
    mark = ("●", "") if 0 <= share <= 1 else ("!", "reverse")
    return f"{low:+.2f}", Text.assemble("─" * at, mark, "─" * (BAR - 1 - at)), f"{high:+.2f}"


def _values(status: Any) -> Iterator[Text]:
    for pair in status.values:
        value = str(pair.value)
        try:
            value = f"{float(value):.4g}"
        except ValueError:
            value = value[:CODE]  # a digest says enough by its beginning
        yield Text(f"{pair.key} {value}")
