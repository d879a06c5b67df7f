"""The study behind docs/RESULTS.md: ways to a policy, scored on the twin, several seeds, each with its own data.

    python benchmarks/sim2real.py --work /tmp/study
    python benchmarks/sim2real.py --work /tmp/study --robot quadruped --target-steps 1000
    python benchmarks/sim2real.py --work /tmp/tuning --tuning --seeds 100 101 102 --arms none tabb dynamics oracle

Per seed: source data (MuJoCo, nominal), target data (Bullet, the rung, a minute or so of robot time), what other source
data the arms need, and one run of each arm with equal steps and equal source rows per step; then 50 episodes each on
Bullet at the rung, the same for every arm, from the task's start states and, if it has such, from anywhere; and on
MuJoCo at the rung and nominal, so that engine and parameters are seen apart. Seeds 100 and up were used for choosing
ladders and hyperparameters: `--tuning` takes them, and only them.
What is complete in --work is not made again. Writes `results/sim2real_<robot>.json`, `.md` and `.png`, with
`_<rung>` if that is not `severe`, `_<rows>` if the robot gave other than 3000, `_<label>` if there is one, and
`_tuning` for tuning seeds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray

from landbridge.calibration.identify import identify
from landbridge.demo.report import ARMS as SHOWN
from landbridge.demo.stages import Stages, console
from landbridge.errors import InputError
from landbridge.provenance import commit
from landbridge.robot import load_robot
from landbridge.simulation.collect import collect
from landbridge.simulation.plant import Engine
from landbridge.simulation.scenario import load_scenario
from landbridge.task import load_task
from landbridge.training.config import TrainConfig
from landbridge.training.evaluate import resolve
from landbridge.training.run import CONFIG, DIAGNOSTICS, has_reached, read_run
from landbridge.training.scoring import score, summary, write_scores
from landbridge.training.statistics import TRIMMED, paired_difference

RESULTS = Path(__file__).parent / "results"
TUNING_SEEDS = 100
RETUNED = 20  # generations of CMA-ES, in the calibrated simulator, before its logs are made
RANDOMISED_TO = "extreme"  # rung up to which the randomised source reaches: the robot lies within


@dataclass(frozen=True)
class Arm:
    """A way to a policy.

    Attributes:
        label: In tables.
        colour: In plots.
        alignment: Of the training.
        source: Which source data, a key of `_sources`.
        agent: Of the training.
        fixed_base: Whether only robots with a fixed base can have it: the twin's own dynamics need the whole state.
        rows: Source rows per step.
        pace: Its steps, in those of the study: who needs more of them gets fewer rows in each.
        options: More of `landbridge train`.
    """

    label: str
    colour: str
    alignment: str
    source: str = "source"
    agent: str = "iql"
    fixed_base: bool = False
    rows: int = TrainConfig.rows
    pace: int = 1
    options: tuple[str, ...] = ()


NORM = ("--iql.layer-norm", "q", "v", "pi")
ARMS = {name: Arm(*shown, name) for name, shown in SHOWN.items() if not name.startswith("calibrated")} | {
    "corrected": Arm("corrected next states", "#1b9e77", "corrected"),
    "dynamics": Arm("dynamics error", "#8c6bb1", "dynamics"),
    "shuffled": Arm("tabb's weights on the wrong rows", "#9ecae1", "shuffled"),
    "oracle": Arm("weights of the twin's own dynamics", "#525252", "oracle", fixed_base=True),
    "oracle_corrected": Arm("corrected by the twin's own dynamics", "#252525", "oracle_corrected", fixed_base=True),
    "cql": Arm("CQL, naive mix", "#e7298a", "none", agent="cql", rows=64, pace=2),
    "cql_authors": Arm(
        "CQL, naive mix, its authors' alpha",
        "#ce1256",
        "none",
        agent="cql",
        rows=64,
        pace=2,
        options=("--cql.alpha", "5"),
    ),
    "bc": Arm("BC, robot data only", "#a6761d", "target_only", agent="bc"),
    "calibrated": Arm("calibrated simulator only", "#66a61e", "source_only", "calibrated"),
    "calibrated_mix": Arm("calibrated, naive mix", "#1b7837", "none", "calibrated"),
    "calibrated_tabb": Arm("calibrated, tabb", "#a1d99b", "tabb", "calibrated"),
    "tabb_rounded": Arm("tabb, bfloat16 products", "#fd8d3c", "tabb", options=("--matmul", "medium")),
    "tabb_every": Arm(
        "tabb, predictor trained on in every step", "#fdd0a2", "tabb", options=("--tabb.schedule", "every")
    ),
    "tabb_every_4": Arm("tabb, predictor trained on in every 4th", "#fdae6b", "tabb", options=("--tabb.schedule", "4")),
    "tabb_sharp": Arm("tabb, temperature 0.3", "#a50f15", "tabb", options=("--tabb.temperature", "0.3")),
    "tabb_soft": Arm("tabb, temperature 3", "#fcbba1", "tabb", options=("--tabb.temperature", "3")),
    "tabb_at_once": Arm("tabb, no warm-up", "#ef3b2c", "tabb", options=("--tabb.warmup", "0")),
    "tabb_few": Arm("tabb, least effective share 0.05", "#cb181d", "tabb", options=("--tabb.ess-floor", "0.05")),
    "policy_norm": Arm("tabb, policy normalised", "#fdae6b", "tabb", options=("--iql.layer-norm", "pi")),
    "calibrated_policy_norm": Arm(
        "calibrated, tabb, policy normalised", "#fdae6b", "tabb", "calibrated", options=("--iql.layer-norm", "pi")
    ),
    "norm": Arm("tabb, all networks normalised", "#e6550d", "tabb", options=NORM),
    "calibrated_norm": Arm("calibrated, tabb, all normalised", "#e6550d", "tabb", "calibrated", options=NORM),
    "randomised": Arm("randomised simulator only", "#41b6c4", "source_only", "randomised"),
    "randomised_mix": Arm("randomised, naive mix", "#1d91c0", "none", "randomised"),
    "randomised_tabb": Arm("randomised, tabb", "#0c2c84", "tabb", "randomised"),
    "dara": Arm("DARA", "#bdbdbd", "dara"),
    "igdf": Arm("IGDF", "#bdbdbd", "igdf"),
    "otdf": Arm("OTDF", "#bdbdbd", "otdf"),
    "vgdf": Arm("VGDF", "#bdbdbd", "vgdf"),
    "density_ratio": Arm("density ratio", "#bdbdbd", "density_ratio"),
}


class Place(NamedTuple):
    """Where policies are scored: as `score` has it."""

    engine: Engine
    rung: str
    exploring: bool = False

    def __str__(self) -> str:
        return f"{self.engine} {self.rung}{', from anywhere' if self.exploring else ''}"


@dataclass(frozen=True)
class Study:
    """What to run.

    Attributes:
        work: Folder for data and runs.
        robot: Robot that ships with landbridge.
        rung: Scenario that the twin stands in.
        seeds: Training seeds, each with data of its own.
        steps: Gradient steps per run.
        source_steps: Simulator transitions.
        target_steps: Robot transitions; 3000 are 60 s.
        episodes: Evaluation episodes per run and place.
        arms: Which of the ways to a policy. All that the robot can have, if not given.
        against: One of them, which the others are compared with; `none` is the naive mix.
        target_share: Of every training, as `landbridge train` has it.
        tuning: Whether these are tuning seeds.
        label: Suffix of the results' names, where a study of other arms is not to replace an earlier one.
    """

    work: Path
    robot: str = "furuta"
    rung: str = "severe"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    steps: int = 10_000
    source_steps: int = 100_000
    target_steps: int = 3_000
    episodes: int = 50
    arms: tuple[str, ...] = ()
    against: str = "none"
    target_share: float = TrainConfig.target_share
    tuning: bool = False
    label: str = ""

    @property
    def name(self) -> str:
        """Of the files with the results."""
        rung = "" if self.rung == "severe" else f"_{self.rung}"
        rows = "" if self.target_steps == Study.target_steps else f"_{self.target_steps}"
        label = f"_{self.label}" if self.label else ""
        return f"sim2real_{self.robot}{rung}{rows}{label}{'_tuning' if self.tuning else ''}"

    @property
    def chosen(self) -> tuple[str, ...]:
        """The arms, in the order of ARMS."""
        fixed = load_robot(self.robot).spec.base == "fixed"
        return tuple(
            name for name, arm in ARMS.items() if (name in self.arms if self.arms else fixed >= arm.fixed_base)
        )

    @property
    def places(self) -> tuple[Place, ...]:
        """Of the evaluations; those in Bullet are the robot's."""
        explores = load_task(load_robot(self.robot)).explores
        robot = [Place("bullet", self.rung, exploring) for exploring in ((False, True) if explores else (False,))]
        return *robot, Place("mujoco", self.rung), Place("mujoco", "none")

    def folder(self, seed: int) -> Path:
        """Data and runs of a seed."""
        return self.work / f"{self.robot}_{self.rung}_{self.target_steps}" / f"seed{seed}"


def main(study: Study) -> None:
    """Run what is missing, then score everything."""
    if reserved := [seed for seed in study.seeds if (seed >= TUNING_SEEDS) is not study.tuning]:
        remedy = f"seeds from {TUNING_SEEDS} on are for tuning, those below for the study"
        raise InputError("--seeds", f"{reserved} {'with' if study.tuning else 'without'} --tuning", remedy)
    if wrong := set(study.arms) - set(ARMS):
        raise InputError("--arms", f"unknown: {sorted(wrong)}", f"choose of {', '.join(ARMS)}")
    if study.against not in study.chosen:
        raise InputError("--against", study.against, f"choose of the study's arms: {', '.join(study.chosen)}")
    for seed in study.seeds:
        _train(study, seed)
        _score(study, seed)
    _write(study)


def _sources(study: Study, seed: int) -> dict[str, Callable[[Path], object]]:
    """How each kind of source data is made."""
    folder = study.folder(seed)
    of: dict[str, Any] = {"robot": study.robot, "steps": study.source_steps, "seed": seed}

    def calibrated(out: Path) -> None:
        identify(folder / "target", folder / "calibration.yaml", robot=study.robot, seed=seed)
        collect(out, calibration=folder / "calibration.yaml", retune=RETUNED, **of)

    return {
        "source": lambda out: collect(out, **of),
        "calibrated": calibrated,
        "randomised": lambda out: collect(out, scenario=RANDOMISED_TO, randomise=True, batch=32, **of),
    }


def _train(study: Study, seed: int) -> None:
    folder, target = study.folder(seed), study.folder(seed) / "target"
    if not target.exists():
        twin: dict[str, Any] = {"engine": "bullet", "scenario": study.rung, "domain": "target", "mix": {"excite": 1.0}}
        collect(target, robot=study.robot, steps=study.target_steps, seed=seed, **twin)
    for name, make in _sources(study, seed).items():
        if not (folder / name).exists() and any(ARMS[arm].source == name for arm in study.chosen):
            make(folder / name)
    runs = {name: folder / "runs" / name for name in study.chosen}
    for name, run in runs.items():
        _require_of(study, ARMS[name], run)
    missing = {
        name: _command(study, seed, ARMS[name], run)
        for name, run in runs.items()
        if not has_reached(run, study.steps * ARMS[name].pace)
    }
    if missing:
        Stages(folder).train(f"seed {seed}", missing, study.steps)


def _options(study: Study, arm: Arm) -> dict[str, float]:
    """What the study and the arm decide of a run, as its `config.json` names it."""
    return {"steps": study.steps * arm.pace, "rows": arm.rows, "target_share": study.target_share}


def _require_of(study: Study, arm: Arm, run: Path) -> None:
    """Raise InputError if there is such a run already, but with other options."""
    if not (run / CONFIG).is_file():
        return
    began = read_run(run)["train"]
    for name, value in _options(study, arm).items():
        if began[name] != value:
            raise InputError(run, f"has {name} {began[name]}, and the study {value}", "choose another --work")


def _command(study: Study, seed: int, arm: Arm, run: Path) -> tuple[str, ...]:
    """The command line of a run; one that was cut off is resumed."""
    if (run / CONFIG).is_file():
        return ("train", "--out", str(run), "--resume")
    data = study.folder(seed)
    return (
        *("train", "--out", str(run), "--robot", study.robot, "--agent", arm.agent, "--alignment", arm.alignment),
        *("--source", str(data / arm.source), "--target", str(data / "target"), "--compile", "--seed", str(seed)),
        *(word for name, value in _options(study, arm).items() for word in (f"--{name.replace('_', '-')}", str(value))),
        *arm.options,
        *((f"--{arm.alignment}.scenario", study.rung) if arm.fixed_base and arm.source == "source" else ()),
    )


def _score(study: Study, seed: int) -> None:
    """Score the runs of a seed that have no scores yet, one process a core."""
    missing = [
        (study, seed, arm, place)
        for arm in study.chosen
        for place in study.places
        if not scores_file(study, seed, arm, place).is_file()
    ]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for line in pool.map(_score_run, missing):
            console.print(line)


def scores_file(study: Study, seed: int, arm: str, place: Place) -> Path:
    """Of a run: success and return of its episodes at a place, as `write_scores` has them."""
    starts = "_exploring" if place.exploring else ""
    return study.folder(seed) / "scores" / f"{arm}_{place.engine}_{place.rung}{starts}_{study.episodes}.npy"


def _score_run(task: tuple[Study, int, str, Place]) -> str:
    study, seed, arm, place = task
    robot = load_robot(study.robot)
    policy, rung = resolve(str(study.folder(seed) / "runs" / arm), robot), load_scenario(robot, place.rung)
    success, returns = score(policy, robot, place.engine, rung, study.episodes, seed, exploring=place.exploring)
    path = scores_file(study, seed, arm, place)
    path.parent.mkdir(exist_ok=True)
    write_scores(path, (success, returns))
    return f"seed {seed} {arm} {place}: success {success.mean():.2f}, return {returns.mean():.1f}"


def _write(study: Study) -> None:
    scores: dict[Place, dict[str, NDArray[np.float64]]] = {  # (2, seeds, episodes): success and return
        place: {
            arm: np.stack([np.load(scores_file(study, seed, arm, place)) for seed in study.seeds], axis=1)
            for arm in study.chosen
        }
        for place in study.places
    }
    places = {
        str(place): {
            arm: summary(*both) | {"by_seed": both[0].mean(1).tolist(), "return_by_seed": both[1].mean(1).tolist()}
            for arm, both in arms.items()
        }
        for place, arms in scores.items()
    }
    paired = {
        str(place): {
            arm: {name: paired_difference(of[i], other[i]) for i, name in enumerate(("success", "return"))}
            for other in (arms[study.against],)
            for arm, of in arms.items()
            if arm != study.against
        }
        for place, arms in scores.items()
        if place.engine == "bullet"
    }
    config = {key: value for key, value in vars(study).items() if key != "work"} | {"arms": study.chosen}
    seconds = {
        arm: float(np.mean([_seconds(study.folder(seed) / "runs" / arm) for seed in study.seeds]))
        for arm in study.chosen
    }
    results = {"commit": commit(), "study": config, "places": places, "differences": paired, "training_s": seconds}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{study.name}.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / f"{study.name}.md").write_text(_markdown(study, places, paired, seconds))
    _plot(places).savefig(RESULTS / f"{study.name}.png", dpi=150)


def _seconds(run: Path) -> float:
    """What the training took, fits of predictors and compilation included, on the machine as it was."""
    told = json.loads((run / DIAGNOSTICS).read_text())
    return float(told["fit_seconds"] + told["step"] / told["updates_per_s"])


def _markdown(study: Study, places: dict[str, Any], paired: dict[str, Any], seconds: dict[str, float]) -> str:
    robot, several, on_robot = next(iter(places)), len(study.seeds) > 1, list(paired)
    lines = [
        f"Success on `{study.robot}`, {study.target_steps} robot transitions, {len(study.seeds)} "
        f"{'tuning ' if study.tuning else ''}seed{'s' * several} x {study.episodes} episodes: mean and 95 % interval "
        f"over {'seeds and ' * several}episodes, interquartile mean over seeds; time of a training beside other work. "
        f"The last {1 + len(on_robot)} columns: paired with {ARMS[study.against].label}.",
        "",
        f"| arm | {robot} | IQM | {' | '.join(list(places)[1:])} | return | s | "
        f"{' | '.join(f'{place}, difference' for place in on_robot)} | return, difference |",
        "|---|" + "---|" * (len(places) + len(on_robot) + 4),
    ]
    for arm in study.chosen:
        means = ["{success:.2f} ({success_low:.2f} .. {success_high:.2f})".format(**p[arm]) for p in places.values()]
        middle = ""
        if len(study.seeds) >= TRIMMED:
            middle = "{success_iqm:.2f} ({success_iqm_low:.2f} .. {success_iqm_high:.2f})".format(**places[robot][arm])
        total = f"{places[robot][arm]['return']:.0f}"
        differences = [
            "" if arm == study.against else form.format(*paired[place][arm][key])
            for place, key, form in (
                *((place, "success", "{:+.2f} ({:+.2f} .. {:+.2f})") for place in on_robot),
                (robot, "return", "{:+.0f} ({:+.0f} .. {:+.0f})"),
            )
        ]
        lines.append(
            f"| {ARMS[arm].label} | "
            + " | ".join([means[0], middle, *means[1:], total, f"{seconds[arm]:.0f}", *differences])
            + " |"
        )
    return "\n".join(lines) + "\n"


def _plot(places: dict[str, Any]) -> Figure:
    mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    arms = list(next(iter(places.values())))
    figure = Figure((9, 1.0 + 0.32 * len(arms)), layout="constrained")
    for axes, (place, found) in zip(figure.subplots(1, len(places), sharey=True), places.items(), strict=True):
        for i, (arm, scores) in enumerate(found.items()):
            error = [[scores["success"] - scores["success_low"]], [scores["success_high"] - scores["success"]]]
            axes.barh(i, scores["success"], color=ARMS[arm].colour, xerr=np.maximum(error, 0), capsize=3)
            axes.plot(scores["by_seed"], [i] * len(scores["by_seed"]), "k.", markersize=4)
        axes.set(title=place.replace(", ", ",\n"), xlim=(0, 1.02), xlabel="success")
        axes.set_yticks(range(len(arms)), [ARMS[arm].label for arm in arms])
    figure.axes[0].invert_yaxis()
    return figure


if __name__ == "__main__":
    main(tyro.cli(Study, description=__doc__))
