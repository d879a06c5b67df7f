"""Train an actor in simulation by SAC (Haarnoja et al., arXiv:1801.01290) for the mix of source behaviours.

Training stops when the actor is partly good: failures, near misses and successes together teach more than either end.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from stable_baselines3 import SAC

from landbridge.episode import commit
from landbridge.observation import action_to_command, push_action
from landbridge.robot import Robot, load_robot
from landbridge.simulation.behaviour import Actor
from landbridge.simulation.plant import Plant, make_plant
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import Scenario
from landbridge.task import Task, load_task

ROUND = 1000  # steps between two looks at the actor


class PlantEnv(gym.Env):
    """One plant and its task as a Gymnasium environment."""

    def __init__(self, plant: Plant, task: Task, seed: int) -> None:
        self.plant, self.task, self.rng = plant, task, np.random.default_rng(seed)
        size, actions = task.observer.size, task.observer.num_actions
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (actions,), np.float32)

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
        self.plant.step([(0.0, action_to_command(self.plant.spec, action))])
        self.history = push_action(self.history, sent)
        before, self.obs = self.obs, self._observe()
        self.steps += 1
        reward = float(self.task.reward(before, sent, self.obs)[0])
        terminated = bool(self.task.terminated(before, sent, self.obs)[0])
        return self.obs[0], reward, terminated, self.steps >= self.task.episode_steps, {}

    def _observe(self) -> NDArray[np.float32]:
        joint_pos, joint_vel = self.plant.measure()
        return self.task.observer(joint_pos[None], joint_vel[None], self.history)


def pretrain(
    robot: str = "furuta", steps: int = 40_000, until: float = 0.5, seed: int = 0, out: Path | None = None
) -> dict[str, float | str]:
    """Train an actor on the nominal robot in MuJoCo until it is partly good, and save its weights.

    Example: python -m landbridge.training.pretrain --robot furuta --steps 40000

    Args:
        robot: Name of a robot, or a robot folder.
        steps: Most control steps to train for.
        until: Stop at this share of successful episodes, looked at every 1000 steps.
        seed: Seed of networks, exploration and start states.
        out: Where to save; sac_partial.npz in the robot's folder unless given.

    Returns:
        Steps trained, success of the saved actor, path.
    """
    torch.set_num_threads(1)
    machine = load_robot(robot)
    path = machine.folder / "sac_partial.npz" if out is None else out
    task = load_task(machine)
    env = PlantEnv(make_plant(machine, "mujoco", Scenario()), task, seed)
    nets = {"net_arch": [64, 64]}
    model = SAC("MlpPolicy", env, policy_kwargs=nets, learning_rate=1e-3, learning_starts=1000, seed=seed, device="cpu")
    success = 0.0
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("SAC", total=steps)
        while model.num_timesteps < steps and success < until:
            model.learn(ROUND, reset_num_timesteps=False)
            content = _weights(model, seed)
            success = _success(machine, task, content, seed)
            progress.update(bar, completed=model.num_timesteps, description=f"SAC, success {success:.2f}")
    path.write_bytes(content)
    return {"steps": model.num_timesteps, "success": success, "path": str(path)}


def _weights(model: SAC, seed: int) -> bytes:
    linear = [layer for layer in [*model.actor.latent_pi, model.actor.mu] if isinstance(layer, torch.nn.Linear)]
    arrays: dict[str, Any] = {}
    for i, layer in enumerate(linear):
        arrays[f"weight{i}"], arrays[f"bias{i}"] = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    command = f"python -m landbridge.training.pretrain {' '.join(sys.argv[1:])}"
    buffer = io.BytesIO()
    np.savez(buffer, command=command, commit=commit(), seed=seed, steps=model.num_timesteps, **arrays)
    return buffer.getvalue()


def _success(machine: Robot, task: Task, content: bytes, seed: int, episodes: int = 32) -> float:
    plants = [make_plant(machine, "mujoco", Scenario()) for _ in range(episodes)]
    runs = lockstep(plants, task, Actor(io.BytesIO(content)), np.random.default_rng(seed + 1))
    return float(np.mean([task.success(run.obs) for run in runs]))


if __name__ == "__main__":
    print(tyro.cli(pretrain))
