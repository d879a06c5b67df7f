"""The folder of one training run: what its files are called, and reading its configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from landbridge.errors import InputError

CONFIG = "config.json"
METRICS = "metrics.csv"
DIAGNOSTICS = "diagnostics.json"


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
