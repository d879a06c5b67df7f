"""Packed rows in a file: every block of steps trains on stretches of it that begin anywhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from landbridge.errors import InputError

STRETCH = 1024  # rows read at once, some 80 KB: a solid-state disk reads them as fast as one long file
POOL = 128  # stretches that a block draws from: twice the rows that it takes by default


class Stretches:
    """Rows (N, width) float32 on a disk, for the life of this process.

    The file has no name: whatever ends the process leaves nothing behind, and a resumed run writes it anew, as it packs
    rows in memory anew. The rows of a block are read into one buffer; the pages that they came through are the
    kernel's, which takes them back when memory is wanted. Which stretches a block reads follows from seed and block
    alone: a run may be resumed at any block, and the disk fetches those of the next one while this one trains.

    Every row is in a stretch with the same probability. Neighbours in the file come together, so whoever writes them
    shuffles them first (`Stream.shuffled`).

    Args:
        folder: An existing folder, on a disk.
        parts: The rows, in parts (any, width).
        shape: (N, width).
        seed: Of the stretches.

    Raises:
        InputError: There is no such folder, or no space.
        ValueError: The parts are not of this shape: an alignment has `cache` and no `extend` that is its like.
    """

    def __init__(self, folder: Path, parts: Iterable[Tensor], shape: tuple[int, int], seed: int) -> None:
        self._rows, width = shape
        self._seed = seed
        self._pool = np.empty((POOL, min(STRETCH, self._rows), width), np.float32)
        try:
            self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as this object)
            # No space is said now and not after an hour. The first stretch stands after the last row again, so that one
            # may begin at any row.
            os.posix_fallocate(self.file.fileno(), 0, 4 * self._rows * width + self._pool[0].nbytes)
        except OSError as error:
            remedy = "free space, or name another --scratch"
            raise InputError(folder, f"cannot take {self._rows} rows: {error.strerror}", remedy) from error
        written = 0
        for part in parts:
            if part.shape[1] != width:
                raise ValueError(f"rows of {part.shape[1]} columns among rows of {width}")
            self.file.write(np.ascontiguousarray(part).data)
            written += len(part)
        if written != self._rows:
            raise ValueError(f"{written} rows, announced as {self._rows}")
        self.file.flush()
        self.file.write(os.pread(self.file.fileno(), self._pool[0].nbytes, 0))
        self.file.flush()

    def __len__(self) -> int:
        """Number of rows N."""
        return self._rows

    def pool(self, block: int) -> Tensor:
        """The rows (POOL x stretch, width) that a block draws from, in a buffer that the next call overwrites."""
        length, row = self._pool[0].nbytes, self._pool[0, 0].nbytes
        for start, stretch in zip(self._starts(block), self._pool, strict=True):
            self.file.seek(start * row)
            self.file.readinto(stretch.data)
        for start in self._starts(block + 1):
            os.posix_fadvise(self.file.fileno(), start * row, length, os.POSIX_FADV_WILLNEED)
        return torch.from_numpy(self._pool.reshape(-1, self._pool.shape[2]))

    def _starts(self, block: int) -> list[int]:
        return sorted(np.random.default_rng([self._seed, block]).integers(self._rows, size=POOL).tolist())
