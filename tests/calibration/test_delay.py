from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from landbridge.calibration.delay import delay, delays
from landbridge.errors import InputError
from landbridge.simulation.collect import collect


@pytest.mark.parametrize("periods", [0.0, 0.3, 1.0, 1.75, 2.5])
def test_a_known_delay_is_found_whatever_the_gain(periods: float) -> None:
    rng = np.random.default_rng(0)
    whole, part = int(periods), periods % 1
    episodes = []
    for _ in range(5):
        action = rng.uniform(-1, 1, 103)
        lagged = np.stack([action[3 - lag : 103 - lag] for lag in range(4)], 1)
        weights = np.zeros(4)
        weights[whole] = 1 - part
        if part:
            weights[whole + 1] = part
        drift = rng.normal(size=(100, 1))
        episodes.append((np.hstack([lagged, drift]), -2.5 * lagged @ weights + 0.7 * drift[:, 0]))
    low, estimate, high = delay(episodes, 4, rng)
    assert estimate == pytest.approx(periods, abs=1e-4)
    assert low <= estimate + 1e-9 and high >= estimate - 1e-9


def test_the_twins_delay_is_found_from_recorded_behaviour(tmp_path: Path) -> None:
    collect(
        tmp_path / "d", engine="bullet", scenario="severe", domain="target", mix={"excite": 1.0}, steps=3000, batch=4
    )
    found = delays(tmp_path / "d")["delays"][0]
    assert found["joint"] == "arm"
    assert found["delay_ms"] == pytest.approx(30, abs=4)  # latency_ms of `severe`
    assert found["low_ms"] < found["delay_ms"] < found["high_ms"]


def test_a_robot_that_is_not_commanded_in_effort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"arm: is commanded in position, not effort\. `calibrate identify`"):
        delays(tmp_path, robot="arm")


def test_too_few_episodes_are_refused(tmp_path: Path) -> None:
    collect(tmp_path / "d", steps=300, batch=1, mix={"tuned": 1.0})
    with pytest.raises(InputError, match="record at least 3"):
        delays(tmp_path / "d")
