"""Whether feed-forward on board pays: policies of a study with and without, on the same episodes.

    python benchmarks/sim2real.py --work /tmp/study --target-steps 1000 --arms source_only none tabb calibrated_mix
    python benchmarks/compensation.py --work /tmp/study --target-steps 1000

Takes runs and calibrations that `benchmarks/sim2real.py` left in --work, where nothing is written, and scores each run
bare and compensated by its own seed's `calibration.yaml` (of the same robot time as its target data), in Bullet on the
rung, from the task's start states and, if it has such, from anywhere. Writes `results/compensation_<robot>.json` and
`.md`, with `_<rung>` if that is not `severe`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro
from of_study import Floats, OfStudy
from rich.progress import track
from sim2real import ARMS, Place, Study

from landbridge.robot import load_robot
from landbridge.simulation.compensation import Compensation, load_compensation, require_nominal
from landbridge.simulation.scenario import load_scenario
from landbridge.training.evaluate import provenance, resolve
from landbridge.training.scoring import score, summary
from landbridge.training.statistics import paired_difference


@dataclass(frozen=True)
class Options(OfStudy):
    """What to score.

    Attributes:
        seeds: Of the study.
        arms: Its ways to a policy, of the nominal simulator and of the robot.
        episodes: Per run and start states.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    arms: tuple[str, ...] = ("source_only", "none", "tabb")
    episodes: int = 50


def main(options: Options) -> None:
    """Score, print the table and write the results."""
    study = options.study
    found = {
        (arm, place): np.stack([_score(study, arm, place, seed, options.episodes) for seed in options.seeds], axis=2)
        for arm in track(options.arms, "score")
        for place in options.places
    }
    rows = [
        {"arm": arm, "place": str(place), **_row(*success), "return": _row(*returns)}
        for (arm, place), (success, returns) in found.items()
    ]
    applied = {seed: _constants(_compensation(study, seed)) for seed in options.seeds}
    options.write("compensation", {"compensation_by_seed": applied, "rows": rows}, _markdown(options, rows))


def _compensation(study: Study, seed: int) -> Compensation:
    return load_compensation(study.folder(seed) / "calibration.yaml", load_robot(study.robot))


def _constants(compensation: Compensation) -> dict[str, Any]:
    """What efforts are multiplied by, and what is added against the friction of each joint."""
    dry, viscous = compensation.frictionloss.tolist(), compensation.viscous.tolist()
    return {"boost": compensation.boost, "frictionloss": dry, "viscous": viscous}


def _score(study: Study, arm: str, place: Place, seed: int, episodes: int) -> Floats:
    """Success and return, bare and compensated, of each episode (2, 2, episodes)."""
    robot, run = load_robot(study.robot), study.folder(seed) / "runs" / arm
    require_nominal(run, provenance(str(run)))
    policy, rung = resolve(str(run), robot), load_scenario(robot, place.rung)
    both = [
        score(policy, robot, place.engine, rung, episodes, seed, exploring=place.exploring, compensation=how)
        for how in (None, _compensation(study, seed))
    ]
    return np.stack(both, axis=1)


def _row(bare: Floats, compensated: Floats) -> dict[str, Any]:
    """Means, intervals and means by seed of scores (seeds, episodes), and the difference."""
    figures = {
        name: {**summary(of, of), "by_seed": of.mean(1).tolist()}
        for name, of in (("bare", bare), ("compensated", compensated))
    }
    return figures | {"difference": paired_difference(compensated, bare)}


def _markdown(options: Options, rows: list[dict[str, Any]]) -> str:
    lines = [
        f"Success on `{options.robot}` with and without feed-forward from a calibration on {options.target_steps} "
        f"robot transitions, {len(options.seeds)} seeds x {options.episodes} episodes: mean, 95 % interval over seeds "
        "and episodes, by seed; the last column is paired.",
        "",
        "| policies | where | bare | by seed | compensated | by seed | compensated - bare |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [ARMS[row["arm"]].label, row["place"]]
        for name in ("bare", "compensated"):
            cells.append("{success:.2f} ({success_low:.2f} .. {success_high:.2f})".format(**row[name]))
            cells.append(", ".join(f"{value:.2f}" for value in row[name]["by_seed"]))
        lines.append(f"| {' | '.join(cells)} | " + "{:+.2f} ({:+.2f} .. {:+.2f}) |".format(*row["difference"]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
