"""The log of a training run: metrics.csv for people and scripts, TensorBoard events for curves."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter
from typing_extensions import Self

from landbridge.files import not_written, write_atomic
from landbridge.training.run import METRICS, RESUMED


class Log:
    """One row per block of steps, flushed as it is written: a killed run loses the row that it was writing at most.

    Args:
        folder: The run's folder.
        step: Where the run goes on. Rows of later steps, written between the checkpoint and a crash, are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        path = folder / METRICS
        if path.is_file():
            write_atomic(path, _until(path.read_bytes().decode(), step), RESUMED)
        self._file = path.open("a", newline="", buffering=1)
        self._events = SummaryWriter(str(folder), purge_step=step or None)

    def write(self, step: int, row: Mapping[str, float | str]) -> None:
        """Append a row; an empty value stands for nothing measured at this step.

        Raises:
            InputError: The disk is full, or the like.
        """
        writer = csv.DictWriter(self._file, ("step", *row))
        try:
            if self._file.tell() == 0:
                writer.writeheader()
            writer.writerow({"step": step, **row})
        except OSError as error:
            with suppress(OSError):  # what could not be written it would try again
                self._file.close()
            raise not_written(Path(self._file.name), error, RESUMED) from error
        for key, value in row.items():
            if value != "":
                self._events.add_scalar(key, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.close()
        self._file.close()


def last_step(folder: Path) -> int:
    """The step of the last whole row that a run has logged; 0 if there is none."""
    path = folder / METRICS
    if not path.is_file():
        return 0
    text = path.read_text()
    last = text[: text.rfind("\n") + 1].splitlines()[-1:]
    return int(step) if last and (step := last[0].partition(",")[0]).isdigit() else 0


def _until(text: str, step: int) -> str:
    """The header and the whole lines up to `step`."""
    header, *lines = text[: text.rfind("\n") + 1].splitlines(keepends=True) or [""]
    return "".join([header, *(line for line in lines if int(line.partition(",")[0]) <= step)])
