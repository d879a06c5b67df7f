"""Train an actor in simulation for the mix of source behaviours: by SAC (Haarnoja et al., arXiv:1801.01290) from
nothing, or by PPO (Schulman et al., arXiv:1707.06347) as a residual on a scripted behaviour.

Training stops when the actor is partly good: failures, near misses and successes together teach more than either end.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from stable_baselines3 import PPO, SAC

from landbridge.files import require_folder, write_atomic
from landbridge.observation import action_to_command, push_action
from landbridge.provenance import commit
from landbridge.robot import Robot, load_robot
from landbridge.simulation.behaviour import Actor, Policy, load_behaviours
from landbridge.simulation.plant import Plant, make_plant, opened
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import NOMINAL, load_scenario
from landbridge.task import Task, load_task

ROUND = {"sac": 1000, "ppo": 8192}  # steps between two looks at the actor


class PlantEnv(gym.Env):
    """One plant and its task as a Gymnasium environment.

    With `onto`, what the agent sends is a residual: the plant gets onto(obs) + share tanh(sent), as the behaviour that
    later plays the actor does.
    """

    def __init__(self, plant: Plant, task: Task, seed: int, onto: Policy | None = None, share: float = 1.0) -> None:
        self.plant, self.task, self.rng = plant, task, np.random.default_rng(seed)
        self.onto, self.share = onto, share
        size, actions = task.observer.size, task.observer.num_actions
        bound = 1.0 if onto is None else 10.0
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gym.spaces.Box(-bound, bound, (actions,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        joint_pos, joint_vel = self.task.initial_state(self.rng, 1)
        self.plant.reset(joint_pos[0], joint_vel[0])
        self.steps, self.history = 0, self.task.observer.initial_history(1)
        self.obs = self._observe()
        return self.obs[0], {}

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One control period."""
        sent = np.asarray(action)[None]
        if self.onto is not None:
            sent = np.clip(self.onto(self.obs) + self.share * np.tanh(sent), -1, 1).astype(np.float32)
        self.plant.step([(0.0, action_to_command(self.plant.spec, sent[0]))])
        self.history = push_action(self.history, sent)
        self.steps += 1
        before, self.obs = self.obs, self._observe()
        reward = float(self.task.reward(before, sent, self.obs)[0])
        terminated = bool(self.task.terminated(before, sent, self.obs)[0])
        return self.obs[0], reward, terminated, self.steps >= self.task.episode_steps, {}

    def _observe(self) -> NDArray[np.float32]:
        joint_pos, joint_vel = self.plant.measure()
        base = self.plant.measure_base()
        return self.task.observer(joint_pos[None], joint_vel[None], self.history, base, self.steps)


def pretrain(
    robot: str = "furuta",
    steps: int = 40_000,
    until: float = 0.5,
    agent: Literal["sac", "ppo"] = "sac",
    seed: int = 0,
    out: Path | None = None,
) -> dict[str, float | str]:
    """Train an actor on the nominal robot in MuJoCo until it is partly good, and save its weights.

    SAC learns the whole policy. PPO learns a residual on the behaviour `tuned`, of which the robot's behaviour.py gives
    the share of the action box as RESIDUAL.

    Example: python -m landbridge.training.pretrain --robot furuta --steps 40000

    Example: python -m landbridge.training.pretrain --robot quadruped --agent ppo --steps 32768 --until 2

    Args:
        robot: Name of a robot, or a robot folder.
        steps: Most control steps to train for.
        until: Stop at this share of successful episodes, looked at every 1000 steps (ppo: 8192); above 1: never.
        agent: sac or ppo.
        seed: Seed of networks, exploration and start states.
        out: Where to save; sac_partial.npz or ppo_partial.npz in the robot's folder unless given.

    Returns:
        Steps trained, success of the saved actor, path.
    """
    torch.set_num_threads(1)
    machine = load_robot(robot)
    path = machine.folder / f"{agent}_partial.npz" if out is None else out
    require_folder(path.parent)
    task, onto, share = load_task(machine), None, 1.0
    if agent == "ppo":
        onto = load_behaviours(machine)["tuned"](1, np.random.default_rng(seed))
        share = machine.module("behaviour").RESIDUAL
    plant = make_plant(machine, "mujoco", load_scenario(machine, NOMINAL), np.random.default_rng(seed))
    model = _model(agent, PlantEnv(plant, task, seed, onto, share), seed)
    success = 0.0
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(agent, total=steps)
        while model.num_timesteps < steps and success < until:
            model.learn(ROUND[agent], reset_num_timesteps=False)
            content = _weights(model, seed)
            success = _success(machine, task, content, onto, share, seed)
            progress.update(bar, completed=model.num_timesteps, description=f"{agent}, success {success:.2f}")
    write_atomic(path, content)
    return {"steps": model.num_timesteps, "success": success, "path": str(path)}


def _model(agent: str, env: PlantEnv, seed: int) -> Any:
    nets: dict[str, Any] = {"net_arch": [64, 64], "activation_fn": torch.nn.ReLU}
    common: dict[str, Any] = {"env": env, "policy": "MlpPolicy", "seed": seed, "device": "cpu"}
    if agent == "sac":
        return SAC(policy_kwargs=nets, learning_rate=1e-3, learning_starts=1000, **common)
    # Explores by 0.3 about the behaviour: a residual that starts at the box's own size falls in every episode.
    return PPO(policy_kwargs=nets | {"log_std_init": float(np.log(0.3))}, n_steps=2048, batch_size=256, **common)


def _weights(model: Any, seed: int) -> bytes:
    if isinstance(model, SAC):
        layers = [*model.actor.latent_pi, model.actor.mu]
    else:
        layers = [*model.policy.mlp_extractor.policy_net, model.policy.action_net]
    linear = [layer for layer in layers if isinstance(layer, torch.nn.Linear)]
    arrays: dict[str, Any] = {}
    for i, layer in enumerate(linear):
        arrays[f"weight{i}"], arrays[f"bias{i}"] = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    command = f"python -m landbridge.training.pretrain {' '.join(sys.argv[1:])}"
    buffer = io.BytesIO()
    np.savez(buffer, command=command, commit=commit(), seed=seed, steps=model.num_timesteps, **arrays)
    return buffer.getvalue()


def _success(
    machine: Robot, task: Task, content: bytes, onto: Policy | None, share: float, seed: int, episodes: int = 32
) -> float:
    actor, nominal = Actor(io.BytesIO(content)), load_scenario(machine, NOMINAL)
    policy = actor if onto is None else lambda obs: onto(obs) + share * actor(obs)
    rngs = [np.random.default_rng([seed, i]) for i in range(episodes)]
    with opened(machine, "mujoco", [nominal] * episodes, rngs) as plants:
        runs = lockstep(plants, task, policy, np.random.default_rng(seed + 1))
    return float(np.mean([task.success(run.obs) for run in runs]))


if __name__ == "__main__":
    print(tyro.cli(pretrain))
