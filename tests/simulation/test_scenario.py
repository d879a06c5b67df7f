"""The severity ladder: what a scenario does to the URDF, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from landbridge.errors import InputError
from landbridge.robot import Robot, load_robot
from landbridge.simulation.bullet_plant import BulletPlant
from landbridge.simulation.mujoco_plant import MujocoPlant, compile_model
from landbridge.simulation.randomised import draw_between
from landbridge.simulation.scenario import Scenario, apply, load_scenario

RUNGS = ["none", "mild", "moderate", "severe", "extreme"]


@pytest.fixture
def robot(tmp_path: Path) -> Robot:
    """A copy of the furuta that a test may spoil."""
    return load_robot(shutil.copytree(load_robot("furuta").folder, tmp_path / "furuta"))


def test_nominal_scenario_changes_no_number() -> None:
    robot = load_robot("furuta")
    plain, edited = compile_model(robot, Scenario()), compile_model(robot, load_scenario(robot, "none"))
    np.testing.assert_array_equal(plain.body_inertia, edited.body_inertia)
    np.testing.assert_array_equal(plain.body_ipos, edited.body_ipos)


def test_mass_scales_mass_and_inertia() -> None:
    robot = load_robot("furuta")
    nominal, heavy = (
        compile_model(robot, Scenario(link_mass_scale=scale)).body("pendulum_link")
        for scale in ({}, {"pendulum_link": 1.5})
    )
    np.testing.assert_allclose(heavy.mass, 1.5 * nominal.mass)
    np.testing.assert_allclose(heavy.inertia, 1.5 * nominal.inertia)
    np.testing.assert_allclose(heavy.ipos, nominal.ipos)


def test_length_scales_centre_inertia_and_carried_joints() -> None:
    robot = load_robot("furuta")
    nominal, longer = (compile_model(robot, Scenario(link_length_scale=scale)) for scale in ({}, {"arm_link": 1.2}))
    arm, long_arm = nominal.body("arm_link"), longer.body("arm_link")
    np.testing.assert_allclose(long_arm.mass, arm.mass)
    np.testing.assert_allclose(long_arm.ipos, 1.2 * arm.ipos)
    np.testing.assert_allclose(long_arm.inertia, 1.44 * arm.inertia)
    np.testing.assert_allclose(longer.body("pendulum_link").pos, 1.2 * nominal.body("pendulum_link").pos)
    np.testing.assert_allclose(long_arm.pos, arm.pos)
    assert 'size="0.192 0.024 0.012"' in apply(robot.urdf.read_text(), Scenario(link_length_scale={"arm_link": 1.2}))


@pytest.mark.parametrize("name", RUNGS)
def test_every_rung_loads_in_both_engines(name: str) -> None:
    robot = load_robot("furuta")
    scenario = load_scenario(robot, name)
    for plant in (MujocoPlant(robot, scenario), BulletPlant(robot, scenario)):
        plant.step([(0.0, np.array([0.05]))])
        assert np.isfinite(plant.measure()).all()
        plant.close()


def test_ladder_gets_harder() -> None:
    robot = load_robot("furuta")
    rungs = [load_scenario(robot, name) for name in RUNGS]
    assert [r.latency_ms for r in rungs] == sorted(r.latency_ms for r in rungs)
    assert [-r.actuator_gain for r in rungs] == sorted(-r.actuator_gain for r in rungs)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("bad: {actuator_gane: 1.0}", "actuator_gane"),
        ("bad: {link_mass_scale: {pendulum: 1.5}}", "unknown links \\['pendulum'\\].*arm_link"),
        ("bad: {friction: {elbow: {}}}", "unknown joints \\['elbow'\\].*arm, pendulum"),
        ("bad: {link_mass_scale: {arm_link: -1}}", "link_mass_scale.arm_link"),
        ("bad: {latency_ms: 500}", "latency_ms.*500"),
        ("bad: {payload: {tray: {mass: 1, position: [0, 0, 0]}}}", "unknown links \\['tray'\\].*arm_link"),
        ("bad: {payload: {base: {mass: -1, position: [0, 0, 0]}}}", "payload.base.mass"),
        ("bad: {push: {speed: 0.5, interval_s: 1}}", "bad.push: furuta has a fixed base"),
        ("bad: {actuator_gain: .nan}", "actuator_gain"),
        ("bad: [", "not YAML"),
    ],
)
def test_malformed_scenario_is_refused(robot: Robot, text: str, problem: str) -> None:
    (robot.folder / "scenarios.yaml").write_text(f"schema_version: 1\nscenarios:\n  {text}\n")
    with pytest.raises(InputError, match=problem):
        load_scenario(robot, "bad")


@pytest.mark.parametrize("shift", ["latency_ms: 5", "cogging: {arm: {amplitude: 0.1, periods: 7}}", "actuator_gain: 2"])
def test_the_rung_without_shifts_has_none(robot: Robot, shift: str) -> None:
    (robot.folder / "scenarios.yaml").write_text(f"schema_version: 1\nscenarios: {{none: {{{shift}}}}}\n")
    with pytest.raises(InputError, match=rf"none.{shift.split(':')[0]}: .*robot.yaml and its URDF.*none may have"):
        load_scenario(robot, "none")
    noisy = "schema_version: 1\nscenarios: {none: {joint_pos_noise: 0.001, joint_vel_noise: 0.02, latency_ms: 0}}\n"
    (robot.folder / "scenarios.yaml").write_text(noisy)
    assert load_scenario(robot, "none") == Scenario(joint_pos_noise=0.001, joint_vel_noise=0.02)


def test_unknown_rung_names_the_known_ones(robot: Robot) -> None:
    with pytest.raises(InputError, match=r"no scenario 'hell'.*none, mild, moderate, severe, extreme"):
        load_scenario(robot, "hell")


def test_missing_ladder_is_refused(robot: Robot) -> None:
    (robot.folder / "scenarios.yaml").unlink()
    with pytest.raises(InputError, match="no such file"):
        load_scenario(robot, "none")


def test_impossible_inertia_is_refused(robot: Robot) -> None:
    """Bullet would replace it by zero and go on."""
    robot.urdf.write_text(robot.urdf.read_text().replace('izz="0.0000005"', 'izz="0.01"'))
    with pytest.raises(InputError, match=r"pendulum_link.*belong to no rigid body"):
        BulletPlant(robot, Scenario())


def test_massless_link_is_refused(robot: Robot) -> None:
    robot.urdf.write_text(robot.urdf.read_text().replace('<mass value="0.04"/>', '<mass value="0"/>'))
    with pytest.raises(InputError, match="pendulum_link: has no positive mass"):
        BulletPlant(robot, Scenario())


def test_malformed_urdf_is_refused(robot: Robot) -> None:
    robot.urdf.write_text(robot.urdf.read_text().replace("</robot>", ""))
    with pytest.raises(InputError, match=r"furuta.urdf: URDF is not XML"):
        MujocoPlant(robot, Scenario())


@pytest.mark.parametrize("name", ["furuta", "quadruped"])
def test_randomised_scenarios_lie_between_the_nominal_robot_and_the_rung(name: str) -> None:
    machine, rng = load_robot(name), np.random.default_rng(0)
    none, severe = load_scenario(machine, "none"), load_scenario(machine, "severe")
    drawn = [draw_between(machine, "severe", rng) for _ in range(50)]
    for field in ("actuator_gain", "latency_ms", "ground_friction"):
        values, ends = [getattr(s, field) for s in drawn], sorted(getattr(s, field) for s in (none, severe))
        assert ends[0] <= min(values) and max(values) <= ends[1]
        assert ends[0] == ends[1] or np.ptp(values) > 0.7 * (ends[1] - ends[0])
    joint = machine.spec.joints[0]
    for scenario in drawn:
        assert scenario.push == none.push
        shares = [
            (getattr(scenario.friction[joint.name], key) - low) / (getattr(severe.friction[joint.name], key) - low)
            for key in ("frictionloss", "viscous")
            if (low := getattr(joint.friction, key)) != getattr(severe.friction[joint.name], key)
        ]
        assert shares == pytest.approx([shares[0]] * len(shares)) and 0 <= shares[0] <= 1
        assert all(0 < load.mass < severe.payload[link].mass for link, load in scenario.payload.items())
        apply(machine.urdf.read_text(), scenario)


def test_links_that_a_rung_changes_are_drawn_between_it_and_the_unchanged(robot: Robot) -> None:
    ladder = robot.folder / "scenarios.yaml"
    rung = "{link_mass_scale: {pendulum_link: 3}, payload: {pendulum_link: {mass: 0.2, position: [0, 0, 0]}}}"
    ladder.write_text(f"schema_version: 1\nscenarios: {{none: {{}}, rung: {rung}}}\n")
    rng = np.random.default_rng(0)
    for drawn in (draw_between(robot, "rung", rng) for _ in range(20)):
        assert 1 < drawn.link_mass_scale["pendulum_link"] < 3
        assert 0 < drawn.payload["pendulum_link"].mass < 0.2


@pytest.mark.parametrize(("none", "rung"), [(0.4, None), (None, 0.4), (0.2, 0.4), (None, None)])
def test_the_push_of_whichever_has_one_is_in_every_scenario(
    none: float | None, rung: float | None, tmp_path: Path
) -> None:
    robot = load_robot(shutil.copytree(load_robot("quadruped").folder, tmp_path / "quadruped"))
    push = ["{}" if speed is None else f"{{push: {{speed: {speed}, interval_s: 2}}}}" for speed in (none, rung)]
    ladder = f"schema_version: 1\nscenarios: {{none: {push[0]}, rung: {push[1]}}}\n"
    (robot.folder / "scenarios.yaml").write_text(ladder)
    drawn = draw_between(robot, "rung", np.random.default_rng(0)).push
    speeds = [speed for speed in (none, rung) if speed is not None]
    if not speeds:
        assert drawn is None
    else:
        assert drawn is not None
        assert min(speeds) <= drawn.speed <= max(speeds) and drawn.interval_s == 2
