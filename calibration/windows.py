"""Rollouts cut into short windows: measured joint states and the commands that were on their way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landbridge.calibration.state import base_state, columns
from landbridge.episode import Dataset, Episode, open_dataset
from landbridge.errors import InputError
from landbridge.observation import Observer, action_to_command, nearest_turn
from landbridge.robot import BASE_KINDS, Robot, RobotSpec, option
from landbridge.simulation.parameters import MAX_LATENCY_MS
from landbridge.simulation.plant import make_plant
from landbridge.simulation.scenario import Scenario
from landbridge.spec import require_at_least

Array = NDArray[np.float64]

HELD_OUT = 0.2  # of the windows, the last ones
FEWEST = 20  # windows
MIN_PERIODS = 5  # of a window: it must tell more than its own start state
RATE_TOLERANCE = 0.01  # a rate that is wrong by as much makes an inertia wrong by twice that
JITTER = 0.5  # control periods: a window with a larger step between stamps is left out
TURNING, STUCK = 0.5, 0.02  # rad/s: faster is no noise; share of the rows in which a turning joint may stand still
PUSHED = 12.5  # m/s^2: what feet of friction 0.8 give under 1.6 times the weight; they hardly ever give more
WALKING = 0.05  # m/s, a tenth of a slow walk
HORIZON_S = {"fixed": 0.5, "floating": 0.2}  # of windows; at 0.2 s half of a trot's steps lie ahead, and not yet chaos
STILL = 1e-3  # rad or units of action: a joint or an action that varies less was not excited


@dataclass(frozen=True)
class Windows:
    """W windows of H control periods each, J joints, A commands.

    Attributes:
        states: (W, H + 1, S) measured positions [rad], unwrapped, velocities [rad/s], and of a floating base what
            `landbridge.calibration.state` names.
        commands: (W, L + H, A), of which the first L were sent before the window began; SI units.
        episode: (W,) number of the episode that each window was cut from.
        before: (W, L, S) measured states of the L periods before it.
        late: (W, L + H) by how much later each command was written than a steady computer would have written it [s].
        taken: (W, H + 1) by how much later each state was measured than whole periods after the window's first [s].
    """

    states: Array
    commands: Array
    episode: NDArray[np.intp]
    before: Array
    late: Array
    taken: Array

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.states)

    def where(self, mask: NDArray[np.bool_]) -> Windows:
        """The windows that `mask` (W,) chooses."""
        return Windows(*(getattr(self, field.name)[mask] for field in fields(self)))

    def first(self, periods: int) -> Windows:
        """The first control periods of each."""
        sent = self.before.shape[1] + periods
        states, taken = self.states[:, : periods + 1], self.taken[:, : periods + 1]
        return replace(self, states=states, taken=taken, commands=self.commands[:, :sent], late=self.late[:, :sent])


def split(windows: Windows) -> tuple[Windows, Windows]:
    """The windows to fit, and the last ones, held out to judge the fit."""
    last = np.arange(len(windows)) >= (1 - HELD_OUT) * len(windows)
    return windows.where(~last), windows.where(last)


def open_windows(path: Path, robot: Robot, horizon: float | None) -> tuple[Dataset, Windows]:
    """The dataset at `path` and its windows of `horizon` seconds, by default HORIZON_S; InputError if too few."""
    horizon = HORIZON_S[robot.spec.base] if horizon is None else horizon
    require_at_least("--horizon", horizon, robot.spec.control_dt)
    dataset = open_rollouts(path, robot)
    windows = cut(dataset, robot, max(MIN_PERIODS, round(horizon / robot.spec.control_dt)), path)
    if len(windows) < FEWEST:
        raise InputError(path, f"has {len(windows)} usable windows", f"record at least {FEWEST}, or shorten --horizon")
    return dataset, windows


def open_rollouts(path: Path, robot: Robot) -> Dataset:
    """The dataset at `path`, checked to be of this robot at its rate, and the robot to be one that can be simulated."""
    dataset, spec = open_dataset(path), robot.spec
    found = dataset.metadata
    if found.domain != "target":
        remedy = "name the robot's data; what stands for a robot is collected or ingested with --domain target"
        raise InputError(path, f"stands for the simulator (domain {found.domain})", remedy)
    if found.robot != spec.name:
        raise InputError(path, f"is of robot {found.robot!r}, not {spec.name!r}", f"add {option(found.robot)}")
    if found.robot_hash != spec.digest():
        then, present = found.robot_hash[:12], spec.digest()[:12]
        problem = f"was recorded on another {found.robot!r} ({then}) than {spec.name!r} ({present})"
        raise InputError(path, problem, "name the right --robot, restore that robot.yaml, or record again")
    if not abs(found.measured_rate_hz / spec.control_rate_hz - 1) <= RATE_TOLERANCE:
        problem = f"was recorded at {found.measured_rate_hz:g} Hz, {spec.name} runs at {spec.control_rate_hz:g} Hz"
        raise InputError(path, problem, "record again at the robot's rate")
    make_plant(robot, "mujoco", Scenario()).close()  # refuses a gear that the physics steps do not bear
    return dataset


def require_fixed_base(robot: Robot, what: str) -> None:
    """Raise InputError for a robot that walks; `what` is what its walking cannot tell."""
    if robot.spec.base != "fixed":
        problem = f"has a floating base, and walking does not tell {what} apart from the rest"
        remedy = "use `calibrate identify`, or hang it from a stand: a robot folder of its own, with a fixed base"
        raise InputError(robot.spec.name, problem, remedy)


def digest(dataset: Dataset) -> str:
    """SHA-256 of every observation and action."""
    state = hashlib.sha256()
    for episode in dataset:
        state.update(episode.obs.tobytes() + episode.actions.tobytes())
    return state.hexdigest()


def lags(robot: Robot) -> int:
    """Commands before a window that may still be on their way in it."""
    return int(np.ceil(MAX_LATENCY_MS / 1000 * robot.spec.control_rate_hz))


def _join_turns(spec: RobotSpec, observer: Observer, state: Array, command: Array) -> None:
    """Move joints of `state` that are seen by sine and cosine to the turn that they are commanded to."""
    if spec.action.kind == "position":
        own = spec.driven_at
        ahead = state[0, own] - command[0]
        state[:, own] += nearest_turn(observer, spec.actuated, ahead) - ahead


def cut(episodes: Iterable[Episode], robot: Robot, horizon: int, where: str | Path) -> Windows:
    """Consecutive windows of `horizon` control periods from every episode of `where`.

    The first `lags` periods of an episode are left out, since what was sent before it is unknown, and so are windows
    with a lost tick, in them or just before, or a value at its clip; of a floating base also those in which it is
    pushed or falls.

    Raises:
        InputError: A value is not finite, a joint's state is not in the observation, nothing moved, or nothing is left.
    """
    observer, before = Observer(robot.spec), lags(robot)
    states, commands, numbers, ahead, written, stamps = [], [], [], [], [], []
    for number, episode in enumerate(episodes):
        state = measured_state(robot, observer, episode, f"{where}: episode {number}")
        command = action_to_command(robot.spec, episode.actions)
        _join_turns(robot.spec, observer, state, command)
        steady, inside = _steady(robot.spec, np.diff(episode.stamps)), _unclipped(observer, episode)
        if robot.spec.base == "floating":
            inside &= _on_its_feet(robot.spec, state)
            steady &= ~_pushed(robot.spec, state)
        for start in range(before, len(episode) - horizon + 1, horizon):
            if steady[start - before : start + horizon].all() and inside[start : start + horizon + 1].all():
                states.append(state[start : start + horizon + 1])
                commands.append(command[start - before : start + horizon])
                numbers.append(number)
                ahead.append(state[start - before : start])
                written.append(episode.written[start - before : start + horizon])
                stamps.append(episode.stamps[start - before : start + horizon + 1] - episode.stamps[start])
    if not states:
        raise InputError(
            where,
            f"no episode holds {before + horizon} steady control periods",
            "record longer episodes, without lost ticks" + (" or falls" if robot.spec.base == "floating" else ""),
        )
    taken = np.array(stamps) - robot.spec.control_dt * np.arange(-before, horizon + 1)
    late = taken[:, :-1] + _late(np.array(written))
    found = Windows(np.array(states), np.array(commands), np.array(numbers), np.array(ahead), late, taken[:, before:])
    _require_motion(where, robot, found)
    return found


def _late(written: Array) -> Array:
    """Times of writes [s] less their median, which is part of the latency; where none was taken, 0."""
    timed = np.isfinite(written)
    return np.where(timed, written - np.median(written[timed]), 0.0) if timed.any() else np.zeros(written.shape)


def measured_state(robot: Robot, observer: Observer, episode: Episode, where: str) -> Array:
    """States (T + 1, S) of an episode, positions unwrapped."""
    for name, values in (("observation", episode.obs), ("action", episode.actions)):
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            label = observer.names[column] if name == "observation" else observer.spec.actuated[column]
            raise InputError(where, f"{name} {label} of row {row} is {values[row, column]}", "remove that episode")
    joints, names = observer.spec.joint_names, set(observer.names)
    turning = [i for i, joint in enumerate(joints) if f"joint_pos.{joint}" not in names]
    for joint in (joints[i] for i in turning):
        if not {f"joint_sin.{joint}", f"joint_cos.{joint}"} <= names:
            raise InputError(observer.spec.name, f"its observation lacks the position of joint {joint}", "add it")
    if missing := [joint for joint in joints if f"joint_vel.{joint}" not in names]:
        raise InputError(observer.spec.name, f"its observation lacks joint_vel of {missing}", "add it")
    positions, velocities = observer.joint_state(episode.obs)
    stuck = ((np.diff(positions, axis=0) == 0) & (np.abs(velocities[1:]) > TURNING)).mean(0)
    if stuck.max(initial=0.0) > STUCK:
        worst = int(np.argmax(stuck))
        problem = f"joint {joints[worst]} reads the same position while it turns, in {stuck[worst]:.0%} of the rows"
        raise InputError(where, problem, "its encoder is saturated or frozen: mend it and record again")
    parts = [_unwrapped(observer, episode, positions, velocities), velocities]
    if observer.spec.base == "floating":
        parts.append(base_state(robot, observer, episode.obs, positions))
    return np.concatenate(parts, axis=-1)


def _unwrapped(observer: Observer, episode: Episode, positions: Array, velocities: Array) -> Array:
    """Positions without the wraps of sine and cosine, or of an encoder that never turns half a turn in a period."""
    names, spec = set(observer.names), observer.spec
    read = np.array([f"joint_pos.{joint.name}" in names for joint in spec.joints])  # the others by sine and cosine
    turns = 2 * np.pi / np.where(read, [joint.encoder.gear for joint in spec.joints], 1.0)
    slow = ~read | (np.abs(velocities).max(0) * spec.control_dt < turns / 2)
    steps = np.diff(episode.stamps)
    positions[:, slow] = unwrapped(
        positions[:, slow], velocities[:, slow], np.where(_steady(spec, steps), steps, np.nan), turns[slow]
    )
    return positions


def unwrapped(positions: Array, velocities: Array, steps: Array, turns: Array) -> Array:
    """Positions (T, J) [rad] without the jumps by a whole turn (J,) [rad] where an encoder begins anew.

    A step of `steps` (T - 1,) [s] is that many turns off which brings it nearest to what the velocities (T, J) say; one
    of unknown length, NaN, none.
    """
    expected = (velocities[1:] + velocities[:-1]) / 2 * steps[:, None]
    jumps = np.nan_to_num(np.round((np.diff(positions, axis=0) - expected) / turns))
    return positions - turns * np.concatenate([np.zeros((1, len(turns))), np.cumsum(jumps, axis=0)])


def _steady(spec: RobotSpec, steps: Array) -> NDArray[np.bool_]:
    steady: NDArray[np.bool_] = np.abs(steps - spec.control_dt) <= JITTER * spec.control_dt
    return steady


def _unclipped(observer: Observer, episode: Episode) -> NDArray[np.bool_]:
    """Whether each measurement (T + 1,) is inside its clips."""
    kinds = {"joint_pos", "joint_vel", *BASE_KINDS}
    limits = np.array([c.clip if c.kind in kinds else np.inf for c in observer.columns], np.float32)
    inside: NDArray[np.bool_] = np.all(np.abs(episode.obs) < limits, axis=-1)
    return inside


def _on_its_feet(spec: RobotSpec, state: Array) -> NDArray[np.bool_]:
    """Whether the base is tilted by less than `max_tilt`, at each measurement (T + 1,)."""
    down = -state[:, columns(spec).index("projected_gravity.z")]
    upright: NDArray[np.bool_] = down > np.cos(spec.safety.max_tilt or np.pi / 2)
    return upright


def _pushed(spec: RobotSpec, state: Array) -> NDArray[np.bool_]:
    """Whether the base is pushed in each period (T,): faster along the ground than its own feet could make it."""
    first = columns(spec).index("base_lin_vel.x")
    gained = np.linalg.norm(np.diff(state[:, first : first + 2], axis=0), axis=1)
    pushed: NDArray[np.bool_] = gained > PUSHED * spec.control_dt
    return pushed


def _require_motion(where: str | Path, robot: Robot, windows: Windows) -> None:
    joints, actuated = robot.spec.joint_names, robot.spec.actuated
    moved = np.ptp(windows.states[:, :, : len(joints)], axis=1).max(0)
    if still := [joint for joint, span in zip(joints, moved, strict=True) if span < STILL]:
        raise InputError(where, f"joints {still} never move", "record with the behaviour excite")
    if robot.spec.base == "floating":
        first = columns(robot.spec).index("base_lin_vel.x")
        speed = float(np.median(np.linalg.norm(windows.states[:, 0, first : first + 2], axis=1)))
        if speed < WALKING:
            problem = f"hardly walks: its base moves at {speed:.2g} m/s"
            raise InputError(where, problem, "record it walking, with the behaviour excite")
    spans = np.ptp(windows.commands, axis=(0, 1)) / [robot.spec.action.scale[name] for name in actuated]
    if still := [joint for joint, span in zip(actuated, spans, strict=True) if span < STILL]:
        raise InputError(where, f"the commands of joints {still} never vary", "record with the behaviour excite")
