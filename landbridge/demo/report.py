"""`report.html` of a demo: one self-contained page of charts, figures and the twin in motion."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from landbridge.page import chart, latencies, table, write_page

ARMS = {
    "source_only": ("simulator only", "#8a8f98"),
    "target_only": ("robot data only", "#c9a227"),
    "none": ("naive mix", "#d1653a"),
    "tabb": ("target-aligned (tabb)", "#2166ac"),
    "calibrated_none": ("calibrated, naive mix", "#1b9e77"),
}
WEIGHING = "tabb"  # the arm whose weights are drawn
FRAMES_PER_SECOND = 12.5


def write_report(
    folder: Path, results: Mapping[str, Any], latency_ms: Sequence[float], frames: NDArray[np.uint8]
) -> Path:
    """Write the page; returns its path.

    Args:
        folder: The demo's folder, with `runs/<arm>/metrics.csv` and the `diagnostics.npz` of the arm that weighs.
        results: What the stages returned: `stages` (rows), `evaluate`, `deploy`, `ingest`, and `facts` with the arm
            that was deployed.
        latency_ms: Measurement to motor write of every tick of the closed loop.
        frames: RGB images (T, height, width, 3) of one closed-loop episode on the twin, or none (T = 0).
    """
    runs = folder / "runs"
    with np.load(runs / WEIGHING / "diagnostics.npz") as arrays:
        weights = arrays["weight"]
    deploy, ingest = results["deploy"], results["ingest"]
    recording = ingest["recordings"][0] | ingest
    parts = [
        f"<h1>Landbridge demo: {html.escape(results['facts']['robot'])}</h1>",
        f"<p class=lead>{html.escape(_lead(results))}</p>",
        "<h2>Success on the robot's twin</h2><div class=row>",
        chart(
            _success(results),
            "Share of episodes that end upright and centred for two seconds; 95 % intervals. "
            "Simulated episodes run in Bullet without ROS; the last bar is the bundle in closed loop over ROS 2.",
        ),
        _motion(frames),
        "</div><h2>Learning</h2><div class=row>",
        chart(_curves(runs), "Success on the twin during training (10 episodes a point)."),
        chart(
            _weights(weights),
            "Weight of the uncalibrated simulator's transitions by target alignment, at the end of training; in a "
            "naive mix it is 1.",
        ),
        "</div><h2>On board</h2><div class=row>",
        chart(
            latencies(latency_ms, results["facts"]["latency_budget_ms"], "measurement to motor write", "ticks"),
            f"Measurement to motor write, {len(latency_ms)} ticks: p50 {deploy['latency_p50_ms']:.2f} ms, "
            f"p99 {deploy['latency_p99_ms']:.2f} ms; {deploy['missed_ticks']} ticks missed.",
        ),
        "<div><h3>Guard</h3>" + table([{"verdict": k, "commands": v} for k, v in deploy["guard"].items()]) + "</div>",
        "</div><h2>Stages</h2>",
        table(results["stages"]),
        "<h2>Recording</h2>",
        table([{"figure": k, "value": v} for k, v in recording.items() if not isinstance(v, (list, dict))]),
        "<h2>Everything, as JSON</h2><details><summary>results.json</summary><pre>",
        html.escape(json.dumps({k: v for k, v in results.items() if k != "deploy"}, indent=1)),
        "</pre></details>",
    ]
    return write_page(folder / "report.html", "Landbridge demo", parts)


def _lead(results: Mapping[str, Any]) -> str:
    facts = results["facts"]
    return (
        f"{facts['source_transitions']:,} simulator transitions (MuJoCo) and {facts['target_seconds']:.0f} s of the "
        f"robot (Bullet twin, scenario {facts['scenario']}, recorded over ROS 2), trained, exported and flown back "
        f"over ROS 2 in {facts['minutes']:.1f} minutes. Commit {facts['commit']}."
    )


def _success(results: Mapping[str, Any]) -> Figure:
    rows = {row["policy"]: row for row in results["evaluate"]["policies"]}
    bars = [(label, colour, rows[arm]) for arm, (label, colour) in ARMS.items() if arm in rows]
    label, colour = ARMS[results["facts"]["deployed"]]
    bars.append((f"{label}, over ROS 2", colour, results["deploy"]))
    figure = Figure((5.0, 3.2), layout="constrained")
    axes = figure.subplots()
    for i, (_, colour, row) in enumerate(bars):
        low, high = row["success_low"], row["success_high"]
        error = [[max(0.0, row["success"] - low)], [max(0.0, high - row["success"])]]
        axes.barh(
            i,
            row["success"],
            color=colour,
            xerr=error,
            capsize=3,
            hatch="//" if i == len(rows) else None,
            edgecolor="white",
        )
        axes.text(1.02, i, f"{row['success']:.2f}", va="center", transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(bars)), [label for label, _, _ in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("success")
    return figure


def _curves(runs: Path) -> Figure:
    figure = Figure((4.8, 3.2), layout="constrained")
    axes = figure.subplots()
    for arm, (label, colour) in ARMS.items():
        if not (runs / arm).is_dir():
            continue
        with (runs / arm / "metrics.csv").open(newline="") as file:
            points = [row for row in csv.DictReader(file) if row.get("success")]
        axes.plot([int(p["step"]) for p in points], [float(p["success"]) for p in points], color=colour, label=label)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("gradient steps")
    axes.set_ylabel("success")
    figure.legend(loc="outside upper left", ncols=3, fontsize=8)
    return figure


def _weights(weights: NDArray[np.float64]) -> Figure:
    figure = Figure((4.0, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.hist(weights, bins=40, range=(0, 1), color=ARMS[WEIGHING][1], weights=np.full(len(weights), 1 / len(weights)))
    axes.set_xlabel("weight of a simulator transition")
    axes.set_ylabel("share")
    return figure


def _motion(frames: NDArray[np.uint8]) -> str:
    if len(frames) == 0:
        return ""
    buffer = io.BytesIO()
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(buffer, "WEBP", save_all=True, append_images=rest, duration=int(1000 / FRAMES_PER_SECOND), loop=0)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f"<figure><img alt='the twin in closed loop' src='data:image/webp;base64,{data}'>"
        "<figcaption>One closed-loop episode over ROS 2, redrawn from its bag.</figcaption></figure>"
    )
