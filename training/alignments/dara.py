"""Dynamics-aware reward augmentation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from landbridge.spec import NonNegative, Positive
from landbridge.training.alignments.base import Alignment, Context, Diagnostics
from landbridge.training.alignments.domains import ClassifierConfig, DomainClassifiers
from landbridge.training.dataset import Transitions


@dataclass(frozen=True)
class DARAConfig:
    """Hyperparameters, named as in the paper.

    Attributes:
        eta: Weight of the correction.
        clip: Bound of the log ratio before it.
        classifiers: The domain classifiers.
    """

    eta: NonNegative = 0.1
    clip: Positive = 10.0
    classifiers: ClassifierConfig = field(default_factory=ClassifierConfig)


class DARA(Alignment):
    """Source rewards corrected by the log ratio of the dynamics (Liu, Zhang, Wang 2022, arXiv:2203.06662, eq. 9).

        r <- r + eta clip( log p_T(s' | s, a) / p_S(s' | s, a), -clip, clip )

    so that a policy is paid for staying where the simulator behaves like the robot. Every row weighs 1.
    """

    config: DARAConfig

    def __init__(self, config: DARAConfig, context: Context) -> None:
        super().__init__(config, context)
        observer = context.task.observer
        self.classifiers = DomainClassifiers(observer.size, observer.num_actions, config.classifiers)

    def fit(self, source: Transitions, target: Transitions) -> None:
        """Train the classifiers."""
        self.classifiers.fit(source, target, self.context.normaliser, self.context.seed)

    def correct(self, source: Transitions) -> Transitions:
        """The source with its rewards corrected, in physical units."""
        ratio = self.classifiers.log_ratio(source, self.context.normaliser)
        self._correction = self.config.eta * np.clip(ratio, -self.config.clip, self.config.clip)
        return dataclasses.replace(source, reward=source.reward + self._correction.astype(np.float32))

    def diagnostics(self) -> Diagnostics:
        """Mean and deviation of the correction last made; its histogram."""
        figures = {"correction_mean": float(self._correction.mean()), "correction_std": float(self._correction.std())}
        return Diagnostics(figures, {"correction": self._correction.astype(np.float64)})
