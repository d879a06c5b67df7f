"""The training loop: drives one trainer, or the seeds of one setting in step and as one batch of networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from landbridge.training import ranks
from landbridge.training.trainer import Trainer
from landbridge.training.update import Update

CHECKPOINT_SECONDS = 60.0

OnBlock = Callable[[Trainer, dict[str, float]], None]


def run(trainers: Sequence[Trainer], on_block: OnBlock, stop: Callable[[], bool]) -> None:
    """Train each to the end of its run.

    Args:
        trainers: Of one configuration but for their seeds.
        on_block: Called with a trainer and the metrics of a block of its.
        stop: Whether to end after this block.

    Raises:
        InputError: As `Trainer.block`, of any of them: all end.
    """
    steps, furthest = trainers[0].config.steps, max(trainer.step for trainer in trainers)
    for trainer in trainers:
        if trainer.step < steps:
            trainer.save()  # there is a good one from the first step on
    with matmul_precision(trainers[0].config.matmul):
        for trainer in trainers:  # one that is new, or whose checkpoint was not written before a kill
            _train([trainer], furthest, on_block, stop)
        if furthest < steps and all(trainer.step == furthest for trainer in trainers):
            if len(trainers) > 1:
                join(trainers)
            _train(trainers, steps, on_block, stop)
        for trainer in trainers:
            if trainer.step == steps:
                trainer.refresh()  # diagnostics are those of the last checkpoint, also of a run resumed at its end


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """That of float32 matrix products; those of fits and scores, before and after, are exact."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _train(trainers: Sequence[Trainer], until: int, on_block: OnBlock, stop: Callable[[], bool]) -> None:
    """Blocks of trainers that share an update, to the step `until` or to a stop, with checkpoints."""
    if trainers[0].step == until:
        return
    saved = time.monotonic()
    while trainers[0].step < until and not ranks.any_of(stop()):
        block(trainers, until, on_block)
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            for trainer in trainers:
                trainer.save()
            saved = time.monotonic()
    for trainer in trainers:
        trainer.save()


def join(trainers: Sequence[Trainer]) -> None:
    """Make one update of the trainers' updates; each goes on from where it was."""
    states = [trainer.update.state_dict(trainer.place) for trainer in trainers]
    update = Update([trainer.agent for trainer in trainers], trainers[0].config.compile)
    for place, (trainer, state) in enumerate(zip(trainers, states, strict=True)):
        update.load_state_dict(place, state)
        trainer.update, trainer.place = update, place


def block(trainers: Sequence[Trainer], until: int, on_block: OnBlock) -> None:
    """The next block of trainers that share an update; it ends at the step `until` at the latest."""
    step = trainers[0].step
    blocks = [trainer.block(until) for trainer in trainers]
    metrics: list[dict[str, float]] = []
    rows = [next(one) for one in blocks]
    while not metrics:
        shown = trainers[0].update(rows, step)
        step += 1
        for i, (one, mine) in enumerate(zip(blocks, shown, strict=True)):
            try:
                rows[i] = one.send(mine)
            except StopIteration as end:
                metrics.append(end.value)
    for trainer, figures in zip(trainers, metrics, strict=True):
        on_block(trainer, figures)
