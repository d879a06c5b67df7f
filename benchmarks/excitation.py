"""Does a designed excitation tell more than the robot's own behaviours, in equal time?

    landbridge calibrate excite --out /tmp/excitation.yaml --known link_mass_scale.arm_link --preview none severe
    python benchmarks/excitation.py /tmp/excitation.yaml [--rungs moderate severe] [--windows 44]

A Bullet furuta under each rung, with the rung's sensor noise, is identified in MuJoCo from as many windows of 0.5 s of
each motion, the arm's mass known. Printed for every motion: the geometric mean of the 95 % intervals' widths (in prior
standard deviations) over that of the designed one, rungs and parameters pooled; how many intervals hold the truth; how
many parameters were identified. Writes `results/excitation.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from tyro.conf import Positional

from landbridge.calibration.design import run_episodes
from landbridge.calibration.identify import calibration
from landbridge.calibration.windows import cut
from landbridge.provenance import commit
from landbridge.robot import Robot, load_robot
from landbridge.simulation.behaviour import Behaviour, load_behaviours
from landbridge.simulation.excitation import behaviour_of, read_excitation
from landbridge.simulation.parameters import free_parameters, to_values
from landbridge.simulation.scenario import Scenario, load_scenario

RESULTS = Path(__file__).parent / "results"
KNOWN = ("link_mass_scale.arm_link", "friction.arm.load")  # the rungs have no friction by load
SEED, HORIZON = 7, 25  # control periods of a window
EPISODES = 8  # enough for the windows of a motion that runs into the arm's limit at times
NARROWEST = 1e-6  # prior standard deviations: an interval at a bound may have no width

console = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Study:
    """What to run.

    Attributes:
        excitation: File of `landbridge calibrate excite`.
        rungs: Of scenarios.yaml.
        windows: Of each motion and rung: 44 are four whole episodes.
    """

    excitation: Positional[Path]
    rungs: tuple[str, ...] = ("moderate", "severe")
    windows: int = 44


def main(study: Study) -> None:
    """Identify every rung from every motion, print and write the figures."""
    robot = load_robot("furuta")
    own = load_behaviours(robot)
    designed = behaviour_of(robot, read_excitation(study.excitation, robot))
    motions = {"designed": designed, "random": own["random"], "excite": own["excite"]}
    found: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in motions}
    for rung in study.rungs:
        for name, motion in motions.items():
            found[name].append(_identified(robot, load_scenario(robot, rung), motion, study.windows))
            console.print(f"{rung}, {name}")
    widths = {name: np.log([row["width"] for run in runs for row in run]) for name, runs in found.items()}
    rows = {name: _summary(runs, widths[name] - widths["designed"]) for name, runs in found.items()}
    results = {"commit": commit(), "rungs": study.rungs, "windows": study.windows, "motions": rows}
    (RESULTS / "excitation.json").write_text(json.dumps(results, indent=1) + "\n")
    console.print_json(json.dumps(results))


def _identified(robot: Robot, rung: Scenario, motion: Behaviour, count: int) -> list[dict[str, Any]]:
    rng, hidden = np.random.default_rng(SEED), to_values(robot, rung)
    run = run_episodes(robot, "bullet", rung, motion(EPISODES, rng), EPISODES, SEED)
    windows, free = cut(run, robot, HORIZON, "the twin"), free_parameters(robot, KNOWN)
    windows = windows.where(np.arange(len(windows)) < count)
    assert len(windows) == count
    estimates = calibration(robot, free, windows, rng, "the twin", "").estimates
    return [
        {
            "width": max(p.coordinate(estimates[p.name].high) - p.coordinate(estimates[p.name].low), NARROWEST),
            "covered": bool(estimates[p.name].low <= hidden[p.name] <= estimates[p.name].high),
            "identified": estimates[p.name].identifiable,
        }
        for p in free
    ]


def _summary(runs: list[list[dict[str, Any]]], log_ratio: NDArray[np.float64]) -> dict[str, float]:
    rows = [row for run in runs for row in run]
    return {
        "width_over_designed": float(np.exp(log_ratio.mean())),
        "covered": float(np.mean([row["covered"] for row in rows])),
        "identified": float(np.mean([row["identified"] for row in rows])),
    }


if __name__ == "__main__":
    main(tyro.cli(Study, description=__doc__))
