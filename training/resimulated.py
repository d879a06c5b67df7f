"""Source rows simulated again, one control period each, in another simulator than the one that made them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.robot import Robot
from landbridge.simulation.calibrated import choose_scenario
from landbridge.simulation.plant import Engine, make_plant
from landbridge.simulation.rollout import following
from landbridge.simulation.scenario import NOMINAL, Scenario
from landbridge.task import Task, load_task
from landbridge.training.dataset import Transitions


def next_states(data: Transitions, robot: Robot, task: Task, engine: Engine, scenario: Scenario) -> NDArray[np.float32]:
    """What a simulator without sensor noise would observe (N, n) one period after each row's obs and action.

    It is put into the state of every row, the actions in flight included. For a fixed base whose joints are all
    observed.
    """
    silent = scenario.model_copy(update={"joint_pos_noise": 0.0, "joint_vel_noise": 0.0})
    plant = make_plant(robot, engine, silent, np.random.default_rng(0))
    try:
        return following(plant, task.observer, data.obs, data.action)
    finally:
        plant.close()


def calibrated(robot: Robot, calibration: Path) -> Scenario:
    """The simulator of a calibration, in which any row of an observation can be simulated again.

    Raises:
        InputError: The file is unreadable or another robot's, or the robot's base is not fixed.
    """
    scenario = choose_scenario(robot, NOMINAL, calibration)
    if robot.spec.base != "fixed":
        problem = f"the base of {robot.spec.name!r} is {robot.spec.base}: its observation is not its whole state"
        raise InputError("--calibration", problem, "make the source with `collect --calibration`")
    return scenario


def resimulated(data: Transitions, robot: Robot, scenario: Scenario) -> Transitions:
    """The rows with the next state, reward and termination that they would have in MuJoCo under `scenario`."""
    task = load_task(robot)
    next_obs = next_states(data, robot, task, "mujoco", scenario)
    return replace(
        data,
        next_obs=next_obs,
        reward=task.reward(data.obs, data.action, next_obs).astype(np.float32),
        terminated=task.terminated(data.obs, data.action, next_obs),
    )
