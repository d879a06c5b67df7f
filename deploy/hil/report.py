"""What an acceptance run leaves: `report.html` for people, `junit.xml` for CI."""

from __future__ import annotations

import html
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from landbridge.deploy.hil.acceptance import Account
from landbridge.deploy.hil.stages import Result, Trace
from landbridge.files import write_atomic
from landbridge.page import chart, latencies, table, write_page

COLOURS = {"pass": "#2f7d4f", "fail": "#b3261e", "skipped": "#8a6d1a", "not run": "#8a8f98"}


def write_junit(path: Path, account: Account) -> Path:
    """The run as one test suite of JUnit's XML, a stage a test case; returns its path.

    What was not run counts as skipped, so that a suite without failures but with stages left out can be told.
    """
    results = account.results
    counts = {
        "tests": len(results),
        "failures": sum(r.verdict == "fail" for r in results),
        "errors": 0,
        "skipped": sum(r.verdict in ("skipped", "not run") for r in results),
    }
    numbers = {key: str(value) for key, value in counts.items()} | {"time": f"{sum(r.seconds for r in results):.3f}"}
    root = ET.Element("testsuites", numbers)
    about = {"name": "landbridge hil run", "timestamp": account.signed["time"], "hostname": account.signed["host"]}
    suite = ET.SubElement(root, "testsuite", about | numbers)
    properties = ET.SubElement(suite, "properties")
    for name, value in account.signed.items():
        ET.SubElement(properties, "property", {"name": name, "value": value})
    for result in results:
        case = ET.SubElement(
            suite,
            "testcase",
            {"classname": f"hil.{account.signed['robot']}", "name": result.stage, "time": f"{result.seconds:.3f}"},
        )
        if result.verdict == "fail":
            ET.SubElement(case, "failure", {"message": result.reason}).text = result.reason
        elif result.verdict != "pass":
            ET.SubElement(case, "skipped", {"message": result.reason or result.verdict})
        lines = [", ".join(f"{key}: {value}" for key, value in row.items()) for row in [*result.rows, result.figures]]
        ET.SubElement(case, "system-out").text = "\n".join(lines)
    ET.indent(root)
    write_atomic(path, ET.tostring(root, encoding="utf-8", xml_declaration=True))
    return path


def write_report(path: Path, account: Account) -> Path:
    """The page; returns its path."""
    failure = account.failure
    verdict = f"failed: {failure.stage}: {failure.reason}" if failure else "passed"
    colour = COLOURS["fail" if failure else "pass"]
    title = f"Hardware acceptance: {account.signed['robot']}"
    lead = f"{account.signed['operator']}, {account.signed['time']}. Moved: {', '.join(account.plan.joints)}."
    parts = [
        f"<h1>{html.escape(title)}</h1><p class=lead>{html.escape(lead)}</p>",
        f"<p style='font-size:1.2rem;font-weight:600;color:{colour}'>{html.escape(verdict)}</p>",
        "<h2>Stages</h2>" + _stages(account.results),
    ]
    for result in account.results:
        if result.figures or result.rows:
            parts += [f"<h2>{html.escape(result.stage)}</h2>", _evidence(account, result)]
    rows = [{"signed off": key, "value": value} for key, value in account.signed.items()]
    return write_page(path, title, [*parts, "<h2>Signed off</h2>" + table(rows)])


def _stages(results: Sequence[Result]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(r.stage)}<td style='color:{COLOURS[r.verdict]};font-weight:600'>{r.verdict}"
        f"<td class=n>{f'{r.seconds:.1f}' if r.seconds else ''}<td>{html.escape(r.reason)}"
        for r in results
    )
    return f"<table><tr><th>stage<th>verdict<th>s<th>reason{rows}</table>"


def _evidence(account: Account, result: Result) -> str:
    """Tables and plots of a stage, side by side where there is room."""
    parts = [table(result.rows)] if result.rows else []
    if result.figures:
        parts.append(table([{"figure": key, "value": value} for key, value in result.figures.items()]))
    plots = [chart(_move(account, trace), trace.title) for trace in result.traces]
    if result.latency_ms:
        caption = f"Write of a command to the report that shows it in effect, {len(result.latency_ms)} commands."
        plots.append(chart(latencies(result.latency_ms, account.latency_budget_ms, "latency", "commands"), caption))
    return f"<div class=row>{''.join(parts)}<div class=row>{''.join(plots)}</div></div>"


def _move(account: Account, trace: Trace) -> Figure:
    """Way of every joint from its start, the one that was commanded in front."""
    figure = Figure((3.0, 2.2), layout="constrained")
    axes = figure.subplots()
    times = [tick.time - trace.ticks[0].time for tick in trace.ticks]
    others = [name for name in account.joints if name != trace.joint]
    for i, name in sorted(enumerate(account.joints), key=lambda joint: joint[1] != trace.joint):
        own = name == trace.joint
        ways = [tick.position[i] - trace.ticks[0].position[i] for tick in trace.ticks]
        axes.plot(
            times,
            ways,
            label=name if own else "others" if name == others[0] else None,
            color="#2166ac" if own else "#b9bec6",
            linewidth=2.0 if own else 1.0,
            zorder=3 if own else 2,
        )
    axes.set_xlabel("time [s]")
    axes.set_ylabel("way [rad]")
    axes.legend(fontsize=8)
    return figure
