"""`landbridge sweep`: settings x seeds, each trained and scored in a process of its own, on one machine or many."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress

from landbridge.errors import InputError
from landbridge.files import write_atomic
from landbridge.robot import Robot, load_robot
from landbridge.simulation.plant import Engine
from landbridge.simulation.scenario import load_scenario
from landbridge.spec import require_at_least, require_distinct, require_seed
from landbridge.training.config import TrainConfig
from landbridge.training.dataset import open_domain
from landbridge.training.log import last_step
from landbridge.training.run import Inputs
from landbridge.training.scoring import summary
from landbridge.training.trial import Trial
from landbridge.training.workers import here, on_ray

PLAN, TABLE = "sweep.json", "sweep.csv"
SCORES = ("success", "return")


def sweep(
    out: Path,
    source: str | None = None,
    target: str | None = None,
    options: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (0, 1, 2),
    scenarios: tuple[str, ...] = ("severe",),
    robot: str = "furuta",
    engine: Engine = "bullet",
    episodes: int = 50,
    scratch: Path | None = None,
    address: str | None = None,
    gpus: float = 0.0,
    retries: int = 3,
) -> dict[str, Any]:
    """Train and score every setting with every seed, one process per core.

    A process that is killed is restarted, and continues from its last checkpoint. Running the same command again
    continues an interrupted sweep; with more seeds or scenarios, it adds what is missing.

    Example: landbridge sweep --out sweeps/first --source data/source --target data/target --options
        alignment=none,dynamics iql.expectile=0.7,0.9 steps=5000 --seeds 0 1 2 --scenarios none severe

    Args:
        out: Folder of the sweep: a run folder and a log for each trial, sweep.csv with a line for each.
        source: Source dataset; {seed} in it stands for the trial's seed.
        target: Target dataset; likewise.
        options: Of `landbridge train`, as NAME=VALUE, or NAME=VALUE,VALUE to try each with all others.
        seeds: Each a trial of its own.
        scenarios: Where the policies are scored.
        robot: Name of a robot, or a folder with robot.yaml.
        engine: Where the policies are scored.
        episodes: Per policy and scenario.
        scratch: As of `landbridge train`.
        address: Of a Ray cluster whose machines see these folders by the same names; by default this machine alone.
        gpus: GPUs, or the share of one, that a trial takes of a Ray cluster.
        retries: How often a trial whose process died is restarted.

    Returns:
        `settings`: success and return of each setting and scenario, with 95 % intervals over seeds and episodes;
        `failed`: trials that came to no end, and why.
    """
    machine = load_robot(robot)
    _refuse(seeds, scenarios, episodes, retries, gpus, address)
    out, choices = out.resolve(), _choices(options)
    rungs = {scenario: load_scenario(machine, scenario).model_dump(mode="json") for scenario in scenarios}
    rows = scratch and scratch.resolve()
    inputs = {seed: Inputs(robot, _of_seed(source, seed), _of_seed(target, seed), rows) for seed in seeds}
    trials = [
        Trial(run, shown, config, inputs[config.seed], engine, scenarios, episodes)
        for run, shown, config in _runs(out, choices, seeds)
    ]
    fixed = {"source": source, "target": target, "robot": robot, "options": choices}
    plan = {name: {name: value} for name, value in fixed.items()}
    _claim(out, plan | {"datasets": _made(machine, trials), "scenarios": rungs})
    for trial in trials:
        trial.refuse_another()
    left = [trial for trial in trials if not trial.complete]
    runner = here(left, retries) if address is None else on_ray(left, retries, address, gpus)
    failed = _run(runner, left) if left else []
    done = [trial for trial in trials if trial.complete]
    _write_table(out / TABLE, done)
    return {
        **({"table": str(out / TABLE)} if done else {}),
        "trials": f"{len(done)} of {len(trials)}",
        "settings": list(_by_setting(done, scenarios)),
        "failed": failed,
    }


def _refuse(
    seeds: tuple[int, ...], scenarios: tuple[str, ...], episodes: int, retries: int, gpus: float, address: str | None
) -> None:
    if not seeds or not scenarios or episodes < 1:
        raise InputError("sweep", f"{seeds=} {scenarios=} {episodes=}", "give at least one of each")
    require_seed(*seeds)
    require_distinct("--seeds", seeds)
    require_distinct("--scenarios", scenarios)
    require_at_least("--retries", retries, 0)
    require_at_least("--gpus", gpus, 0)
    if gpus > 1 and not gpus.is_integer():
        raise InputError("--gpus", f"is {gpus:g}", "give a share of one, or a whole number")
    if gpus and address is None:
        raise InputError("--gpus", f"{gpus:g} without --address", "name a Ray cluster, or leave it out")


def _made(robot: Robot, trials: list[Trial]) -> dict[str, str]:
    """When each dataset that a trial needs was made, by its path."""
    needs = [trial.inputs.needed(trial.config.alignment) for trial in trials]
    paths = {(domain, path) for need in needs for domain, path in need.items()}
    return {str(path): open_domain(robot, domain, path).metadata.created for domain, path in sorted(paths)}


def _of_seed(path: str | None, seed: int) -> Path | None:
    return None if path is None else Path(path.replace("{seed}", str(seed))).resolve()


def _choices(options: tuple[str, ...]) -> dict[str, list[str]]:
    choices: dict[str, list[str]] = {}
    for option in options:
        name, _, values = option.partition("=")
        if not values or name in (*choices, "seed"):
            raise InputError("--options", f"{option!r}", "write NAME=VALUE once for each name; seeds go to --seeds")
        choices[name] = values.split(",")
        require_distinct(f"--options {name}", choices[name])
    return dict(sorted(choices.items()))  # so that their order names no other run


def _runs(
    out: Path, choices: dict[str, list[str]], seeds: tuple[int, ...]
) -> Iterator[tuple[Path, tuple[tuple[str, str], ...], TrainConfig]]:
    """Of every trial: its run folder, which of its options vary, and its configuration."""
    varied = {name for name, values in choices.items() if len(values) > 1}
    configs = [(setting, _config(setting)) for setting in _settings(choices)]
    used = set().union(*(config.used for _, config in configs))
    if idle := [name for name in choices if "." in name and name.split(".")[0] not in used]:
        raise InputError(
            "--options", f"{idle[0]} is of no use to any setting", f"those of {', '.join(sorted(used))} are"
        )
    for (setting, config), seed in itertools.product(configs, seeds):
        shown = tuple((name, value) for name, value in setting if name in varied)
        name = "_".join(f"{name}={value}" for name, value in (*shown, ("seed", str(seed))))
        yield out / name, shown, dataclasses.replace(config, seed=seed)


def _settings(choices: dict[str, list[str]]) -> Iterator[tuple[tuple[str, str], ...]]:
    for values in itertools.product(*choices.values()):
        yield tuple(zip(choices, values, strict=True))


def _config(setting: tuple[tuple[str, str], ...]) -> TrainConfig:
    """What `landbridge train` would make of these options; where it refuses one, this does in the same words."""
    arguments = [word for name, value in setting for word in (f"--{name.replace('_', '-')}", *value.split())]
    config = tyro.cli(tyro.conf.FlagConversionOff[TrainConfig], args=arguments, prog="landbridge train")
    config.require_valid()
    return config


def _claim(out: Path, plan: dict[str, dict[str, Any]]) -> None:
    """Make the sweep's folder, or see that it is of this sweep; a plan may have more than before, not other things."""
    path = out / PLAN
    plan = json.loads(json.dumps(plan))  # as it will be read again
    if path.is_file():
        before = json.loads(path.read_text())
        differ = [
            key
            for name, things in before.items()
            for key, thing in things.items()
            if plan[name].get(key, thing) != thing
        ]
        if differ:
            remedy = f"choose another --out, or go on with what {path} says"
            raise InputError(out, f"is a sweep of another {', '.join(differ)}", remedy)
        plan = {name: before[name] | things for name, things in plan.items()}
    elif out.exists():
        raise InputError(out, "already exists, and is no sweep", "choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(plan, indent=2) + "\n")


def _run(runner: Generator[list[Trial]], trials: list[Trial]) -> list[dict[str, str]]:
    """Work on trials, with a bar on the terminal; returns those that failed, and why."""
    failed = []
    with closing(runner), Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"{len(trials)} trials", total=sum(trial.config.steps for trial in trials))
        for ended in runner:
            for trial in ended:
                if not trial.complete:
                    failed.append({"trial": trial.run.name, "why": trial.last_words()})
                progress.console.print(f"{trial.run.name}: {'done' if trial.complete else 'failed'}", highlight=False)
            progress.update(bar, completed=sum(last_step(trial.run) for trial in trials))
    return failed


def _write_table(path: Path, trials: list[Trial]) -> None:
    """A line for every trial and scenario, after those that are there of seeds not asked for again."""
    if not (rows := list(_rows(trials))):
        return
    before = csv.DictReader(io.StringIO(path.read_text())) if path.is_file() else ()
    asked = {_place(row) for row in rows}
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([row for row in before if _place(row) not in asked] + rows)
    write_atomic(path, text.getvalue())


def _rows(trials: list[Trial]) -> Iterator[dict[str, Any]]:
    """In the order of the trials, whatever came first."""
    for trial in trials:
        for scenario in trial.scenarios:
            scores = dict(zip(SCORES, trial.scores(scenario).mean(1).tolist(), strict=True))
            scored = {"engine": trial.engine, "scenario": scenario, "episodes": trial.episodes}
            yield dict(trial.setting) | {"seed": trial.config.seed} | scored | scores


def _place(row: dict[str, Any]) -> tuple[str, ...]:
    """What names a line, of one that is read back, too."""
    return tuple(str(value) for name, value in row.items() if name not in SCORES)


def _by_setting(trials: list[Trial], scenarios: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    shown = ("success", "success_low", "success_high", "return", "return_low", "return_high")
    for setting, same in itertools.groupby(trials, lambda trial: trial.setting):
        runs = list(same)
        for scenario in scenarios:
            success, returns = np.stack([trial.scores(scenario) for trial in runs], axis=1)
            figures = summary(success, returns)
            named = {"setting": " ".join(f"{name}={value}" for name, value in setting), "scenario": scenario}
            yield named | {"seeds": len(runs)} | {name: figures[name] for name in shown}
