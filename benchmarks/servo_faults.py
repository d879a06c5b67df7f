"""How long it takes until faults of emulated servos are named: the worst of several runs of the tests that inject them.

    python benchmarks/servo_faults.py --runs 3

Writes `benchmarks/results/servo_faults.json`, from which `safety_page.py` writes SAFETY.md's table.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import record
import tyro

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "servo_faults.json"
TESTS = ("tests/hil/test_servo_times.py", "tests/hil/test_servo_faults.py::test_what_only_the_guard_can_see")
KINDS = ("dynamixel", "feetech")


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        injected: What is broken.
        orders: Of the emulated bus, that do it; none where no time is measured.
        named: As what, by whom.
        itself: What the servo does itself.
    """

    injected: str
    orders: tuple[str, ...]
    named: str
    itself: str


ROWS = (
    Row(
        "a servo drops off the bus, answers with a wrong id",
        ("gone elbow", "wrong_id elbow 77"),
        "`servo_silent`, after `max_command_age_ms`",
        "holds its last goal; Dynamixel stops when the whole bus is silent",
    ),
    Row(
        "all that comes is damaged, cut or of a wrong length",
        ("lost to_host", "flip to_host", "length to_host"),
        "`servo_silent`, after `max_command_age_ms`",
        "obeys the guard's stop",
    ),
    Row("torque lost, brown-out", ("torque_lost elbow",), "`torque_lost`", "falls"),
    Row(
        "overload, also of a jammed joint",
        ("overload elbow",),
        "`servo_overload`",
        "Dynamixel switches off until a reset restarts it, 0.2 s of silence; Feetech goes on with a fifth of its "
        "torque until the next goal",
    ),
    Row("overheated", ("temperature elbow 75",), "`servo_overheated`", "switches off; a reset restarts it"),
    Row(
        "supplied with less than its own limit",
        ("voltage elbow 5.5",),
        "`servo_voltage`",
        "goes on; Dynamixel keeps the error until a reboot, and a reset bears it while torque is on",
    ),
    Row("adapter unplugged", ("unplug",), "`port_lost`", "Dynamixel: its bus watchdog"),
    Row("the port takes no more bytes", (), "`port_blocked`; it never waits", "Dynamixel: its bus watchdog"),
    Row(
        "host hangs or dies, its last goal 1.8 rad ahead; time until the joint rests",
        ("silent host",),
        "Dynamixel: `bus_watchdog`, when it comes back",
        "Dynamixel stops where it is after `watchdog_ms` (100; steps of 20 ms), and refuses goals until a reset; "
        "**Feetech goes on to its last goal and holds it, for as long as it has power**",
    ),
    Row(
        "encoder jumps, wraps",
        ("jump shoulder_pan 90", "wrap shoulder_pan"),
        "by the guard: `position_jump`, `velocity_limit`",
        "",
    ),
    Row(
        "encoder frozen while the joint swings",
        ("frozen shoulder_pan",),
        "by the guard: `frozen_encoder`, `tracking_error`",
        "",
    ),
    Row(
        "joint stuck while it is to swing by 1.2 rad, or too weak for its load",
        ("stuck shoulder_pan",),
        "by the guard: `tracking_error`",
        "the stop pulls no more, so that the servo is not overloaded",
    ),
)


def main(runs: int = 3) -> None:
    """Run the tests `runs` times, print the worst times and record them."""
    load = os.getloadavg()[0]
    worst: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    for _ in range(runs):
        for told in told_by(TESTS):
            times, order = worst[told["kind"]], told["order"]
            times[order] = max(times.get(order, 0.0), float(told["after_ms"]))
    print(table({"worst_ms": worst}))
    record.write(RESULT, load, runs=runs, worst_ms=worst)


def told_by(tests: Sequence[str]) -> Iterator[dict[str, str]]:
    """What each of the tests told of itself in one run."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        options = ["-q", f"--junitxml={report}", "-o", "junit_family=xunit1"]  # which has properties of a test
        subprocess.run([sys.executable, "-m", "pytest", *options, *tests], cwd=ROOT, check=True)
        cases = list(ET.parse(report).iter("testcase"))
    for case in cases:
        told = {each.attrib["name"]: each.attrib["value"] for each in case.iter("property")}
        if told:
            yield told


def table(found: Mapping[str, Any]) -> str:
    """The worst times as Markdown."""
    lines = [
        "| injected | fault, named with the joint | Dynamixel, ms | Feetech, ms | what the servo does itself |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        times = [[found["worst_ms"][kind][order] for order in row.orders] for kind in KINDS]
        shown = [f"{max(each):.0f}" if each else "" for each in times]
        lines.append(f"| {row.injected} | {row.named} | {shown[0]} | {shown[1]} | {row.itself} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    tyro.cli(main)
