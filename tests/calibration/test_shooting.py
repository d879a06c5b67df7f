from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from landbridge.calibration.shooting import Case, _in_effect, simulate, simulate_all
from landbridge.calibration.windows import Windows, lags
from landbridge.joint import Friction, Transmission
from landbridge.robot import Robot, load_robot
from landbridge.simulation.plant import Engine, make_plant
from landbridge.simulation.scenario import load_scenario

ROBOT = load_robot("furuta")
BEFORE = lags(ROBOT)  # 5 periods of 20 ms are the 100 ms that a latency may have
PERIODS = 8


def rolled(engine: Engine, latency_ms: float, most_late: float = 0.0) -> Windows:
    """One window of random commands on `moderate`, noise-free, as the plant runs it; some late by up to so many s."""
    quiet = {"latency_ms": latency_ms, "joint_pos_noise": 0.0, "joint_vel_noise": 0.0}
    plant = make_plant(ROBOT, engine, load_scenario(ROBOT, "moderate").model_copy(update=quiet))
    rng = np.random.default_rng(0)
    commands, late = rng.uniform(-0.1, 0.1, (BEFORE + PERIODS, 1)), rng.uniform(0.0, most_late, BEFORE + PERIODS)
    plant.reset(np.array([0.1, 3.0]), np.array([1.0, -2.0]))
    states = [np.concatenate(plant.measure())]
    for offset, command in zip(late, commands, strict=True):
        plant.step([(offset, command)])
        states.append(np.concatenate(plant.measure()))
    plant.close()
    seen, before = np.array([states[BEFORE:]]), np.array([states[:BEFORE]])
    return Windows(seen, commands[None], np.zeros(1, np.intp), before, late[None], np.zeros((1, PERIODS + 1)))


@pytest.mark.parametrize("most_late", [0.0, 0.019])
@pytest.mark.parametrize("latency_ms", [0.0, 2.0, 20.0, 34.0, 81.0])
@pytest.mark.parametrize("engine", ["mujoco", "bullet"])
def test_a_window_is_what_the_plant_does(engine: Engine, latency_ms: float, most_late: float) -> None:
    window = rolled(engine, latency_ms, most_late)
    scenario = load_scenario(ROBOT, "moderate").model_copy(update={"latency_ms": latency_ms})
    found = simulate(ROBOT, scenario, window, window.states[:, 0])
    np.testing.assert_allclose(found, window.states, atol=1e-9 if engine == "mujoco" else 1e-6)


def test_a_state_is_simulated_to_when_it_was_measured() -> None:
    """The plant of `rolled`, looked at in each of its physics steps, ten in a control period."""
    often = Robot(ROBOT.spec.model_copy(update={"control_rate_hz": 500.0, "decimation": 1}), ROBOT.folder)
    quiet = {"latency_ms": 20.0, "joint_pos_noise": 0.0, "joint_vel_noise": 0.0}
    scenario = load_scenario(ROBOT, "moderate").model_copy(update=quiet)
    plant, window = make_plant(often, "mujoco", scenario), rolled("mujoco", 20.0)
    plant.reset(np.array([0.1, 3.0]), np.array([1.0, -2.0]))
    seen = [np.concatenate(plant.measure())]
    for command in np.repeat(window.commands[0], 10, axis=0):
        plant.step([(0.0, command)])
        seen.append(np.concatenate(plant.measure()))
    plant.close()
    steps = np.array([0, 1, -3, 12, 0, 2, -1, 5, 0])  # by how many each was measured later than at a whole period
    looked = 10 * (BEFORE + np.arange(PERIODS + 1)) + steps
    moved = replace(window, taken=0.002 * steps[None])
    found = simulate(ROBOT, scenario, moved, window.states[:, 0])
    np.testing.assert_allclose(found[0], np.array(seen)[looked], atol=1e-9)
    between = simulate(ROBOT, scenario, replace(moved, taken=moved.taken + 0.001 * (steps > 0)), window.states[:, 0])
    halfway = (np.array(seen)[looked[1:-1]] + np.array(seen)[looked[1:-1] + 1]) / 2
    np.testing.assert_allclose(between[0, 1:-1][steps[1:-1] > 0], halfway[steps[1:-1] > 0], atol=1e-9)


def test_windows_do_not_touch_each_other() -> None:
    window = rolled("mujoco", 20.0)
    scenario = load_scenario(ROBOT, "moderate")
    both = Windows(
        np.concatenate([window.states, window.states + 0.1]),
        np.concatenate([window.commands, -window.commands]),
        np.arange(2),
        np.concatenate([window.before, window.before + 0.1]),
        np.concatenate([window.late, window.late]),
        np.concatenate([window.taken, window.taken]),
    )
    alone = simulate(ROBOT, scenario, window, window.states[:, 0])
    np.testing.assert_array_equal(simulate(ROBOT, scenario, both, both.states[:, 0])[:1], alone)


@pytest.mark.parametrize("gear", [None, Transmission(backlash=0.02, rotor_inertia=2e-4, stiffness=100, damping=0.05)])
def test_several_scenarios_at_once_are_what_each_is_alone(gear: Transmission | None) -> None:
    arm, pendulum = ROBOT.spec.joints
    joints = (arm.model_copy(update={"transmission": gear}), pendulum)
    robot = Robot(ROBOT.spec.model_copy(update={"joints": joints}), ROBOT.folder)
    window = rolled("mujoco", 20.0)
    moderate, rubs = load_scenario(ROBOT, "moderate"), Friction(frictionloss=0.001, stiction=0.002, load=0.2)
    scenarios = [
        moderate,
        moderate.model_copy(update={"latency_ms": 7.0, "actuator_gain": 0.8, "link_mass_scale": {"arm_link": 1.3}}),
        moderate.model_copy(update={"friction": {"arm": rubs}}),
    ]
    if gear is not None:
        wider = gear.model_copy(update={"backlash": 0.04, "rotor_inertia": 3e-4})
        scenarios.append(moderate.model_copy(update={"transmission": {"arm": wider}}))
    starts = [window.states[:, 0] + 0.1 * i for i in range(len(scenarios))]
    together = simulate_all(robot, [Case(each, window, start) for each, start in zip(scenarios, starts, strict=True)])
    for found, scenario, start in zip(together, scenarios, starts, strict=True):
        np.testing.assert_array_equal(found, simulate(robot, scenario, window, start))
    assert len(np.unique(together[:, 0, -1, 0])) == len(scenarios)


@pytest.mark.parametrize(
    ("latency_ms", "expected"),
    [
        (0.0, [6.0] * 4),
        (2.0, [5.0, 6.0, 6.0, 6.0]),
        (3.0, [5.0, 5.5, 6.0, 6.0]),  # takes effect half way through the second physics step of 2 ms
        (20.0, [5.0] * 4),
        (100.0, [1.0] * 4),
    ],
)
def test_which_command_is_in_effect(latency_ms: float, expected: list[float]) -> None:
    commands: NDArray[np.float64] = np.arange(1.0, BEFORE + 3)[None, :, None]  # 6 is the window's first
    state, none = np.zeros((1, 3, 4)), np.zeros((1, BEFORE, 4))
    windows = Windows(state, commands, np.zeros(1, np.intp), none, np.zeros((1, BEFORE + 2)), np.zeros((1, 3)))
    found = _in_effect(ROBOT, latency_ms, windows)
    inside = BEFORE * ROBOT.spec.decimation
    assert found.shape == (inside + 2 * ROBOT.spec.decimation, 1, 1)
    np.testing.assert_allclose(found[inside : inside + 4, 0, 0], expected)


def test_half_a_physics_step_of_latency_does_half_of_it() -> None:
    window, scenario = rolled("mujoco", 20.0), load_scenario(ROBOT, "moderate")
    early, middle, late = (
        simulate(ROBOT, scenario.model_copy(update={"latency_ms": ms}), window, window.states[:, 0])[0, -1]
        for ms in (20.0, 21.0, 22.0)
    )
    assert np.abs(late - early).max() > 1e-2
    np.testing.assert_allclose(middle, (early + late) / 2, atol=0.05 * np.abs(late - early).max())
