"""What a bundle is watched by: the target model as a graph, the envelope of the data, and the limits of both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from landbridge.envelope import Envelope
from landbridge.manifest import Drift, Threshold
from landbridge.observation import Observer
from landbridge.training.agents.base import Agent
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
MIN_WINDOWS = 100


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


def watch(trained: Trained, domains: dict[str, Transitions]) -> tuple[Drift | None, TargetModel | None]:
    """Limits from target rollouts that neither predictor nor envelope saw, and the target model.

    Without limits where those rollouts hold too few windows; without a model where the mismatch would be 0 whatever
    happens, and so could raise no alarm.
    """
    alignment, seed = trained.alignment, trained.config.seed
    holdout = alignment.config.holdout if isinstance(alignment, Modelled) else trained.config.tabb.holdout
    seen, held = split_episodes(domains["target"], holdout, seed)
    window = round(WINDOW_SECONDS * trained.robot.spec.control_rate_hz)
    envelope = Envelope.of(_rows(seen))

    def limit(score: Callable[[Transitions], NDArray[np.floating]]) -> Threshold | None:
        values = score(held)
        means = np.concatenate([window_means(values[held.episode == e], window) for e in np.unique(held.episode)])
        if len(means) < MIN_WINDOWS or not values.any():  # an agent without a value, as `bc`, sees no mismatch at all
            return None
        return Threshold(floor=float(np.median(values)), limit=float(MARGIN * np.quantile(means, QUANTILE)))

    distance = limit(lambda data: envelope.distance(_rows(data)))
    if distance is None:
        return None, None
    predictor, observer = predictor_of(trained, domains.get("source", seen), seen), Observer(trained.robot.spec)
    model = TargetModel(predictor, trained.agents[0], trained.normaliser, observer).eval()
    mismatch = limit(model.mismatch)
    limits = Drift(
        window=window,
        quantile=QUANTILE,
        margin=MARGIN,
        heldout_ticks=len(held),
        mismatch=mismatch,
        envelope=distance,
    )
    return limits, None if mismatch is None else model


def predictor_of(trained: Trained, source: Transitions, target: Transitions) -> Predictor:
    """What the alignment has learned of the robot; of one that learns nothing, what `tabb` would have."""
    if isinstance(trained.alignment, Modelled) and not isinstance(trained.alignment, Twin):
        return trained.alignment.predictor
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
