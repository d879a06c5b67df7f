"""What a robot is asked to do: reward, termination and success as pure functions.

The robot's `task.py` defines `make_task(observer) -> Task`. The same object labels simulated steps, ingested rollouts
and predicted transitions, so a rollout of the real robot is scored by the very function that scored the simulator.
"""

from __future__ import annotations

import hashlib
import inspect
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.observation import Base, Observer
from landbridge.robot import Robot

Floats = NDArray[np.floating]


MOST_STEPS = 1_000_000  # of an episode, which is held in memory


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

    def require_exploring(self) -> None:
        """Raise InputError, of a command's `--exploring`, unless it has."""
        if not self.explores:
            problem = f"{self.observer.spec.name}'s task has no exploring states"
            raise InputError("--exploring", problem, "leave it out")

    def digest(self) -> str:
        """SHA-256 of the class's source text: data of another digest carry rewards of another function.

        What the class reads of its module or of the robot is not in it; so training holds labels to the function itself
        (`landbridge.training.dataset`).
        """
        return hashlib.sha256(inspect.getsource(type(self)).encode()).hexdigest()


def load_task(robot: Robot) -> Task:
    """The task of `robot`, from its `task.py`.

    Raises:
        InputError: It cannot be made, or what it says of a robot at its start is of another shape than `Task` asks for.
    """
    path, make = robot.folder / "task.py", robot.defined("task", "make_task")
    with robot.blamed("task"):
        task = make(Observer(robot.spec))
        if not isinstance(task, Task):
            raise InputError(path, f"make_task returns {task!r:.80}", "return an object of a class derived from Task")
        if not (isinstance(task.name, str) and 1 <= task.episode_steps <= MOST_STEPS):
            problem = f"{task.name!r} has episodes of {task.episode_seconds} s: {task.episode_steps} control steps"
            raise InputError(path, problem, f"give a name, and episodes of 1 to {MOST_STEPS} steps")
        _require_shapes(task, path)
    return task


def first_observations(task: Task, batch: int) -> NDArray[np.float32]:
    """Observations (batch, n) of robots at a start of `task`, a floating base level and at rest."""
    observer = task.observer
    joint_pos, joint_vel = task.initial_state(np.random.default_rng(0), batch)
    level, still = np.tile([1.0, 0.0, 0.0, 0.0], (batch, 1)), np.zeros((batch, 3))
    return observer(joint_pos, joint_vel, observer.initial_history(batch), Base(level, still, still))


def _require_shapes(task: Task, path: Path) -> None:
    batch = (2, 3)
    joints = (batch[1], len(task.observer.spec.joints))
    for start in (task.initial_state, task.exploring_state):
        for values, name in zip(start(np.random.default_rng(0), batch[1]), ("positions", "velocities"), strict=True):
            _require_shape(path, f"{start.__name__}'s {name}", values, joints)
    obs = np.broadcast_to(first_observations(task, batch[1]), (*batch, task.observer.size))
    action = np.zeros((*batch, task.observer.num_actions), np.float32)
    _require_shape(path, "reward", task.reward(obs, action, obs), batch)
    ended = task.terminated(obs, action, obs)
    _require_shape(path, "terminated", ended, batch)
    if ended.dtype != np.bool_:
        raise InputError(path, f"terminated is an array of {ended.dtype}", "return booleans")
    if not isinstance(succeeded := task.success(obs[0]), bool | np.bool_):
        raise InputError(path, f"success is {succeeded!r:.80}", "return one bool for a whole episode")


def _require_shape(path: Path, name: str, values: object, shape: tuple[int, ...]) -> None:
    found = f"of shape {values.shape}" if isinstance(values, np.ndarray) else f"a {type(values).__name__}"
    if not isinstance(values, np.ndarray) or values.shape != shape:
        remedy = "see landbridge.task.Task: batch dimensions lead"
        raise InputError(path, f"{name} is {found}, where an array of shape {shape} is needed", remedy)
    if not np.isfinite(values).all():
        raise InputError(path, f"{name} has values that are not finite", "correct it")
