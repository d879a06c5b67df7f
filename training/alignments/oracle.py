"""The ceiling: weights from the robot's true dynamics, which only a twin can tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landbridge.simulation.plant import Engine, make_plant
from landbridge.simulation.rollout import following
from landbridge.simulation.scenario import load_scenario
from landbridge.training.alignments.dynamics import Dynamics, DynamicsConfig
from landbridge.training.dataset import Transitions


@dataclass(frozen=True)
class OracleConfig(DynamicsConfig):
    """Hyperparameters.

    Attributes:
        engine: Of the twin.
        scenario: Of the twin; the target data must come from the same.
    """

    engine: Engine = "bullet"
    scenario: str = "severe"


class Oracle(Dynamics):
    """`dynamics` with the twin itself in place of the predictor; for study.

    Where this does not beat the naive mix, no weight made from better predictions can. The mismatch of a row is as
    there, with the one prediction m_j of the twin put into the row's state, actions in flight included, and e_j^2 what
    its sensor noise leaves on held-out target transitions. For fixed bases whose joints are all observed.
    """

    config: OracleConfig

    def fit(self, source: Transitions, target: Transitions) -> None:
        """There is nothing to learn."""

    def predict(self, data: Transitions) -> NDArray[np.float32]:
        """What the twin does after each row, (1, N, n)."""
        robot, rng = self.context.robot, np.random.default_rng(self.context.seed)
        plant = make_plant(robot, self.config.engine, load_scenario(robot, self.config.scenario), rng)
        try:
            return following(plant, self.context.task.observer, data.obs, data.action)[None]
        finally:
            plant.close()
