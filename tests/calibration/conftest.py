"""What the tests of identification share."""

from __future__ import annotations

from pathlib import Path

import pytest

from landbridge.simulation.collect import collect


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A short recording of the twin on `moderate`."""
    path = tmp_path / "recorded"
    collect(path, engine="bullet", scenario="moderate", domain="target", mix={"excite": 1.0}, steps=1200, batch=4)
    return path
