from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from landbridge.calibration.delay import _softened, delay, delays, joint_delays
from landbridge.calibration.design import run_episodes
from landbridge.errors import InputError
from landbridge.joint import Friction, Transmission
from landbridge.robot import Robot, load_robot
from landbridge.simulation.behaviour import load_behaviours
from landbridge.simulation.collect import collect
from landbridge.simulation.scenario import Scenario

GEAR = Transmission(backlash=0.03, rotor_inertia=2e-4, stiffness=100, damping=0.05)


def test_the_friction_of_a_servo_without_damping_of_its_own_is_free_to_be_found() -> None:
    arm = load_robot("arm")
    joints = tuple(joint.model_copy(update={"damping": 0.0}) for joint in arm.spec.joints)
    _, found = _softened(Robot(arm.spec.model_copy(update={"joints": joints}), arm.folder))
    assert len(found) == len(joints) + 2
    assert all(0 < parameter.sd < parameter.high for parameter in found if parameter.name.endswith("viscous"))


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
    assert found["delay_ms"] == pytest.approx(30, abs=0.5)  # latency_ms of `severe`
    assert found["low_ms"] < 30 < found["high_ms"] < found["low_ms"] + 3


def test_a_gear_with_play_makes_a_delay_look_longer_and_the_interval_says_so() -> None:
    furuta = load_robot("furuta")
    arm, pendulum = furuta.spec.joints
    loose = arm.model_copy(update={"transmission": GEAR})
    robot = Robot(furuta.spec.model_copy(update={"joints": (loose, pendulum)}), furuta.folder)
    policy = load_behaviours(robot)["excite"](4, np.random.default_rng(0))
    episodes = run_episodes(robot, "mujoco", Scenario(latency_ms=6), policy, 4, 0)
    (found,) = joint_delays(robot, episodes, np.random.default_rng(0))
    assert 7 < found["delay_ms"] < 9
    assert found["low_ms"] < 6 < found["high_ms"]


@pytest.mark.parametrize("odd", [(0.8, 1.2), (1.2, 0.8)], ids=["all alike", "every other joint"])
def test_the_delay_of_servos_is_found_though_servos_masses_and_frictions_are_not_as_the_file_says(
    odd: tuple[float, float],
) -> None:
    robot, joints = load_robot("arm"), []
    for i, joint in enumerate(robot.spec.joints):
        stiffer, damped = odd if i % 2 else (0.8, 1.2)
        changed = {"stiffness": joint.stiffness * stiffer, "damping": joint.damping * damped}
        joints.append(joint.model_copy(update=changed))
    other = Robot(robot.spec.model_copy(update={"joints": tuple(joints)}), robot.folder)
    heavy = {"upper_arm": 1.15, "hand": 0.85, "jaw": 1.15}
    rough = {joint: Friction(frictionloss=0.03, viscous=0.005) for joint in ("elbow", "wrist_flex", "wrist_roll")}
    noise = {"joint_pos_noise": 0.001, "joint_vel_noise": 0.02}
    twin = Scenario(actuator_gain=0.9, link_mass_scale=heavy, friction=rough, latency_ms=27, **noise)  # type: ignore[arg-type]
    policy = load_behaviours(robot)["excite"](3, np.random.default_rng(0))
    (found,) = joint_delays(robot, run_episodes(other, "bullet", twin, policy, 3, 0), np.random.default_rng(0))
    assert found["joint"] == "all"
    assert found["delay_ms"] == pytest.approx(27, abs=0.5)
    assert found["low_ms"] < 27 < found["high_ms"] < found["low_ms"] + 2


@pytest.mark.parametrize("latency", [27, 36])
def test_the_delay_of_joints_commanded_in_velocity_is_found(latency: float) -> None:
    furuta = load_robot("furuta")
    arm, pendulum = furuta.spec.joints
    driven = arm.model_copy(update={"damping": 0.02, "rate_limit": 400.0})
    action = furuta.spec.action.model_copy(update={"kind": "velocity", "scale": {"arm": 4.0}})
    spec = furuta.spec.model_copy(update={"joints": (driven, pendulum), "action": action})
    robot = Robot(spec, furuta.folder)
    policy = load_behaviours(robot)["random"](3, np.random.default_rng(0))
    episodes = run_episodes(
        robot, "bullet", Scenario(latency_ms=latency, actuator_gain=0.9, joint_pos_noise=0.001), policy, 3, 0
    )
    (found,) = joint_delays(robot, episodes, np.random.default_rng(0))
    assert found["delay_ms"] == pytest.approx(latency, abs=1)
    assert found["low_ms"] < latency < found["high_ms"]


def test_servos_of_a_floating_robot_are_refused() -> None:
    with pytest.raises(InputError, match="has a floating base"):
        joint_delays(load_robot("quadruped"), [], np.random.default_rng(0))


def test_a_delay_that_may_be_longer_than_what_can_be_seen_is_not_given_an_interval() -> None:
    """150 ms, of which the three actions in furuta's observation show 60: 56.6 (53.4 .. 60) ms was said of it."""
    robot = load_robot("furuta")
    policy = load_behaviours(robot)["random"](6, np.random.default_rng(0))
    episodes = run_episodes(robot, "mujoco", Scenario(latency_ms=150), policy, 6, 0)
    with pytest.raises(InputError, match="delay of joint arm may be more than 60 ms, the longest that action_history"):
        joint_delays(robot, episodes, np.random.default_rng(0))


def test_too_few_episodes_are_refused(tmp_path: Path) -> None:
    collect(tmp_path / "d", domain="target", steps=300, batch=1, mix={"tuned": 1.0})
    with pytest.raises(InputError, match=r"/d: has 1 usable episodes, .*record at least 3"):
        delays(tmp_path / "d")


def test_one_rollout_of_servos_is_enough() -> None:
    robot = load_robot("arm")
    policy = load_behaviours(robot)["excite"](1, np.random.default_rng(0))
    episodes = run_episodes(robot, "mujoco", Scenario(latency_ms=15), policy, 1, 0)
    (found,) = joint_delays(robot, episodes, np.random.default_rng(0))
    assert found["delay_ms"] == pytest.approx(15, abs=0.5)
