"""The delay between writing a command and its effect, from any rollouts that carry the actions in flight.

While a command is held for one control period dt, a command delayed by L drives the joint from L to L + dt after its
measurement. The change of joint speed over period k is then linear in the last actions, whose weights say where each
fell: (1 - L/dt) on a_k and L/dt on a_{k-1} for L < dt, and so on, times one gain. The L under which these two weights
explain most is the delay. Weights fitted freely would find it as their centroid too, but there an error of 0.1 at the
oldest action is one of 6 ms at 50 Hz.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landbridge.calibration.windows import open_recording
from landbridge.episode import Dataset, Episode
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import Robot, load_robot

RESAMPLES = 200
RIDGE = 1e-6
MIN_EPISODES = 3  # below this a bootstrap over episodes says nothing


def delays(data: Path, /, robot: str = "furuta", seed: int = 0) -> dict[str, Any]:
    """Estimate the command delay of each actuated joint from rollouts.

    For robots that are commanded in effort: where a servo closes a loop of its own, its answer to one command is spread
    over many periods. The joint must be excited: rollouts of `landbridge record` are. The observation must carry joint
    speeds and `action_history` as long as the longest delay looked for. It takes a second and no model; `identify`,
    which has one, is more exact.

    Example: landbridge calibrate delay demo/data/target

    Args:
        data: A dataset folder.
        robot: Name of a robot, or a folder with robot.yaml.
        seed: Of the bootstrap.

    Returns:
        Delay per joint [ms] with a 95 % bootstrap interval over episodes, which knows nothing of the regression's own
        error of up to 2 ms.
    """
    machine = load_robot(robot)
    if (kind := machine.spec.action.kind) != "effort":
        raise InputError(machine.spec.name, f"is commanded in {kind}, not effort", "`calibrate identify` finds latency")
    dataset = open_recording(data, machine)
    rows = joint_delays(machine, _usable(dataset, Observer(machine.spec)), np.random.default_rng(seed))
    return {"dataset": str(data), "episodes": len(dataset), "delays": rows}


def joint_delays(robot: Robot, episodes: Sequence[Episode], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Delay of each actuated joint [ms], with its 95 % interval; raises InputError if no past action is observed."""
    observer, rows = Observer(robot.spec), []
    if not observer.history:
        raise InputError(robot.spec.name, "its observation carries no action_history", "add it to robot.yaml")
    period = 1000 * robot.spec.control_dt
    for joint in robot.spec.actuated:
        found = delay([_regression(observer, episode, joint) for episode in episodes], observer.history + 1, rng)
        low, estimate, high = (period * value for value in found)
        rows.append({"joint": joint, "delay_ms": estimate, "low_ms": low, "high_ms": high})
    return rows


Array = NDArray[np.float64]
Regression = tuple[Array, Array]  # X (T, lags + nuisance), y (T,)


def delay(episodes: Sequence[Regression], lags: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """Delay in control periods: lower bound, estimate, upper bound (95 %, bootstrap over episodes).

    Args:
        episodes: Per episode, regressors X whose first `lags` columns are a_k, a_{k-1}, ... and change of speed y.
        lags: Number of actions among the regressors.
        rng: Of the bootstrap.
    """
    grams = [(x.T @ x, x.T @ y) for x, y in episodes]

    def best(chosen: NDArray[np.intp]) -> float:
        gram, moment = (sum((grams[i][part] for i in chosen), np.zeros(())) for part in (0, 1))
        return _best(*_without_nuisance(gram, moment, lags))

    everything = np.arange(len(grams))
    resampled = [best(rng.choice(everything, len(grams))) for _ in range(RESAMPLES)]
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(low), best(everything), float(high)


def _without_nuisance(gram: Array, moment: Array, lags: int) -> tuple[Array, Array]:
    """Normal equations of the first `lags` regressors alone, the others fitted (Frisch and Waugh, 1933)."""
    gram = gram + RIDGE * np.diag(np.diag(gram)) + 1e-12 * np.eye(len(gram))
    part = gram[:lags, lags:] @ np.linalg.inv(gram[lags:, lags:])
    return gram[:lags, :lags] - part @ gram[lags:, :lags], moment[:lags] - part @ moment[lags:]


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


def _usable(dataset: Dataset, observer: Observer) -> list[Episode]:
    episodes = [episode for episode in dataset if len(episode) > observer.size]
    if len(episodes) < MIN_EPISODES:
        raise InputError(dataset.path, f"has {len(episodes)} usable episodes", f"record at least {MIN_EPISODES}")
    return episodes


def _regression(observer: Observer, episode: Episode, joint: str) -> Regression:
    """y: change of the joint's speed. X: its last actions, then what else accelerates it: the state, its products."""
    speed = observer.column(episode.obs, f"joint_vel.{joint}")
    own = observer.spec.actuated.index(joint)
    past = [observer.column(episode.obs[:-1], f"action_history.{joint}.{age}") for age in range(observer.history)]
    state = episode.obs[:-1, observer.measured].astype(np.float64)
    products = np.einsum("ti,tj->tij", state, state)[(slice(None), *np.triu_indices(state.shape[1]))]
    others = [episode.actions[:, i] for i in range(observer.num_actions) if i != own]
    columns: list[NDArray[Any]] = [episode.actions[:, own], *past, np.ones(len(episode)), *others, state, products]
    return np.column_stack(columns), np.diff(speed)
