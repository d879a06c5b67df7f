"""Behaviours trained here, their logs, and the HDF5 files of D4RL's layout that the study reads.

    D=benchmarks/offdynamics/data.py  # what the recorded study was made from
    python $D train --env hopper --steps 409600 --out work/hopper
    python $D train --env hopper --shift gravity-0.5 --start work/hopper --steps 61440 --out work/gravity
    python $D collect --env hopper --policy work/hopper --rows 50000 --out work/source.hdf5
    python $D collect --env hopper --shift gravity-0.5 --policy work/gravity --rows 5000 --seed 1 --out work/target.hdf5

A behaviour is trained by PPO (Schulman et al., arXiv:1707.06347) and stopped when it is partly good, as D4RL's `medium`
ones. ODRL and D4RL have SAC's, which takes ten times the CPU; a file made with one can be given to the study as well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console
from shifts import make_env
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from task import Locomotion

from landbridge.errors import InputError
from landbridge.provenance import commit
from landbridge.training.d4rl import REQUIRED, read_d4rl
from landbridge.training.dataset import MIN_TARGET, Transitions

ENVS = 8  # stepped together
ROUND, LOOK = 2048, 20_480  # environment steps between two updates, and between two looks at the return
ANT, WITH_CONTACTS = 27, (105, 111)  # columns that Ant observes; with contact forces, in Gymnasium's v5, in Gym's v3
POLICY, SCALES = "policy.zip", "scales.pkl"  # of a behaviour's folder: Stable-Baselines3's own files


@dataclass(frozen=True)
class Train:
    """Train a behaviour until it is partly good.

    Attributes:
        out: New folder for the policy.
        env: hopper, walker2d, halfcheetah or ant.
        shift: Of the environment; see shifts.py.
        start: Folder of a behaviour to go on from.
        until: Stop at this mean return of the last 100 episodes.
        steps: Most environment steps.
        seed: Of networks, exploration and start states.
    """

    out: Path
    env: str = "hopper"
    shift: str = "none"
    start: Path | None = None
    until: float = 1500.0
    steps: int = 1_000_000
    seed: int = 0


def train(options: Train) -> dict[str, Any]:
    """Train and save; returns steps and the mean return of the last episodes, with exploration.

    Raises:
        InputError: `out` exists, `start` is no behaviour, or the environment or shift is not known.
    """
    if options.out.exists():
        raise InputError("--out", f"{options.out} exists", "name a new folder")
    torch.set_num_threads(1)
    envs: Any = DummyVecEnv([lambda: Monitor(make_env(options.env, options.shift))] * ENVS)
    if options.start is None:
        envs = VecNormalize(envs)
        settings: dict[str, Any] = {"n_steps": ROUND // ENVS, "batch_size": 128, "n_epochs": 10}
        model = PPO("MlpPolicy", envs, device="cpu", seed=options.seed, **settings)
    else:
        path = _of_env(options.start, envs)
        envs = VecNormalize.load(str(_part(options.start, SCALES)), envs)
        model = PPO.load(path, envs, device="cpu", seed=options.seed)
    model.num_timesteps, reached = 0, -np.inf
    console = Console(stderr=True)
    options.out.mkdir(parents=True)
    while model.num_timesteps < options.steps and reached < options.until:
        model.learn(min(LOOK, options.steps - model.num_timesteps), reset_num_timesteps=False)
        recent = [episode["r"] for episode in model.ep_info_buffer]
        reached = float(np.mean(recent)) if len(recent) == model.ep_info_buffer.maxlen else -np.inf
        model.save(options.out / POLICY)
        envs.save(str(options.out / SCALES))
        console.print(f"step {model.num_timesteps}, return {reached:.0f}")
    return {"steps": model.num_timesteps, "return": reached}


@dataclass(frozen=True)
class Collect:
    """Log a behaviour, exploring as it was trained, in the layout of D4RL.

    Attributes:
        out: New HDF5 file.
        rows: Transitions.
        policy: Folder of a behaviour; without one, actions are uniformly random.
        env: hopper, walker2d, halfcheetah or ant.
        shift: Of the environment; see shifts.py.
        seed: Of actions and start states.
    """

    out: Path
    rows: int
    policy: Path | None = None
    env: str = "hopper"
    shift: str = "none"
    seed: int = 0


def collect(options: Collect) -> dict[str, Any]:
    """Log and write; returns the number of whole episodes, and the mean of their returns.

    Raises:
        InputError: `out` exists, `policy` is no behaviour, or the environment or shift is not known.
    """
    if options.out.exists() or not options.out.parent.is_dir():
        raise InputError("--out", f"{options.out} exists, or its folder does not", "name a new file in a folder")
    torch.set_num_threads(1)
    env = make_env(options.env, options.shift)
    act = _actor(options.policy, env, options.seed)
    columns: dict[str, list[Any]] = {name: [] for name in (*REQUIRED, "next_observations", "timeouts")}
    returns: list[float] = []
    obs, _ = env.reset(seed=options.seed)
    total = 0.0
    for row in range(options.rows):
        action = act(obs)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        last = row == options.rows - 1 and not terminated
        for name, value in zip(columns, (obs, action, reward, terminated, next_obs, truncated or last), strict=True):
            columns[name].append(value)
        obs, total = next_obs, total + float(reward)
        if terminated or truncated:
            returns.append(total)
            (obs, _), total = env.reset(), 0.0
    with h5py.File(options.out, "w") as file:
        file.attrs.update(env=options.env, shift=options.shift, commit=commit(), command=" ".join(sys.argv))
        for name, values in columns.items():
            file.create_dataset(name, data=np.array(values), compression="gzip")
    return {"rows": options.rows, "episodes": len(returns), "return": float(np.mean(returns)) if returns else None}


def _actor(policy: Path | None, env: gym.Env, seed: int) -> Callable[[NDArray[np.float64]], NDArray[np.float32]]:
    if policy is None:
        env.action_space.seed(seed)
        return lambda obs: env.action_space.sample()
    model = PPO.load(_of_env(policy, env), device="cpu")
    scales = VecNormalize.load(str(_part(policy, SCALES)), DummyVecEnv([lambda: env]))
    model.set_random_seed(seed)
    return lambda obs: np.clip(model.predict(scales.normalize_obs(obs))[0], -1, 1)


def read(path: Path, name: str) -> Transitions:
    """The transitions of a file in the layout of D4RL, whoever wrote it; tells on stderr what was repaired.

    Of Ant's with contact forces these are left out, as shifts.py says.

    Raises:
        InputError: It is not such a file, not of environment `name`, has NaN or Inf, or fewer than `MIN_TARGET` rows.
    """
    columns = Locomotion(name).observer
    found = read_d4rl(path, _observed(path, columns.size), columns.num_actions, control_dt=1.0)  # stamps are not used
    if found.rows < MIN_TARGET:
        raise InputError(path, f"has only {found.rows} transitions", f"at least {MIN_TARGET} are needed")
    if repairs := {what: rows for what, rows in found.repairs.items() if rows}:
        Console(stderr=True).print(f"{path}: {repairs}")
    episodes = [replace(episode, obs=episode.obs[:, : columns.size]) for episode in found.episodes]
    return Transitions.of_episodes(episodes)


def _observed(path: Path, size: int) -> int:
    """Columns of the observations of a file that is for `size`, or for Ant's with contact forces behind them."""
    if size != ANT or not path.is_file() or not h5py.is_hdf5(path):
        return size
    with h5py.File(path) as file:
        found = file["observations"].shape[-1] if "observations" in file else size
    return found if found in WITH_CONTACTS else size


def _of_env(folder: Path, env: Any) -> Path:
    """The policy of a behaviour that observes what the environment gives."""
    sizes = load_from_zip_file(_part(folder, POLICY), device="cpu")[0]["observation_space"].shape
    if sizes != env.observation_space.shape:
        raise InputError(folder, f"observes {sizes}, not {env.observation_space.shape}", "name one of this --env")
    return folder / POLICY


def _part(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise InputError(folder, f"has no {name}", "name a folder that `data.py train` has written")
    return folder / name


if __name__ == "__main__":
    chosen = tyro.extras.subcommand_cli_from_dict({"train": Train, "collect": Collect}, description=__doc__)
    try:
        print(json.dumps(train(chosen) if isinstance(chosen, Train) else collect(chosen)))
    except InputError as error:
        sys.exit(str(error))
