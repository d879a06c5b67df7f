"""Tune a behaviour's parameters in simulation by CMA-ES (Hansen, arXiv:1604.00772), into its `behaviour.yaml`."""

from __future__ import annotations

import sys

import cma
import numpy as np
import tyro
import yaml
from rich.console import Console
from rich.progress import Progress

from landbridge.episode import commit
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge.simulation.behaviour import Behaviour, read_parameters
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
    start = read_parameters(path)
    names = list(start[behaviour])
    origin = np.log([start[behaviour][name] for name in names])
    rungs = [load_scenario(machine, name) for name in scenarios]
    plants = [make_plant(machine, engine, rung) for rung in rungs for _ in range(episodes)]

    def score(logs: np.ndarray, seed: int) -> tuple[float, float]:
        values = {name: float(value) for name, value in zip(names, np.exp(logs), strict=True)}
        made: dict[str, Behaviour] = machine.module("behaviour").make_behaviours(
            Observer(machine.spec), start | {behaviour: values}
        )
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
    found = start | {behaviour: {n: float(f"{v:.5g}") for n, v in zip(names, np.exp(best), strict=True)}}
    command = f"python -m landbridge.simulation.tune {' '.join(sys.argv[1:])}"
    header = f"# {command}\n# at commit {commit()}: success {success}\n"
    path.write_text(header + yaml.safe_dump(found, sort_keys=False))
    return {"return": value, "success": success, "path": str(path)}


if __name__ == "__main__":
    print(tyro.cli(tune))
