"""The ceiling: weights from the robot's true dynamics, which only a twin can tell."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.simulation.plant import Engine, make_plant
from landbridge.simulation.rollout import following
from landbridge.simulation.scenario import load_scenario
from landbridge.training.alignments.corrected import Corrected, CorrectedConfig
from landbridge.training.alignments.dynamics import Dynamics, DynamicsConfig
from landbridge.training.alignments.modelled import Modelled
from landbridge.training.dataset import Transitions


@dataclass(frozen=True)
class TwinConfig:
    """Hyperparameters.

    Attributes:
        engine: Of the twin.
        scenario: Of the twin; the target data must come from the same.
    """

    engine: Engine = "bullet"
    scenario: str = "severe"


class Twin(Modelled):
    """The twin itself in place of the predictor; for study, and for fixed bases whose joints are all observed.

    It is put into every row's state, actions in flight included, and measured without noise. Its error e^2 is what the
    robot's sensor noise leaves on held-out target transitions; v is 0.
    """

    def learn(self, source: Transitions, target: Transitions) -> None:
        """There is nothing to learn."""

    def predict(self, data: Transitions) -> NDArray[np.float32]:
        """What the twin does after each row, (1, N, n)."""
        robot = self.context.robot
        if robot is None:
            raise InputError("--alignment", "an oracle asks a robot's twin, and there is no robot", "choose another")
        if robot.spec.base == "floating":
            problem = f"an oracle cannot put the base of {robot.spec.name} where a row has it: no observation tells"
            raise InputError("--alignment", problem, "choose another")
        silent = {"joint_pos_noise": 0.0, "joint_vel_noise": 0.0}
        quiet = load_scenario(robot, self.config.scenario).model_copy(update=silent)
        with closing(make_plant(robot, self.config.engine, quiet, np.random.default_rng(self.context.seed))) as plant:
            return following(plant, self.context.task.observer, data.obs, data.action)[None]


@dataclass(frozen=True)
class OracleConfig(TwinConfig, DynamicsConfig):
    """Hyperparameters of both."""


class Oracle(Twin, Dynamics):
    """`dynamics` by the twin. Where it does not beat the naive mix, no weight made from better predictions can."""

    config: OracleConfig


@dataclass(frozen=True)
class OracleCorrectedConfig(TwinConfig, CorrectedConfig):
    """Hyperparameters of both."""


class OracleCorrected(Twin, Corrected):
    """`corrected` by the twin: the agent sees the robot's own dynamics at every source row, but for the share 1 - K
    that sensor noise leaves to the simulator. What that does not reach, no better model of the robot will.
    """

    config: OracleCorrectedConfig
