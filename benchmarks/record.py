"""The file of a benchmark's figures: what they were made with stands before them."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from landbridge.provenance import commit, now


def write(path: Path, load_before: float, **figures: object) -> None:
    """Write `figures` to `path`, with the load of the machine before they were measured."""
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "load_before": round(load_before, 2)}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"made": now(), "commit": commit(), **machine, **figures}, indent=2) + "\n")
