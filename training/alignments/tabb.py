"""Target-aligned Bellman backup: source transitions weigh as much as their backup agrees with the target robot's."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt
from torch import Tensor

from landbridge.training.alignments.base import BLOCK, Alignment, Context, Value
from landbridge.training.alignments.predictive import Predictive, Soft, SoftConfig
from landbridge.training.dataset import Batch, Transitions


class Backups(Predictive, ABC):
    """Base of those that compare Bellman backups: predictions of every member are cached."""

    def extend(self, source: Transitions) -> NDArray[np.float32]:
        """[r^_k, s^_k] of every member k (N, members (n + 1)): rewards scaled, states normalised.

        Which member is a row's first follows from the bits of its observation: a turn asks all of them, and a row is
        the same wherever it is read.
        """
        c, members, rows = self.context, self.config.predictor.members, np.arange(len(source))[:, None]
        columns = np.empty((members, len(source), self.obs_size + 1), np.float32)
        for column, following in zip(columns, self.predict(source), strict=True):
            column[:, 0] = c.task.reward(source.obs, source.action, following) * c.reward_scale
            column[:, 1:] = c.normaliser(following)
        first = np.ascontiguousarray(source.obs).view(np.uint32).sum(1, np.int64, keepdims=True) % members
        return columns[(first + np.arange(members)) % members, rows].reshape(len(source), -1)

    def predictions(self, batch: Batch) -> Tensor:
        """The cached [r^_k, s^_k] (N, members, n + 1) of rows."""
        return batch.extra.view(len(batch.obs), -1, self.obs_size + 1)

    def backups(self, batch: Batch, predicted: Tensor, value: Value) -> tuple[Tensor, Tensor]:
        """`r + gamma V(s')` (N,) of rows, and `r^ + gamma V(s^)` (N, k) of k predictions (N, k, n + 1) of each.

        A terminal source row keeps gamma V out of both sides: whether the prediction falls just short of a limit is a
        matter of its resolution, not of the robot's dynamics.
        """
        states = torch.cat([batch.next_obs[:, None], predicted[:, :, 1:]], 1)
        values = value(states.flatten(0, 1)).view(states.shape[:2]) * batch.not_terminated[:, None] * self.context.gamma
        return batch.reward + values[:, 0], predicted[:, :, 0] + values[:, 1:]


@dataclass(frozen=True)
class TabbConfig(SoftConfig):
    """Hyperparameters of the alignment; one default for all robots.

    Attributes:
        schedule: `frozen`: the predictor is trained before the agent, and what it says of each row is kept. Else it is
            trained on, one step for `every` one of the agent's or for so many of them, and asked anew at each visit.
    """

    schedule: Literal["frozen", "every"] | PositiveInt = "frozen"


class Tabb(Backups, Soft):
    """Weights from the target Bellman mismatch (arXiv:2605.22376).

    With the agent's current V and the prediction r^_k, s^_k of one member of the ensemble,

        mismatch = TBM = | (r + gamma V(s')) - (r^_k + gamma V(s^_k)) |

    At any time each member is asked of its share of the rows, and from `refresh` to `refresh` a row goes on to the next
    member: over a run it weighs what all of them say of it, for V of one prediction a visit. The predictions are
    cached; V is as it was before the few steps (`trainer.GATHERED`) that are weighed at once.

    With another `schedule` than `frozen` nothing is cached: the predictor goes on to learn from the robot's rows in
    every block, and the member whose turn it is predicts every row that is visited, as the article has it.

    Attributes:
        turn: Which of the predictions cached for a row, one per member, is asked.
        blocks: How many there were.
    """

    config: TabbConfig

    def __init__(self, config: TabbConfig, context: Context) -> None:
        super().__init__(config, context)
        for name in ("turn", "blocks"):
            self.register_buffer(name, torch.zeros(1, dtype=torch.long))
        self.turn: Tensor
        self.blocks: Tensor
        self._robot: tuple[Transitions, Transitions] | None = None

    def cache(self, source: Transitions, target: Transitions) -> NDArray[np.float32]:
        """See `Predictive`."""
        self._robot = self.split(target)
        return super().cache(source, target)

    def extend(self, source: Transitions) -> NDArray[np.float32]:
        """Nothing, unless `frozen`."""
        return super().extend(source) if self.config.schedule == "frozen" else Alignment.extend(self, source)

    def refresh(self, value: Value, progress: float) -> None:
        """The next turn, its floor, scale and blend."""
        self.turn.add_(1).remainder_(self.config.predictor.members)
        if self.config.schedule != "frozen":
            self._learn_on(1 if self.config.schedule == "every" else self.config.schedule)
        super().refresh(value, progress)

    def _learn_on(self, every: int) -> None:
        """What a block of the agent asks for; Adam is begun anew in each, so no checkpoint need hold its moments."""
        assert self._robot is not None  # `cache` comes first
        c, block, (rows, held) = self.context, int(self.blocks), self._robot
        steps = (block + 1) * BLOCK // every - block * BLOCK // every
        seed = int(np.random.SeedSequence([c.seed, block]).generate_state(1)[0])  # torch takes 32 bits of it
        self.predictor.go_on(rows, c.normaliser, self.measured, steps, seed)
        self.measure(held)
        self.blocks.add_(1)

    def mismatch(self, batch: Batch, value: Value) -> Tensor:
        """TBM (N,) of this turn."""
        frozen = self.config.schedule == "frozen"
        asked = self.predictions(batch).index_select(1, self.turn) if frozen else self._asked(batch)
        own, predicted = self.backups(batch, asked, value)
        return (predicted[:, 0] - own).abs()

    @torch.no_grad()
    def _asked(self, batch: Batch) -> Tensor:
        """[r^, s^] (N, 1, n + 1) by this turn's member as it is now; the columns known beforehand are those of s'."""
        c, turn = self.context, int(self.turn)
        change = self.predictor(torch.cat([batch.obs, batch.action], 1)[None], slice(turn, turn + 1))[0]
        following, measured = batch.next_obs.clone(), torch.from_numpy(self.measured).to(change.device)
        following[:, measured] = batch.obs[:, measured] + change * self.predictor.std + self.predictor.mean
        obs, predicted = (c.normaliser.undo(states.cpu().numpy()) for states in (batch.obs, following))
        reward = c.task.reward(obs, batch.action.cpu().numpy(), predicted) * c.reward_scale
        return torch.cat([torch.from_numpy(reward).to(following)[:, None], following], 1)[:, None]


class Shuffled(Tabb):
    """A control: `tabb`'s weights, given to the wrong rows. What still helps with these is not alignment."""

    def weigh(self, mismatch: Tensor) -> Tensor:
        """Each row gets the weight (N,) of its neighbour in a batch of rows drawn at random."""
        return super().weigh(mismatch).roll(1)
