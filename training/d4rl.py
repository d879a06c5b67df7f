"""Import of HDF5 files in the layout of D4RL (Fu et al. 2020, arXiv:2004.07219).

Known trouble of such files: `next_observations` read from the following row across an episode's seam, timeouts taken
for terminals, columns (N, 1) for vectors, NaN rows. Stored next observations are used; seams are found where they do
not continue; the rest is refused.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from landbridge.episode import Episode
from landbridge.errors import InputError

FEW = 0.01  # share of rows with an action beyond [-1, 1] that may be noise, and goes without a warning
SEAM = 1e-6  # |next_obs[i] - obs[i+1]|, beyond 1 of |obs|, above which row i + 1 begins another episode
REQUIRED = ("observations", "actions", "rewards", "terminals")
VECTORS = {"rewards", "terminals", "timeouts"}


@dataclass(frozen=True)
class Imported:
    """Episodes of a file, and what had to be repaired: name of the repair and number of rows."""

    episodes: list[Episode]
    repairs: dict[str, int]

    @property
    def rows(self) -> int:
        """Number of transitions."""
        return sum(map(len, self.episodes))


def read_d4rl(path: Path, obs_size: int, action_size: int, control_dt: float) -> Imported:
    """Read and check a file.

    Args:
        path: HDF5 with observations (N, n), actions (N, m), rewards (N,), terminals (N,) and, where it has them,
            next_observations (N, n) and timeouts (N,); a vector may be a column (N, 1), as ODRL's are. Actions beyond
            [-1, 1] are clipped, counted and, if they are not few, told of. Without next_observations the last row of
            an episode goes, for what followed it is not there.
        obs_size: n of the robot.
        action_size: m of the robot.
        control_dt: Period [s] between rows.

    Raises:
        InputError: Not such a file, sizes of another robot, NaN or Inf (with row numbers), actions too large, or
            nothing that tells where time ran out.
    """
    data = _read(path)
    obs, actions = data["observations"], data["actions"]
    if obs.shape[1:] != (obs_size,) or actions.shape[1:] != (action_size,):
        problem = f"observations {obs.shape} and actions {actions.shape} do not fit sizes {obs_size} and {action_size}"
        raise InputError(path, problem, "name the --robot (or --env) it was made with")
    if not {"next_observations", "timeouts"} & data.keys():
        problem = "has neither next_observations nor timeouts: nothing tells episodes apart that time has cut"
        raise InputError(path, problem, "add timeouts, true in the last row of each such episode")
    data.setdefault("timeouts", np.zeros(len(obs)))
    if len({len(array) for array in data.values()}) != 1:
        raise InputError(path, f"arrays of lengths { {k: len(v) for k, v in data.items()} }", "export it again")
    shapes = {"observations": obs.shape, "next_observations": obs.shape, "actions": actions.shape}
    for name, array in data.items():
        if array.shape != (wanted := shapes.get(name, (len(obs),))):
            raise InputError(path, f"{name} has shape {array.shape}, not {wanted}", "export it again")
    for name, array in data.items():
        if len(bad := np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))):
            raise InputError(path, f"{name} has NaN or Inf in {len(bad)} rows, first {bad[:5].tolist()}", "remove them")
    clipped = _beyond(path, actions)
    terminal, timeout = data["terminals"].astype(bool), data["timeouts"].astype(bool)
    stored = "next_observations" in data
    following = data["next_observations"] if stored else np.concatenate([obs[1:], obs[-1:]])
    marked = terminal | timeout
    jump = np.zeros(len(obs), bool)
    if stored:
        apart = np.abs(following[:-1] - obs[1:]) / np.maximum(1, np.abs(obs[1:]))  # they may be of different widths
        jump[:-1] = apart.max(1) > SEAM
    ends = np.flatnonzero(marked | jump | (np.arange(len(obs)) == len(obs) - 1))
    starts = np.concatenate([[0], ends[:-1] + 1])
    episodes = []
    for start, end in zip(starts, ends, strict=True):
        # Without stored next observations the last row's belongs to another episode: it goes, a terminal one too, since
        # models of the dynamics learn from it as well.
        stop = end + 1 if stored else end
        if stop > start:
            episodes.append(_episode(data, following, terminal, slice(start, stop), control_dt))
    if not episodes:
        problem = f"holds no transition: nothing says what followed its {len(obs)} rows"
        raise InputError(path, problem, "export next_observations, or longer episodes")
    lost = int(terminal.sum()) - sum(int(episode.terminated.sum()) for episode in episodes)
    if lost:
        problem = f"{lost} rows end an episode by failure, and are dropped: nothing says what followed them"
        warnings.warn(f"{path}: {problem}; export next_observations, or nothing is learned of failing", stacklevel=2)
    repairs = {
        "unmarked_seams": int((jump & ~marked).sum()),
        "rows_dropped": len(obs) - sum(map(len, episodes)),
        "terminals_dropped": lost,
        "actions_clipped": clipped,
    }
    return Imported(episodes, repairs)


def _beyond(path: Path, actions: NDArray[np.float64]) -> int:
    """Number of rows with an action beyond [-1, 1]: many speak of another unit, of which clipping leaves the sign."""
    rows = int((np.abs(actions) > 1).any(1).sum())
    problem = f"{rows} of {len(actions)} rows have an action beyond [-1, 1], up to {np.abs(actions).max():.4g}"
    remedy = (
        "an action is a share of the joint's range (`action` in robot.yaml), so scale what is in another unit first"
    )
    if rows > len(actions) / 2:
        raise InputError(path, problem, f"{remedy}, or clip them yourself if that is meant")
    if rows > FEW * len(actions):
        warnings.warn(f"{path}: {problem}: clipped; {remedy}", stacklevel=3)
    return rows


def _read(path: Path) -> dict[str, NDArray[np.float64]]:
    if not path.is_file():
        raise InputError(path, "no such file", "check the path")
    try:
        with h5py.File(path, "r") as file:
            if missing := [name for name in REQUIRED if name not in file]:
                raise InputError(path, f"has no {missing}, only {sorted(file)}", "export it in D4RL's layout")
            names = [*REQUIRED, *(n for n in ("next_observations", "timeouts") if n in file)]
            if others := [n for n in names if not isinstance(file[n], h5py.Dataset) or not file[n].shape]:
                raise InputError(
                    path, f"{others} are groups or single values, not arrays", "export it in D4RL's layout"
                )
            data = {name: np.asarray(file[name], np.float64) for name in names}
    except InputError:
        raise
    except (OSError, TypeError, ValueError) as error:  # the others: an array that is not of numbers
        raise InputError(path, f"not a readable HDF5 file: {error}", "check the path, or copy it again") from error
    if len(data["rewards"]) == 0:
        raise InputError(path, "has no rows", "export it again")
    for name in VECTORS & data.keys():
        if data[name].shape[1:] == (1,):  # (N, 1) would broadcast against (N,) to N x N
            data[name] = data[name][:, 0]
    return data


def _episode(
    data: dict[str, NDArray[np.float64]],
    following: NDArray[np.float64],
    terminal: NDArray[np.bool_],
    rows: slice,
    control_dt: float,
) -> Episode:
    steps = rows.stop - rows.start
    ended = terminal[rows]
    return Episode(
        obs=np.concatenate([data["observations"][rows], following[rows.stop - 1 : rows.stop]]).astype(np.float32),
        actions=np.clip(data["actions"][rows], -1, 1).astype(np.float32),
        rewards=data["rewards"][rows].astype(np.float32),
        terminated=ended,
        truncated=(np.arange(steps) == steps - 1) & ~ended,
        stamps=np.arange(steps + 1) * control_dt,
        written=np.full(steps, np.nan),
    )
