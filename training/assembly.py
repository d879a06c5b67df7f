"""The trainer of a run: its data, alignment and agent put together, fresh or as a checkpoint has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landbridge.errors import InputError
from landbridge.robot import Robot
from landbridge.task import Task
from landbridge.training.agents import AGENTS
from landbridge.training.alignments import ALIGNMENTS
from landbridge.training.alignments.base import Context
from landbridge.training.config import TrainConfig
from landbridge.training.dataset import Normaliser, Transitions, pack
from landbridge.training.stream import Stream
from landbridge.training.stretches import Stretches
from landbridge.training.trainer import Trainer, restore


def build(
    folder: Path,
    domains: dict[str, Transitions],
    normaliser: Normaliser,
    task: Task,
    robot: Robot | None,
    config: TrainConfig,
    state: dict[str, Any] | None = None,
    stream: Stream | None = None,
    scratch: Path | None = None,
) -> Trainer:
    """The trainer of a run, fresh (`state` None) or as of a checkpoint; fits the alignment if fresh.

    Only alignments that ask a twin need a `robot`. Of a `stream`, `domains` has the sample; its rows go to the folder
    `scratch`.
    """
    torch.manual_seed(config.seed)
    device = _device(config.device)
    kind, sizes = AGENTS[config.agent], (task.observer.size, task.observer.num_actions)
    agent = kind(*sizes, config.agent_config, config.steps).to(device)  # first: no alignment changes how networks begin
    agent.generator = torch.Generator(device).manual_seed(config.seed)
    context = Context(robot, task, normaliser, config.agent_config.gamma, config.reward_scale, device, config.seed)
    alignment = ALIGNMENTS[config.alignment](config.alignment_config, context).to(device)
    source, target = domains.get("source"), domains.get("target")
    if state is not None:
        restore(alignment, state["alignment"], folder)
    elif source is not None and target is not None:
        alignment.fit(source, target)
    agent.prior = alignment.prior
    extra: dict[str, NDArray[np.float32]] = {}
    if source is not None and target is not None:
        source = alignment.correct(source)
        domains = {**domains, "source": source}
        extra["source"] = alignment.cache(source, target)
    packed = {
        name: pack(data, normaliser, extra.get(name, np.zeros((len(data), 0), np.float32)), config.reward_scale)
        for name, data in domains.items()
    }
    on_device: dict[str, Any] = {name: rows.to(device) for name, rows in packed.items()}
    if stream is not None and scratch is not None:

        def further(chunk: Transitions) -> Tensor:
            corrected = alignment.correct(chunk)
            return pack(corrected, normaliser, alignment.extend(corrected), config.reward_scale)

        shape = (len(stream), packed["source"].shape[1])
        parts = map(further, stream.shuffled(config.seed))
        on_device["source"] = Stretches(scratch, parts, shape, config.seed)
    trainer = Trainer(config, agent, alignment, on_device.get("source"), on_device.get("target"), folder)
    if state is not None:
        trainer.load(state)
    return trainer


def _device(name: str) -> torch.device:
    """The device that `--device` names; raises InputError for a GPU that is not there."""
    found = torch.cuda.device_count()
    device = torch.device(name if name != "auto" else "cuda" if found else "cpu")
    if device.type == "cuda" and (device.index or 0) >= found:
        raise InputError("--device", f"{name}, and torch finds {found} CUDA devices", "leave it out")
    return device
