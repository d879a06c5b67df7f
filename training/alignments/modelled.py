"""What the alignments with a model of the robot share: the ensemble, and its error on what it has not seen."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from landbridge.spec import Share
from landbridge.training.alignments.base import Alignment, Context
from landbridge.training.dataset import Transitions
from landbridge.training.predictor import Predictor, PredictorConfig, split_episodes

TRUSTED = 0.8  # explained share of held-out motion below which a run warns


@dataclass(frozen=True)
class ModelledConfig:
    """Hyperparameters; one default for all robots.

    Attributes:
        holdout: Share of the target data kept from the predictor, to measure its error.
        predictor: The ensemble.
    """

    holdout: Annotated[Share, Field(gt=0, le=0.5)] = 0.2
    predictor: PredictorConfig = field(default_factory=PredictorConfig)


class Modelled(Alignment):
    """Base of the alignments that compare a source transition with what the robot would have done.

    An ensemble predicts, for every source (s, a), the next state s^_k that the robot would reach; r^_k follows from the
    task.

    Attributes:
        measured, measured_names: Which columns the ensemble predicts (n,), and what they are called.
        error: e_j^2, mean squared error of the ensemble's mean on held-out target transitions, per measured column j,
            in physical units.
        unexplained: The same as a share of the column's held-out motion.
    """

    config: Any  # a ModelledConfig

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        observer = context.task.observer
        self.obs_size, self.action_size, self.measured = observer.size, observer.num_actions, observer.measured
        self.measured_names = [name for name, m in zip(observer.names, observer.measured, strict=True) if m]
        columns = len(self.measured_names)
        self.predictor = Predictor(self.obs_size, self.action_size, columns, config.predictor)
        self.register_buffer("error", torch.ones(columns))
        self.register_buffer("unexplained", torch.zeros(columns))
        self.error: Tensor
        self.unexplained: Tensor

    @property
    def trust(self) -> float:
        """Share of the held-out motion that the model explains, mean over the measured columns, in [0, 1]."""
        return float(1 - self.unexplained.clamp(max=1).mean())

    def fit(self, source: Transitions, target: Transitions) -> None:
        """Train the model on the target rows that are not held out, and measure its error on those that are."""
        training, held = self.split(target)
        self.learn(source, training)
        self.measure(held)
        if self.trust < TRUSTED:
            warnings.warn(
                f"the predictor explains {self.trust:.0%} of the robot's motion on {len(held)} held-out rows: what it "
                "says of source rows counts as much less; record more of the robot",
                stacklevel=2,
            )

    def measure(self, held: Transitions) -> None:
        """Set `error` and `unexplained` from rows that the model has not seen."""
        error = np.square(self.predict(held).mean(0) - held.next_obs)[:, self.measured].mean(0).astype(np.float64)
        motion = (held.next_obs - held.obs)[:, self.measured].var(0).astype(np.float64)
        self.error.copy_(torch.from_numpy(np.maximum(error, 1e-12)))
        self.unexplained.copy_(torch.from_numpy(error / np.maximum(motion, 1e-12)))

    def learn(self, source: Transitions, target: Transitions) -> None:
        """Train the ensemble, with source rows as the first guess."""
        c = self.context
        self.predictor.fit(source, target, c.normaliser, self.measured, c.seed)

    def predict(self, data: Transitions) -> NDArray[np.float32]:
        """Next observations (members, N, n) of the robot after each row, in physical units."""
        return self.predictor.predict(data, self.context.normaliser, self.context.task)

    def estimate(self, data: Transitions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean of the members' predictions of the measured columns (N, d), and variance (N, d) of its error.

        The variance is e_j^2 + v_j with v_j that of the members: they disagree where the robot's data are silent.
        """
        predicted = self.predict(data)[:, :, self.measured].astype(np.float64)
        return predicted.mean(0), self.error.double().cpu().numpy() + predicted.var(0)

    def split(self, target: Transitions) -> tuple[Transitions, Transitions]:
        """Rows to train on, rows held out."""
        return split_episodes(target, self.config.holdout, self.context.seed)

    @property
    def model_figures(self) -> dict[str, float]:
        """`trust`, and the unexplained share of every column."""
        unexplained = zip(self.measured_names, self.unexplained.tolist(), strict=True)
        return {f"heldout_unexplained.{name}": share for name, share in unexplained} | {"trust": self.trust}
