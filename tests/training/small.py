"""The smallest configuration of everything, and alignments fitted with it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from landbridge.robot import load_robot
from landbridge.task import load_task
from landbridge.training.agents.bc import BCConfig
from landbridge.training.agents.cql import CQLConfig
from landbridge.training.agents.iql import IQLConfig
from landbridge.training.agents.td3bc import TD3BCConfig
from landbridge.training.alignments import ALIGNMENTS
from landbridge.training.alignments.base import Alignment, Context
from landbridge.training.alignments.corrected import CorrectedConfig
from landbridge.training.alignments.dara import DARAConfig
from landbridge.training.alignments.density_ratio import DensityRatioConfig
from landbridge.training.alignments.domains import ClassifierConfig
from landbridge.training.alignments.dynamics import DynamicsConfig
from landbridge.training.alignments.igdf import IGDFConfig
from landbridge.training.alignments.otdf import OTDFConfig
from landbridge.training.alignments.tabb import TabbConfig
from landbridge.training.alignments.vgdf import VGDFConfig
from landbridge.training.config import TrainConfig
from landbridge.training.dataset import Normaliser, Transitions, load_domains, pack
from landbridge.training.predictor import PredictorConfig
from landbridge.training.prior import PriorConfig

from .conftest import BLOCK, Data

ROBOT = load_robot("furuta")
PREDICTOR = PredictorConfig(members=2, hidden=16, source_steps=20, steps=60, batch=32)
CLASSIFIERS = ClassifierConfig(hidden=16, steps=60, batch=32)
SMALL = TrainConfig(
    steps=BLOCK + 11,
    rows=16,
    iql=IQLConfig(hidden=(16,)),
    cql=CQLConfig(hidden=(16,), num_actions=2),
    td3bc=TD3BCConfig(hidden=(16,)),
    bc=BCConfig(hidden=(16,)),
    dara=DARAConfig(classifiers=CLASSIFIERS),
    density_ratio=DensityRatioConfig(classifiers=CLASSIFIERS),
    igdf=IGDFConfig(hidden=16, embedding=4, steps=60, batch=32),
    otdf=OTDFConfig(iterations=5, chunk=500, prior=PriorConfig(samples=2, hidden=16, steps=60, batch=32)),
    vgdf=VGDFConfig(predictor=PREDICTOR),
    dynamics=DynamicsConfig(predictor=PREDICTOR),
    corrected=CorrectedConfig(predictor=PREDICTOR),
    tabb=TabbConfig(predictor=PREDICTOR),
)


def value(obs: Tensor) -> Tensor:
    """V(s) = s_0, so that backups can be computed in the head."""
    return obs[:, 0]


def made(name: str, data: Data, **changes: Any) -> tuple[Alignment, Transitions, Tensor]:
    """The fitted alignment, the source that it corrected, and its packed rows."""
    config = dataclasses.replace(SMALL, alignment=name, **changes)
    domains = load_domains(ROBOT, {"source": data.source, "target": data.target})
    task = load_task(ROBOT)
    normaliser = Normaliser.of(list(domains.values()), task.observer.names)
    torch.manual_seed(0)
    alignment = ALIGNMENTS[name](
        config.alignment_config, Context(ROBOT, task, normaliser, 0.99, 0.1, torch.device("cpu"), 0)
    )
    alignment.fit(domains["source"], domains["target"])
    source = alignment.correct(domains["source"])
    return alignment, source, pack(source, normaliser, alignment.cache(source, domains["target"]), 0.1)
