"""Episodes and datasets: what a rollout is, on disk as a Minari dataset and in memory as arrays.

A dataset is a Minari folder (HDF5 storage) whose `metadata.json` carries `DatasetMetadata` under the key `landbridge`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_FSIZE, getrlimit
from typing import Any, Literal

import gymnasium as gym
import h5py
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage
from numpy.typing import NDArray
from pydantic import Field

from landbridge.errors import InputError
from landbridge.files import require_new
from landbridge.provenance import commit, now
from landbridge.robot import RobotSpec
from landbridge.spec import Spec, validated

SCHEMA_VERSION: Literal[1] = 1  # of `DatasetMetadata`
SPARE_BYTES = 2**20  # that must be free besides what an episode takes: HDF5's own tables, and metadata.json


@dataclass(frozen=True)
class Episode:
    """One unbroken run of control ticks. T transitions; observation t and action t lead to observation t + 1.

    Attributes:
        obs: (T + 1, n) float32.
        actions: (T, m) float32 in [-1, 1]: what was sent, after every limit.
        rewards: (T,) float32.
        terminated: (T,) bool. Only the last may be set.
        truncated: (T,) bool. Only the last may be set: the run was cut, its value goes on.
        stamps: (T + 1,) float64, measurement times [s] since the episode's first measurement; a twin's are its own.
        written: (T,) float64, how long after its measurement each action was written [s]; NaN: nobody took the time.
    """

    obs: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    stamps: NDArray[np.float64]
    written: NDArray[np.float64]

    def __post_init__(self) -> None:
        steps = len(self.actions)
        lengths = [
            len(self.obs) - 1,
            len(self.rewards),
            len(self.terminated),
            len(self.truncated),
            len(self.stamps) - 1,
            len(self.written),
        ]
        if steps == 0 or any(length != steps for length in lengths):
            raise ValueError(f"episode of {steps} actions has arrays of {lengths} transitions")

    def __len__(self) -> int:
        """Number of transitions."""
        return len(self.actions)

    def cut(self, steps: int) -> Episode:
        """Its first `steps` transitions, truncated there; the episode itself if it has no more."""
        if len(self) <= steps:
            return self
        return Episode(
            obs=self.obs[: steps + 1],
            actions=self.actions[:steps],
            rewards=self.rewards[:steps],
            terminated=self.terminated[:steps],
            truncated=np.arange(steps) == steps - 1,
            stamps=self.stamps[: steps + 1],
            written=self.written[:steps],
        )


class DatasetMetadata(Spec):
    """Where a dataset came from: enough to refuse a wrong one and to make it again.

    Attributes:
        domain: `source` (simulator) or `target` (robot or its twin).
        robot_hash: `RobotSpec.digest()` of the robot that produced it.
        task_hash: `Task.digest()` of the function that labelled it.
        engine: `mujoco`, `bullet` or `ros2`, whose labels are the task's; `d4rl` and others bring their own.
        scenario: Name of the severity rung, or `hardware`.
        controllers: Behaviour policies and the number of transitions of each.
        stopped: Recorded episodes that the guard ended for what the robot did (a tilt, a limit) before the task would.
        measured_rate_hz: Median rate of the stamps; equals `control_rate_hz` in simulation.
        retuned: Where the behaviour `tuned` was tuned for this simulator first: the generations it took, its
            success, its return and its parameters.
        calibration: SHA-256 of the `calibration.yaml` that was simulated, or that held for the robot when it was
            recorded; "": none was named.
        latency_ms: The delay that it found. Nothing in the data is shifted by it.
        commit: Git commit of the code that wrote it, `unknown` outside a checkout.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    domain: Literal["source", "target"]
    robot: str
    robot_hash: str
    task: str
    task_hash: str
    engine: str
    engine_version: str
    scenario: str
    controllers: dict[str, int]
    control_rate_hz: float
    measured_rate_hz: float
    stopped: int = 0
    seed: int | None
    retuned: dict[str, float] = Field(default_factory=dict)
    calibration: str = ""
    latency_ms: float | None = None
    commit: str
    created: str

    @classmethod
    def of(cls, spec: RobotSpec, **others: Any) -> DatasetMetadata:
        """Of data made now for the robot `spec`, whose facts are copied in; `others` are the other fields."""
        return cls(
            robot=spec.name,
            robot_hash=spec.digest(),
            control_rate_hz=spec.control_rate_hz,
            commit=commit(),
            created=now(),
            **others,
        )


@dataclass(frozen=True)
class Dataset:
    """A dataset on disk. Episodes are read one at a time; `len` and the metadata cost nothing."""

    path: Path
    metadata: DatasetMetadata
    minari: minari.MinariDataset

    def __len__(self) -> int:
        """Number of episodes."""
        return int(self.minari.total_episodes)

    @property
    def transitions(self) -> int:
        """Number of transitions."""
        return int(self.minari.total_steps)

    def __iter__(self) -> Iterator[Episode]:
        return self.read()

    def read(self, order: Iterable[int] | None = None) -> Iterator[Episode]:
        """The episodes with these numbers, in this order; by default all, as they were written."""
        episodes = self.minari.iterate_episodes(order)
        while (episode := self._next(episodes)) is not None:
            yield episode

    def _next(self, episodes: Iterator[minari.EpisodeData]) -> Episode | None:
        """The next episode, None after the last; raises InputError where the file is damaged."""
        try:
            if (data := next(episodes, None)) is None:
                return None
            untimed = np.full(len(data.actions), np.nan)  # datasets of before lack the time of the write
            return Episode(
                obs=np.asarray(data.observations, np.float32),
                actions=np.asarray(data.actions, np.float32),
                rewards=np.asarray(data.rewards, np.float32),
                terminated=np.asarray(data.terminations, bool),
                truncated=np.asarray(data.truncations, bool),
                stamps=np.asarray(data.infos["stamp"], np.float64),
                written=np.asarray(data.infos.get("written", untimed), np.float64),
            )
        except (OSError, RuntimeError, KeyError, ValueError, AttributeError) as error:
            raise _damaged(self.path, error) from error


def write_dataset(path: Path, episodes: Iterable[Episode], metadata: DatasetMetadata) -> Dataset:
    """Write episodes to the new folder `path`; it appears complete or not at all.

    Raises:
        InputError: `path` exists, there is no episode, or no space for them.
    """
    require_new(path)
    partial = path.absolute().with_name(path.name + ".partial")  # Minari doubles a relative path
    with _alone(path, partial):
        _write(path, partial, episodes, metadata)
    return open_dataset(path)


@contextmanager
def _alone(path: Path, partial: Path) -> Iterator[None]:
    """Be the only process that writes into the folder `partial`: what a kill has left there is gone."""
    busy = InputError(path, "is being written by another process", "wait for it, or choose another --out")
    partial.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            folder = os.open(partial, os.O_RDONLY)
            held.callback(os.close, folder)
            _lock(folder)
            mine = os.path.samestat(os.fstat(folder), partial.stat())  # not what another has just renamed or removed
        except (BlockingIOError, FileNotFoundError) as error:
            raise busy from error
        if not mine:
            raise busy
        for left in partial.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield


def _lock(folder: int) -> None:
    """Until it is closed; where folders have no locks, as on NFS, there is none."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP):
            raise


def _write(path: Path, partial: Path, episodes: Iterable[Episode], metadata: DatasetMetadata) -> None:
    try:
        storage: MinariStorage | None = None
        for episode in episodes:
            if storage is None:
                box = gym.spaces.Box(-np.inf, np.inf, episode.obs.shape[1:], np.float32)
                unit = gym.spaces.Box(-1.0, 1.0, episode.actions.shape[1:], np.float32)
                with _written(path):
                    storage = MinariStorage.new(partial, observation_space=box, action_space=unit)
            with _written(path):
                _require_space(partial, episode)
                storage.update_episodes([_to_buffer(episode)])
        if storage is None:
            raise InputError(path, "there is no episode to write", "check the recording or ask for more steps")
        about = {
            "dataset_id": f"{metadata.robot}/{metadata.domain}-{metadata.scenario}-v0",
            "minari_version": minari.__version__,
            "landbridge": metadata.model_dump(),
        }
        with _written(path):
            storage.update_metadata(about)
            partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _require_space(folder: Path, episode: Episode) -> None:
    """HDF5 that meets a full disk may end the process with a segmentation fault, so that it should never meet one."""
    needed = sum(array.nbytes for array in vars(episode).values()) + SPARE_BYTES
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    written, (most, _) = sum(file.stat().st_size for file in folder.rglob("*.hdf5")), getrlimit(RLIMIT_FSIZE)
    if most != RLIM_INFINITY and most < written + needed:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # of a full disk HDF5 raises either, the reason deep inside
        words = getattr(error, "strerror", None) or str(error)
        reason = words.partition("error message = '")[2].partition("'")[0] or words
        raise InputError(path, f"cannot be written: {reason}", "free space, or choose another --out") from error


def open_dataset(path: Path) -> Dataset:
    """Open a dataset folder without reading its episodes.

    Raises:
        InputError: Not a Minari folder, not one that landbridge wrote, or one whose file is cut off.
    """
    try:
        raw = MinariStorage.read_raw_metadata(path)
        data = minari.MinariDataset(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        remedy = "make one with `landbridge collect` or `ingest`"
        if path.is_dir() and any(path.glob("*.mcap")):
            remedy = f"it is a bag: `landbridge ingest {path} --out DATASET`, and name that"
        raise InputError(path, f"not a readable Minari dataset: {error}", remedy) from error
    if not isinstance(ours := raw.get("landbridge"), dict):
        problem = "a Minari dataset that landbridge did not write: nothing says which robot and task it is of"
        raise InputError(path, problem, "export it in D4RL's layout, and `landbridge ingest` that file")
    if (version := ours.get("schema_version")) != SCHEMA_VERSION:
        problem = f"schema_version: {version!r}, this landbridge reads {SCHEMA_VERSION}"
        raise InputError(path, problem, "collect or ingest it again with this version")
    metadata = validated(DatasetMetadata, ours, path / "metadata.json", "collect or ingest it again")
    for file in path.glob("*.hdf5"):
        try:
            h5py.File(file).close()  # which compares its length with what it should be
        except OSError as error:
            raise _damaged(path, error) from error
    return Dataset(path, metadata, data)


def _damaged(path: Path, error: Exception) -> InputError:
    problem = f"is damaged, or copied in part: {' '.join(map(str, error.args))}"
    return InputError(path, problem, "copy it again, or collect or ingest it anew")


def _to_buffer(episode: Episode) -> EpisodeBuffer:
    return EpisodeBuffer(
        observations=episode.obs,
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=episode.terminated,
        truncations=episode.truncated,
        infos={"stamp": episode.stamps, "written": episode.written},
    )
