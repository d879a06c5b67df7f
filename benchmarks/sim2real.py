"""The study behind README's table: every alignment on the twin, several seeds, each with its own data.

    python benchmarks/sim2real.py --work /tmp/study
    python benchmarks/sim2real.py --work /tmp/tuning --tuning --seeds 100 101 102 --arms none tabb dynamics oracle

Per seed: source data (MuJoCo, nominal), target data (Bullet, `severe`, at most 60 s of robot time), a calibration from
the target data and source data of the calibrated simulator, one run of each arm with equal steps and equal source rows
per step; then 50 episodes each on Bullet `severe`, the same for every arm,
and on MuJoCo `severe` and nominal, so that engine and parameters are seen apart. Seeds 100 and up were used for
choosing the ladder and the hyperparameters: `--tuning` takes them, and only them. Runs that are complete in --work are
not made again. Writes `results/sim2real.json`, `.md` and `.png`, or `results/sim2real_tuning.*`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import tyro
from matplotlib.figure import Figure

from landbridge.calibration.identify import identify
from landbridge.demo.report import ARMS as SHOWN
from landbridge.demo.stages import Stages, console
from landbridge.episode import commit
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.simulation.collect import collect
from landbridge.simulation.plant import Engine
from landbridge.simulation.scenario import load_scenario
from landbridge.training.evaluate import resolve, score, summary
from landbridge.training.statistics import paired_difference
from landbridge.training.trainer import CHECKPOINT

RESULTS = Path(__file__).parent / "results"
TUNING_SEEDS = 100


@dataclass(frozen=True)
class Arm:
    """A way to a policy.

    Attributes:
        label: In tables.
        colour: In plots.
        alignment: Of the training.
        source: Which source data: `source` or `calibrated`.
    """

    label: str
    colour: str
    alignment: str
    source: str = "source"


ARMS = {name: Arm(*shown, name) for name, shown in SHOWN.items()} | {
    "dynamics": Arm("dynamics error", "#8c6bb1", "dynamics"),
    "oracle": Arm("weights of the twin's own dynamics", "#525252", "oracle"),
    "calibrated": Arm("calibrated simulator only", "#66a61e", "source_only", "calibrated"),
    "calibrated_mix": Arm("calibrated, naive mix", "#1b7837", "none", "calibrated"),
}
PLACES: tuple[tuple[Engine, str], ...] = (("bullet", "severe"), ("mujoco", "severe"), ("mujoco", "none"))


@dataclass(frozen=True)
class Study:
    """What to run.

    Attributes:
        work: Folder for data and runs.
        seeds: Training seeds, each with data of its own.
        steps: Gradient steps per run.
        source_steps: Simulator transitions.
        target_steps: Robot transitions; 3000 are 60 s.
        episodes: Evaluation episodes per run and place.
        arms: Which of the ways to a policy; `none` among them, which the others are compared with.
        tuning: Whether these are tuning seeds.
    """

    work: Path
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    steps: int = 10_000
    source_steps: int = 100_000
    target_steps: int = 3_000
    episodes: int = 50
    arms: tuple[str, ...] = tuple(ARMS)
    tuning: bool = False


def main(study: Study) -> None:
    """Run what is missing, then score everything."""
    if reserved := [seed for seed in study.seeds if (seed >= TUNING_SEEDS) is not study.tuning]:
        remedy = f"seeds from {TUNING_SEEDS} on are for tuning, those below for the study"
        raise InputError("--seeds", f"{reserved} {'with' if study.tuning else 'without'} --tuning", remedy)
    if unknown := set(study.arms) - set(ARMS) or {"none"} - set(study.arms):
        raise InputError(
            "--arms", f"unknown or missing: {sorted(unknown)}", f"name none, and some of {', '.join(ARMS)}"
        )
    for seed in study.seeds:
        _train(study, seed)
    scores = {place: _scores(study, *place) for place in PLACES}
    _write(study, scores)


def _train(study: Study, seed: int) -> None:
    folder = study.work / f"seed{seed}"
    source, target, calibrated = folder / "source", folder / "target", folder / "calibrated"
    if not source.exists():
        collect(source, steps=study.source_steps, seed=seed)
    if not target.exists():
        twin: dict[str, Any] = {"engine": "bullet", "scenario": "severe", "domain": "target", "mix": {"excite": 1.0}}
        collect(target, steps=study.target_steps, seed=seed, **twin)
    if not calibrated.exists() and any(ARMS[arm].source == "calibrated" for arm in study.arms):
        identify(target, folder / "calibration.yaml", seed=seed)
        collect(calibrated, steps=study.source_steps, seed=seed, calibration=folder / "calibration.yaml")
    options = ["--compile", "--target", str(target), "--steps", str(study.steps), "--seed", str(seed)]
    missing = {
        arm: (
            *("train", "--out", str(folder / "runs" / arm), "--alignment", ARMS[arm].alignment),
            *("--source", str(folder / ARMS[arm].source), *options),
        )
        for arm in study.arms
        if not (folder / "runs" / arm / CHECKPOINT).is_file()
    }
    if missing:
        figures = Stages(folder).train(f"seed {seed}", missing, study.steps)
        (folder / "figures.json").write_text(json.dumps(figures, indent=2))


def _scores(study: Study, engine: Engine, scenario: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Success and return (seeds, episodes) per arm."""
    robot = load_robot("furuta")
    found = {}
    for arm in study.arms:
        rows = []
        for seed in study.seeds:
            policy = resolve(str(study.work / f"seed{seed}/runs/{arm}"), robot)
            rows.append(score(policy, robot, engine, load_scenario(robot, scenario), study.episodes, seed))
        found[arm] = (np.stack([success for success, _ in rows]), np.stack([returns for _, returns in rows]))
        console.print(f"{engine} {scenario} {arm}: success {found[arm][0].mean():.2f}")
    return found


def _write(study: Study, scores: dict[tuple[Engine, str], dict[str, tuple[np.ndarray, np.ndarray]]]) -> None:
    places = {
        f"{engine} {scenario}": {arm: summary(*values) | {"by_seed": values[0].mean(1).tolist()}
                                 for arm, values in arms.items()}
        for (engine, scenario), arms in scores.items()
    }  # fmt: skip
    robot = scores[PLACES[0]]
    paired = {arm: paired_difference(robot[arm][0], robot["none"][0]) for arm in study.arms if arm != "none"}
    config = {key: value for key, value in vars(study).items() if key != "work"}
    results = {"commit": commit(), "study": config, "places": places, "minus_mix": paired}
    RESULTS.mkdir(exist_ok=True)
    name = "sim2real_tuning" if study.tuning else "sim2real"
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / f"{name}.md").write_text(_markdown(study, places, paired))
    _plot(places).savefig(RESULTS / f"{name}.png", dpi=150)


def _markdown(study: Study, places: dict[str, Any], paired: dict[str, tuple[float, float, float]]) -> str:
    seeds, option = ("tuning seeds", " --tuning") if study.tuning else ("seeds", "")
    lines = [
        f"Success on `furuta`, {len(study.seeds)} {seeds} x {study.episodes} episodes, mean and 95 % bootstrap "
        f"interval over seeds and episodes (`python benchmarks/sim2real.py{option}`).",
        "",
        "| arm | " + " | ".join(places) + " | minus the naive mix, paired, on the first |",
        "|---|" + "---|" * (len(places) + 1),
    ]
    for arm in study.arms:
        cells = ["{success:.2f} ({success_low:.2f} .. {success_high:.2f})".format(**p[arm]) for p in places.values()]
        difference = "{:+.2f} ({:+.2f} .. {:+.2f})".format(*paired[arm]) if arm in paired else ""
        lines.append(f"| {ARMS[arm].label} | " + " | ".join([*cells, difference]) + " |")
    return "\n".join(lines) + "\n"


def _plot(places: dict[str, Any]) -> Figure:
    mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    figure = Figure((8, 3.6), layout="constrained")
    for axes, (place, arms) in zip(figure.subplots(1, len(places), sharey=True), places.items(), strict=True):
        for i, (arm, found) in enumerate(arms.items()):
            error = [[found["success"] - found["success_low"]], [found["success_high"] - found["success"]]]
            axes.barh(i, found["success"], color=ARMS[arm].colour, xerr=np.maximum(error, 0), capsize=3)
            axes.plot(found["by_seed"], [i] * len(found["by_seed"]), "k.", markersize=4)
        axes.set(title=place, xlim=(0, 1.02), xlabel="success")
        axes.set_yticks(range(len(arms)), [ARMS[arm].label for arm in arms])
    figure.axes[0].invert_yaxis()
    return figure


if __name__ == "__main__":
    main(tyro.cli(Study, description=__doc__))
