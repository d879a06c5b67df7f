"""What a robot is asked to do: reward, termination and success as pure functions.

The robot's `task.py` defines `make_task(spec) -> Task`. The same object labels simulated steps, ingested rollouts and
predicted transitions, so a rollout of the real robot is scored by the very function that scored the simulator.
"""

from __future__ import annotations

import hashlib
import inspect
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from landbridge.observation import Observer
from landbridge.robot import Robot

Floats = NDArray[np.floating]


class Task(ABC):
    """A task over one robot's observations. Batch dimensions lead: obs, next_obs (..., n), action (..., m).

    Attributes:
        name: Short name, stored with every dataset and bundle.
        episode_seconds: Length of an episode [s].
    """

    name: str
    episode_seconds: float

    def __init__(self, observer: Observer) -> None:
        self.observer = observer

    @property
    def episode_steps(self) -> int:
        """Control steps of a full episode."""
        return round(self.episode_seconds * self.observer.spec.control_rate_hz)

    @abstractmethod
    def reward(self, obs: Floats, action: Floats, next_obs: Floats) -> NDArray[np.float64]:
        """Reward (...,) of each transition."""

    @abstractmethod
    def terminated(self, obs: Floats, action: Floats, next_obs: Floats) -> NDArray[np.bool_]:
        """Whether each transition ends its episode (...,): its value beyond is zero."""

    @abstractmethod
    def success(self, obs: Floats) -> bool:
        """Whether one whole episode, obs (T + 1, n), reached the goal. An episode cut short did not."""

    @abstractmethod
    def initial_state(self, rng: np.random.Generator, batch: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Start positions and velocities (batch, J) in `spec.joint_names` order."""

    def exploring_state(self, rng: np.random.Generator, batch: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Like `initial_state`, but anywhere a simulator can put the robot, so that rare states are in its logs."""
        return self.initial_state(rng, batch)

    @property
    def explores(self) -> bool:
        """Whether it has exploring states of its own."""
        return type(self).exploring_state is not Task.exploring_state

    def digest(self) -> str:
        """SHA-256 of the class's source text: data of another digest carry rewards of another function.

        What the class reads of its module or of the robot is not in it; so training holds labels to the function itself
        (`landbridge.training.dataset`).
        """
        return hashlib.sha256(inspect.getsource(type(self)).encode()).hexdigest()


def load_task(robot: Robot) -> Task:
    """The task of `robot`, from its `task.py`."""
    task = robot.module("task").make_task(Observer(robot.spec))
    assert isinstance(task, Task)
    return task
