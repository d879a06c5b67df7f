"""The Bellman backup weighted by an estimate of the ratio of dynamics: the popular account of alignment."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from landbridge.spec import Positive
from landbridge.training.alignments.base import Context, FixedWeights
from landbridge.training.alignments.domains import ClassifierConfig, DomainClassifiers
from landbridge.training.dataset import Transitions


@dataclass(frozen=True)
class DensityRatioConfig:
    """Hyperparameters.

    Attributes:
        clip: Largest ratio before the weights are divided by their mean.
        classifiers: The domain classifiers. Less input noise than DARA's: the ratio is used as it is, not as a hint.
    """

    clip: Positive = 10.0
    classifiers: ClassifierConfig = field(default_factory=lambda: ClassifierConfig(noise=0.1))


class DensityRatio(FixedWeights):
    """Importance weights of the dynamics from two domain classifiers, self-normalised to a mean of 1.

        w = min(rho, clip) / mean min(rho, clip),   rho = p_T(s' | s, a) / p_S(s' | s, a)

    The weighted Bellman error then is an expectation under the robot's dynamics (importance sampling; the classifiers
    are those of Eysenbach et al. 2021, arXiv:2006.13916).
    """

    config: DensityRatioConfig

    def __init__(self, config: DensityRatioConfig, context: Context) -> None:
        super().__init__(config, context)
        observer = context.task.observer
        self.classifiers = DomainClassifiers(observer.size, observer.num_actions, config.classifiers)

    def fit(self, source: Transitions, target: Transitions) -> None:
        """Train the classifiers."""
        self.classifiers.fit(source, target, self.context.normaliser, self.context.seed)

    def row_weights(self, source: Transitions, target: Transitions) -> NDArray[np.float32]:
        """`w` of every source row, (N,)."""
        ratio = self._ratio(source)
        self._mean = ratio.mean()
        weights: NDArray[np.float32] = (ratio / self._mean).astype(np.float32)
        return weights

    def extend(self, source: Transitions) -> NDArray[np.float32]:
        """`w` of further source rows, by the mean of the first; (N, 1)."""
        weights: NDArray[np.float32] = (self._ratio(source) / self._mean).astype(np.float32)
        return weights[:, None]

    def _ratio(self, source: Transitions) -> NDArray[np.float32]:
        log_ratio = self.classifiers.log_ratio(source, self.context.normaliser)
        return np.exp(np.minimum(log_ratio, np.log(self.config.clip)))
