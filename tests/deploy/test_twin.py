"""The twin behind the hardware interface, with a clock of the test's own."""

from __future__ import annotations

import numpy as np
import pytest

from landbridge.deploy.hardware import Resettable
from landbridge.deploy.hardware.twin import Twin
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.simulation.plant import make_plant
from landbridge.simulation.scenario import load_scenario

FURUTA = load_robot("furuta")


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def run(delays: list[float], effort: float = 0.1) -> list[list[float]]:
    """Positions after each read, with one write per period at `delays` seconds after the read."""
    clock = Clock()
    twin = Twin(FURUTA, "none", seed=1, clock=clock)
    twin.let_go()
    positions = [list(twin.read()[0])]
    for delay in delays:
        clock.now += delay
        twin.write([effort])
        clock.now += FURUTA.spec.control_dt - delay
        positions.append(list(twin.read()[0]))
    twin.close()
    return positions


def test_an_arm_without_torque_falls_onto_its_stops() -> None:
    arm = load_robot("arm")
    limits = [joint.position_range for joint in arm.spec.joints]
    low, high = np.transpose(limits)
    twin = Twin(arm, "severe", seed=1)
    twin.let_go()
    twin.disable()
    for _ in range(300):
        twin.read()
    position, velocity = map(np.array, twin._plant.state())
    twin.close()
    assert (position >= low).all() and (position <= high).all()
    resting = (position == low) | (position == high)
    assert resting.sum() >= 2 and not velocity[resting].any()


def test_a_twin_without_torque_coasts_as_one_does_that_is_told_zero_effort() -> None:
    clock = Clock()
    disabled, zeroed = (Twin(FURUTA, "severe", seed=1, clock=clock) for _ in range(2))
    for twin in (disabled, zeroed):
        twin.let_go()
        twin.write([0.1])
        twin.read()
    disabled.disable()
    zeroed.write([0.0])
    for _ in range(5):
        clock.now += FURUTA.spec.control_dt
        assert disabled.read() == zeroed.read()
    for twin in (disabled, zeroed):
        twin.close()


def test_writes_take_effect_at_the_offset_at_which_they_came() -> None:
    plant = make_plant(FURUTA, "bullet", load_scenario(FURUTA, "none"))
    for delay in (0.0, 0.006, 0.012):
        found = run([delay] * 5)
        twin = Twin(FURUTA, "none", seed=1)
        start = twin._plant.measure()
        twin.close()
        plant.reset(*start)
        expected = [plant.measure()[0]]
        for _ in range(5):
            plant.step([(delay, np.array([0.1]))])
            expected.append(plant.measure()[0])
        np.testing.assert_allclose(found, expected, atol=1e-12)
    assert run([0.0] * 5)[-1][0] > run([0.012] * 5)[-1][0] + 1e-3


def test_a_write_that_comes_later_than_a_period_counts_at_its_end() -> None:
    np.testing.assert_array_equal(run([0.02]), run([0.5]))


def test_reset_draws_the_next_start_state_and_forgets_the_writes() -> None:
    twin = Twin(FURUTA, "none", seed=1)
    assert isinstance(twin, Resettable)
    first = twin.read()[0]
    twin.write([0.1])
    twin.reset()
    second = twin.read()
    assert first != second[0]
    assert abs(second[0][1] - np.pi) < 0.11
    assert max(map(abs, second[1])) < 0.5
    twin.close()


def test_held_at_the_start_state_until_released() -> None:
    """Whatever is written meanwhile, and however long it takes, an episode's first measurement is its start state."""
    start = Twin(FURUTA, "none", seed=1).read()
    twin = Twin(FURUTA, "none", seed=1)
    for _ in range(20):
        assert twin.read() == start
        twin.write([0.1])
    twin.let_go()
    twin.let_go()  # every heartbeat of ACTIVE lets go
    assert twin.read() == start
    assert twin.read() != start
    twin.close()


def test_a_command_between_release_and_read_moves_the_twin() -> None:
    """It answers the last measurement before the release: one period lies between that and the next."""
    clock = Clock()
    twin = Twin(FURUTA, "none", seed=1, clock=clock)
    expected = run([0.002], effort=0.1)
    assert twin.read()[0] == expected[0]
    clock.now += 0.001
    twin.let_go()
    clock.now += 0.001
    twin.write([0.1])
    assert twin.read()[0] == pytest.approx(expected[1], abs=1e-12)
    twin.close()


def test_an_unknown_scenario_is_refused() -> None:
    with pytest.raises(InputError, match="no scenario 'worse'"):
        Twin(FURUTA, "worse", seed=0)
