"""`landbridge calibrate report`: one page on what a calibration found, how sure it is and how well it predicts."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from landbridge.calibration.identify import base_rows, error_rows, figures, summary
from landbridge.calibration.posterior import IDENTIFIED, IDENTIFIED_MS
from landbridge.calibration.shooting import simulate
from landbridge.calibration.windows import Windows, cut, digest, open_rollouts, split
from landbridge.errors import InputError
from landbridge.files import require_folder
from landbridge.page import chart, table, write_page
from landbridge.robot import Robot, load_robot
from landbridge.simulation.calibrated import Calibration, read_calibration
from landbridge.simulation.parameters import Parameter, parameters
from landbridge.simulation.scenario import Scenario

Array = NDArray[np.float64]

COLOURS = {"measured": "#1c2026", "nominal": "#d1653a", "calibrated": "#2166ac"}
UNSURE = "#b5b9bf"
MANY = 6  # joints, more than which one chart cannot tell apart
EXAMPLES = 4  # windows drawn


def report(
    data: Path,
    /,
    calibration: Path = Path("calibration.yaml"),
    out: Path = Path("calibration.html"),
    robot: str = "furuta",
) -> dict[str, Any]:
    """Show a calibration against rollouts as one self-contained HTML page.

    On the dataset of the calibration itself only the part that was held out is shown.

    Example: landbridge calibrate report data/target --calibration calibration.yaml --out calibration.html

    Args:
        data: A dataset folder.
        calibration: File of `landbridge calibrate identify`.
        out: Page to write.
        robot: Name of a robot, or a folder with robot.yaml.
    """
    require_folder(out.parent)
    if out.resolve() == calibration.resolve():
        raise InputError("--out", f"{out} is the calibration itself", "name a page, such as calibration.html")
    machine = load_robot(robot)
    found, dataset = read_calibration(calibration, machine), open_rollouts(data, machine)
    windows = cut(dataset, machine, round(found.horizon_s * machine.spec.control_rate_hz), data)
    own = digest(dataset) == found.dataset_hash
    shown = split(windows)[1] if own else windows
    starts = shown.states[:, 0]
    predicted = {
        "nominal": simulate(machine, Scenario(), shown, starts),
        "calibrated": simulate(machine, found.scenario(machine), shown, starts),
    }
    part = "the part that was held out" if own else "not the dataset that was fitted, though it may hold some of it"
    write_page(out, f"Calibration of {found.robot}", _parts(machine, found, f"{data}, {part}", shown, predicted))
    return {"report": str(out), "windows": len(shown)}


def _parts(robot: Robot, found: Calibration, source: str, shown: Windows, predicted: Mapping[str, Array]) -> list[str]:
    printed = figures(found)
    nominal_error, calibrated_error = (summary(robot, states - shown.states) for states in predicted.values())
    every = {p.name: p for p in parameters(robot)}
    rows = [
        {
            "parameter": name,
            "nominal": every[name].nominal,
            "estimate": estimate.value,
            "95 % from": estimate.low,
            "to": estimate.high,
            "unit": every[name].unit,
            "": "" if estimate.identifiable else "not identified",
        }
        for name, estimate in found.estimates.items()
    ]
    return [
        f"<h1>Calibration of {html.escape(found.robot)}</h1>",
        f"<p class=lead>{html.escape(_lead(found))}</p>",
        *(f"<p class=alarm>Doubtful: {html.escape(doubt)}.</p>" for doubt in found.doubts),
        "<h2>Prediction of rollouts</h2><div class=row>",
        chart(
            _growth(robot, shown, predicted),
            f"Root mean square error of {len(shown)} windows of {source}, from their measured start states.",
        ),
        table([_headed(row) for row in error_rows(nominal_error, calibrated_error)]),
        *([table(base_rows(nominal_error, calibrated_error))] if nominal_error.base else ()),
        "</div><h2>Parameters</h2><div class=row>",
        chart(
            _intervals(found, every),
            f"Estimates with 95 % intervals; shaded, what was known beforehand. Grey: not identified, the interval "
            f"reaches farther than {IDENTIFIED:.0%} of the value, or {IDENTIFIED_MS:g} ms.",
        ),
        table(rows),
        "</div>",
        *(_friction(printed["friction"]) if found.friction else ()),
        "<h2>What these rollouts cannot tell</h2>",
        _limits(printed["undetermined"], found.known),
        "<h2>Examples</h2>",
        chart(_examples(robot, shown, predicted), "Some of these windows; both simulators start where the robot did."),
        f"<p>Fitted to {html.escape(found.dataset)}, SHA-256 {found.dataset_hash[:16]}; made {found.created}, "
        f"commit {html.escape(found.commit)}.</p>",
    ]


def _headed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `error_rows` with its units as a page writes them."""
    return {key.replace("_rad_s", " [rad/s]").replace("_rad", " [rad]"): value for key, value in row.items()}


def _friction(rows: list[dict[str, Any]]) -> list[str]:
    return [
        "<h2>Friction models</h2>",
        table(rows),
        "<p>A Stribeck curve, or friction by a share of the drive's effort (load), stays where it predicts windows "
        "that were not fitted better (gain, in log likelihood).",
    ]


def _lead(found: Calibration) -> str:
    seconds = found.windows * found.horizon_s
    sure = sum(estimate.identifiable for estimate in found.estimates.values())
    walks = ", as if the data were of one stride: contacts err alike in each" if found.nominal_error.base else ""
    return (
        f"{seconds:.0f} s of rollouts in windows of {found.horizon_s:g} s; {sure} of {len(found.estimates)} parameters "
        f"identified. Intervals are widened {found.inflation:.2f} times for model error{walks}."
    )


def _limits(undetermined: list[str], known: tuple[str, ...]) -> str:
    if not undetermined:
        text = "<p>Nothing: every direction of the parameters is determined."
    else:
        each = "".join(f"<li>{html.escape(direction)}" for direction in undetermined)
        text = f"<p>The motion is the same, to within noise and model error, when these change together:<ul>{each}</ul>"
        text += "<p>One of them known, as a link's mass is by weighing it, the others of its line follow (--known)."
    return text + (f"<p>Held at nominal by request: {html.escape(', '.join(known))}." if known else "")


def _growth(robot: Robot, shown: Windows, predicted: Mapping[str, Array]) -> Figure:
    names, time = robot.spec.joint_names, np.arange(shown.states.shape[1]) * robot.spec.control_dt
    figure = Figure((4.6, 3.0), layout="constrained")
    axes = figure.subplots()
    for label, states in predicted.items():
        square = np.square(states - shown.states).mean(0)[:, : len(robot.spec.joints)]
        if len(names) > MANY:
            axes.plot(time[1:], np.sqrt(square.mean(1))[1:], color=COLOURS[label], label=f"{label}, all joints")
            continue
        rms = np.sqrt(square)
        for i, (name, line) in enumerate(zip(names, ("-", "--", ":", "-.") * len(names), strict=False)):
            axes.plot(time[1:], rms[1:, i], line, color=COLOURS[label], label=f"{label}, {name}")
    axes.set(yscale="log", xlabel="time ahead [s]", ylabel="position error [rad]")
    axes.legend(fontsize=8)
    return figure


def _intervals(found: Calibration, every: Mapping[str, Parameter]) -> Figure:
    figure = Figure((4.6, 0.8 + 0.28 * len(found.estimates)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-1, 1, color="#f0f0f0")
    axes.axvline(0, color=COLOURS["nominal"], linewidth=1)
    for i, (name, estimate) in enumerate(found.estimates.items()):
        low, value, high = map(every[name].coordinate, (estimate.low, estimate.value, estimate.high))
        colour = COLOURS["calibrated"] if estimate.identifiable else UNSURE
        axes.errorbar(value, i, xerr=[[value - low], [high - value]], fmt="o", color=colour, capsize=3)
    axes.set_yticks(range(len(found.estimates)), list(found.estimates), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("from nominal\n[prior standard deviations]")
    return figure


def _examples(robot: Robot, shown: Windows, predicted: Mapping[str, Array]) -> Figure:
    names, time = robot.spec.joint_names, np.arange(shown.states.shape[1]) * robot.spec.control_dt
    chosen = np.unique(np.linspace(0, len(shown) - 1, EXAMPLES).astype(int))
    figure = Figure((9.4, 1.9 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), len(chosen), squeeze=False, sharex=True)
    for column, window in enumerate(chosen):
        for row, name in enumerate(names):
            axes = grid[row, column]
            for label, states in predicted.items():
                axes.plot(time, states[window, :, row], color=COLOURS[label], label=label)
            axes.plot(
                time, shown.states[window, :, row], ".", color=COLOURS["measured"], label="measured", markersize=3
            )
            if column == 0:
                axes.set_ylabel(f"{name} [rad]")
            if row == len(names) - 1:
                axes.set_xlabel("time [s]")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure
