"""Transitions of one domain, packed rows for the training loop, and the normaliser of both domains."""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landbridge.episode import Dataset, Episode, open_dataset
from landbridge.errors import InputError
from landbridge.robot import Robot
from landbridge.task import Task, load_task

STD_FLOOR = 1e-3  # a column that never moves divides by this, not by zero
LABELLED = ("mujoco", "bullet", "ros2")  # engines whose rollouts the robot's task labels; other data bring their own
MIN_TARGET = 64  # transitions; fewer cannot be split into training and held-out rows


@dataclass(frozen=True)
class Transitions:
    """Transitions of one domain, in physical (unnormalised) units.

    Attributes:
        obs, next_obs: (N, n) float32.
        action: (N, m) float32 in [-1, 1].
        reward: (N,) float32.
        terminated: (N,) bool. A truncated transition is not terminated: its value goes on.
        episode: (N,) int64, which episode each row belongs to; rows of an episode are consecutive.
    """

    obs: NDArray[np.float32]
    action: NDArray[np.float32]
    reward: NDArray[np.float32]
    next_obs: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    episode: NDArray[np.int64]

    @classmethod
    def of(cls, episode: Episode, number: int) -> Transitions:
        """The transitions of one episode, which has this number."""
        e = episode
        return cls(e.obs[:-1], e.actions, e.rewards, e.obs[1:], e.terminated, np.full(len(e), number, np.int64))

    @classmethod
    def of_episodes(cls, episodes: Iterable[Episode]) -> Transitions:
        """The transitions of all episodes, numbered in order."""
        return cls.joined([cls.of(episode, i) for i, episode in enumerate(episodes)])

    def __len__(self) -> int:
        """Number of transitions N."""
        return len(self.obs)

    @classmethod
    def joined(cls, parts: list[Transitions]) -> Transitions:
        """The rows of all parts, in order."""
        return cls(*(np.concatenate([getattr(p, f) for p in parts]) for f in cls.__dataclass_fields__))

    def __getitem__(self, rows: slice | NDArray[np.bool_] | NDArray[np.intp]) -> Transitions:
        """The transitions at `rows`."""
        return Transitions(
            self.obs[rows],
            self.action[rows],
            self.reward[rows],
            self.next_obs[rows],
            self.terminated[rows],
            self.episode[rows],
        )

    def digest(self) -> str:
        """SHA-256 of the numbers; independent of how the file stores them."""
        sha = hashlib.sha256()
        for array in (self.obs, self.action, self.reward, self.next_obs, self.terminated, self.episode):
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()


class Batch(NamedTuple):
    """Rows of the training loop: obs, next_obs (N, n) normalised; action (N, m); reward, not_terminated (N,).

    `extra` (N, c) is what an alignment cached for each row; `not_terminated` is 1 where the value goes on.
    """

    obs: Tensor
    action: Tensor
    next_obs: Tensor
    reward: Tensor
    not_terminated: Tensor
    extra: Tensor


@dataclass(frozen=True)
class Moments:
    """Number of rows, their mean (n,) and variance (n,)."""

    count: int
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]

    @classmethod
    def of(cls, obs: NDArray[np.floating]) -> Moments:
        """Of rows (N, n)."""
        exact = obs.astype(np.float64)
        return cls(len(exact), exact.mean(0), exact.var(0))

    def joined(self, other: Moments) -> Moments:
        """Of the rows of both (Chan, Golub, LeVeque 1983, The American Statistician 37(3), eq. 1.5)."""
        count = self.count + other.count
        share, step = other.count / count, other.mean - self.mean
        variance = (1 - share) * self.variance + share * other.variance + share * (1 - share) * step**2
        return Moments(count, self.mean + share * step, variance)


@dataclass(frozen=True)
class Normaliser:
    """Per-column mean and std (n,) of the observations; normalised = (obs - mean) / std."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def of(cls, domains: list[Transitions], names: list[str]) -> Normaliser:
        """Pooled over all rows of all domains; a column without variance is named in a warning."""
        return cls.of_moments(Moments.of(np.concatenate([d.obs for d in domains])), names)

    @classmethod
    def of_moments(cls, moments: Moments, names: list[str]) -> Normaliser:
        """Of the moments of all rows of all domains."""
        std = np.sqrt(moments.variance)
        if flat := [name for name, s in zip(names, std, strict=True) if s < STD_FLOOR]:
            warnings.warn(f"observation columns that never change: {', '.join(flat)}", stacklevel=2)
        return cls(moments.mean, np.maximum(std, STD_FLOOR))

    def __call__(self, obs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Normalised obs (..., n)."""
        return ((obs - self.mean) / self.std).astype(np.float32)

    def undo(self, obs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Observations (..., n) in physical units of normalised ones."""
        return (obs * self.std + self.mean).astype(np.float32)


def triples(data: Transitions, normaliser: Normaliser) -> Tensor:
    """[s | a | s'] (N, 2 n + m), observations normalised: what a transition is compared by."""
    return torch.from_numpy(np.concatenate([normaliser(data.obs), data.action, normaliser(data.next_obs)], axis=1))


def pack(data: Transitions, normaliser: Normaliser, extra: NDArray[np.float32], reward_scale: float = 1.0) -> Tensor:
    """One row [obs | action | next_obs | reward | not_terminated | extra] per transition: one index_select per step."""
    columns = [
        normaliser(data.obs),
        data.action,
        normaliser(data.next_obs),
        data.reward[:, None] * np.float32(reward_scale),
        ~data.terminated[:, None],
        extra,
    ]
    return torch.from_numpy(np.concatenate([c.astype(np.float32) for c in columns], axis=1))


def unpack(rows: Tensor, obs_size: int, action_size: int) -> Batch:
    """Views of packed rows (N, 2 n + m + 2 + c)."""
    n, m = obs_size, action_size
    sizes = [n, m, n, 1, 1, rows.shape[1] - 2 * n - m - 2]
    obs, action, next_obs, reward, not_terminated, extra = torch.split(rows, sizes, dim=1)
    return Batch(obs, action, next_obs, reward[:, 0], not_terminated[:, 0], extra)


def load_domains(robot: Robot, paths: dict[str, Path]) -> dict[str, Transitions]:
    """Read the datasets named `source` and `target` in `paths`, of one robot and task.

    Raises:
        InputError: A dataset is of another domain, robot or task, has NaN or Inf, actions outside [-1, 1] or (target)
            too few transitions.
    """
    return {name: read_whole(robot, name, dataset) for name, dataset in open_domains(robot, paths).items()}


def read_whole(robot: Robot, domain: str, dataset: Dataset) -> Transitions:
    """All transitions of a dataset that `open_domain` opened; raises InputError as `load_domains`."""
    whole = next(read_chunks(dataset, load_task(robot), sys.maxsize))
    if domain == "target" and (rows := len(whole)) < MIN_TARGET:
        problem = f"only {rows} target transitions, at least {MIN_TARGET} are needed"
        raise InputError(dataset.path, problem, "record a longer rollout")
    return whole


def open_domains(robot: Robot, paths: dict[str, Path]) -> dict[str, Dataset]:
    """`open_domain` of each."""
    return {domain: open_domain(robot, domain, path) for domain, path in paths.items()}


def open_domain(robot: Robot, domain: str, path: Path) -> Dataset:
    """Open a dataset that stands for `domain`, without reading its episodes.

    Raises:
        InputError: It is not there, of another domain, robot or task, or empty.
    """
    if not path.exists():
        raise InputError(path, f"no such {domain} dataset", f"say where it is with --{domain}")
    dataset, task_hash = open_dataset(path), load_task(robot).digest()
    meta = dataset.metadata
    if len(dataset) == 0:
        raise InputError(path, "has no episode", "collect or record again")
    if meta.domain != domain:
        raise InputError(dataset.path, f"is a {meta.domain} dataset, given as --{domain}", "swap --source and --target")
    if meta.robot != robot.spec.name or meta.robot_hash != robot.spec.digest():
        raise InputError(
            dataset.path,
            f"made with robot {meta.robot!r} ({meta.robot_hash[:12]}), training is for {robot.spec.name!r} "
            f"({robot.spec.digest()[:12]})",
            "collect or ingest it again with the present robot.yaml, or name the right --robot",
        )
    if meta.task_hash != task_hash:
        raise InputError(
            dataset.path,
            f"rewards of task {meta.task!r} ({meta.task_hash[:12]}), the robot's task now is {task_hash[:12]}",
            "collect or ingest it again with the present task.py",
        )
    return dataset


def read_chunks(dataset: Dataset, task: Task, rows: int, order: Iterable[int] | None = None) -> Iterator[Transitions]:
    """The transitions of a dataset, `rows` at a time and at last what is left, checked.

    Args:
        dataset: What to read.
        task: Of the robot.
        rows: Of a chunk. An episode is read whole.
        order: Numbers of the episodes; by default all, as they were written.

    Raises:
        InputError: Wrong sizes, NaN or Inf, an action outside [-1, 1], or labels that are not the task's; names the
            first rows.
    """
    parts: list[Transitions] = []
    held = read = 0
    for i, e in enumerate(dataset.read(order)):
        parts.append(Transitions.of(e, i))
        held += len(e)
        while held >= rows:
            joined = Transitions.joined(parts)
            yield _checked(joined[:rows], dataset, task, read)
            parts, held, read = [joined[rows:]], held - rows, read + rows
    if held:
        yield _checked(Transitions.joined(parts), dataset, task, read)


def _checked(data: Transitions, dataset: Dataset, task: Task, first: int) -> Transitions:
    """The rows themselves, of which the first has the number `first`."""
    path, observer = dataset.path, task.observer
    sizes = (data.obs.shape[1], data.action.shape[1])
    if sizes != (observer.size, observer.num_actions):
        raise InputError(
            path,
            f"observation and action sizes are {sizes}, the robot has {(observer.size, observer.num_actions)}",
            "collect or ingest it again",
        )
    numbers = np.concatenate([data.obs, data.next_obs, data.action, data.reward[:, None]], axis=1)
    _refuse_rows(path, ~np.isfinite(numbers), "NaN or Inf", first)
    _refuse_rows(path, np.abs(data.action) > 1 + 1e-5, "actions outside [-1, 1]", first)
    if dataset.metadata.engine in LABELLED:
        row = data.obs, data.action, data.next_obs
        other = ~np.isclose(data.reward, task.reward(*row), rtol=1e-4, atol=1e-4)
        other |= data.terminated != task.terminated(*row)
        remedy = "a number that task.py reads has changed since: restore it, or collect or ingest again"
        _refuse_rows(path, other[:, None], "a reward or an end that the robot's task does not give", first, remedy)
    return data


def _refuse_rows(
    path: Path, bad: NDArray[np.bool_], what: str, first: int, remedy: str = "remove those episodes"
) -> None:
    if bad.any():
        rows = first + np.flatnonzero(bad.any(1))
        shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        raise InputError(path, f"{len(rows)} transitions have {what}, first at rows {shown}", remedy)
