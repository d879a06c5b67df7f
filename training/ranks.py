"""Data-parallel training: what the processes of one `torchrun` agree on. Without it there is one rank."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


@contextmanager
def process_group() -> Iterator[None]:
    """Join the other ranks if `torchrun` started this process: gloo between CPUs, NCCL between GPUs."""
    if not dist.is_torchelastic_launched():
        yield
        return
    if (local := int(os.environ["LOCAL_RANK"])) < torch.cuda.device_count():
        torch.cuda.set_device(local)
    dist.init_process_group()
    try:
        yield
    finally:
        dist.destroy_process_group()


def count() -> int:
    """How many ranks train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def leads() -> bool:
    """Whether this is the rank that writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


def share(rows: Tensor, dim: int = 0) -> Tensor:
    """This rank's rows of a global batch: every `count()`-th along `dim`."""
    if not dist.is_initialized():
        return rows
    return rows[(slice(None),) * dim + (slice(dist.get_rank(), None, dist.get_world_size()),)]


def average_(values: Tensor) -> None:
    """Replace `values` by their mean over the ranks, equal to the bit on all of them."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values /= dist.get_world_size()


def any_of(answer: bool) -> bool:
    """Whether any rank says yes; all must ask."""
    asked = torch.tensor(float(answer))  # on the CPU, for which there is always gloo
    average_(asked)
    return bool(asked > 0)


def wait() -> None:
    """Go on when all ranks have come here."""
    if dist.is_initialized():
        dist.barrier()
