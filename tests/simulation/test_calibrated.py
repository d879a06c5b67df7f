"""The simulator that a calibration stands for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from landbridge.robot import load_robot
from landbridge.simulation.calibrated import Calibration

ROBOT = load_robot("furuta")


@pytest.mark.parametrize(("found", "simulated"), [(30.0035, 30.0), (29.98, 30.0), (31.2, 32.0), (0.4, 0.0)])
def test_a_latency_is_simulated_by_the_nearest_number_of_physics_steps(
    calibration: Callable[..., Calibration], found: float, simulated: float
) -> None:
    """A plant waits whole steps, of 2 ms here, and would take 30.0035 ms for 32."""
    assert calibration(latency_ms=found).scenario(ROBOT).latency_ms == pytest.approx(simulated)


def test_what_is_estimated_replaces_what_is_nominal_and_nothing_else(calibration: Callable[..., Calibration]) -> None:
    scenario = calibration(actuator_gain=0.9).scenario(ROBOT)
    assert scenario.actuator_gain == pytest.approx(0.9)
    assert (scenario.latency_ms, scenario.joint_pos_noise, scenario.joint_vel_noise) == (0.0, 0.001, 0.03)
