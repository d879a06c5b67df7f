"""`landbridge train`: one run, from datasets to a checkpoint."""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from landbridge.bundle import npz
from landbridge.errors import InputError
from landbridge.files import require_new, write_atomic
from landbridge.provenance import commit, now
from landbridge.robot import Robot, load_robot
from landbridge.simulation.plant import make_plant
from landbridge.simulation.scenario import load_scenario
from landbridge.spec import require_distinct
from landbridge.task import load_task
from landbridge.training import loop, ranks
from landbridge.training.alignments.oracle import TwinConfig
from landbridge.training.assembly import build
from landbridge.training.config import AlignmentName, TrainConfig, only_used
from landbridge.training.data import Data, read_data, unread_hashes
from landbridge.training.dataset import Normaliser
from landbridge.training.log import Log, last_step
from landbridge.training.policy import Actor
from landbridge.training.run import (
    CONFIG,
    DIAGNOSTICS,
    RESUMED,
    Inputs,
    read_run,
    refuse_others,
    runs_of,
    seed_folder,
)
from landbridge.training.scoring import score as score_policy
from landbridge.training.trainer import CHECKPOINT, Trainer, read_checkpoint

Scorer = Callable[[int], dict[str, float | str]]  # of the step

SCORES = 10  # points of the learning curve
SCORE_EPISODES = 10


@ranks.process_group()
def train(
    out: Path,
    source: Path | None = None,
    target: Path | None = None,
    robot: str = "furuta",
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = TrainConfig(),  # noqa: B008 (frozen)
    seeds: tuple[int, ...] = (),
    score: str | None = None,
    scratch: Path | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Train an agent on source data aligned to the target.

    Example: landbridge train --source data/source --target data/target --out runs/first --seed 0

    --help shows the hyperparameters of one agent and one alignment: the defaults, or those named by --agent and
    --alignment on the same command line.

    On several cores or GPUs: torchrun --nproc-per-node 2 -m landbridge train ... with the same arguments. --rows is
    then divided among the ranks, and the result is that of one process but for rounding (`td3bc` scales its value, and
    `vgdf` and `igdf` rank rows, within a rank's share).

    Args:
        out: New run folder: config.json, checkpoint.pt, metrics.csv, diagnostics, TensorBoard events.
        source: Source dataset (simulator); with --resume only if it has moved.
        target: Target dataset (robot or twin); likewise.
        robot: Name of a robot, or a folder with robot.yaml.
        config: Hyperparameters.
        seeds: In place of --seed: one run per seed, in `out`/seedN, all trained as one batch. `out` is exported as
            their mean.
        score: Scenario on which to score the policy in Bullet ten times during the run, for the learning curve only.
        scratch: Folder on a disk for the source's rows during the run, for a source larger than memory. Alignments are
            then fitted to 262,144 rows, and every 256 steps draw from 131,072 rows, both from all over the source. Each
            rank has a file of its own. A resumed run uses the folder that it began with unless another is given.
        resume: Continue the run in `out`, or its seeds, with the options that it began with: bit for bit as if
            uninterrupted, late seeds but for rounding.
    """
    torch.set_num_threads(1)  # more gain nothing on networks this small, and wait for each other on a busy machine
    inputs = Inputs(robot, source, target, scratch, score)
    if seeds:
        require_distinct("--seeds", seeds)
        if (out / CONFIG).exists():
            raise InputError(out, "is the folder of one run, which would be taken for these", "choose another --out")
        asked = {seed_folder(out, seed): replace(config, seed=seed) for seed in seeds}
    else:
        asked = dict.fromkeys(runs_of(out) if resume else [out], config)
    begun = {folder for folder in asked if resume and (folder.exists() or not seeds)}
    for folder in asked.keys() - begun:  # of all, before the first is begun
        _require_new(folder)
    _require_alike(
        out, [read_run(folder)["train"] if folder in begun else its.to_json() for folder, its in asked.items()]
    )
    read = functools.lru_cache(maxsize=1)(read_data)  # seeds have the same data
    opened = [_open(folder, its, inputs, folder in begun, read) for folder, its in asked.items()]
    _train(opened)
    figures = [_report(run.trainer, run.fit_seconds) if ranks.leads() else {} for run in opened]
    if left := [run.trainer for run in opened if run.trainer.step < run.trainer.config.steps]:
        if ranks.leads():
            at = f"at step {left[0].step} of {left[0].config.steps}"
            print(f"{out} has stopped {at}; the same command with --resume goes on from there", file=sys.stderr)
        raise KeyboardInterrupt
    if [*asked] == [out] or not ranks.leads():
        return figures[0]
    shown = ("step", "updates_per_s", "fit_seconds")  # the rest is in each folder
    each = zip(opened, figures, strict=True)
    return {"runs": [{"run": str(run.trainer.folder), **{name: of[name] for name in shown}} for run, of in each]}


def _require_alike(out: Path, options: list[dict[str, Any]]) -> None:
    """Raise InputError unless these differ in their seeds alone: one batch has the options of the first."""
    plain = [{**TrainConfig.from_json(one).to_json(), "seed": 0} for one in options]
    if any(one != plain[0] for one in plain):
        problem = "would train seeds of different options as one batch"
        raise InputError(out, problem, "repeat the options that its runs began with, or resume one of its folders")


def _require_new(out: Path) -> None:
    if out.exists():
        raise InputError(out, "already exists", "choose another --out, remove it, or add --resume")
    require_new(out)


@dataclass(frozen=True)
class Run:
    """A run that is ready to train.

    Attributes:
        scorer: Of its learning curve.
        fit_seconds: What it took to fit the alignment.
    """

    trainer: Trainer
    scorer: Scorer
    fit_seconds: float


def _open(
    out: Path, config: TrainConfig, inputs: Inputs, resume: bool, read: Callable[[Inputs, AlignmentName], Data]
) -> Run:
    """Begin the run in `out`, or go on with it."""
    run = None
    if resume:
        run = read_run(out)
        refuse_others(out, run, config, inputs)
        config, inputs = TrainConfig.from_json(run["train"]), Inputs.of(run, out, inputs)
    else:
        config.require_valid()
        if config.ignored:
            options = ", ".join(f"--{name}.*" for name in sorted(config.ignored))
            warnings.warn(f"{options}: of no use to {config.agent} with {config.alignment}", stacklevel=2)
    machine = load_robot(inputs.robot)
    if inputs.score is not None:  # an engine may refuse a robot
        make_plant(machine, "bullet", load_scenario(machine, inputs.score), np.random.default_rng()).close()
    data, twin = read(inputs, config.alignment), config.alignment_config
    if isinstance(twin, TwinConfig) and data.scenario != twin.scenario:
        problem = f"is {twin.scenario!r}, and the target data are of {data.scenario!r}"
        raise InputError(f"--{config.alignment}.scenario", problem, "name the scenario of the data")
    before = None if run is None else {*run["dataset_hashes"].values()}  # keys are paths as first given
    if before is not None and not {*data.hashes.values()} <= before:
        raise InputError(out, "its datasets have changed since the run began", "restore them or train anew")
    saved = resume and ((out / CHECKPOINT).exists() or last_step(out) > 0)  # else it ended before the first step
    state = read_checkpoint(out) if saved else None
    began = time.perf_counter()
    trainer = build(
        out, data.domains, data.normaliser, load_task(machine), machine, config, state, data.stream, inputs.scratch
    )
    fit_seconds = time.perf_counter() - began
    ranks.wait()  # the others have seen that `out` is new
    if not resume and ranks.leads():
        _write_config(out, machine, inputs, data, config)
    return Run(trainer, _scorer(trainer, data.normaliser, machine, inputs.score), fit_seconds)


def helped(arguments: list[str]) -> Callable[..., dict[str, Any]]:
    """`train` as its --help shows it: of the hyperparameters only those that these arguments ask for."""
    chosen = argparse.ArgumentParser("landbridge train", add_help=False, allow_abbrev=False)
    chosen.add_argument("--agent", default=TrainConfig.agent)
    chosen.add_argument("--alignment", default=TrainConfig.alignment)
    kind = only_used(**vars(chosen.parse_known_args(arguments)[0]))

    @functools.wraps(train)
    def shown(*args: Any, **others: Any) -> dict[str, Any]:
        return train(*args, **others)

    del vars(shown)["__wrapped__"]  # else its help is `train`'s
    given = inspect.signature(train)
    config = given.parameters["config"].replace(default=kind())
    shown.__annotations__ = {**train.__annotations__, "config": Annotated[kind, tyro.conf.arg(name="")]}
    vars(shown)["__signature__"] = given.replace(parameters=[*({**given.parameters, "config": config}).values()])
    return shown


def _write_config(out: Path, robot: Robot, inputs: Inputs, data: Data, config: TrainConfig) -> None:
    """Make the run's folder, and in it what the run is resumed and exported from; nothing if that fails."""
    plain = {
        **inputs.to_json(),
        "robot_hash": robot.spec.digest(),
        "dataset_hashes": data.hashes | unread_hashes(robot, inputs, config.alignment),
        "obs_mean": data.normaliser.mean.tolist(),
        "obs_std": data.normaliser.std.tolist(),
        "train": config.to_json(),
        "provenance": {"commit": commit(), "created": now(), "torch": torch.__version__, **data.calibrations},
    }
    _require_new(out)  # nor has another process begun it during the fit
    write_atomic(out / CONFIG, json.dumps(plain, indent=2) + "\n")


def _scorer(trainer: Trainer, normaliser: Normaliser, robot: Robot, scenario: str | None) -> Scorer:
    """A function of the step that gives `success` and `return` when it is time for a point of the learning curve."""
    if scenario is None:
        return lambda step: {}
    total, rung = trainer.config.steps, load_scenario(robot, scenario)
    scored = trainer.step * SCORES // total

    def at(step: int) -> dict[str, float | str]:
        nonlocal scored
        if step * SCORES // total == scored:
            return {"success": "", "return": ""}
        scored = step * SCORES // total
        actor = Actor([trainer.agent], normaliser)
        success, returns = score_policy(
            lambda batch, rng: actor.numpy, robot, "bullet", rung, SCORE_EPISODES, trainer.config.seed
        )
        return {"success": float(success.mean()), "return": float(returns.mean())}

    return at


def _train(opened: list[Run]) -> None:
    """Run to the end or to a Ctrl-C; the first rank with a progress bar, and metrics.csv and TensorBoard of each."""
    trainers = [run.trainer for run in opened]
    with _interruptible() as stop, ExitStack() as stack:
        if not ranks.leads():
            loop.run(trainers, lambda trainer, metrics: None, stop)
            return
        logs = {run.trainer: stack.enter_context(Log(run.trainer.folder, run.trainer.step)) for run in opened}
        scorers = {run.trainer: run.scorer for run in opened}
        lead, several = trainers[0], f", {len(trainers)} seeds" if len(trainers) > 1 else ""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        progress = stack.enter_context(Progress(*columns, console=Console(stderr=True)))
        name = f"{lead.config.agent} {lead.config.alignment}{several}"
        bar = progress.add_task(name, total=lead.config.steps, completed=lead.step)

        def on_block(trainer: Trainer, metrics: dict[str, float]) -> None:
            logs[trainer].write(trainer.step, metrics | scorers[trainer](trainer.step))
            progress.update(bar, completed=trainer.step)

        loop.run(trainers, on_block, stop)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask the loop to end after its block; a second one ends it at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(signum: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def _report(trainer: Trainer, fit_seconds: float) -> dict[str, Any]:
    """Write diagnostics.json and .npz; returns the figures."""
    found = trainer.alignment.diagnostics()
    agent, alignment = trainer.seconds["agent"], trainer.seconds["alignment"]
    figures: dict[str, Any] = {
        "step": trainer.step,
        "updates_per_s": trainer.step / max(agent + alignment, 1e-9),
        "alignment_overhead": alignment / max(agent, 1e-9),
        "fit_seconds": fit_seconds,
        **found.figures,
    }
    write_atomic(trainer.folder / "diagnostics.npz", npz(**found.arrays), RESUMED)
    text = json.dumps(figures, indent=2) + "\n"
    write_atomic(trainer.folder / DIAGNOSTICS, text, RESUMED)  # last: the run is complete
    return figures
