"""Running policies in plants: the one place where simulated episodes are made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from landbridge.episode import Episode
from landbridge.observation import action_to_command, push_action
from landbridge.simulation.behaviour import Policy
from landbridge.simulation.plant import Plant
from landbridge.task import Task


def rollout(plant: Plant, task: Task, policy: Policy, rng: np.random.Generator, episodes: int) -> list[Episode]:
    """Run `policy` for whole episodes, one after the other, from start states drawn with `rng`."""
    return [lockstep([plant], task, policy, rng)[0] for _ in range(episodes)]


def lockstep(plants: Sequence[Plant], task: Task, policy: Policy, rng: np.random.Generator) -> list[Episode]:
    """Run one episode in each of B plants at once, with one call of `policy` per control step.

    Episodes end when the task terminates them, or are truncated after `task.episode_seconds`. Row b of the policy's
    batch stays with plant b; after an early end that plant rests.
    """
    observer, batch, steps = task.observer, len(plants), task.episode_steps
    for plant, pos, vel in zip(plants, *task.initial_state(rng, batch), strict=True):
        plant.reset(pos, vel)
    history = observer.initial_history(batch)
    obs = np.empty((steps + 1, batch, observer.size), np.float32)
    actions = np.empty((steps, batch, observer.num_actions), np.float32)
    joint_pos, joint_vel = (np.stack(values) for values in zip(*(p.measure() for p in plants), strict=True))
    obs[0] = observer(joint_pos, joint_vel, history)
    length = np.full(batch, steps)
    terminated = np.zeros(batch, bool)
    for t in range(steps):
        actions[t] = np.clip(policy(obs[t]), -1.0, 1.0)
        commands = action_to_command(observer.spec, actions[t])
        for b in np.flatnonzero(~terminated).tolist():
            plants[b].step([(0.0, commands[b])])
            joint_pos[b], joint_vel[b] = plants[b].measure()
        history = push_action(history, actions[t])
        obs[t + 1] = observer(joint_pos, joint_vel, history)
        ended = task.terminated(obs[t], actions[t], obs[t + 1]) & ~terminated
        length[ended] = t + 1
        terminated |= ended
        if terminated.all():
            break
    return [_episode(task, obs[: n + 1, b], actions[:n, b], bool(terminated[b])) for b, n in enumerate(length)]


def _episode(task: Task, obs: NDArray[np.float32], actions: NDArray[np.float32], terminated: bool) -> Episode:
    steps = len(actions)
    last = np.arange(steps) == steps - 1
    return Episode(
        obs=obs.copy(),
        actions=actions.copy(),
        rewards=task.reward(obs[:-1], actions, obs[1:]).astype(np.float32),
        terminated=last & terminated,
        truncated=last & (not terminated),
        stamps=np.arange(steps + 1, dtype=np.float64) * task.observer.spec.control_dt,
    )
