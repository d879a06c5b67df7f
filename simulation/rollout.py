"""Running policies in plants: the one place where simulated episodes are made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from landbridge.episode import Episode
from landbridge.observation import Base, Observer, action_to_command, push_action
from landbridge.simulation.behaviour import Policy, require_action
from landbridge.simulation.compensation import Compensation
from landbridge.simulation.plant import Plant
from landbridge.task import Task


def lockstep(
    plants: Sequence[Plant],
    task: Task,
    policy: Policy,
    rng: np.random.Generator,
    exploring: bool = False,
    write_after: float = 0.0,
    compensation: Compensation | None = None,
) -> list[Episode]:
    """Run one episode in each of B plants at once, with one call of `policy` per control step.

    Episodes end when the task terminates them, or are truncated after `task.episode_seconds`. Row b of the policy's
    batch stays with plant b; after an early end that plant rests. `exploring` starts from `task.exploring_state`. A
    command is written `write_after` seconds after the measurement that it answers: the time a robot's computer takes.
    A `compensation` changes what is written, not the actions that episodes and observations hold.
    """
    observer, batch, steps = task.observer, len(plants), task.episode_steps
    starts = task.exploring_state if exploring else task.initial_state
    for plant, pos, vel in zip(plants, *starts(rng, batch), strict=True):
        plant.reset(pos, vel)
    history = observer.initial_history(batch)
    obs = np.empty((steps + 1, batch, observer.size), np.float32)
    actions = np.empty((steps, batch, observer.num_actions), np.float32)
    joint_pos, joint_vel = (np.stack(values) for values in zip(*(p.measure() for p in plants), strict=True))
    obs[0] = observer(joint_pos, joint_vel, history, _bases(plants), 0)
    terminated = np.zeros(batch, bool)
    for t in range(steps):
        action = policy(obs[t])
        require_action(action, batch, observer.spec, f"policy, control step {t}")
        actions[t] = np.clip(action, -1.0, 1.0)
        commands = action_to_command(observer.spec, actions[t])
        for b in np.flatnonzero(~terminated).tolist():
            sent = commands[b] if compensation is None else compensation(commands[b], joint_vel[b])
            plants[b].step([(write_after, sent)])
            joint_pos[b], joint_vel[b] = plants[b].measure()
        history = push_action(history, actions[t])
        obs[t + 1] = observer(joint_pos, joint_vel, history, _bases(plants), t + 1)
        terminated |= task.terminated(obs[t], actions[t], obs[t + 1])
        if terminated.all():
            break
    stamps = np.arange(t + 2, dtype=np.float64) * observer.spec.control_dt
    written = np.full(t + 1, write_after)
    return [label(task, obs[: t + 2, b], actions[: t + 1, b], stamps, written) for b in range(batch)]


def following(
    plant: Plant, observer: Observer, obs: NDArray[np.float32], actions: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What `plant` would observe (N, n) one control period after each obs (N, n) in which `actions` (N, m) are sent.

    The actions that the observation says were sent are on their way. For a fixed base with all joints observed.
    """
    pos, vel = observer.joint_state(obs)
    sent = observer.sent(obs)
    commands = action_to_command(observer.spec, np.concatenate([actions[:, None], sent], axis=1))  # newest first
    ages = observer.spec.control_dt * np.arange(commands.shape[1])
    after = np.empty((2, *pos.shape))
    for row in range(len(obs)):
        plant.reset(pos[row], vel[row])
        plant.step([(-ages[k], commands[row, k]) for k in reversed(range(len(ages)))])
        after[:, row] = plant.measure()
    return observer(after[0], after[1], push_action(sent, actions))


def _bases(plants: Sequence[Plant]) -> Base | None:
    rows = [base for plant in plants if (base := plant.measure_base()) is not None]
    return Base(*(np.concatenate(parts) for parts in zip(*rows, strict=True))) if rows else None


def label(
    task: Task,
    obs: NDArray[np.float32],
    actions: NDArray[np.float32],
    stamps: NDArray[np.float64],
    written: NDArray[np.float64],
) -> Episode:
    """The episode of T + 1 observations (T + 1, n) and T actions (T, m), simulated or recorded, as the task sees it.

    `stamps` (T + 1,) and `written` (T,) are as `Episode` has them. The task gives rewards and terminations; what comes
    after a termination is dropped, and an episode without one is truncated at its end.
    """
    before, after = obs[:-1], obs[1:]
    terminated = task.terminated(before, actions, after)
    steps = int(np.argmax(terminated)) + 1 if terminated.any() else len(actions)
    return Episode(
        obs=obs[: steps + 1].copy(),
        actions=actions[:steps].copy(),
        rewards=task.reward(before, actions, after)[:steps].astype(np.float32),
        terminated=terminated[:steps],
        truncated=(np.arange(steps) == steps - 1) & ~terminated[:steps],
        stamps=stamps[: steps + 1],
        written=written[:steps],
    )
