"""Target-aligned Bellman backup: source transitions weigh as much as their backup agrees with the target robot's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landbridge.training.alignments.base import Value
from landbridge.training.alignments.predictive import Predictive, PredictiveConfig
from landbridge.training.dataset import Batch, Transitions


@dataclass(frozen=True)
class TabbConfig(PredictiveConfig):
    """Hyperparameters of the alignment; one default for all robots."""


class Tabb(Predictive):
    """Weights from the target Bellman mismatch (arXiv:2605.22376).

    With the agent's current V and the predictions r^_k, s^_k of the ensemble's members,

        mismatch = TBM = mean_k | (r + gamma V(s')) - (r^_k + gamma V(s^_k)) |

    The predictions are cached; V is as it was before the few steps (`trainer.CHUNK`) that are weighed at once. A
    terminal source row keeps gamma V out of both sides: whether the prediction falls just short of a limit is a matter
    of its resolution, not of the robot's dynamics.
    """

    config: TabbConfig

    def extend(self, source: Transitions) -> NDArray[np.float32]:
        """[r^_k, s^_k] of every member k (N, members (n + 1)): rewards scaled, states normalised."""
        c = self.context
        columns: list[NDArray[np.float32]] = []
        for following in self.predict(source):
            reward = c.task.reward(source.obs, source.action, following) * c.reward_scale
            columns += [reward[:, None].astype(np.float32), c.normaliser(following)]
        return np.concatenate(columns, axis=1)

    def backups(self, batch: Batch, value: Value) -> tuple[Tensor, Tensor]:
        """R + gamma V(s') (N,) of rows with cached predictions, and r^_k + gamma V(s^_k) (N, members)."""
        n, members = self.obs_size, self.config.predictor.members
        predicted = batch.extra.view(len(batch.obs), members, n + 1)
        states = torch.cat([batch.next_obs[:, None], predicted[:, :, 1:]], 1).reshape(-1, n)
        values = value(states).view(-1, members + 1) * batch.not_terminated[:, None] * self.context.gamma
        return batch.reward + values[:, 0], predicted[:, :, 0] + values[:, 1:]

    def mismatch(self, batch: Batch, value: Value) -> Tensor:
        """TBM (N,)."""
        own, predicted = self.backups(batch, value)
        return (predicted - own[:, None]).abs().mean(1)


class Shuffled(Tabb):
    """A control: `tabb`'s weights, given to the wrong rows. What still helps with these is not alignment."""

    def weights(self, batch: Batch, value: Value) -> Tensor:
        """Each row gets the weight (N,) of its neighbour in a batch of rows drawn at random."""
        return super().weights(batch, value).roll(1)
