"""Tune a behaviour's parameters in simulation by CMA-ES (Hansen, arXiv:1604.00772), into its `behaviour.yaml`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import cma
import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from landbridge.errors import InputError
from landbridge.files import write_atomic
from landbridge.observation import Observer
from landbridge.provenance import commit
from landbridge.robot import Robot, load_robot
from landbridge.simulation.behaviour import BehaviourFile, Tuned, load_behaviours, read_behaviours
from landbridge.simulation.calibrated import choose_scenario
from landbridge.simulation.plant import Engine, opened
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import Scenario
from landbridge.spec import require_at_least, require_seed
from landbridge.task import load_task

TUNED = "tuned"  # the scripted behaviour of a robot
EPISODES = 8  # a candidate, where it is tuned anew


def tune(
    robot: str,
    /,
    behaviour: str = TUNED,
    scenarios: tuple[str, ...] | None = None,
    engine: Engine = "mujoco",
    generations: int = 40,
    episodes: int = 12,
    seed: int = 0,
    calibration: Path | None = None,
) -> dict[str, float | str]:
    """Tune a behaviour's parameters for the highest return.

    Example: landbridge robot tune furuta --generations 40

    Args:
        robot: Name of a robot, or a robot folder.
        behaviour: Entry of the robot's behaviour.yaml to replace.
        scenarios: Rungs to run on, each with the same number of episodes; by default `none`.
        engine: Physics engine.
        generations: Generations of CMA-ES.
        episodes: Episodes per rung and candidate; all candidates get the same start states.
        seed: Seed of the search and of the start states.
        calibration: File of `landbridge calibrate identify`; tunes in that simulator in place of the rungs.

    Returns:
        Success and mean return of the result on fresh start states.
    """
    asked: tuple[str | None, ...] = (None,) if scenarios is None else scenarios
    for option, count in (("--generations", generations), ("--episodes", episodes), ("--scenarios", len(asked))):
        require_at_least(option, count, 1)
    require_seed(seed)
    machine = load_robot(robot)
    path = machine.folder / "behaviour.yaml"
    start = read_behaviours(path)
    if behaviour not in start.behaviours:
        raise InputError(path, f"no behaviour {behaviour!r}", f"name one of {', '.join(start.behaviours)}")
    rungs = [choose_scenario(machine, name, calibration) for name in asked]
    values, value, success = search(machine, start, behaviour, rungs, engine, generations, episodes, seed)
    command = f"landbridge robot tune {' '.join(sys.argv[3:])}"
    found = Tuned(made_by=f"{command} (commit {commit()}, success {success:.2f})", parameters=values)
    write_atomic(path, yaml.safe_dump(replaced(start, behaviour, found).model_dump(), sort_keys=False, width=120))
    return {"return": value, "success": success, "path": str(path)}


def replaced(start: BehaviourFile, behaviour: str, tuned: Tuned) -> BehaviourFile:
    """`start` with `tuned` in place of its entry `behaviour`."""
    return start.model_copy(update={"behaviours": start.behaviours | {behaviour: tuned}})


def require_tuned(robot: Robot, mix: Sequence[str]) -> None:
    """Raise InputError unless `tuned` is one of the behaviours of `mix` or moves with one: they are tried on noise."""
    path = robot.folder / "behaviour.yaml"
    start = read_behaviours(path)
    if TUNED not in start.behaviours:
        raise InputError(path, f"no behaviour {TUNED!r}", "give it one, or do not retune")
    moved = {name: 1.5 * value for name, value in start.behaviours[TUNED].parameters.items()}
    other = replaced(start, TUNED, Tuned(made_by="", parameters=moved))
    size = Observer(robot.spec).size
    obs = np.random.default_rng(0).standard_normal((64, size)).astype(np.float32)

    def actions(parameters: BehaviourFile, name: str) -> NDArray[np.floating]:
        return load_behaviours(robot, parameters)[name](len(obs), np.random.default_rng(0))(obs)

    if all(np.array_equal(actions(start, name), actions(other, name)) for name in mix):
        raise InputError("--retune", f"tunes {TUNED!r}, on which none of {sorted(mix)} builds", f"add {TUNED} to --mix")


def retuned(
    robot: Robot, rung: Scenario, engine: Engine, generations: int, seed: int
) -> tuple[BehaviourFile, dict[str, float]]:
    """The robot's behaviours with `tuned`, and what builds on it, tuned for `rung`, and how: see `DatasetMetadata`."""
    start = read_behaviours(robot.folder / "behaviour.yaml")
    values, value, success = search(robot, start, TUNED, [rung], engine, generations, EPISODES, seed)
    tuned = replaced(start, TUNED, Tuned(made_by=f"{generations} generations (commit {commit()})", parameters=values))
    return tuned, {"generations": generations, "success": success, "return": value, **values}


def search(
    robot: Robot,
    start: BehaviourFile,
    behaviour: str,
    rungs: Sequence[Scenario],
    engine: Engine,
    generations: int,
    episodes: int,
    seed: int,
    origins: Sequence[str] | None = None,
) -> tuple[dict[str, float], float, float]:
    """The best parameters of `behaviour` for `rungs`, their mean return and success on fresh start states.

    The search begins at whichever of the entries `origins`, by default all with the same parameters, does best there:
    one that was tuned for the nominal robot may be a poor place to begin in a simulator far from it.
    """
    task = load_task(robot)
    names = list(start.behaviours[behaviour].parameters)
    begins = [
        np.log([entry.parameters[parameter] for parameter in names])
        for name, entry in start.behaviours.items()
        if entry.parameters.keys() == set(names) and (origins is None or name in origins)
    ]

    def values(logs: NDArray[np.float64]) -> dict[str, float]:
        return {name: float(f"{value:.5g}") for name, value in zip(names, np.exp(logs), strict=True)}

    each = [rung for rung in rungs for _ in range(episodes)]
    rngs = [np.random.default_rng([seed, i]) for i in range(len(each))]  # of pushes and measurement noise
    with opened(robot, engine, each, rngs) as plants:

        def score(logs: NDArray[np.float64], seed: int) -> tuple[float, float]:
            made = load_behaviours(robot, replaced(start, behaviour, Tuned(made_by="", parameters=values(logs))))
            rng = np.random.default_rng(seed)
            runs = lockstep(plants, task, made[behaviour](len(plants), rng), rng)
            returns, success = [run.rewards.sum() for run in runs], [task.success(run.obs) for run in runs]
            return float(np.mean(returns)), float(np.mean(success))

        origin = max(begins, key=lambda logs: score(logs, seed)[0])
        strategy = cma.CMAEvolutionStrategy(origin, 0.3, {"seed": seed + 1, "verbose": -9})
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task("tune", total=generations)
            for generation in range(generations):
                candidates = strategy.ask()
                strategy.tell(candidates, [-score(x, seed + generation)[0] for x in candidates])
                progress.update(bar, advance=1, description=f"return {-strategy.best.f:.1f}")
        best = max((np.asarray(strategy.result.xfavorite), origin), key=lambda logs: score(logs, seed + 20_000)[0])
        return values(best), *score(best, seed + 10_000)
