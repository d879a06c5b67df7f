"""A trained policy to be called with observations, from a run folder or a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from landbridge.bundle import read_bundle
from landbridge.errors import InputError
from landbridge.onnx_session import open_session
from landbridge.robot import Robot, load_robot
from landbridge.simulation.behaviour import Behaviour, Policy
from landbridge.task import load_task
from landbridge.training.agents import AGENTS
from landbridge.training.agents.base import Agent
from landbridge.training.alignments import ALIGNMENTS
from landbridge.training.alignments.base import Alignment, Context
from landbridge.training.config import TrainConfig
from landbridge.training.dataset import Normaliser
from landbridge.training.run import CONFIG, read_run, runs_of
from landbridge.training.trainer import read_checkpoint, restore


class Actor(nn.Module):
    """Deterministic policy with its normaliser inside: obs (N, n) in physical units -> action (N, m) in [-1, 1].

    Of several agents it is the mean of their actions, which differ more between seeds than one would like. It is on
    their device.
    """

    def __init__(self, agents: Sequence[Agent], normaliser: Normaliser) -> None:
        super().__init__()
        self.policies = nn.ModuleList(agent.policy_average for agent in agents)
        device = next(self.policies.parameters()).device
        self.register_buffer("mean", torch.tensor(normaliser.mean, dtype=torch.float32, device=device))
        self.register_buffer("std", torch.tensor(normaliser.std, dtype=torch.float32, device=device))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, obs: Tensor) -> Tensor:
        """Mean of the agents' averaged policies on (obs - mean) / std."""
        first, *others = (policy((obs - self.mean) / self.std) for policy in self.policies)
        action: Tensor = sum(others, first) / len(self.policies) if others else first
        return action

    @torch.no_grad()
    def numpy(self, obs: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `forward`, for arrays."""
        device = self.mean.device
        action: NDArray[np.float32] = self(torch.as_tensor(obs, device=device)).cpu().numpy()
        return action


@dataclass(frozen=True)
class Trained:
    """Everything a run folder holds that was learned, on the CPU; of several seeds the alignment is the first's."""

    config: TrainConfig
    robot: Robot
    normaliser: Normaliser
    agents: tuple[Agent, ...]
    alignment: Alignment

    @property
    def actor(self) -> Actor:
        """The policy that is deployed."""
        return Actor(self.agents, self.normaliser).eval()


def load_trained(folder: Path) -> Trained:
    """Read the folder of a run, or of the runs of `train --seeds`.

    Raises:
        InputError: It is no run, its checkpoint is unreadable, its robot is another one now, or its seeds were trained
            with other data or options.
    """
    began = {run: read_run(run) for run in runs_of(folder)}
    first, *others = began
    if odd := [run for run in others if _seedless(began[run]) != _seedless(began[first])]:
        problem = f"{first.name} and {odd[0].name} were trained on other data, or with other options"
        raise InputError(folder, problem, "name the folder of one of them")
    trained = [_load(run, plain) for run, plain in began.items()]
    return replace(trained[0], agents=tuple(agent for one in trained for agent in one.agents))


def _seedless(run: dict[str, Any]) -> dict[str, Any]:
    """What runs of `train --seeds` have in common."""
    train = {name: value for name, value in run["train"].items() if name != "seed"}
    return {"train": train, "data": [*run["dataset_hashes"].values()], "robot": run.get("robot_hash")}


def _load(run: Path, plain: dict[str, Any]) -> Trained:
    """A run of one seed, of which `plain` is the configuration."""
    state = read_checkpoint(run)
    config, robot = TrainConfig.from_json(plain["train"]), load_robot(plain["robot"])
    if plain.get("robot_hash", robot.spec.digest()) != robot.spec.digest():  # older runs name none
        problem = f"robot {robot.spec.name!r} has changed since ({plain['robot_hash'][:12]} then)"
        raise InputError(run, problem, "restore that robot.yaml, or train again")
    task, normaliser = load_task(robot), Normaliser(np.array(plain["obs_mean"]), np.array(plain["obs_std"]))
    agent_config, observer, cpu = config.agent_config, task.observer, torch.device("cpu")
    context = Context(robot, task, normaliser, agent_config.gamma, config.reward_scale, cpu, config.seed)
    alignment = ALIGNMENTS[config.alignment](config.alignment_config, context)
    restore(alignment, state["alignment"], run)
    agent = AGENTS[config.agent](observer.size, observer.num_actions, agent_config, config.steps)
    agent.prior = alignment.prior
    restore(agent, state["agent"], run)
    return Trained(config, robot, normaliser, (agent,), alignment)


def load_actor(run: Path) -> tuple[Actor, Robot]:
    """The trained actor of a run folder, on the CPU, and its robot."""
    trained = load_trained(run)
    return trained.actor, trained.robot


def load_policy(path: Path, robot: Robot) -> Behaviour:
    """The policy of a run folder or a bundle; raises InputError if it was made for another robot."""
    if not path.exists():
        raise InputError(path, "no such run or bundle", "name the --out of `landbridge train`, `export` or `import`")
    first = runs_of(path)[0]
    if (first / CONFIG).is_file():
        actor, trained_for = load_actor(path)
        if trained_for.spec.digest() != robot.spec.digest():
            problem = f"was trained for robot {trained_for.spec.name!r}, this is {robot.spec.name!r}"
            raise InputError(path, problem, f"add --robot {read_run(first)['robot']}")
        return lambda batch, rng: actor.numpy
    bundle = read_bundle(path)
    bundle.require_robot(robot.spec)
    return graph_policy(path / "policy.onnx", bundle.files["policy.onnx"], bundle.manifest.state)


def graph_policy(path: Path, model: bytes, state: Mapping[str, tuple[int, ...]]) -> Behaviour:
    """The policy of a bundle's `policy.onnx`; every row of a batch has a state (shapes by name) of its own.

    Raises:
        InputError: onnxruntime cannot load the content `model` of the file `path`.
    """
    session = open_session(path, model)
    outputs = ["action", *(f"{name}_out" for name in state)]

    def start(batch: int, rng: np.random.Generator) -> Policy:
        states = [{f"{name}_in": np.zeros(shape, np.float32) for name, shape in state.items()} for _ in range(batch)]

        def policy(obs: NDArray[np.float32]) -> NDArray[np.float32]:
            actions = []
            for row, own in zip(obs, states, strict=True):
                action, *after = session.run(outputs, {"obs": row[None], **own})
                own.update(dict(zip(own, after, strict=True)))
                actions.append(action)
            return np.concatenate(actions)

        return policy

    return start
