"""The delay from a measurement to the effect of the command that answers it, from rollouts with the actions in flight.

While a command is held for one control period dt, a command delayed by L drives the joint from L to L + dt after its
measurement. The change of joint speed over period k is then linear in the last actions, whose weights say where each
fell: (1 - L/dt) on a_k and L/dt on a_{k-1} for L < dt, and so on, times what an action does in that pose. The L under
which these two weights explain most is the delay. Weights fitted freely would find it as their centroid too, but there
an error of 0.1 at the oldest action is one of 6 ms at 50 Hz.

What an action does in a pose, and what moves the joint without one, are the nominal simulator's, each up to a factor: a
pendulum that swings makes the inertia before its drive another in every period. With one gain for all poses the delay
of such a robot was up to 4 ms off.

Where a servo closes a loop of its own, a command has half died down within its own period, and how far depends on what
the joint carries; no such weights hold. There the nominal simulator is fitted to short windows, with the delay, the
servos' gain and each joint's damping free, since a damping that is wrong looks like a delay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landbridge.calibration.descent import first_guess
from landbridge.calibration.fit import Problem, fit
from landbridge.calibration.posterior import estimates, inflation, resample
from landbridge.calibration.shooting import Case, simulate_all
from landbridge.calibration.windows import (
    MIN_PERIODS,
    Windows,
    cut,
    lags,
    measured_state,
    open_rollouts,
    require_fixed_base,
)
from landbridge.episode import Episode
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import Robot, load_robot
from landbridge.simulation.parameters import MAX_LATENCY_MS, Parameter, parameters
from landbridge.simulation.scenario import Scenario
from landbridge.spec import require_seed

RESAMPLES = 200
RIDGE = 1e-6
OWN_MS = 0.5  # the method's own error, beyond what a bootstrap sees: 0.3 in 20 furutas (docs/FIGURES.md)
OWN_SHARE = 0.025  # or, if that is more, of a control period, over which a joint does not move evenly: 2.2 of 100 ms
PLAY_MS = 3.0  # by which a gap that is crossed before a command is felt makes a delay look longer: up to 2.8 in 20
MIN_EPISODES = 3  # below this a bootstrap over episodes says nothing
DAMPING_SD = 0.3  # of a servo's nominal damping
MOST = 40  # windows of it


def delays(data: Path, /, robot: str = "furuta", seed: int = 0) -> dict[str, Any]:
    """Estimate the delay from a measurement to the effect of its command, of each actuated joint, from rollouts.

    The joints must be excited, as they are in rollouts of `landbridge record`. The observation must carry joint speeds,
    and an `action_history` as long as the longest delay looked for. This takes seconds. Masses, lengths and frictions
    are taken from robot.yaml and the URDF. Servos that close their own loop get one delay for all of them, and need a
    fixed base. `identify`, which fits the whole model, is more exact.

    Example: landbridge calibrate delay demo/data/target

    Args:
        data: A dataset folder.
        robot: Name of a robot, or a folder with robot.yaml.
        seed: Of the bootstrap.

    Returns:
        Delay per joint [ms] with a 95 % interval. Behind a gear with play a command is felt late, and how late depends
        on the motion, so that interval begins 3 ms earlier. Stiffness and damping of servos may be off by 20 % each.
    """
    require_seed(seed)
    machine = load_robot(robot)
    dataset = open_rollouts(data, machine)
    rows = joint_delays(machine, list(dataset), np.random.default_rng(seed), str(data))
    return {"dataset": str(data), "episodes": len(dataset), "delays": rows}


def joint_delays(
    robot: Robot, episodes: Sequence[Episode], rng: np.random.Generator, where: str = "the rollouts"
) -> list[dict[str, Any]]:
    """Delay [ms] of each actuated joint, servos in one row, with its 95 % interval; InputError if none is told."""
    if robot.spec.action.kind != "effort":
        require_fixed_base(robot, "its servos' delay")
        return [_of_servos(robot, cut(episodes, robot, MIN_PERIODS, where), rng)]
    observer, rows = Observer(robot.spec), []
    if not observer.history:
        raise InputError(robot.spec.name, "its observation carries no action_history", "add it to robot.yaml")
    period, usable = 1000 * robot.spec.control_dt, _usable(episodes, observer, where)
    states = [measured_state(robot, observer, each, f"{where}: episode {i}") for i, each in enumerate(usable)]
    foretold = [(each, _one_period(robot, state)) for each, state in zip(usable, states, strict=True)]
    for joint in robot.spec.actuated:
        found = delay([_regression(observer, *pair, joint) for pair in foretold], observer.history + 1, rng)
        if found[-1] >= observer.history:
            raise _too_late(robot, f"joint {joint}", period * observer.history, "the longest that action_history shows")
        low, estimate, high = (period * value for value in found)
        play = 0.0 if robot.spec.joint(joint).transmission is None else PLAY_MS
        own = max(OWN_MS, OWN_SHARE * period)
        ends = {"low_ms": max(0.0, low - own - play), "high_ms": high + own}
        rows.append({"joint": joint, "delay_ms": estimate, **ends})
    return rows


def _of_servos(robot: Robot, windows: Windows, rng: np.random.Generator) -> dict[str, Any]:
    few = windows.where(np.arange(len(windows)) % -(-len(windows) // MOST) == 0)
    robot, free = _softened(robot)
    problem = Problem(robot, free, few, first_guess(robot))
    # From a damping or a delay that is far off, a fit may end at another delay: it starts where the cost is least.
    grid = product((-1.0, 0.0, 1.0), np.linspace(0.0, 2.0, 6))
    tried = [np.clip([0.0, *[damping] * (len(free) - 2), latency], *problem.bounds) for damping, latency in grid]
    start = min(tried, key=lambda z: problem.point(z, few.states[:, 0]).cost)
    fitted = fit(problem, start)
    widening = inflation(fitted.here.error.reshape(few.states.shape), 1.0)
    found = estimates(free, fitted.here.z, resample(fitted.here, fitted.linear, widening, rng))["latency_ms"]
    if found.high >= MAX_LATENCY_MS:
        raise _too_late(robot, "the servos", MAX_LATENCY_MS, "the longest that is looked for")
    return {"joint": "all", "delay_ms": found.value, "low_ms": found.low, "high_ms": found.high}


def _too_late(robot: Robot, who: str, most_ms: float, why: str) -> InputError:
    problem = f"the delay of {who} may be more than {most_ms:g} ms, {why}"
    return InputError(robot.spec.name, problem, "shorten it, or lengthen action_history in robot.yaml and record again")


def _softened(robot: Robot) -> tuple[Robot, list[Parameter]]:
    """`robot` with half of its position servos' damping put down to the joints' friction, and what is fitted of it.

    A gain scales stiffness and damping together; the friction sets the damping apart, up or down. The damping of joints
    that are commanded in velocity is what a command drives by, and stays.
    """
    joints = []
    for joint in robot.spec.joints:
        half = joint.damping / 2 if joint.actuated and robot.spec.action.kind == "position" else 0.0
        friction = joint.friction.model_copy(update={"viscous": joint.friction.viscous + half})
        joints.append(joint.model_copy(update={"damping": joint.damping - half, "friction": friction}))
    soft = Robot(robot.spec.model_copy(update={"joints": tuple(joints)}), robot.folder)
    named = {p.name: p for p in parameters(soft)}
    dampings = []
    for joint in robot.spec.driven:
        rubbing = named[f"friction.{joint.name}.viscous"]
        sd = DAMPING_SD * joint.damping or rubbing.sd  # of a drive without damping that of any friction
        dampings.append(replace(rubbing, sd=sd, high=rubbing.nominal + 3 * sd))
    return soft, [named["actuator_gain"], *dampings, named["latency_ms"]]


Array = NDArray[np.float64]
Regression = tuple[Array, Array]  # X (T, lags + nuisance), y (T,)


def delay(episodes: Sequence[Regression], lag_count: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """Delay in control periods: lower bound, estimate, upper bound (95 %, bootstrap over episodes).

    Args:
        episodes: Per episode, regressors X, the first `lag_count` columns a_k, a_{k-1}, ..., and change of speed y.
        lag_count: Number of actions among the regressors.
        rng: Of the bootstrap.
    """
    grams = [(x.T @ x, x.T @ y) for x, y in episodes]

    def best(chosen: NDArray[np.intp]) -> float:
        gram, moment = (sum((grams[i][part] for i in chosen), np.zeros(())) for part in (0, 1))
        return _best(*_without_nuisance(gram, moment, lag_count))

    everything = np.arange(len(grams))
    resampled = [best(rng.choice(everything, len(grams))) for _ in range(RESAMPLES)]
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(low), best(everything), float(high)


def _without_nuisance(gram: Array, moment: Array, lag_count: int) -> tuple[Array, Array]:
    """Normal equations of the first `lag_count` regressors alone, the others fitted (Frisch and Waugh, 1933)."""
    gram = gram + RIDGE * np.diag(np.diag(gram)) + 1e-12 * np.eye(len(gram))
    kept, others = slice(lag_count), slice(lag_count, None)
    part = gram[kept, others] @ np.linalg.inv(gram[others, others])
    return gram[kept, kept] - part @ gram[others, kept], moment[kept] - part @ moment[others]


def _best(gram: Array, moment: Array) -> float:
    """The delay whose weights w explain most, (w m)^2 / (w G w); between two lags its best place has a closed form."""
    size, found = len(moment), []
    for lag in range(size - 1):
        here, step = np.eye(size)[lag], np.eye(size)[lag + 1] - np.eye(size)[lag]
        up, slope, a, b, c = here @ moment, step @ moment, here @ gram @ here, here @ gram @ step, step @ gram @ step
        bottom = slope * b - up * c
        inner = (up * b - slope * a) / bottom if bottom else 0.0
        for share in (0.0, float(np.clip(inner, 0, 1)), 1.0):
            weights = here + share * step
            found.append((float((weights @ moment) ** 2 / (weights @ gram @ weights)), lag + share))
    return max(found)[1]


def _usable(episodes: Sequence[Episode], observer: Observer, where: str) -> list[Episode]:
    """Those long enough for the regression, whose bootstrap is over episodes; InputError if they are too few."""
    usable = [episode for episode in episodes if len(episode) > observer.size]
    if len(usable) < MIN_EPISODES:
        problem = f"has {len(usable)} usable episodes, longer than {observer.size} periods"
        raise InputError(where, problem, f"record at least {MIN_EPISODES}")
    return usable


@dataclass(frozen=True)
class Period:
    """What the nominal robot does in T control periods from measured states (T, S).

    Attributes:
        velocity: (T, J) of the joints at their beginning [rad/s].
        free: (T, J) by how much they get faster without a command [rad/s].
        gains: (A, T, J) and by how much more under each drive's largest command.
    """

    velocity: Array
    free: Array
    gains: Array


def _one_period(robot: Robot, state: Array) -> Period:
    """From each but the last of measured states (T + 1, S); rotors of geared joints turn with them."""
    joints, lead = [], lags(robot)
    for joint in robot.spec.joints:
        inertia = 0.0 if joint.transmission is None else joint.transmission.rotor_inertia
        joints.append(joint.model_copy(update={"transmission": None, "armature": joint.armature + inertia}))
    rigid = Robot(robot.spec.model_copy(update={"joints": tuple(joints)}), robot.folder)
    starts, pairs = state[:-1], np.stack([state[:-1], state[1:]], 1)
    largest = np.diag([robot.spec.action.scale[name] for name in robot.spec.actuated])
    commands = [np.broadcast_to(each, (len(starts), lead + 1, len(largest))) for each in (0 * largest[0], *largest)]
    number, before, steady = np.zeros(len(starts), np.intp), pairs[:, [0] * lead], np.zeros((len(starts), lead + 1))
    windows = [Windows(pairs, each, number, before, steady, steady[:, -2:]) for each in commands]
    ends = simulate_all(rigid, [Case(Scenario(), each, starts) for each in windows])[:, :, 1]
    speeds = slice(len(joints), 2 * len(joints))
    return Period(starts[:, speeds], (ends[0] - starts)[:, speeds], (ends[1:] - ends[0])[..., speeds])


def _regression(observer: Observer, episode: Episode, period: Period, joint: str) -> Regression:
    """y: change of the joint's speed. X: its last actions, then what else accelerates it: the state, its products."""
    column, own = observer.spec.joint_names.index(joint), observer.spec.actuated.index(joint)
    gains, speed = period.gains[..., column], observer.column(episode.obs, f"joint_vel.{joint}")
    past = [observer.column(episode.obs[:-1], f"action_history.{joint}.{age}") for age in range(observer.history)]
    state = episode.obs[:-1, observer.measured].astype(np.float64)
    products = np.einsum("ti,tj->tij", state, state)[(slice(None), *np.triu_indices(state.shape[1]))]
    rubs = np.tanh(period.velocity[:, column] / observer.spec.friction_smoothing)
    others = [gains[i] * episode.actions[:, i] for i in range(observer.num_actions) if i != own]
    lagged = [gains[own] * each for each in (episode.actions[:, own], *past)]
    columns: list[NDArray[Any]] = [*lagged, np.ones(len(episode)), gains[own] * rubs, *others]
    return np.column_stack([*columns, period.free, state, products]), np.diff(speed)
