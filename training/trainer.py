"""One training run: its data, its blocks of steps and its checkpoint."""

from __future__ import annotations

import io
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landbridge.errors import InputError
from landbridge.files import write_atomic
from landbridge.training import ranks
from landbridge.training.agents.base import Agent
from landbridge.training.alignments.base import BLOCK, Alignment
from landbridge.training.config import TrainConfig
from landbridge.training.dataset import unpack
from landbridge.training.run import RESUMED
from landbridge.training.stretches import Stretches
from landbridge.training.update import Rows, Update

Block = Generator[Rows, Tensor, dict[str, float]]  # gives the rows of each step, takes its metrics; means in the end

CHECKPOINT = "checkpoint.pt"
GATHERED = 4  # steps whose rows are gathered and weighed at once; more leave the cache


class Trainer:
    """Trains an agent on packed source and target rows under an alignment.

    The run is a sequence of blocks of BLOCK steps. Before a block, its row indices are drawn at once and the alignment
    is refreshed; within it, rows are gathered and weighed for GATHERED steps at once; after it, the metrics leave the
    device, are checked for NaN and logged. A checkpoint falls between two blocks and holds everything the next block
    reads, so a resumed run is bit-equal to an uninterrupted one. Of a source on disk (`Stretches`) a block draws from
    the rows that are read for it. Under `torchrun` every rank draws the same indices and trains on its share of them;
    the first one writes.

    A block does not take its steps itself: it yields the rows of each to its caller (`landbridge.training.loop`), so
    that several trainers can be driven at once.

    Args:
        source, target: Packed rows (N, width) of `landbridge.training.dataset.pack`, or None where the alignment uses
            none. Source rows carry the alignment's cached columns; target rows end before them. The source may be on
            disk.
        folder: The run's folder; it exists.
    """

    def __init__(
        self,
        config: TrainConfig,
        agent: Agent,
        alignment: Alignment,
        source: Tensor | Stretches | None,
        target: Tensor | None,
        folder: Path,
    ) -> None:
        self.config, self.agent, self.alignment, self.folder = config, agent, alignment, folder
        self.stretches = source if isinstance(source, Stretches) else None
        self.source = None if isinstance(source, Stretches) else source
        self.target = target
        self.step = 0
        self.place = 0  # of its agent in `update`
        self.update = Update([agent], config.compile)
        self.seconds = {"agent": 0.0, "alignment": 0.0}
        self._generator = torch.Generator().manual_seed(config.seed)
        both = source is not None and target is not None
        self._drawn = (config.rows, config.target_rows if both else config.rows)  # per step, of source and target
        if odd := [rows for rows in self._drawn if rows % ranks.count()]:
            remedy = "take a multiple; --target-share decides how many of them are the target's"
            raise InputError("--rows", f"{odd[0]} do not divide by {ranks.count()} ranks", remedy)
        self._width = 2 * agent.obs_size + agent.action_size + 2

    def block(self, until: int) -> Block:
        """Up to BLOCK steps, to the step `until` at the latest; returns the mean of each metric over them.

        Raises:
            InputError: A loss or a parameter is NaN or Inf; the offending rows are in `nan_batch.npz`, the last
                checkpoint is good.
        """
        steps = min(BLOCK, until - self.step)
        start = time.perf_counter()
        if self.stretches is not None:
            self.source = self.stretches.pool(self.step // BLOCK).to(self.agent.generator.device)
        aligned = -time.perf_counter()
        self.refresh()
        aligned += time.perf_counter()
        domains = zip((self.source, self.target), self._drawn, strict=True)
        picks = [
            None if rows is None else self._draw(len(rows), (steps, drawn)).to(rows.device) for rows, drawn in domains
        ]
        shown: list[Tensor] = []
        mine = [None if pick is None else ranks.share(pick, 1) for pick in picks]
        for first in range(0, steps, GATHERED):
            begin = time.perf_counter()
            rows, weights = self._gather(mine, first)
            aligned += time.perf_counter() - begin
            for chosen in zip(rows, weights, strict=True):
                shown.append((yield chosen))
        means = torch.stack(shown)
        ranks.average_(means)
        table = means.cpu()
        self.seconds["alignment"] += aligned
        self.seconds["agent"] += time.perf_counter() - start - aligned
        self._refuse_nan(table, picks)
        self.step += steps
        figures = dict(zip(self.agent.metrics, table.mean(0).tolist(), strict=True))
        return figures | {k: v for k, v in self.alignment.diagnostics().figures.items() if not k.startswith("heldout")}

    def refresh(self) -> None:
        """Bring the alignment up to date with the value function."""
        if self.source is not None or self.stretches is not None:
            self.alignment.refresh(self._value, self.step / self.config.steps)

    def _draw(self, rows: int, shape: tuple[int, int]) -> Tensor:
        return torch.randint(rows, shape, generator=self._generator)

    def _gather(self, picks: list[Tensor | None], first: int) -> tuple[Tensor, Tensor]:
        """Packed rows (k, N, width) of up to GATHERED steps of the block, source first, and their weights (k, N)."""
        rows, weights = [], []
        for domain, pick in zip((self.source, self.target), picks, strict=True):
            if domain is None or pick is None:
                continue
            shape = pick[first : first + GATHERED].shape
            chosen = domain.index_select(0, pick[first : first + GATHERED].flatten())
            if domain is self.source:
                with torch.no_grad():
                    weights.append(self.alignment.weights(self._unpack(chosen), self._value).view(shape))
            else:
                weights.append(torch.ones(shape, device=domain.device))
            rows.append(chosen[:, : self._width].view(*shape, -1))
        return torch.cat(rows, 1), torch.cat(weights, 1)

    def _unpack(self, rows: Tensor) -> Any:
        return unpack(rows, self.agent.obs_size, self.agent.action_size)

    @torch.no_grad()
    def _value(self, obs: Tensor) -> Tensor:
        return self.agent.value(obs)

    def _refuse_nan(self, table: Tensor, picks: list[Tensor | None]) -> None:
        bad = ~table.isfinite().all(1)
        bad[-1] |= not self.agent.is_finite  # what the last step made of them shows in no loss of this block
        if not bad.any():
            return
        first = int(bad.nonzero()[0])
        rows, weights = (chosen[first % GATHERED].cpu() for chosen in self._gather(picks, first - first % GATHERED))
        if ranks.leads():
            np.savez(self.folder / "nan_batch.npz", rows=rows.numpy(), weights=weights.numpy())
        raise InputError(
            self.folder / "nan_batch.npz",
            f"a loss or a parameter became NaN or Inf at step {self.step + first}; {CHECKPOINT} is from before",
            f"look at these rows; a smaller --{self.config.agent}.lr or --reward-scale helps if they are sound",
        )

    def save(self) -> None:
        """Write the checkpoint: networks, target networks, optimiser, alignment, generator, step."""
        if not ranks.leads():
            return
        state = {
            "step": self.step,
            "agent": self.agent.state_dict(),
            "optimiser": self.update.state_dict(self.place),
            "alignment": self.alignment.state_dict(),
            "generator": self._generator.get_state(),
            "noise": self.agent.generator.get_state(),
            "seconds": self.seconds,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(self.folder / CHECKPOINT, buffer.getvalue(), RESUMED)

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's state; the alignment has loaded its own before it cached its columns.

        Raises:
            InputError: It is of a version whose optimiser had other parameters.
        """
        self.step, self.seconds = state["step"], state["seconds"]
        restore(self.agent, state["agent"], self.folder)
        try:
            self.update.load_state_dict(self.place, state["optimiser"])
        except (ValueError, IndexError) as error:
            raise _of_another_version(self.folder, error) from error
        self._generator.set_state(state["generator"])
        self.agent.generator.set_state(state["noise"])


def restore(module: nn.Module, state: dict[str, Any], folder: Path) -> None:
    """Load what the checkpoint of a run folder holds of a module.

    Raises:
        InputError: It is of a version whose module had other parameters.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise _of_another_version(folder, error) from error


def _of_another_version(folder: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(folder / CHECKPOINT, f"of another version of landbridge: {reason}", "train again")


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The checkpoint of a run folder, on the CPU.

    Raises:
        InputError: There is none, or it is not readable.
    """
    path = folder / CHECKPOINT
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its unpickler met
        raise InputError(path, f"not a readable checkpoint: {error}".splitlines()[0], "train again") from error
    return state
