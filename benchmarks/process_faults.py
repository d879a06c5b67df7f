"""How long it takes until what befalls the real processes is stopped for: least and most of several runs of the tests.

    python benchmarks/process_faults.py --runs 3

Writes `benchmarks/results/process_faults.json`, from which `safety_page.py` writes SAFETY.md's table.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import record
import tyro
from servo_faults import told_by

RESULT = Path(__file__).parent / "results" / "process_faults.json"
TESTS = ("tests/faults/test_kill.py", "tests/faults/test_compute.py")
PERIODS = ("policy hangs", "inference raises")  # figures that are no milliseconds


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        injected: During an episode.
        named: By whom, as what.
        then: What the robot does.
        figures: That the tests tell; none where no time is measured.
        words: After these.
    """

    injected: str
    named: str
    then: str
    figures: tuple[str, ...]
    words: str


ROWS = (
    Row("`kill -9` of the policy", "bridge, `silent`", "stop, monitor in FAULT", ("policy SIGKILL",), ""),
    Row("`SIGSTOP` of the policy", "bridge, `silent`", "stop, monitor in FAULT", ("policy SIGSTOP",), ""),
    Row(
        "`SIGTERM` of the policy",
        "monitor, `controller_lost`, or bridge, `silent`",
        "DAMP, FAULT",
        ("policy SIGTERM",),
        ": it answers on for 0.3 s after it has heard the signal, so that bridge and monitor, where all are ended at "
        "once, park the robot first",
    ),
    Row(
        "policy's thread hangs, its middleware lives",
        "bridge, `silent`",
        "DAMP, FAULT",
        ("policy hangs",),
        " after the last measurement it answered",
    ),
    Row(
        "inference raises",
        "policy, logged and in `/diagnostics`; bridge, `silent`",
        "DAMP, FAULT; answers again after reset and arm",
        ("inference raises",),
        " after the last measurement it answered",
    ),
    Row(
        "a command that names another joint, has two values for one, is NaN, answers a measurement of a second ago, of "
        "a second ahead, or an older one than the last",
        "bridge, `wrong_names`, `not_finite`, `unknown_stamp`, `stale`",
        "refused from the first on, at the third DAMP, FAULT",
        (),
        "",
    ),
    Row(
        "commands of 1e308 N m; a hundred copies of each",
        "bridge, `limited`, `duplicate`, in `/diagnostics`",
        "control goes on, within the limits",
        (),
        "",
    ),
    Row(
        "the IMU of a floating base falls silent",
        "bridge, `silent`: a measurement that is not whole is not answered",
        "HOLD, FAULT; works again after a reset",
        (),
        "",
    ),
    Row("inference takes 5 times the latency budget", "bridge, `silent` or `stale`", "DAMP, FAULT", (), ""),
    Row(
        "a byte of the bundle flipped, another robot's bundle, golden vectors that differ",
        "policy, before it is configured",
        "its process ends, nothing moves",
        (),
        "",
    ),
    Row(
        "encoder NaN, jumping, missing",
        "bridge, `measurement_not_finite`, `position_jump`, `measurement_incomplete`",
        "DAMP, FAULT",
        ("measurement_not_finite", "position_jump", "measurement_incomplete"),
        ", the next measurement",
    ),
    Row(
        "encoder frozen while it reports speed",
        "bridge, `frozen_encoder`",
        "DAMP, FAULT",
        ("frozen_encoder",),
        ", the third that repeats",
    ),
    Row(
        "another publisher of commands",
        "monitor, `foreign_publisher`",
        "DAMP, FAULT, again after a reset while it is there",
        ("foreign publisher",),
        "",
    ),
    Row("a second policy", "monitor, `foreign_publisher`", "harmless until it is activated, then DAMP, FAULT", (), ""),
    Row(
        "another bridge beside the first one, or in its place before its silence is noticed",
        "monitor, `bridge_replaced`",
        "FAULT; motion needs a reset and an arm, and does not last while there are two",
        (),
        "",
    ),
    Row(
        "policy shut down by `ros2 lifecycle set`",
        "bridge, `silent`; in ARMED monitor, `controller_lost`",
        "DAMP, FAULT; after a reset `/safety/state` says that its process must be started anew",
        (),
        "",
    ),
    Row(
        "bridge deactivated, or its hardware opened anew, by `ros2 lifecycle set`",
        "bridge, `deactivated`",
        "parks, FAULT; nothing moves before a reset and an arm",
        (),
        "",
    ),
    Row(
        "a message on `/safety/state` or `/bridge/fault` that is none of ours",
        "bridge or monitor, in its log",
        "ignored: no heartbeat, no fault",
        (),
        "",
    ),
    Row(
        "policy or bridge started anew",
        "in ARMED monitor, `controller_lost`: it is not the process that was armed, and its bundle may be another",
        "nothing moves before a reset and an arm; no arm is accepted without a policy",
        (),
        "",
    ),
    Row(
        "monitor, then bridge started anew after an e-stop",
        "each by the other, `estop`",
        "FAULT, nothing moves before a reset and an arm",
        (),
        "",
    ),
    Row(
        "e-stop while a bridge that is ended parks",
        "bridge, `stopped`",
        "the stop is brought to its end, torque stays on",
        (),
        "the next control period",
    ),
    Row(
        "`SIGINT` of the monitor, `SIGTERM` of the bridge, `SIGTERM` or `SIGHUP` of all at once "
        "(the end of a machine; a terminal that is closed; `kill -9` of `landbridge up`)",
        "",
        "the bridge parks, torque off",
        (),
        "",
    ),
    Row("wall clock of the bridge steps by -1 h", "nobody needs to", "control goes on", (), ""),
    Row(
        "`kill -9` of the monitor",
        "bridge, `monitor_lost`",
        "stop, latched in the bridge",
        ("monitor SIGKILL",),
        " (limit 200 ms, checked each period)",
    ),
    Row("`SIGSTOP` of the monitor", "bridge, `monitor_lost`", "stop, latched in the bridge", ("monitor SIGSTOP",), ""),
    Row(
        "`kill -9` of the recorder",
        "nobody needs to; `landbridge up` tells the terminal",
        "control goes on",
        ("recorder SIGKILL",),
        " of the bag lost",
    ),
    Row(
        "`SIGSTOP` of the recorder; its disk full",
        "recorder, in `/diagnostics`",
        "control goes on; what was written stays readable",
        (),
        "",
    ),
    Row(
        "`SIGSTOP` of the bridge",
        "monitor, `bridge_lost`",
        "FAULT; after `SIGCONT` no command is admitted before reset and arm",
        (),
        "",
    ),
    Row(
        "`SIGSTOP` of policy, bridge and monitor for 1 s, which to their clock is a computer that was suspended (a "
        "closed lid)",
        "bridge, `monitor_lost`",
        "FAULT; after `SIGCONT` no command is admitted before reset and arm",
        (),
        "",
    ),
    Row(
        "`kill -9` of the bridge",
        "monitor, `bridge_lost`",
        "FAULT; a robot's drives need their own bus watchdog",
        ("bridge SIGKILL",),
        "",
    ),
)


def main(runs: int = 3) -> None:
    """Run the tests `runs` times, print the table and record the figures."""
    load, found = os.getloadavg()[0], defaultdict[str, list[float]](list)
    for _ in range(runs):
        for told in told_by(TESTS):
            for row in ROWS:
                for what in row.figures:
                    if what in told:
                        found[what].append(round(float(told[what]), 2))
    print(table({"figures": found}))
    record.write(RESULT, load, runs=runs, figures=found)


def table(found: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["| injected during an episode | who notices, as what | then | after |", "|---|---|---|---|"]
    for row in ROWS:
        lines.append(f"| {row.injected} | {row.named} | {row.then} | {_shown(found['figures'], row)}{row.words} |")
    return "\n".join(lines) + "\n"


def _shown(figures: Mapping[str, list[float]], row: Row) -> str:
    values = [value for what in row.figures for value in figures[what]]
    if not values:
        return ""
    digits, unit = (1, "periods") if row.figures[0] in PERIODS else (0, "ms")
    shown = dict.fromkeys(f"{value:.{digits}f}" for value in (min(values), max(values)))
    return f"{'-'.join(shown)} {unit}"


if __name__ == "__main__":
    tyro.cli(main)
