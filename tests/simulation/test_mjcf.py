"""The exported MJCF has the scenario's numbers and moves as the plant does."""

from __future__ import annotations

import shutil
from pathlib import Path

import mujoco
import numpy as np
import pytest

from landbridge.joint import Friction, Transmission
from landbridge.robot import load_robot
from landbridge.simulation.mjcf import to_mjcf
from landbridge.simulation.plant import make_plant
from landbridge.simulation.scenario import Scenario

FURUTA = load_robot("furuta")
CALIBRATED = Scenario(
    actuator_gain=0.9,
    link_mass_scale={"pendulum_link": 1.25},
    link_length_scale={"pendulum_link": 1.1},
    friction={"arm": Friction(frictionloss=0.002, viscous=0.0015), "pendulum": Friction(viscous=0.00002)},
    latency_ms=30.7,
)


def loaded(scenario: Scenario, robot: str, path: Path) -> mujoco.MjModel:
    path.write_text(to_mjcf(load_robot(robot), scenario))
    return mujoco.MjModel.from_xml_path(str(path))


def test_the_file_has_the_identified_numbers(tmp_path: Path) -> None:
    model = loaded(CALIBRATED, "furuta", tmp_path / "furuta.xml")
    pendulum = model.body("pendulum_link")
    assert pendulum.mass[0] == pytest.approx(1.25 * 0.04)
    assert pendulum.ipos[2] == pytest.approx(1.1 * 0.15)
    assert pendulum.inertia.max() == pytest.approx(1.25 * 1.1**2 * 0.00030025)
    assert model.dof_damping.tolist() == pytest.approx([0.0015, 0.00002])
    assert model.dof_frictionloss.tolist() == pytest.approx([0.002, 0.0])
    assert model.actuator("arm").gainprm[0] == pytest.approx(0.9)
    assert model.actuator("arm").forcerange.tolist() == [-0.12, 0.12]
    assert model.actuator_delay[0] == pytest.approx(0.030)  # the nearest of its steps of 2 ms
    assert model.opt.timestep == pytest.approx(FURUTA.spec.control_dt / FURUTA.spec.decimation)


@pytest.mark.parametrize("latency_ms", [0.0, 32.0])
def test_it_moves_as_the_plant_does_delay_and_all(tmp_path: Path, latency_ms: float) -> None:
    scenario = CALIBRATED.model_copy(update={"latency_ms": latency_ms})
    model = loaded(scenario, "furuta", tmp_path / "furuta.xml")
    data, plant = mujoco.MjData(model), make_plant(FURUTA, "mujoco", scenario)
    start = np.array([0.3, 2.0]), np.array([4.0, -3.0])  # fast: near rest MuJoCo's friction is its own
    plant.reset(*start)
    data.qpos[:], data.qvel[:] = start
    for command in (0.05, -0.02, 0.2, 0.01):
        plant.step([(0.0, np.array([command]))])
        for _ in range(FURUTA.spec.decimation):
            data.ctrl[:] = command
            mujoco.mj_step(model, data)
        np.testing.assert_allclose(data.qvel, plant.state()[1], rtol=1e-4)
        np.testing.assert_allclose(data.qpos, plant.state()[0], rtol=1e-4)


def test_its_limits_are_the_robots_and_not_the_urdfs(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FURUTA.folder, tmp_path / "furuta"))
    urdf = folder / "furuta.urdf"
    urdf.write_text(urdf.read_text().replace('effort="0.12"', 'effort="0.01"'))
    model = loaded(Scenario(), str(folder), tmp_path / "furuta.xml")
    assert not model.jnt_actfrclimited.any()
    assert model.actuator("arm").forcerange.tolist() == [-0.12, 0.12]


def test_a_position_commanded_robot_has_its_servos(tmp_path: Path) -> None:
    robot = load_robot("arm")
    scenario = Scenario(actuator_gain=0.8, friction={joint.name: Friction() for joint in robot.spec.joints})
    model = loaded(scenario, "arm", tmp_path / "arm.xml")
    data, plant = mujoco.MjData(model), make_plant(robot, "mujoco", scenario)
    rest, goal = np.zeros(6), np.array([0.3, -0.2, 0.1, 0.4, -0.5, 0.6])
    plant.reset(rest, rest)
    plant.step([(0.0, goal)])
    for _ in range(robot.spec.decimation):
        data.ctrl[:] = goal
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(data.qpos, plant.state()[0], rtol=1e-4, atol=1e-6)


def test_a_floating_robot_stands_where_its_file_begins(tmp_path: Path) -> None:
    model = loaded(Scenario(), "quadruped", tmp_path / "quadruped.xml")
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("home").id)
    for _ in range(round(1 / model.opt.timestep)):
        mujoco.mj_step(model, data)
    spec = load_robot("quadruped").spec
    assert data.qpos[2] == pytest.approx(spec.base_height, abs=0.02)
    assert data.qpos[3] == pytest.approx(1.0, abs=0.01)
    assert np.abs(data.qvel).max() < 0.05
    geared = {"FR_calf_joint": Transmission(backlash=0.01, rotor_inertia=0.01, stiffness=500, damping=1)}
    assert loaded(Scenario(transmission=geared), "quadruped", tmp_path / "geared.xml").nkey == 1


def test_what_it_cannot_say_is_named() -> None:
    sticky = Scenario(friction={"arm": Friction(frictionloss=0.002, stiction=0.003, stribeck_velocity=0.4)})
    assert "Not in here: Stribeck friction (arm 0.003 N m, 0.4 rad/s), friction smoothed" in to_mjcf(FURUTA, sticky)
    rubbing = Scenario(friction={"arm": Friction(load=0.2)})
    assert "Not in here: friction by the drive's effort (arm 0.2 of it), friction smoothed" in to_mjcf(FURUTA, rubbing)
    assert "Stribeck" not in to_mjcf(FURUTA, CALIBRATED)
