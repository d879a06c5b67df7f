"""Both engines hold the numbers of the URDF, and move alike."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from landbridge.joint import Friction
from landbridge.robot import Robot, load_robot
from landbridge.simulation.bullet_plant import BulletPlant, pybullet
from landbridge.simulation.mujoco_plant import MujocoPlant
from landbridge.simulation.plant import Engine, Plant, make_plant
from landbridge.simulation.scenario import Scenario, load_scenario
from landbridge.task import load_task

from .urdf import links_of, numbers, tensor

FURUTA = load_robot("furuta")
FRICTIONLESS = Scenario(friction={"arm": Friction(), "pendulum": Friction()})
# kg m^2. Arm: box of 0.16 m, 0.12 kg, centre at 0.08 m. Pendulum: rod of 0.3 m, 0.04 kg, 0.17 m off the axis.
ARM_INERTIA = 0.12 * (0.16**2 + 0.02**2) / 12 + 0.12 * 0.08**2
PIVOT_INERTIA = 0.04 * 0.17**2
ROD_INERTIA = 0.04 * (3 * 0.005**2 + 0.3**2) / 12 + 0.04 * 0.15**2
COUPLING = 0.04 * 0.17 * 0.15


@pytest.fixture(scope="module", params=["furuta", "quadruped", "arm"])
def robot(request: pytest.FixtureRequest) -> Robot:
    return load_robot(request.param)


@pytest.fixture(scope="module")
def links(robot: Robot) -> dict[str, ET.Element]:
    return links_of(robot)


@pytest.fixture(params=["mujoco", "bullet"])
def frictionless(request: pytest.FixtureRequest) -> Iterator[Plant]:
    plant = make_plant(FURUTA, request.param, FRICTIONLESS)
    yield plant
    plant.close()


@pytest.mark.parametrize(("name", "bodies", "digits"), [("furuta", 3, 1e-9), ("quadruped", 13, 1e-8), ("arm", 7, 1e-8)])
def test_urdf_inertias_are_those_of_its_primitives(name: str, bodies: int, digits: float) -> None:
    links = links_of(load_robot(name))
    assert len(links) == bodies
    for link in links.values():
        (mass,) = numbers(link, "inertial/mass", "value")
        if link.find("visual/geometry/box") is not None:
            x, y, z = numbers(link, "visual/geometry/box", "size")
            expected = mass / 12 * np.array([y * y + z * z, x * x + z * z, x * x + y * y])
        else:
            (r,), (h,) = (numbers(link, "visual/geometry/cylinder", key) for key in ("radius", "length"))
            expected = mass * np.array([(3 * r * r + h * h) / 12, (3 * r * r + h * h) / 12, r * r / 2])
        np.testing.assert_allclose(tensor(link), np.diag(expected), rtol=digits)
        assert numbers(link, "inertial/origin", "xyz") == numbers(link, "visual/origin", "xyz")


def test_mujoco_holds_the_masses_and_inertias(robot: Robot, links: dict[str, ET.Element]) -> None:
    model = MujocoPlant(robot, Scenario()).model
    assert model.nbody == 1 + len(links)
    for name, link in links.items():
        body = model.body(name)
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, body.iquat)
        frame = rotation.reshape(3, 3)
        np.testing.assert_allclose(body.mass, numbers(link, "inertial/mass", "value"), rtol=1e-9)
        np.testing.assert_allclose(body.ipos, numbers(link, "inertial/origin", "xyz"), atol=1e-12)
        np.testing.assert_allclose(frame @ np.diag(body.inertia) @ frame.T, tensor(link), atol=1e-12)


def test_bullet_holds_the_masses_and_inertias(robot: Robot, links: dict[str, ET.Element]) -> None:
    plant = BulletPlant(robot, Scenario())
    joints = range(pybullet.getNumJoints(plant.body, plant.client))
    bodies = {pybullet.getJointInfo(plant.body, i, plant.client)[12].decode(): i for i in joints}
    if robot.spec.base == "floating":  # one that is fixed has no mass in Bullet
        bodies[pybullet.getBodyInfo(plant.body, plant.client)[0].decode()] = -1
    for name, index in bodies.items():
        info = pybullet.getDynamicsInfo(plant.body, index, plant.client)
        frame = np.reshape(pybullet.getMatrixFromQuaternion(info[4]), (3, 3))
        np.testing.assert_allclose(info[0], numbers(links[name], "inertial/mass", "value"), rtol=1e-9)
        np.testing.assert_allclose(info[3], numbers(links[name], "inertial/origin", "xyz"), atol=1e-12)
        np.testing.assert_allclose(frame @ np.diag(info[2]) @ frame.T, tensor(links[name]), atol=1e-12)
    plant.close()


def test_axes_agree_with_the_urdf(robot: Robot) -> None:
    root = ET.parse(robot.urdf).getroot()
    model, bullet = MujocoPlant(robot, Scenario()).model, BulletPlant(robot, Scenario())
    for joint, index in zip(robot.spec.joints, bullet.joints, strict=True):
        element = root.find(f"joint[@name='{joint.name}']")
        assert element is not None
        axis = numbers(element, "axis", "xyz")
        np.testing.assert_allclose(model.joint(joint.name).axis, axis)
        np.testing.assert_allclose(pybullet.getJointInfo(bullet.body, index, bullet.client)[13], axis)
    bullet.close()


def test_urdf_limits_are_those_of_robot_yaml(robot: Robot) -> None:
    root = ET.parse(robot.urdf).getroot()
    model = MujocoPlant(robot, Scenario()).model
    for joint in robot.spec.joints:
        element = root.find(f"joint[@name='{joint.name}']")
        assert element is not None and (limit := element.find("limit")) is not None
        assert float(limit.attrib["effort"]) == joint.effort_limit
        assert float(limit.attrib["velocity"]) == joint.velocity_limit
        if joint.position_limit is None:
            assert element.attrib["type"] == "continuous"
        else:
            assert (float(limit.attrib["lower"]), float(limit.attrib["upper"])) == joint.position_limit
            np.testing.assert_allclose(model.joint(joint.name).range, joint.position_limit)


@pytest.mark.parametrize("name", ["none", "severe"])
def test_engines_swing_alike(name: str) -> None:
    """From hanging, 2.5 s of a swing-up torque: the engines part by less than 0.01 mrad and 0.1 mrad/s."""
    scenario = load_scenario(FURUTA, name).model_copy(update={"joint_pos_noise": 0.0, "joint_vel_noise": 0.0})
    plants = MujocoPlant(FURUTA, scenario), BulletPlant(FURUTA, scenario)
    for plant in plants:
        plant.reset(np.array([0.1, np.pi]), np.zeros(2))
    highest = -1.0
    for k in range(125):
        command = 0.1 * np.sign(np.sin(2 * np.pi * 1.1 * k * 0.02))
        for plant in plants:
            plant.step([(0.0, np.array([command]))])
        (pos, vel), (other_pos, other_vel) = (plant.measure() for plant in plants)
        np.testing.assert_allclose(other_pos, pos, atol=1e-5)
        np.testing.assert_allclose(other_vel, vel, atol=1e-4)
        highest = max(highest, float(np.cos(pos[1])))
    assert highest > 0, "the pendulum never left its lower half: the comparison would show little"
    plants[1].close()


def test_links_that_overlap_do_not_touch_in_either_engine(tmp_path: Path) -> None:
    """Shapes of neighbouring links meet at their joint in most vendors' URDFs."""
    folder = Path(shutil.copytree(FURUTA.folder, tmp_path / "furuta"))
    urdf = folder / "furuta.urdf"
    ball = '<collision><geometry><sphere radius="0.1"/></geometry></collision></link>'
    urdf.write_text(urdf.read_text().replace("</link>", ball))
    assert urdf.read_text().count(ball) >= 3
    found = []
    for engine in (MujocoPlant, BulletPlant):
        for each in (FURUTA, load_robot(folder)):
            plant = engine(each, Scenario())
            plant.reset(np.array([0.1, 2.0]), np.zeros(2))
            for _ in range(25):
                plant.step([(0.0, np.array([0.02]))])
            found.append(np.concatenate(plant.state()))
            plant.close()
    np.testing.assert_allclose(found, [found[0]] * 4, atol=1e-3)


@pytest.mark.parametrize("name", ["none", "extreme"])
def test_engines_track_alike(name: str) -> None:
    """Four seconds of the arm's own reference, with load and friction of the rung: the engines part by 0.1 mrad."""
    arm = load_robot("arm")
    task: Any = load_task(arm)
    scenario = load_scenario(arm, name).model_copy(update={"joint_pos_noise": 0.0, "joint_vel_noise": 0.0})
    plants = MujocoPlant(arm, scenario), BulletPlant(arm, scenario)
    start, reached = task.reference(np.zeros(1))[0], np.zeros(6)
    for plant in plants:
        plant.reset(start, np.zeros(6))
    for k in range(200):
        command = task.reference(np.array([2 * np.pi * k * 0.02 / 3.0]))[0]
        for plant in plants:
            plant.step([(0.0, command)])
        (pos, vel), (other_pos, other_vel) = (plant.measure() for plant in plants)
        np.testing.assert_allclose(other_pos, pos, atol=1e-4)
        np.testing.assert_allclose(other_vel, vel, atol=1e-2)
        reached = np.maximum(reached, np.abs(pos - start))
    assert (reached > 0.2).all(), "a joint hardly moved: the comparison would show little"
    plants[1].close()


@pytest.mark.parametrize("angle", [0.0, np.pi])
def test_first_acceleration_by_hand(frictionless: Plant, angle: float) -> None:
    """At rest at 0 or pi gravity has no moment: M a = [tau, 0], with M from the Lagrangian."""
    frictionless.reset(np.array([0.3, angle]), np.zeros(2))
    coupling = -COUPLING * np.cos(angle)
    mass_matrix = np.array([[ARM_INERTIA + PIVOT_INERTIA, coupling], [coupling, ROD_INERTIA]])
    frictionless._advance([0.05, 0.0])
    acceleration = np.linalg.solve(mass_matrix, [0.05, 0.0])
    np.testing.assert_allclose(frictionless.state()[1], acceleration * frictionless.physics_dt, rtol=1e-3)


@pytest.mark.parametrize("engine", ["mujoco", "bullet"])
def test_energy_is_kept_without_friction(engine: Engine) -> None:
    """Let fall from nearly upright with a turning arm, for 2 s: the energy's error is first order in the time step."""
    coarse, fine = (energy_error(engine, decimation) for decimation in (10, 100))
    assert coarse < 0.08
    assert fine < 0.008
    assert 8 < coarse / fine < 12


def energy_error(engine: Engine, decimation: int) -> float:
    """Range of the energy over m g l."""
    spec = FURUTA.spec.model_copy(update={"decimation": decimation})
    plant = make_plant(Robot(spec, FURUTA.folder), engine, FRICTIONLESS)
    plant.reset(np.array([0.0, 0.2]), np.array([3.0, 0.0]))
    energies = []
    for _ in range(100):
        plant.step([])
        (_, angle), velocity = plant.measure()
        swept = ROD_INERTIA * np.sin(angle) ** 2  # of the rod about the arm's axis, r = l sin(a)
        coupling = -COUPLING * np.cos(angle)
        arm = ARM_INERTIA + PIVOT_INERTIA + swept
        mass_matrix = np.array([[arm, coupling], [coupling, ROD_INERTIA]])
        energies.append(0.5 * velocity @ mass_matrix @ velocity + 0.04 * 9.81 * 0.15 * np.cos(angle))
    plant.close()
    return float(np.ptp(energies)) / (0.04 * 9.81 * 0.15)


def test_bullet_keeps_stdout_clean(capfd: pytest.CaptureFixture[str]) -> None:
    BulletPlant(FURUTA, Scenario()).close()
    assert capfd.readouterr().out == ""
