"""`landbridge evaluate`: success and return of policies in simulation, on the same episodes."""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from landbridge.bundle import read_bundle
from landbridge.errors import InputError
from landbridge.manifest import CALIBRATION
from landbridge.robot import Robot, load_robot
from landbridge.simulation.behaviour import Behaviour, load_behaviours, require_actions
from landbridge.simulation.calibrated import CALIBRATED, choose_scenario
from landbridge.simulation.compensation import load_compensation, require_nominal
from landbridge.simulation.plant import Engine
from landbridge.spec import require_distinct, require_seed
from landbridge.task import load_task
from landbridge.training.policy import load_policy
from landbridge.training.run import CONFIG, has_reached, read_run, runs_of
from landbridge.training.scoring import score, summary

BEHAVIOUR = "behaviour:"
SEVERE = "severe"  # the rung that is taken where none is named


def evaluate(
    policies: list[str],
    robot: str = "furuta",
    engine: Engine = "bullet",
    scenario: str | None = None,
    episodes: int = 50,
    seed: int = 0,
    write_ms: float = 0.0,
    calibration: Path | None = None,
    exploring: bool = False,
    compensate: Path | None = None,
) -> dict[str, Any]:
    """Score policies in simulation with bootstrap intervals.

    Every policy gets the same start states and measurement noise, so scores can be compared episode by episode. Where a
    task always begins alike, episodes are nearly copies of each other; `--exploring` shows how much a policy can do.

    Example: landbridge evaluate --policies runs/first runs/none behaviour:tuned --scenario severe --json

    Args:
        policies: Run folders (also of several seeds), bundles, or behaviour:NAME.
        robot: Name of a robot, or a folder with robot.yaml.
        engine: Physics engine.
        scenario: Rung of the robot's severity ladder, by default `severe`.
        episodes: Episodes per policy.
        seed: Of start states and noise.
        write_ms: Time from a measurement to the write of the command that answers it, as `landbridge ingest` prints
            it for a bag; the scenario's own latency comes on top.
        calibration: File of `landbridge calibrate identify`; scores in that simulator in place of a rung.
        exploring: Start from anywhere (the task's exploring states) in place of the task's own start states; some of
            these no policy can save.
        compensate: File of `landbridge calibrate identify`. Every command is compensated for friction that `robot.yaml`
            does not have and for a weak drive, as `landbridge up deploy --compensate` does on board.

    Returns:
        `policies`: per policy its success and return with 95 % intervals; `groups`: over the runs of one agent and
        alignment that differ in their seeds alone, of four or more also the interquartile mean.
    """
    torch.set_num_threads(1)  # see train
    if episodes < 1 or not policies:
        raise InputError("evaluate", f"{episodes} episodes of {len(policies)} policies", "give at least one of each")
    require_seed(seed)
    machine = load_robot(robot)
    if exploring:
        load_task(machine).require_exploring()
    rung = choose_scenario(machine, scenario, calibration, SEVERE)
    period_ms = 1000 * machine.spec.control_dt
    if not 0 <= write_ms <= period_ms:
        raise InputError("--write-ms", f"{write_ms:g} ms", f"give 0 to one control period, {period_ms:g} ms")
    if calibration is not None and write_ms:
        problem = "comes on top of a calibration, whose latency has the recording's median write in it already"
        raise InputError("--write-ms", problem, "leave it out")
    places = [name if name.startswith(BEHAVIOUR) else Path(name).resolve() for name in policies]
    require_distinct("--policies", policies, places)  # the same run twice would count as two
    found = {name: resolve(name, machine) for name in policies}
    compensation = None
    if compensate is not None:
        compensation = load_compensation(compensate, machine)
        for name in policies:
            require_nominal(Path(name), provenance(name))
    rows, groups = [], defaultdict(list)
    for name, policy in track(found.items(), "evaluate", console=Console(stderr=True)):
        place = machine, engine, rung, episodes, seed
        success, returns = score(
            policy, *place, write_after=write_ms / 1000, exploring=exploring, compensation=compensation
        )
        rows.append({"policy": shown_name(name, policies), **summary(success[None], returns[None])})
        if (Path(name) / CONFIG).is_file():
            run = read_run(Path(name))
            groups[_kind(run)].append((run["train"]["seed"], success, returns))
    facts = {"engine": engine, "scenario": CALIBRATED if calibration else scenario or SEVERE, "episodes": episodes}
    facts |= {"write_ms": write_ms, "exploring": exploring}
    facts |= {} if compensation is None else {"compensation": compensation.digest}
    pooled = [_pooled(kind, runs) for kind, runs in groups.items() if len({seed for seed, *_ in runs}) == len(runs) > 1]
    return {**facts, "policies": rows, "groups": pooled}


def _kind(run: dict[str, Any]) -> str:
    """What a run's seeds have in common: all but the seed, and the data, of which each may have had its own."""
    options = {name: value for name, value in run["train"].items() if name != "seed"}
    calibrated = sorted(name for name in run["provenance"] if name.endswith(CALIBRATION))
    return json.dumps(options | {"calibrated": calibrated}, sort_keys=True)


def _pooled(kind: str, runs: list[tuple[int, NDArray[np.float64], NDArray[np.float64]]]) -> dict[str, str | float]:
    """Figures over the runs of one kind: of seed, success and return (E,) of each, on the same episodes."""
    options = json.loads(kind)
    _, success, returns = (np.stack(scores) for scores in zip(*runs, strict=True))
    figures = summary(success, returns, same_episodes=True)
    return {"agent": options["agent"], "alignment": options["alignment"], "runs": len(runs), **figures}


def shown_name(name: str, policies: list[str]) -> str:
    """The last part of a policy's path, or all of it where another one ends alike."""
    last = Path(name).name
    return last if [Path(other).name for other in {*policies}].count(last) == 1 else name


def resolve(name: str, robot: Robot) -> Behaviour:
    """The policy called `name`, as something that starts a policy for a batch of episodes."""
    if not name.startswith(BEHAVIOUR):
        policy = load_policy(Path(name), robot)
        _warn_of_unfinished(Path(name))
        return policy
    behaviours, short = load_behaviours(robot), name.removeprefix(BEHAVIOUR)
    if short not in behaviours:
        raise InputError(name, f"no behaviour {short!r}", f"name one of {', '.join(behaviours)}")
    require_actions(robot, behaviours, [short])
    return behaviours[short]


def _warn_of_unfinished(path: Path) -> None:
    for run in runs_of(path):
        if (run / CONFIG).is_file() and not has_reached(run, steps := read_run(run)["train"]["steps"]):
            remedy = "`landbridge train --resume` goes on with it"
            warnings.warn(f"{run}: stopped before step {steps}; {remedy}", stacklevel=3)


def provenance(name: str) -> dict[str, str]:
    """Where the policy called `name` comes from, as its run or bundle says; of a behaviour nothing."""
    if name.startswith(BEHAVIOUR):
        return {}
    first = runs_of(Path(name))[0]
    if (first / CONFIG).is_file():
        return read_run(first)["provenance"]
    return read_bundle(Path(name)).manifest.provenance
