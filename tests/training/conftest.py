"""Small datasets of both domains, made once."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from landbridge.simulation.collect import collect
from landbridge.training.alignments.tabb import TabbConfig
from landbridge.training.predictor import PredictorConfig

BLOCK = 32  # steps between two checkpoints, in tests of what happens between them; 256 take a second


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of `BLOCK` steps."""
    monkeypatch.setattr("landbridge.training.trainer.BLOCK", BLOCK)


QUICK = TabbConfig(predictor=PredictorConfig(hidden=16, source_steps=20, steps=50))  # a useless one, at once


class Data(NamedTuple):
    source: Path
    target: Path


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("data")
    collect(folder / "source", steps=1500, batch=4, seed=1)
    collect(
        folder / "target",
        steps=900,
        batch=3,
        seed=2,
        engine="bullet",
        scenario="severe",
        domain="target",
        mix={"excite": 1.0},
    )
    return Data(folder / "source", folder / "target")


def kill_when(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """SIGKILL to `process` as soon as `condition` holds, while it still runs."""
    pause = threading.Event()
    while not condition():
        assert process.poll() is None
        pause.wait(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
