"""Collection of simulated datasets: a mix of behaviours, run in lockstep, written as they come."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from landbridge.episode import DatasetMetadata, Episode, write_dataset
from landbridge.errors import InputError
from landbridge.files import require_new
from landbridge.progress import shown
from landbridge.robot import Robot, load_robot
from landbridge.simulation.behaviour import Behaviour, load_behaviours, source_mix
from landbridge.simulation.calibrated import CALIBRATED, read_calibration, recorded, require_either
from landbridge.simulation.plant import Engine, Plant, opened
from landbridge.simulation.randomised import draw_between
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import NOMINAL, Scenario, load_scenario
from landbridge.spec import require_seed
from landbridge.task import Task, load_task

RANDOMISED = "-randomised"  # after the scenario, in a dataset's metadata
EXPLORING = {"source": 0.5, "target": 0.0}  # share of the rollouts that start from anywhere: no robot can


@dataclass
class Tally:
    """What a collection has produced so far, by behaviour, and when it began, by wall clock and processor time [s]."""

    steps: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    successes: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    began: float = field(default_factory=time.perf_counter)
    began_cpu: float = field(default_factory=time.process_time)

    def figures(self) -> dict[str, Any]:
        """Rates until now, and the success of each behaviour."""
        steps = sum(self.steps.values())
        return {
            "steps_per_s": steps / (time.perf_counter() - self.began),
            "steps_per_cpu_s": steps / (time.process_time() - self.began_cpu),
            "success": {name: float(np.mean(values)) for name, values in self.successes.items()},
        }


class Simulated:
    """The robot that is simulated: as a rung of its ladder has it, `none` by default, or as a calibration found it.

    Attributes:
        name: The scenario, in a dataset's metadata.
        facts: Of the calibration, likewise.
        centre: Its simulator.

    Raises:
        InputError: There is no such rung, no such calibration, or both are named.
    """

    def __init__(self, robot: Robot, rung: str | None, calibration: Path | None) -> None:
        require_either(rung, calibration)
        self._robot, self._calibration = robot, None
        self.name, self.facts = NOMINAL if rung is None else rung, dict[str, Any]()
        if calibration is None:
            self.centre = load_scenario(robot, self.name)
            return
        self._calibration = read_calibration(calibration, robot)
        self.name, self.facts = CALIBRATED, recorded(calibration, self._calibration)
        self.centre = self._calibration.scenario(robot)

    def draws(self, rngs: list[np.random.Generator]) -> list[Scenario]:
        """One simulator each, from the calibration's posterior or between the nominal robot's and the rung's."""
        if self._calibration is not None:
            return [self._calibration.draw(self._robot, rng) for rng in rngs]
        if self.name == NOMINAL:
            problem = "draws between the nominal robot and a scenario, or from a calibration, and neither is named"
            raise InputError("--randomise", problem, "add --scenario RUNG or --calibration FILE")
        return [draw_between(self._robot, self.name, rng) for rng in rngs]


def collect(
    out: Path,
    robot: str = "furuta",
    steps: int = 100_000,
    scenario: str | None = None,
    engine: Engine = "mujoco",
    mix: dict[str, float] | None = None,
    domain: Literal["source", "target"] = "source",
    exploring: float | None = None,
    batch: int = 16,
    seed: int = 0,
    calibration: Path | None = None,
    randomise: bool = False,
    retune: int = 0,
) -> dict[str, Any]:
    """Simulate behaviour policies into a dataset.

    Example: landbridge collect --out data/source --steps 100000

    Example: landbridge collect --out data/target --engine bullet --scenario severe --domain target --mix excite 1
        --steps 3000

    Args:
        out: Dataset folder to write; must not exist.
        robot: Name of a robot, or a robot folder.
        steps: Control steps; the last episode is cut to give exactly this many.
        scenario: Rung of the robot's severity ladder; by default `none`.
        engine: Physics engine.
        mix: Share of the steps of each behaviour; by default SOURCE_MIX of the robot's behaviour.py.
        domain: What the dataset stands for in training.
        exploring: Share of the rollouts that start from anywhere (`Task.exploring_state`); by default 0.5 for a source
            and 0 for a target, since a real robot cannot be put anywhere.
        batch: Episodes run in lockstep, no more than there are steps.
        seed: The same seed gives the same arrays.
        calibration: File of `landbridge calibrate identify`; simulates that robot in place of a rung.
        randomise: Draw the parameters of each of the `batch` simulators: from the calibration's posterior, or between
            the nominal robot's and the scenario's.
        retune: Generations of CMA-ES that first tune the behaviour `tuned` for the calibration or scenario; 20 take a
            minute or two. A behaviour tuned for the nominal robot seldom succeeds in another.

    Returns:
        Path, steps, episodes, rate [control steps/s, writing included] by wall clock and by processor time, the success
        of each behaviour, and the success and parameters of a retuned one.
    """
    machine = load_robot(robot)
    task, shares = load_task(machine), source_mix(machine, mix)
    explored = EXPLORING[domain] if exploring is None else exploring
    require_seed(seed)
    if exploring:
        task.require_exploring()
    _refuse(out, steps, batch, retune, explored)
    batch = min(batch, steps)
    first, *rngs = (np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(batch + 1))
    simulated = Simulated(machine, scenario, calibration)
    rungs = simulated.draws(rngs) if randomise else [simulated.centre] * batch
    behaviours, tuned = load_behaviours(machine), dict[str, float]()
    if retune:
        behaviours, tuned = _retuned(machine, shares, simulated.centre, engine, retune, seed)
    quota = _quota(shares, steps)
    with opened(machine, engine, rungs, rngs) as plants:
        tally = Tally()
        metadata = DatasetMetadata.of(
            machine.spec,
            task=task.name,
            task_hash=task.digest(),
            domain=domain,
            engine=engine,
            engine_version=plants[0].engine_version,
            scenario=simulated.name + (RANDOMISED if randomise else ""),
            controllers=quota,  # met exactly, so it can be written before the first episode
            measured_rate_hz=machine.spec.control_rate_hz,
            seed=seed,
            retuned=tuned,
            **simulated.facts,
        )
        episodes = _episodes(behaviours, task, plants, quota, first, tally, explored)
        dataset = write_dataset(out, shown("collect", episodes, steps), metadata)
    made = {"path": str(dataset.path), "steps": dataset.transitions, "episodes": len(dataset)}
    return made | tally.figures() | ({"retuned": tuned} if tuned else {})


def _refuse(out: Path, steps: int, batch: int, retune: int, exploring: float) -> None:
    if steps < 1 or batch < 1:
        raise InputError("collect", f"steps is {steps} and batch is {batch}", "give positive numbers")
    require_new(out)
    if retune < 0:
        raise InputError("--retune", f"is {retune}", "give a number of generations, about 20")
    if not 0 <= exploring <= 1:
        raise InputError("--exploring", f"is {exploring}", "give a share from 0 to 1")


def _retuned(
    robot: Robot, shares: dict[str, float], rung: Scenario, engine: Engine, generations: int, seed: int
) -> tuple[dict[str, Behaviour], dict[str, float]]:
    """The robot's behaviours with `tuned` tuned for `rung`, and what was found."""
    from landbridge.simulation.tune import require_tuned, retuned  # CMA-ES takes a second to import

    require_tuned(robot, list(shares))
    tuned, found = retuned(robot, rung, engine, generations, seed)
    return load_behaviours(robot, tuned), found


def _quota(shares: dict[str, float], steps: int) -> dict[str, int]:
    """Whole steps of each behaviour, summing to `steps`."""
    edges = np.round(np.cumsum([0.0, *shares.values()]) * steps).astype(int)
    return {name: int(n) for name, n in zip(shares, np.diff(edges), strict=True) if n > 0}


def _episodes(
    behaviours: dict[str, Behaviour],
    task: Task,
    plants: list[Plant],
    quota: dict[str, int],
    rng: np.random.Generator,
    tally: Tally,
    exploring: float,
) -> Iterator[Episode]:
    """Episodes of each behaviour until its quota of steps is met exactly, the last one truncated.

    Whether a rollout explores is drawn anew for each lockstep of at most `len(plants)` episodes.
    """
    for name, steps in quota.items():
        while tally.steps[name] < steps:
            used = plants[: max(1, -(-(steps - tally.steps[name]) // task.episode_steps))]
            policy = behaviours[name](len(used), rng)
            for episode in lockstep(used, task, policy, rng, exploring=bool(rng.random() < exploring)):
                left = steps - tally.steps[name]
                if left == 0:
                    break
                tally.successes[name].append(task.success(episode.obs))
                tally.steps[name] += min(len(episode), left)
                yield episode.cut(left)
