"""Which of several policies, or their mean, will do best on the robot: what does in a simulator calibrated to it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from landbridge.robot import Robot, load_robot
from landbridge.simulation.behaviour import Behaviour
from landbridge.simulation.calibrated import choose_scenario
from landbridge.simulation.scenario import Scenario
from landbridge.task import load_task
from landbridge.training.policy import load_policy
from landbridge.training.run import read_run, runs_of
from landbridge.training.scoring import score

EPISODES = 50  # per kind of start states
SEED = 1000  # of their start states and noise
AGAIN = 2000  # of those by which the one that was chosen is judged: the best of several had luck in its episodes


class Foretold(NamedTuple):
    """How a policy does in the calibrated simulator; of two, the greater is to be preferred.

    Attributes:
        success: Share of episodes, over both kinds of start states.
        returned: Mean return, which decides between policies that succeed alike.
        by_start: Success from the task's start states and, where it has such, from its exploring ones.
    """

    success: float
    returned: float
    by_start: tuple[float, ...]

    def __str__(self) -> str:
        places = ("from the task's start states", "from anywhere")
        return ", ".join(f"{success:.2f} {place}" for success, place in zip(self.by_start, places, strict=False))


def foretell(policy: Behaviour, robot: Robot, simulator: Scenario, seed: int = SEED) -> Foretold:
    """Score a policy in a simulator, from the task's start states and, where it has such, from anywhere.

    From the start states alone an episode is often one manoeuvre, repeated, and many policies have it.
    """
    kinds = (False, True) if load_task(robot).explores else (False,)
    found = [score(policy, robot, "mujoco", simulator, EPISODES, seed, exploring=exploring) for exploring in kinds]
    by_start = tuple(float(success.mean()) for success, _ in found)
    return Foretold(float(np.mean(by_start)), float(np.mean([returns.mean() for _, returns in found])), by_start)


def best(folder: Path, calibration: Path) -> tuple[Path, Foretold, dict[Path, Foretold]]:
    """Of the runs of a folder, and of the mean of them all, what does best in the simulator of a calibration.

    Returns:
        The run, or the folder for the mean; what is foretold of it, from other episodes than it was chosen by; and by
        which it was chosen, of every candidate.

    Raises:
        InputError: The folder has no run, or the file is no calibration, or of another robot.
    """
    runs = runs_of(folder)
    robot = load_robot(read_run(runs[0])["robot"])
    simulator = choose_scenario(robot, None, calibration)
    candidates = [*runs, folder] if len(runs) > 1 else runs
    found = {
        one: foretell(load_policy(one, robot), robot, simulator)
        for one in track(candidates, "foretell", console=Console(stderr=True))
    }
    chosen = max(found, key=lambda one: found[one])
    return chosen, foretell(load_policy(chosen, robot), robot, simulator, AGAIN), found
