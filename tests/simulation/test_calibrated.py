"""The simulator that a calibration stands for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from landbridge.robot import load_robot
from landbridge.simulation.calibrated import Calibration

ROBOT = load_robot("furuta")


def test_what_is_estimated_replaces_what_is_nominal_and_nothing_else(calibration: Callable[..., Calibration]) -> None:
    assert calibration(latency_ms=31.2).scenario(ROBOT).latency_ms == pytest.approx(31.2)
    scenario = calibration(actuator_gain=0.9).scenario(ROBOT)
    assert scenario.actuator_gain == pytest.approx(0.9)
    assert (scenario.latency_ms, scenario.joint_pos_noise, scenario.joint_vel_noise) == (0.0, 0.001, 0.03)
