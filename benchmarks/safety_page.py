"""Writes what SAFETY.md says of the code into SAFETY.md: the state chart, the table of faults, the measured figures.

    python benchmarks/safety_page.py

The chart comes from the supervisor's transitions, the table from faults injected in virtual time (`faults.py`), and the
rest from what `guard_fuzz.py`, `mutation.py`, `guard_cost.py`, `process_faults.py` and `servo_faults.py` last wrote to
`benchmarks/results`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import faults
import process_faults
import servo_faults
import tyro

from landbridge.deploy.supervisor import Event, State, transitions

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / "SAFETY.md", ROOT / "benchmarks" / "results"


def chart() -> str:
    """The transitions as a Mermaid state diagram, HOLD standing for both kinds of stop."""
    table = transitions(State.HOLD)
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), following in table.items():
        if state not in (following, State.DAMP) and event is not Event.ESTOP:
            arrows.setdefault((state.value, following.value), []).append(event.value)
    lines = [f"    {state} --> {following}: {', '.join(events)}" for (state, following), events in arrows.items()]
    stopped = [state for state in State if table.get((state, Event.ESTOP)) is State.ESTOP]
    everywhere = "every state" if stopped == list(State) else ", ".join(state.value for state in stopped)
    head = ["```mermaid", "stateDiagram-v2", "    HOLD: HOLD or DAMP", "    [*] --> UNCONFIGURED"]
    return "\n".join([*head, *lines, f"    note right of ESTOP: estop, in {everywhere}", "```", ""])


def figures() -> str:
    """What was measured last, as Markdown."""
    fuzz, mutation, cost = (read(name) for name in ("guard_fuzz", "mutation", "guard_cost"))
    mutants, killed = (sum(module[key] for module in mutation.values()) for key in ("mutants", "killed"))
    survivors = [survivor for module in mutation.values() for survivor in module["survivors"]]
    explained = sum(bool(survivor["why"]) for survivor in survivors)
    lines = [
        f"- Fuzz (`python benchmarks/guard_fuzz.py`): {fuzz['steps']:,} random and adversarial control periods, "
        f"{fuzz['written']:,} commands written, {fuzz['refused']:,} refused, each by name, {fuzz['stops']:,} stops; "
        f"{fuzz['outside']} outside the limits, {fuzz['broken']} promises broken, {fuzz['exceptions']} exceptions.",
        f"- Mutation (`python benchmarks/mutation.py`) of {', '.join(mutation)}: {killed} of {mutants} mutants killed "
        f"by a test; of the other {explained} that file says why no test could tell them from the code; "
        f"{len(survivors) - explained} neither killed nor explained.",
        "- Cost (`python benchmarks/guard_cost.py`) of measure, tick and admit in one control period, on "
        f"{cost['cores']} cores with a load of {cost['load_before']:.1f}:",
        *(
            f"  - {name}, {row['joints']} joints: median {row['median_us']:.1f} us, p99 {row['p99_us']:.1f} us"
            for name, row in cost["robots"].items()
        ),
    ]
    return "\n".join(lines) + "\n"


def read(name: str) -> dict[str, Any]:
    """One result file."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def servos() -> str:
    """The table of servo faults with the times that were measured last, as Markdown."""
    return servo_faults.table(read("servo_faults"))


def processes() -> str:
    """The table of what befell the real processes, as Markdown."""
    return process_faults.table(read("process_faults"))


SECTIONS = {
    "states": chart,
    "faults": faults.table,
    "figures": figures,
    "processes": processes,
    "servos": servos,
}


def section(page: str, name: str) -> str:
    """What `page` has between the markers of `name`."""
    found = re.search(_pattern(name), page, re.S)
    assert found is not None, f"SAFETY.md has no section {name}"
    return found[2]


def with_sections(page: str) -> str:
    """`page` with every section written anew."""
    for name, make in SECTIONS.items():
        section(page, name)
        before, old, after = re.split(_pattern(name), page, flags=re.S)[1:4]
        page = page.replace(before + old + after, before + make() + after)
    return page


def _pattern(name: str) -> str:
    return rf"(<!-- {name}: [^\n]*-->\n\n)(.*?)(\n<!-- /{name} -->)"


def main() -> None:
    """Write the sections of SAFETY.md anew."""
    PAGE.write_text(with_sections(PAGE.read_text()))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
