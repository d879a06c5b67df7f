"""Gears with play: by hand, against MuJoCo's own rotor inertia, alike in both engines, and refused where too stiff."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from pydantic import ValidationError

from landbridge.errors import InputError
from landbridge.joint import Friction, Joint, Transmission
from landbridge.robot import Robot, load_robot
from landbridge.simulation.drive import ArrayDrive, GearedDrive, ScalarDrive, make_drive
from landbridge.simulation.mjcf import to_mjcf
from landbridge.simulation.parameters import to_scenario
from landbridge.simulation.plant import Array, Engine, Plant, make_plant
from landbridge.simulation.randomised import draw_between
from landbridge.simulation.scenario import Scenario, load_scenario
from landbridge.simulation.transmission import Rotors, transmissions

FURUTA = load_robot("furuta")
GEAR = Transmission(backlash=0.02, rotor_inertia=2e-4, stiffness=100, damping=0.05)
SMOOTH = {"arm": Friction(), "pendulum": Friction()}
ENGINES: list[Engine] = ["mujoco", "bullet"]


def geared(**changes: Any) -> Scenario:
    return Scenario(friction=SMOOTH, transmission={"arm": GEAR.model_copy(update=changes)})


def with_gear(robot: Robot, joint: str, gear: Transmission) -> Robot:
    """`robot`, one joint of which has a gear in `robot.yaml`."""
    joints = [j.model_copy(update={"transmission": gear}) if j.name == joint else j for j in robot.spec.joints]
    return Robot(robot.spec.model_copy(update={"joints": tuple(joints)}), robot.folder)


def plant_of(scenario: Scenario, engine: Engine = "mujoco", pendulum: float = np.pi) -> Plant:
    plant = make_plant(FURUTA, engine, scenario)
    plant.reset(np.array([0.0, pendulum]), np.zeros(2))
    return plant


def pulled(rotors: Rotors, effort: float, steps: int) -> Array:
    """Torques (steps,) on a joint that stands still."""
    still = np.zeros(1)
    return np.array([rotors(still, still, np.array([effort]))[0] for _ in range(steps)])


def test_a_gap_is_crossed_in_the_time_that_the_torque_takes_to_carry_the_rotor() -> None:
    """Constant torque tau carries J over b from rest in sqrt(2 b J / tau); no torque passes meanwhile."""
    dt, torque = 1e-5, 0.03
    rotors = Rotors([[GEAR.model_copy(update={"damping": 1e-6})]], dt)
    assert pulled(rotors, -1e-9, 1) == pytest.approx(0, abs=1e-8)  # at rest on the far side
    passed = pulled(rotors, torque, 4000)
    crossing = np.sqrt(2 * GEAR.backlash * GEAR.rotor_inertia / torque)
    assert int(np.argmax(passed > 0)) * dt == pytest.approx(crossing, rel=0.002)

    rotors.reset()  # at rest in the middle of the gap
    pulled(rotors, 0.0, 1)
    passed = pulled(rotors, torque, 4000)
    assert int(np.argmax(passed > 0)) * dt == pytest.approx(crossing / np.sqrt(2), rel=0.002)


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_reaches_the_joint_while_the_gap_is_open(engine: Engine) -> None:
    """Half a gap of 0.2 rad at 0.03 N m / 2e-4 kg m^2 takes 37 ms: two control periods of 20 ms, less one step."""
    plant = plant_of(geared(backlash=0.2), engine)
    plant.step([])  # no command: the rotor is in the middle
    plant.step([(0.0, np.array([0.03]))])
    assert plant.state()[1][0] == pytest.approx(0.0, abs=1e-12)
    plant.step([])
    assert plant.state()[1][0] > 0.05
    plant.close()


def test_without_play_rotor_and_joint_are_spring_and_damper() -> None:
    """K p + d v on either side, implicit in the rotor: by hand for one step."""
    dt, (k, d, inertia) = 0.002, (50.0, 0.2, 1e-3)
    rotors = Rotors([[Transmission(rotor_inertia=inertia, stiffness=k, damping=d)]], dt)
    joint_pos, joint_vel, effort = 0.3, -1.0, 0.04
    found = rotors(np.array([joint_pos]), np.array([joint_vel]), np.array([effort]))
    # The rotor starts at the joint's position and speed; T = k dt (w - v) + d (w - v), w = v + dt (effort - T) / J.
    expected = (k * dt + d) * dt * effort / inertia / (1 + (k * dt + d) * dt / inertia)
    assert found == pytest.approx([expected], rel=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stiff_gear_without_play_is_the_rotor_inertia_of_mujoco(engine: Engine) -> None:
    """Its torque's way is that of a rigid joint with armature, to what the shaft gives."""
    arm, pendulum = FURUTA.spec.joints
    heavy = arm.model_copy(update={"armature": GEAR.rotor_inertia})
    rigid = make_plant(
        Robot(FURUTA.spec.model_copy(update={"joints": (heavy, pendulum)}), FURUTA.folder),
        "mujoco",
        Scenario(friction=SMOOTH),
    )
    rigid.reset(np.array([0.0, np.pi]), np.zeros(2))
    plant = plant_of(geared(backlash=0.0, stiffness=250, damping=0.1), engine)
    light = plant_of(Scenario(friction=SMOOTH))
    for k in range(25):
        for each in (rigid, plant, light):
            each.step([(0.0, np.array([0.03 if k < 12 else -0.03]))])
        np.testing.assert_allclose(plant.state()[0], rigid.state()[0], atol=2e-3)
    assert abs(light.state()[0][0] - rigid.state()[0][0]) > 0.02  # the rotor does matter
    plant.close()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("backlash", [0.0, 0.05])
def test_a_pendulum_that_shakes_a_loose_gear_gains_no_energy(engine: Engine, backlash: float) -> None:
    """Motor off, no friction: what the shaft damps is all that changes, and it only takes."""
    plant = plant_of(geared(backlash=backlash, damping=0.02), engine, pendulum=1.0)
    model = make_plant(FURUTA, "mujoco", Scenario()).model  # type: ignore[attr-defined]
    data = mujoco.MjData(model)

    def energy() -> float:
        data.qpos[:], data.qvel[:] = plant.state()
        model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_ENERGY
        mujoco.mj_forward(model, data)
        angle, speed = plant._drive._rotors._state  # type: ignore[attr-defined]
        wound = max(0.0, abs(float(angle[0]) - data.qpos[0]) - backlash / 2)
        rotor = GEAR.rotor_inertia * float(speed[0]) ** 2 / 2 + GEAR.stiffness * wound**2 / 2
        return float(data.energy.sum()) + rotor

    plant.step([(0.0, None)])
    course = []
    for _ in range(250):
        plant.step([])
        course.append(energy())
    swing = 0.04 * 9.81 * 0.3  # J, from hanging to upright
    assert max(np.diff(course)) < 0.01 * swing
    assert course[-1] < course[0]
    plant.close()


def test_engines_agree_with_play() -> None:
    plants = [plant_of(geared(), engine, pendulum=2.0) for engine in ENGINES]
    rng = np.random.default_rng(0)
    for _ in range(25):
        command = rng.uniform(-0.1, 0.1, 1)
        for plant in plants:
            plant.step([(0.0, command)])
        np.testing.assert_allclose(*(np.concatenate(plant.state()) for plant in plants), atol=1e-6)
    plants[1].close()


def test_a_reset_forgets_the_rotor() -> None:
    plant = plant_of(geared())
    runs = []
    for _ in range(2):
        plant.reset(np.array([0.3, 3.0]), np.array([1.0, 0.0]))
        for k in range(10):
            plant.step([(0.0, np.array([0.05 * (-1) ** k]))])
        runs.append(np.concatenate(plant.measure()))
    np.testing.assert_array_equal(*runs)


@pytest.mark.parametrize("engine", ENGINES)
def test_joints_that_are_put_somewhere_take_their_rotors_along(engine: Engine) -> None:
    """As one that rests on its stop is, in every period: the other joints' gears are none the wiser."""
    left, put = (plant_of(geared(), engine) for _ in range(2))
    put.place(*map(np.array, put.state()))  # before the first step there is no rotor to take
    for k in range(10):
        for plant in (left, put):
            plant.step([(0.0, np.array([0.05 * (-1) ** k]))])
        put.place(*map(np.array, put.state()))
    np.testing.assert_allclose(put.state(), left.state(), rtol=0, atol=1e-9)
    apart = put._drive._rotors._state[0] - put.state()[0][0]  # type: ignore[attr-defined]
    put.place(np.array([0.7, np.pi]), np.zeros(2))
    np.testing.assert_allclose(put._drive._rotors._state[0] - 0.7, apart, atol=1e-9)  # type: ignore[attr-defined]


def test_the_gear_of_a_scenario_is_that_of_the_robot() -> None:
    gear = GEAR.model_copy(update={"backlash": 0.01})
    built_in, replaced = with_gear(FURUTA, "arm", gear), with_gear(FURUTA, "arm", GEAR)
    assert transmissions(built_in.spec, Scenario()) == {"arm": gear}
    assert transmissions(replaced.spec, Scenario(transmission={"arm": gear})) == {"arm": gear}
    runs = []
    for robot, scenario in (
        (built_in, Scenario()),
        (replaced, Scenario(transmission={"arm": gear})),
        (FURUTA, Scenario(transmission={"arm": gear})),
    ):
        plant = make_plant(robot, "mujoco", scenario)
        plant.reset(np.array([0.0, 3.0]), np.zeros(2))
        for k in range(10):
            plant.step([(0.0, np.array([0.05 * (-1) ** k]))])
        runs.append(np.concatenate(plant.measure()))
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])


def test_geared_and_direct_joints_stand_beside_each_other() -> None:
    """Of the arm, one joint has a gear: the others get what they got, and torque off turns no rotor."""
    robot = load_robot("arm")
    gear = Transmission(backlash=0.02, rotor_inertia=0.01, stiffness=80, damping=0.02)
    drive = GearedDrive(robot.spec, Scenario(transmission={"elbow": gear}))
    plain = ArrayDrive(robot.spec, Scenario())
    pos, vel, goal = (np.random.default_rng(i).uniform(-0.5, 0.5, 6) for i in range(3))
    elbow = robot.spec.joint_names.index("elbow")
    others = np.arange(6) != elbow
    np.testing.assert_array_equal(drive(pos, vel, goal)[others], plain(pos, vel, goal)[others])
    drive.reset()
    np.testing.assert_array_equal(drive(pos, vel, None), plain(pos, vel, None))
    many = GearedDrive(robot.spec, Scenario(transmission={"elbow": gear}))
    drive.reset()
    for _ in range(40):
        one = drive(pos, vel, goal)
        both = many(np.stack([pos, pos]), np.stack([vel, -vel]), np.stack([goal, goal]))
        np.testing.assert_allclose(both[0], one, rtol=1e-12)


def test_gears_rub_under_what_passes_through_them() -> None:
    """With the gap open that is nothing, however hard the motor pulls; else what reaches the joint."""
    gear, rubs = GEAR.model_copy(update={"backlash": 0.1}), SMOOTH | {"arm": Friction(load=0.25)}
    without, under = (
        GearedDrive(FURUTA.spec, Scenario(friction=f, transmission={"arm": gear})) for f in (SMOOTH, rubs)
    )
    pos, vel = np.zeros(2), np.array([5.0, 0.0])
    passed = []
    for effort in [0.05, *[-0.05] * 60]:  # the motor turns back from one side of the gap to the other
        torque, rubbed = without(pos, vel, [effort]), under(pos, vel, [effort])
        np.testing.assert_allclose(rubbed, [torque[0] - 0.25 * abs(torque[0]), 0.0], rtol=1e-12)
        passed.append(torque[0])
        pos = pos + vel * FURUTA.spec.control_dt / FURUTA.spec.decimation
    assert 0.0 in passed and max(map(abs, passed)) > 0.01


def test_a_robot_without_gears_has_the_drive_it_had() -> None:
    assert type(make_drive(FURUTA.spec, Scenario())) is ScalarDrive
    assert type(make_drive(load_robot("quadruped").spec, Scenario())) is ArrayDrive
    assert type(make_drive(FURUTA.spec, geared())) is GearedDrive


@pytest.mark.parametrize(
    ("name", "digest"), [("furuta", "2478a13917cd"), ("quadruped", "afaf099be2c4"), ("arm", "373f9961cb16")]
)
def test_the_digest_of_a_robot_without_gears_is_that_of_its_datasets(name: str, digest: str) -> None:
    """As it was before a joint could have a gear, while robot.yaml of these is as it was then."""
    robot = load_robot(name)
    assert robot.spec.digest().startswith(digest)
    joint = robot.spec.actuated[0]
    with_one = with_gear(robot, joint, GEAR).spec.digest()
    assert with_one != robot.spec.digest()
    assert with_one != with_gear(robot, joint, GEAR.model_copy(update={"backlash": 0.03})).spec.digest()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_gear_that_the_physics_steps_do_not_bear_is_refused(engine: Engine) -> None:
    """1.32e-3 kg m^2 with the pendulum on top, whose rod turns along: 1.32e-3 / (2 ms)^2 - damping / 2 ms = 304."""
    stiff = geared(stiffness=400)
    with pytest.raises(InputError, match=r"transmission of arm: stiffness 400 .* steps of 2 ms .* up to 304 N m/rad"):
        make_plant(FURUTA, engine, stiff)
    with pytest.raises(InputError, match="set decimation to 12"):
        make_plant(FURUTA, engine, stiff)
    with pytest.raises(InputError, match=r"bear damping below 0.659 N m s/rad"):
        make_plant(FURUTA, engine, geared(damping=1))
    finer = Robot(FURUTA.spec.model_copy(update={"decimation": 12}), FURUTA.folder)
    make_plant(finer, engine, stiff).close()
    make_plant(FURUTA, engine, geared(stiffness=300)).close()


@pytest.mark.parametrize(
    ("joint", "message"),
    [
        ({"actuated": False}, "joint j is passive and has a transmission"),
        ({"effort_limit": 1, "rate_limit": 1, "armature": 1}, "rotor_inertia stands for its armature"),
    ],
)
def test_a_gear_that_makes_no_sense_is_refused(joint: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Joint(name="j", velocity_limit=1, transmission=GEAR, **joint)


def test_a_scenario_may_give_a_gear_to_a_driven_joint_only(tmp_path: Path) -> None:
    robot = load_robot(shutil.copytree(FURUTA.folder, tmp_path / "furuta"))
    gear = "{backlash: 0.02, rotor_inertia: 0.0002, stiffness: 100, damping: 0.05}"
    ladder = f"schema_version: 1\nscenarios: {{none: {{}}, loose: {{transmission: {{JOINT: {gear}}}}}}}\n"
    (robot.folder / "scenarios.yaml").write_text(ladder.replace("JOINT", "arm"))
    assert load_scenario(robot, "loose").transmission == {"arm": GEAR}
    drawn = [draw_between(robot, "loose", rng).transmission["arm"] for rng in np.random.default_rng(0).spawn(50)]
    gaps = [gear.backlash for gear in drawn]
    assert 0 < min(gaps) < 0.002 and 0.018 < max(gaps) < 0.02
    assert {gear.model_copy(update={"backlash": 0.02}) for gear in drawn} == {GEAR}  # the rotor is there in each
    for joint in ("pendulum", "leg"):
        (robot.folder / "scenarios.yaml").write_text(ladder.replace("JOINT", joint))
        with pytest.raises(InputError, match=rf"loose.transmission names \['{joint}'\].*those are arm"):
            load_scenario(robot, "loose")


def test_the_mjcf_has_a_rotor_that_moves_as_the_plants() -> None:
    """Behind each reversal the joint is as much slower as in the plant, to a tenth."""
    scenario = geared(backlash=0.08, stiffness=250, damping=0.1)
    text = to_mjcf(FURUTA, scenario)
    assert "Not in here: compliance of the shafts of arm, friction smoothed" in text
    model = mujoco.MjModel.from_xml_string(text)
    data, plant = mujoco.MjData(model), plant_of(scenario)
    tight = plant_of(geared(backlash=0.0, stiffness=250, damping=0.1))
    data.qpos[:] = [*plant.state()[0], 0.04]  # both rotors at the side that the first torque pushes to
    assert model.joint("arm_rotor").id == 2 and model.dof_armature.tolist() == [0, 0, GEAR.rotor_inertia]
    for torque in (0.02, -0.02, 0.02):
        for _ in range(10):
            for each in (plant, tight):
                each.step([(0.0, np.array([torque]))])
            for _ in range(FURUTA.spec.decimation):
                data.ctrl[:] = torque
                mujoco.mj_step(model, data)
        lost = tight.state()[1][0] - plant.state()[1][0]
        assert abs(data.qpos[2] - data.qpos[0]) < 0.042
        assert data.qvel[0] == pytest.approx(plant.state()[1][0], abs=0.1 * abs(lost) + 0.001)


def test_the_mjcf_of_a_gear_without_play_has_its_armature_and_of_a_servo_names_what_it_lacks() -> None:
    model = mujoco.MjModel.from_xml_string(to_mjcf(FURUTA, geared(backlash=0.0)))
    assert model.nq == 2 and model.dof_armature.tolist() == [GEAR.rotor_inertia, 0]
    gear = Transmission(backlash=0.01, rotor_inertia=0.01, stiffness=80, damping=0.02)
    text = to_mjcf(load_robot("arm"), Scenario(transmission={"elbow": gear}))
    assert "measurement on the joint's side of the gap in the drives of elbow" in text


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["furuta", "arm"])
def test_the_loose_rungs_can_be_simulated(name: str, engine: Engine) -> None:
    robot = load_robot(name)
    loose = load_scenario(robot, "loose")
    assert loose.transmission and loose.model_copy(update={"transmission": {}}) == load_scenario(robot, "none")
    assert to_scenario(robot, {}, loose).transmission == loose.transmission
    plant = make_plant(robot, engine, loose)
    plant.reset(np.array([joint.default_joint_pos for joint in robot.spec.joints]), np.zeros(len(robot.spec.joints)))
    scale = np.array([robot.spec.action.scale[joint] for joint in robot.spec.actuated])
    for k in range(50):
        plant.step([(0.0, 0.3 * scale * (-1) ** (k // 5))])
    limits = np.array([joint.velocity_limit for joint in robot.spec.joints])
    assert (np.abs(plant.state()[1]) < limits).all()
    plant.close()
