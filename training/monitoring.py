"""What a bundle is watched by: the target model as a graph, the envelope of the data, and the limits of both."""

from __future__ import annotations

from typing import NamedTuple, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from landbridge.envelope import Envelope
from landbridge.manifest import Drift, Threshold
from landbridge.observation import Observer
from landbridge.task import load_task
from landbridge.training.agents.base import Agent
from landbridge.training.alignments.base import Alignment
from landbridge.training.alignments.modelled import Modelled
from landbridge.training.alignments.oracle import Twin
from landbridge.training.dataset import Normaliser, Transitions
from landbridge.training.policy import Trained
from landbridge.training.predictor import Predictor, split_episodes

QUANTILES = (0.001, 0.01, 0.5, 0.99, 0.999)
# Window and margin were chosen on seeds that benchmarks/drift.py does not use. Of 1, 2 and 3 s, 1 s alarmed more on
# healthy robots and 3 s missed a fifth of the payloads.
WINDOW_SECONDS = 2.0
QUANTILE = 0.99
# Held-out rollouts are few, and a policy visits other states than the behaviour that recorded them: 1.25 alarmed in
# half of the healthy rollouts, and 2.5 missed a third of three faults.
MARGIN = 1.75
MIN_WINDOWS = 100  # that overlap: about twice the window's length of one rollout at 50 Hz
OTHER_SPLITS = 20  # ways to hold rows out that are tried, where those that a run held out are too few


class TargetModel(nn.Module):
    """What the robot would have done, and what the difference is worth; in physical units, all for N rows.

    (obs (N, n), action (N, m), next_obs (N, n)) -> mismatch (N,), predicted (members, N, n), with

        mismatch = gamma mean_k | V(s') - V(s^_k) |

    the target Bellman mismatch (see `alignments.tabb`) without its rewards, which no robot can compute on board. It is
    in units of the trainer's scaled return. Columns known beforehand (past actions, clock) are those of `next_obs`.
    """

    def __init__(self, predictor: Predictor, agent: Agent, normaliser: Normaliser, observer: Observer) -> None:
        super().__init__()
        self.predictor, self.agent, self.gamma = predictor, agent, float(agent.config.gamma)
        measured = torch.from_numpy(observer.measured)
        for name, value in (
            ("mean", torch.tensor(normaliser.mean, dtype=torch.float32)),
            ("std", torch.tensor(normaliser.std, dtype=torch.float32)),
            ("measured", measured.float()),
            ("place", torch.eye(observer.size)[measured]),  # measured columns among all
        ):
            self.register_buffer(name, value)
        self.mean: Tensor
        self.std: Tensor
        self.measured: Tensor
        self.place: Tensor

    def forward(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mismatch and predicted next observations."""
        x = torch.cat([(obs - self.mean) / self.std, action], 1)
        members = self.predictor.config.members
        change = self.predictor(x.unsqueeze(0).repeat(members, 1, 1)) * self.predictor.std + self.predictor.mean
        known = obs * self.measured + next_obs * (1 - self.measured)
        predicted = known + (change @ self.place) * self.std
        states = torch.cat([next_obs.unsqueeze(0), predicted], 0).reshape(-1, obs.shape[1])
        values = self.agent.value((states - self.mean) / self.std).reshape(members + 1, -1)
        return self.gamma * (values[1:] - values[:1]).abs().mean(0), predicted

    @torch.no_grad()
    def mismatch(self, data: Transitions) -> NDArray[np.float32]:
        """The mismatch (N,) of transitions."""
        rows = (torch.from_numpy(part) for part in (data.obs, data.action, data.next_obs))
        found: NDArray[np.float32] = self(*rows)[0].numpy()
        return found


def describe(domains: dict[str, Transitions]) -> dict[str, NDArray[np.float64]]:
    """Arrays of `envelope.npz`: mean, std (d,), quantiles (5, d) of [obs | action] per domain; `target_cov` (d, d)."""
    arrays = {"quantile_levels": np.array(QUANTILES)}
    for name, data in domains.items():
        rows = _rows(data).astype(np.float64)
        arrays |= {
            f"{name}_mean": rows.mean(0),
            f"{name}_std": rows.std(0),
            f"{name}_quantiles": np.quantile(rows, QUANTILES, axis=0),
        }
    if "target" in domains:
        arrays["target_cov"] = Envelope.of(_rows(domains["target"])).cov
    return arrays


class Watched(NamedTuple):
    """What a bundle is watched by.

    Attributes:
        limits: From target rollouts that neither predictor nor envelope saw; None where those hold too few windows.
        model: The target model; None without limits of its mismatch.
        reason: Why there is no model, and what would get one; "" where there is.
    """

    limits: Drift | None
    model: TargetModel | None
    reason: str = ""


def watch(trained: Trained, domains: dict[str, Transitions]) -> Watched:
    """The monitors of a policy, from the data that its run was given.

    The rows that the run held out set the limits. Where those happen to hold too few windows, others are held out if
    that helps, and a predictor is fitted anew.
    """
    if "target" not in domains:
        return Watched(None, None, "the run was given no target dataset; train with --target, whatever the --alignment")
    seconds = min(WINDOW_SECONDS, load_task(trained.robot).episode_seconds / 2)  # an episode must hold several
    window = max(1, round(seconds * trained.robot.spec.control_rate_hz))
    seed, (seen, held) = _split(trained, domains["target"], window)
    if (found := _windows(held, window)) < MIN_WINDOWS:
        shown = f"{found} windows of {seconds:g} s in {len(held)} held-out rows of the robot"
        return Watched(None, None, f"{shown}, and limits need {MIN_WINDOWS}; record more, in longer episodes")

    def limit(values: NDArray[np.floating]) -> Threshold:
        means = np.concatenate([window_means(values[held.episode == e], window) for e in np.unique(held.episode)])
        return Threshold(floor=float(np.median(values)), limit=float(MARGIN * np.quantile(means, QUANTILE)))

    known = trained.alignment.predictor if seed == trained.config.seed and _learns(trained.alignment) else None
    predictor = known or _fitted(trained, domains.get("source", seen), seen)
    model = TargetModel(predictor, trained.agents[0], trained.normaliser, Observer(trained.robot.spec)).eval()
    mismatch = model.mismatch(held)
    limits = Drift(
        window=window,
        quantile=QUANTILE,
        margin=MARGIN,
        heldout_ticks=len(held),
        mismatch=limit(mismatch) if mismatch.any() else None,
        envelope=limit(Envelope.of(_rows(seen)).distance(_rows(held))),
    )
    if limits.mismatch is None:  # it would be 0 whatever happens
        return Watched(
            limits, None, f"{trained.config.agent} has no value, which mismatch is in; train iql, cql or td3bc"
        )
    return Watched(limits, model)


def _split(trained: Trained, target: Transitions, window: int) -> tuple[int, tuple[Transitions, Transitions]]:
    """(seen, held) rows and the seed of their split: the run's, unless another of OTHER_SPLITS has more windows."""
    alignment = trained.alignment
    holdout = alignment.config.holdout if isinstance(alignment, Modelled) else trained.config.tabb.holdout

    def enough(seed: int) -> int:
        return min(MIN_WINDOWS, _windows(split_episodes(target, holdout, seed)[1], window))

    seed = max((trained.config.seed, *range(OTHER_SPLITS)), key=enough)
    return seed, split_episodes(target, holdout, seed)


def _windows(data: Transitions, window: int) -> int:
    """How many windows its episodes hold."""
    _, lengths = np.unique(data.episode, return_counts=True)
    return int(np.maximum(lengths - window + 1, 0).sum())


def _learns(alignment: Alignment) -> TypeGuard[Modelled]:
    """Whether it has a predictor of the robot that was learned."""
    return isinstance(alignment, Modelled) and not isinstance(alignment, Twin)


def _fitted(trained: Trained, source: Transitions, target: Transitions) -> Predictor:
    """What `tabb` would have learned of the robot."""
    observer, seed = Observer(trained.robot.spec), trained.config.seed
    predictor = Predictor.seeded(observer, trained.config.tabb.predictor, seed)
    predictor.fit(source, target, trained.normaliser, observer.measured, seed)
    return predictor


def window_means(values: NDArray[np.floating], window: int) -> NDArray[np.float64]:
    """Means of all windows (len(values) - window + 1,); none if there are fewer values."""
    if len(values) < window:
        return np.zeros(0)
    return np.convolve(values, np.full(window, 1 / window), "valid")


def _rows(data: Transitions) -> NDArray[np.float32]:
    return np.concatenate([data.obs, data.action], axis=1)
