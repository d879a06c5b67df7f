"""Tune a behaviour's parameters in simulation by CMA-ES (Hansen, arXiv:1604.00772), into its `behaviour.yaml`."""

from __future__ import annotations

import sys

import cma
import numpy as np
import tyro
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from landbridge.episode import commit
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.simulation.behaviour import BehaviourFile, Tuned, load_behaviours, read_behaviours
from landbridge.simulation.plant import Engine, make_plant
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import load_scenario
from landbridge.task import load_task


def tune(
    robot: str = "furuta",
    behaviour: str = "tuned",
    scenarios: tuple[str, ...] = ("none",),
    engine: Engine = "mujoco",
    generations: int = 40,
    episodes: int = 12,
    seed: int = 0,
) -> dict[str, float | str]:
    """Tune a behaviour's parameters for the highest return.

    Example: python -m landbridge.simulation.tune --robot furuta --generations 40

    Args:
        robot: Name of a robot, or a robot folder.
        behaviour: Entry of the robot's behaviour.yaml to start from and to replace.
        scenarios: Rungs to run on, each with the same number of episodes.
        engine: Physics engine.
        generations: Generations of CMA-ES.
        episodes: Episodes per rung and candidate; all candidates get the same start states.
        seed: Seed of the search and of the start states.

    Returns:
        Success and mean return of the result on fresh start states.
    """
    machine = load_robot(robot)
    task, path = load_task(machine), machine.folder / "behaviour.yaml"
    start = read_behaviours(path)
    if behaviour not in start.behaviours:
        raise InputError(path, f"no behaviour {behaviour!r}", f"name one of {', '.join(start.behaviours)}")
    names = list(start.behaviours[behaviour].parameters)
    origin = np.log(list(start.behaviours[behaviour].parameters.values()))
    rungs = [load_scenario(machine, name) for name in scenarios]
    rngs = [np.random.default_rng([seed, i]) for i in range(len(rungs) * episodes)]  # of pushes and measurement noise
    plants = [make_plant(machine, engine, rungs[i // episodes], rng) for i, rng in enumerate(rngs)]

    def replaced(logs: NDArray[np.float64], made_by: str = "") -> BehaviourFile:
        values = {name: float(f"{value:.5g}") for name, value in zip(names, np.exp(logs), strict=True)}
        tuned = Tuned(made_by=made_by, parameters=values)
        return start.model_copy(update={"behaviours": start.behaviours | {behaviour: tuned}})

    def score(logs: NDArray[np.float64], seed: int) -> tuple[float, float]:
        made = load_behaviours(machine, replaced(logs))
        rng = np.random.default_rng(seed)
        runs = lockstep(plants, task, made[behaviour](len(plants), rng), rng)
        return float(np.mean([run.rewards.sum() for run in runs])), float(np.mean([task.success(r.obs) for r in runs]))

    search = cma.CMAEvolutionStrategy(origin, 0.3, {"seed": seed + 1, "verbose": -9})
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("tune", total=generations)
        for generation in range(generations):
            candidates = search.ask()
            search.tell(candidates, [-score(x, seed + generation)[0] for x in candidates])
            progress.update(bar, advance=1, description=f"return {-search.best.f:.1f}")
    best = np.asarray(search.result.xfavorite)
    value, success = score(best, seed + 10_000)
    command = f"python -m landbridge.simulation.tune {' '.join(sys.argv[1:])}"
    found = replaced(best, f"{command} (commit {commit()}, success {success:.2f})")
    path.write_text(yaml.safe_dump(found.model_dump(), sort_keys=False, width=120))
    return {"return": value, "success": success, "path": str(path)}


if __name__ == "__main__":
    print(tyro.cli(tune))
