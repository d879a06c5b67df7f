"""What benchmarks share that ask more of the runs of `benchmarks/sim2real.py`: which study, and how to tell."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sim2real import RESULTS, Place, Study

from landbridge.provenance import commit
from landbridge.robot import Robot
from landbridge.simulation.behaviour import Behaviour
from landbridge.simulation.scenario import load_scenario
from landbridge.training.scoring import score
from landbridge.training.statistics import bootstrap, paired_difference

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OfStudy:
    """Of which study.

    Attributes:
        work: Folder of a study.
        robot: Robot that ships with landbridge.
        rung: Scenario that the twin stands in.
        target_steps: Robot transitions of the study.
    """

    work: Path
    robot: str = "furuta"
    rung: str = "severe"
    target_steps: int = 1_000

    @property
    def study(self) -> Study:
        """This study as `sim2real.py` knows it."""
        return Study(self.work, self.robot, self.rung, target_steps=self.target_steps)

    @property
    def places(self) -> list[Place]:
        """Those of the study's evaluations that are the robot's."""
        return [place for place in self.study.places if place.engine == "bullet"]

    def write(self, name: str, found: dict[str, Any], text: str) -> None:
        """Print the text; write it and what was found as `results/<name>_<robot>`, `_<rung>` if not `severe`."""
        name = f"{name}_{self.robot}" + ("" if self.rung == "severe" else f"_{self.rung}")
        options = {key: value for key, value in vars(self).items() if key != "work"}
        RESULTS.mkdir(exist_ok=True)
        record = json.dumps({"commit": commit(), "options": options} | found, indent=2)
        (RESULTS / f"{name}.json").write_text(record + "\n")
        (RESULTS / f"{name}.md").write_text(text)
        print(text)


def found_on(policy: Behaviour, robot: Robot, place: Place, episodes: int, seed: int) -> Floats:
    """Success (episodes,) of a policy at a place, in the episodes of `benchmarks/sim2real.py`."""
    rung = load_scenario(robot, place.rung)
    return score(policy, robot, place.engine, rung, episodes, seed, exploring=place.exploring)[0]


def paired(of: Floats, other: Floats) -> dict[str, Any]:
    """Success (seeds, episodes): mean, interval and means by seed, and its difference to another one's."""
    return {
        "success": float(of.mean()),
        "interval": bootstrap(of),
        "difference": paired_difference(of, other),
        "by_seed": of.mean(-1).tolist(),
    }


def cells(row: dict[str, Any], is_other: bool) -> tuple[str, str]:
    """What `paired` gave, as cells of a table: success, and the difference unless the row is that other one."""
    less = "" if is_other else "{:+.2f} ({:+.2f} .. {:+.2f})".format(*row["difference"])
    return "{:.2f} ({:.2f} .. {:.2f})".format(row["success"], *row["interval"]), less
