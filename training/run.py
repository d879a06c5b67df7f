"""The folder of one training run: what its files are called, and reading its configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from landbridge.errors import InputError

CONFIG = "config.json"
METRICS = "metrics.csv"
DIAGNOSTICS = "diagnostics.json"


@dataclass(frozen=True)
class Inputs:
    """What a run is made of besides its configuration: the arguments of `landbridge.training.train.train`."""

    robot: str
    source: Path | None = None
    target: Path | None = None
    scratch: Path | None = None
    score: str | None = None

    @classmethod
    def of(cls, run: dict[str, Any], out: Path, scratch: Path | None) -> Inputs:
        """Those that a run began with; its rows may go to another folder `scratch` than before.

        Raises:
            InputError: Its rows were in memory.
        """
        paths = {name: Path(run[name]) for name in ("source", "target", "scratch") if run.get(name)}
        began = cls(robot=run["robot"], score=run["score"], **paths)
        if scratch is not None and began.scratch is None:
            raise InputError("--scratch", f"{out} began with its rows in memory", "resume it without, or train anew")
        return replace(began, scratch=scratch or began.scratch)

    def to_json(self) -> dict[str, str | None]:
        """Names, and absolute paths."""
        return {name: str(v.resolve()) if isinstance(v, Path) else v for name, v in vars(self).items()}


def read_run(folder: Path) -> dict[str, Any]:
    """The `config.json` of a run folder.

    Raises:
        InputError: There is none, or it is not readable.
    """
    try:
        run: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            folder / CONFIG, f"not a readable run: {error}", "name the --out of `landbridge train`"
        ) from error
    return run


def has_reached(folder: Path, step: int) -> bool:
    """Whether the run came to its end at this step; its diagnostics are what it writes last."""
    path = folder / DIAGNOSTICS
    return path.is_file() and bool(json.loads(path.read_text())["step"] == step)
