"""Calibration of a robot that walks: its state, the windows, and the fit to a Bullet twin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from landbridge.calibration.descent import first_guess
from landbridge.calibration.design import run_episodes
from landbridge.calibration.fit import Problem, fit, settle
from landbridge.calibration.friction import friction
from landbridge.calibration.identify import prediction_error
from landbridge.calibration.posterior import estimates, inflation, resample, stride_inflation
from landbridge.calibration.shooting import simulate
from landbridge.calibration.state import base_state, columns, from_physics, to_physics
from landbridge.calibration.windows import Windows, cut, lags
from landbridge.calibration.zero import zero
from landbridge.episode import Episode
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import Robot, load_robot
from landbridge.simulation.behaviour import load_behaviours
from landbridge.simulation.parameters import at, friction_groups, parameters, to_scenario, to_values
from landbridge.simulation.plant import make_plant
from landbridge.simulation.scenario import load_scenario

ROBOT = load_robot("quadruped")
SEVERE = load_scenario(ROBOT, "severe")
HORIZON = 10
JOINTS = len(ROBOT.spec.joints)


@pytest.fixture(scope="module")
def walked() -> list[Episode]:
    """12 s of the twin on `severe`, pushed every 2 s."""
    policy = load_behaviours(ROBOT)["excite"](2, np.random.default_rng(0))
    return run_episodes(ROBOT, "bullet", SEVERE, policy, 2, 0)


def test_states_go_to_the_simulator_and_back() -> None:
    rng = np.random.default_rng(0)
    states = rng.standard_normal((50, len(columns(ROBOT.spec))))
    down = slice(2 * JOINTS + 1, 2 * JOINTS + 4)
    states[:, down] /= np.linalg.norm(states[:, down], axis=1, keepdims=True)
    assert from_physics(ROBOT.spec, to_physics(ROBOT.spec, states)) == pytest.approx(states, abs=1e-12)


def test_a_robot_in_its_default_pose_is_as_high_as_its_legs_are_long() -> None:
    default = np.array([[joint.default_joint_pos for joint in ROBOT.spec.joints]])
    observer = Observer(ROBOT.spec)
    obs = np.zeros((1, observer.size), np.float32)
    obs[0, observer.names.index("projected_gravity.z")] = -1
    height = base_state(ROBOT, observer, obs, default)[0, 0]
    assert height == pytest.approx(0.4 * np.cos(0.75) + 0.02, abs=1e-6)  # two segments of 0.2 m and a foot


def test_windows_are_simulated_as_the_plant_does_it() -> None:
    scenario = SEVERE.model_copy(update={"push": None})
    plant = make_plant(ROBOT, "mujoco", scenario)
    default = np.array([joint.default_joint_pos for joint in ROBOT.spec.joints])
    plant.reset(default, np.zeros(JOINTS))
    before, rng = lags(ROBOT), np.random.default_rng(0)
    commands = default + 0.2 * rng.standard_normal((before + HORIZON, JOINTS))
    commands[:before] = default
    assert ROBOT.spec.base_height is not None
    level = [ROBOT.spec.base_height, 0, 0, -1, *[0.0] * 6]
    starts = np.concatenate([default, np.zeros(JOINTS), level])[None]
    held = np.repeat(starts[:, None], before + HORIZON + 1, 1)
    number, late, taken = np.zeros(1, np.intp), np.zeros((1, before + HORIZON)), np.zeros((1, HORIZON + 1))
    windows = Windows(held[:, before:], commands[None], number, held[:, :before], late, taken)
    states = simulate(ROBOT, scenario, windows, starts)[0]
    for command, state in zip(commands[before:], states[1:], strict=True):
        plant.step([(0.0, command)])
        joint_pos, joint_vel = plant.state()
        base = plant.measure_base()
        assert base is not None
        # Between the two, MuJoCo's solver starts from the last step's forces or from none.
        assert state[:JOINTS] == pytest.approx(np.asarray(joint_pos), abs=1e-4)
        assert state[JOINTS : 2 * JOINTS] == pytest.approx(np.asarray(joint_vel), abs=1e-2)
        assert state[2 * JOINTS + 1 : 2 * JOINTS + 4] == pytest.approx(base.projected_gravity()[0], abs=1e-4)


def test_joints_alike_share_a_friction_and_a_scenario_survives_its_values() -> None:
    assert list(friction_groups(ROBOT)) == ["hip_joint", "thigh_joint", "calf_joint"]
    again = to_scenario(ROBOT, to_values(ROBOT, SEVERE))
    assert again.payload == SEVERE.payload
    assert again.friction == SEVERE.friction
    assert to_values(ROBOT, again) == to_values(ROBOT, SEVERE)


def test_joints_alike_go_by_the_words_that_they_share() -> None:
    """`wheel`, not the `t_wheel` of left and right."""
    names = {"FR_hip_joint": "left_wheel", "FL_hip_joint": "right_wheel"}
    joints = tuple(
        joint.model_copy(update={"name": names[joint.name]}) for joint in ROBOT.spec.joints if joint.name in names
    )
    assert friction_groups(Robot(ROBOT.spec.model_copy(update={"joints": joints}), ROBOT.folder)) == {
        "wheel": ("left_wheel", "right_wheel")
    }


def test_with_every_parameter_held_a_fit_stays_at_the_measured_starts(walked: list[Episode]) -> None:
    """As `identify` judges one on the windows that it left out."""
    windows = cut(walked, ROBOT, HORIZON, "twin")
    few = windows.where(np.arange(len(windows)) < 3)
    free = [parameter for parameter in parameters(ROBOT) if parameter.name == "actuator_gain"]
    problem = Problem(ROBOT, free, windows, first_guess(ROBOT), SEVERE)
    z = np.array([free[0].coordinate(0.75)])
    held = settle(problem, z, few)
    np.testing.assert_array_equal(held.starts, few.states[:, 0])
    assert held.losses == pytest.approx(replace(problem, windows=few).point(z, few.states[:, 0]).losses)


def test_windows_with_a_push_are_left_out(walked: list[Episode]) -> None:
    usable = sum((len(episode) - lags(ROBOT)) // HORIZON for episode in walked)
    left = cut(walked, ROBOT, HORIZON, "twin")
    pushes = sum(round(len(episode) * ROBOT.spec.control_dt / 2.0) for episode in walked)  # one every 2 s
    assert usable - pushes - 2 <= len(left) <= usable - pushes + 2
    first = columns(ROBOT.spec).index("base_lin_vel.x")
    gained = np.linalg.norm(np.diff(left.states[:, :, first : first + 2], axis=1), axis=-1)
    assert gained.max() <= 0.25


def test_a_walking_twins_parameters_are_approached_and_predict_what_was_not_fitted(walked: list[Episode]) -> None:
    windows = cut(walked, ROBOT, HORIZON, "twin")
    turn = np.arange(len(windows)) % 5
    fitted, held = windows.where(turn == 0), windows.where(turn == 1)
    truth = to_values(ROBOT, SEVERE)
    sought = ("actuator_gain", "ground_friction", "latency_ms")
    others = to_scenario(ROBOT, {name: value for name, value in truth.items() if name not in sought})
    free = [parameter for parameter in parameters(ROBOT) if parameter.name in sought]
    found_fit = fit(Problem(ROBOT, free, fitted, first_guess(ROBOT), others))
    problem, here = found_fit.problem, found_fit.here
    found = at(problem.free, here.z)
    assert found["actuator_gain"] == pytest.approx(truth["actuator_gain"], rel=0.1)  # from 1.0
    assert found["latency_ms"] == pytest.approx(truth["latency_ms"], abs=2.5)  # from 0
    assert found["ground_friction"] < 0.65  # 0.5, from 0.8
    widening = inflation(here.error.reshape(fitted.states.shape), 1.0) * stride_inflation(ROBOT, fitted)
    samples = resample(here, found_fit.linear, widening, np.random.default_rng(0), worth=widening**-2)
    for name, estimate in estimates(problem.free, here.z, samples).items():
        assert estimate.low < truth[name] < estimate.high, name
    before = prediction_error(ROBOT, others, held)
    after = prediction_error(ROBOT, to_scenario(ROBOT, found, others), held)
    typical = [np.median(np.abs(error[:, -1]), axis=0) for error in (before, after)]
    assert np.median(typical[1] / typical[0]) < 0.5


def test_a_robot_that_stands_is_refused(walked: list[Episode]) -> None:
    observer = Observer(ROBOT.spec)
    still = [observer.names.index(f"base_lin_vel.{axis}") for axis in "xyz"]
    episodes = []
    for episode in walked:
        obs = np.array(episode.obs)
        obs[:, still] = 0
        episodes.append(replace(episode, obs=obs))
    with pytest.raises(InputError, match="hardly walks: its base moves at 0 m/s"):
        cut(episodes, ROBOT, HORIZON, "twin")


def test_what_walking_cannot_tell_is_refused_with_what_to_do_instead() -> None:
    for command in (friction, zero):
        with pytest.raises(InputError, match=r"walking does not tell .* use `calibrate identify`"):
            command(Path("nothing"), robot="quadruped")
