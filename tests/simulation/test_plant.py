"""Friction, latency, drive and noise, by hand."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landbridge.errors import InputError
from landbridge.joint import Friction
from landbridge.robot import ActionSpec, Robot, RobotSpec, load_robot
from landbridge.simulation.drive import ArrayDrive, ScalarDrive
from landbridge.simulation.friction import JointFriction
from landbridge.simulation.plant import Array, DelayLine, Engine, Plant, make_plant
from landbridge.simulation.scenario import Scenario

ENGINES: list[Engine] = ["mujoco", "bullet"]
SMOOTHING_SPEED = 0.1  # rad/s


class Recorder(Plant):
    """A plant that does not move and keeps the torques it is asked for."""

    engine_version = "none"

    def _set_state(self, joint_pos: Array, joint_vel: Array) -> None:
        self.placed, self.torques = (joint_pos.tolist(), joint_vel.tolist()), []

    def state(self) -> tuple[Sequence[float], Sequence[float]]:
        return self.placed

    def _advance(self, torque: Sequence[float]) -> None:
        self.torques.append(list(torque))

    def close(self) -> None: ...


def at_rest(scenario: Scenario, spec: RobotSpec | None = None) -> Recorder:
    robot = load_robot("furuta")
    plant = Recorder(Robot(spec or robot.spec, robot.folder), scenario)
    plant.reset(np.array([0.5, np.pi]), np.zeros(2))
    return plant


def test_friction_formula_by_hand() -> None:
    friction = JointFriction(
        Friction(frictionloss=0.1, stiction=0.15, stribeck_velocity=0.5, viscous=0.02), SMOOTHING_SPEED
    )
    v = 0.5
    expected = -(0.1 + 0.05 / math.e) * math.tanh(v / SMOOTHING_SPEED) - 0.02 * v
    assert friction(v, 0.0) == pytest.approx(expected, rel=1e-12)
    assert friction(0.0, 0.0) == 0.0
    assert friction(40.0, 0.0) == pytest.approx(-0.1 - 0.8, rel=1e-9)  # far beyond v_s: Coulomb and viscous only


def test_friction_by_load_by_hand() -> None:
    friction = JointFriction(Friction(frictionloss=0.1, viscous=0.02, load=0.3), SMOOTHING_SPEED)
    for effort in (0.5, -0.5):  # whichever way the drive pulls, its gears rub against the motion
        assert friction(2.0, effort) == pytest.approx(-(0.1 + 0.3 * 0.5) - 0.02 * 2.0, rel=1e-9)
        assert friction(-2.0, effort) == pytest.approx((0.1 + 0.3 * 0.5) + 0.02 * 2.0, rel=1e-9)
    assert friction(0.0, 0.5) == 0.0


@pytest.mark.parametrize("engine", ["mujoco", "bullet"])
def test_a_drive_that_loses_a_share_of_its_effort_moves_as_one_that_has_less_or_brakes_more(engine: Engine) -> None:
    """What gears lose of a push, they add to a brake: 1 - load of the effort moves the joint, or 1 + load slows it."""
    robot, load = load_robot("furuta"), 0.25
    quiet = {"arm": Friction(load=load), "pendulum": Friction()}
    plants = [make_plant(robot, engine, Scenario(friction=law)) for law in (quiet, quiet | {"arm": Friction()})]
    for way in (1.0, -1.0):
        sped = []
        for plant, effort in zip(plants, (0.04 / (1 - load * way), 0.04), strict=True):
            plant.reset(np.array([0.0, np.pi]), np.array([way * 3.0, 0.0]))  # far above the smoothing speed
            plant.step([(0.0, np.array([effort]))])
            sped.append(np.array(plant.state()[1]))
        np.testing.assert_allclose(*sped, rtol=1e-6)


@pytest.mark.parametrize("kind", ["position", "velocity", "effort"])
def test_the_drive_on_arrays_is_the_drive_on_floats(kind: str) -> None:
    spec = load_robot("quadruped").spec
    spec = spec.model_copy(update={"action": spec.action.model_copy(update={"kind": kind})})
    friction = {
        "FL_calf_joint": Friction(frictionloss=1, stiction=1.4, viscous=0.1, load=0.2),
        "FR_hip_joint": Friction(),
    }
    scenario = Scenario(actuator_gain=0.8, friction=friction)
    on_floats, on_arrays = ScalarDrive(spec, scenario), ArrayDrive(spec, scenario)
    rng = np.random.default_rng(0)
    for _ in range(50):
        state = [scale * rng.standard_normal(12) for scale in (1, 5, 30)]
        np.testing.assert_allclose(on_arrays(*state), on_floats(*(part.tolist() for part in state)), rtol=1e-12)


def test_the_drive_on_arrays_with_a_passive_joint() -> None:
    spec, scenario = load_robot("furuta").spec, Scenario(actuator_gain=0.8, friction={"arm": Friction(load=0.3)})
    state = [0.3, 2.0], [4.0, -7.0], [0.05]
    expected = ScalarDrive(spec, scenario)(*state)
    np.testing.assert_allclose(ArrayDrive(spec, scenario)(*(np.array(part) for part in state)), expected, rtol=1e-12)


@given(st.floats(-100, 100), st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 5), st.floats(0, 1))
def test_friction_always_brakes_and_is_odd(v: float, c: float, extra: float, v_s: float, b: float) -> None:
    friction = JointFriction(
        Friction(frictionloss=c, stiction=c + extra, stribeck_velocity=v_s, viscous=b), SMOOTHING_SPEED
    )
    assert friction(v, 0.0) * v <= 0
    assert friction(-v, 0.0) == -friction(v, 0.0)
    assert abs(friction(v, 0.0)) <= c + extra + b * abs(v) + 1e-12


@pytest.mark.parametrize(
    ("latency_ms", "idle"),
    [(0, []), (15, [0.0] * 7 + [0.025]), (20, [0.0] * 10), (60, [0.0] * 30)],  # physics steps of 2 ms
)
def test_latency_by_hand(latency_ms: float, idle: list[float]) -> None:
    plant = at_rest(Scenario(latency_ms=latency_ms))
    for _ in range(4):
        plant.step([(0.0, np.array([0.05]))])
    assert [arm for arm, _ in plant.torques] == pytest.approx(idle + [0.05] * (40 - len(idle)))


def test_write_offsets_by_hand() -> None:
    """Two writes, 3 ms and 11.5 ms after the start, 4 ms of latency: due at 7 and 15.5 ms, in steps of 2 ms."""
    plant = at_rest(Scenario(latency_ms=4))
    plant.step([(0.003, np.array([0.01])), (0.0115, np.array([0.02]))])
    plant.step([])
    expected = [0.0] * 3 + [0.005] + [0.01] * 3 + [0.0125] + [0.02] * 12
    assert [arm for arm, _ in plant.torques] == pytest.approx(expected)


def test_commands_in_flight_do_not_survive_a_reset() -> None:
    plant = at_rest(Scenario(latency_ms=60))
    plant.step([(0.0, np.array([0.05]))])
    plant.reset(np.zeros(2), np.zeros(2))
    for _ in range(4):
        plant.step([])
    assert all(arm == 0.0 for arm, _ in plant.torques)
    assert plant.time == pytest.approx(0.08)


def test_a_command_acts_from_its_time_on_within_a_step_in_proportion() -> None:
    line = DelayLine(0.01, [0.0])
    for sent, command in ((0.0, 1.0), (0.02, 2.0), (0.0325, 4.0), (0.0375, 8.0)):
        line.write(sent, [command])
    steps = [line.during(0.005 * i, 0.005 * (i + 1)) for i in range(12)]
    found = [command[0] for command in steps if command is not None]
    assert found == pytest.approx([0, 0, 1, 1, 1, 1, 2, 2, 3, 6, 8, 8])


def test_several_commands_within_a_step_act_in_turn() -> None:
    line = DelayLine(0.0, np.array([0.0, 1.0]))
    line.write(0.001, np.array([4.0, 1.0]))
    line.write(0.003, np.array([8.0, 2.0]))
    np.testing.assert_allclose(line.during(0.0, 0.004), [0.25 * 0 + 0.5 * 4 + 0.25 * 8, 1.25])
    np.testing.assert_allclose(line.during(0.004, 0.008), [8.0, 2.0])


def test_torque_goes_off_and_comes_on_at_the_end_of_a_step() -> None:
    line = DelayLine(0.0, [1.0])
    line.write(0.001, None)
    line.write(0.005, [2.0])
    assert [line.during(0.004 * i, 0.004 * (i + 1)) for i in range(3)] == [[1.0], None, [2.0]]


def test_gain_comes_before_the_effort_limit() -> None:
    limit = load_robot("furuta").spec.joint("arm").effort_limit
    for gain, command, expected in [(0.5, 0.1, 0.05), (2.0, 0.05, 0.1), (2.0, 1.0, limit), (0.5, -1.0, -limit)]:
        plant = at_rest(Scenario(actuator_gain=gain))
        plant.step([(0.0, np.array([command]))])
        assert plant.torques[0] == pytest.approx([expected, 0.0])


def test_position_commands_go_through_pd() -> None:
    spec = load_robot("furuta").spec
    arm = spec.joint("arm").model_copy(update={"stiffness": 0.2, "damping": 0.01, "default_joint_pos": 0.4})
    servo = spec.model_copy(
        update={
            "joints": (arm, *spec.joints[1:]),
            "action": ActionSpec(kind="position", scale={"arm": 1.0}, relative=True),
        }
    )
    plant = at_rest(Scenario(friction={"arm": Friction()}, latency_ms=10), servo)
    plant.placed = [0.5, 3.0], [2.0, 0.0]
    plant.step([(0.0, np.array([0.8]))])
    idle, commanded = 0.2 * (0.4 - 0.5) - 0.01 * 2.0, 0.2 * (0.8 - 0.5) - 0.01 * 2.0
    assert [arm for arm, _ in plant.torques] == pytest.approx([idle] * 5 + [commanded] * 5)


@pytest.mark.parametrize("robot", ["furuta", "quadruped", "arm"])
def test_torque_off_leaves_friction_alone_after_the_latency(robot: str) -> None:
    shipped = load_robot(robot)
    plant = Recorder(shipped, Scenario(latency_ms=10))
    joints = len(shipped.spec.joints)
    speed = np.full(joints, 2.0)
    plant.reset(np.array([joint.default_joint_pos for joint in shipped.spec.joints]), speed)
    plant.step([(0.0, np.full(len(shipped.spec.actuated), 0.05))])
    plant.step([(0.0, None)])
    friction = [
        JointFriction(joint.friction, shipped.spec.friction_smoothing)(2.0, 0.0) for joint in shipped.spec.joints
    ]
    half = shipped.spec.decimation // 2
    before, after = plant.torques[-half - 1], plant.torques[-half:]
    assert before != pytest.approx(friction)
    assert after == [pytest.approx(friction)] * half
    plant.step([(0.0, np.zeros(len(shipped.spec.actuated)))])  # the next command brings torque back
    assert plant.torques[-half - 1] == pytest.approx(friction)


def test_noise_is_on_the_measurement_only() -> None:
    plant = at_rest(Scenario(joint_pos_noise=0.01, joint_vel_noise=0.1))
    measured = [plant.measure() for _ in range(4000)]
    pos, vel = np.array([m[0] for m in measured]), np.array([m[1] for m in measured])
    np.testing.assert_allclose(pos.mean(0), [0.5, np.pi], atol=0.001)
    np.testing.assert_allclose(pos.std(0), 0.01, rtol=0.05)
    np.testing.assert_allclose(vel.std(0), 0.1, rtol=0.05)
    assert plant.placed == ([0.5, np.pi], [0.0, 0.0])


@pytest.mark.parametrize("engine", ENGINES)
def test_reset_repeats_a_run_exactly(engine: Engine) -> None:
    plant = make_plant(load_robot("furuta"), engine, Scenario(latency_ms=7))
    runs = []
    for _ in range(2):
        plant.reset(np.array([0.1, 3.0]), np.array([0.0, 0.5]))
        for k in range(20):
            plant.step([(0.0, np.array([0.05 * (-1) ** k]))])
        runs.append(np.concatenate(plant.measure()))
    plant.close()
    np.testing.assert_array_equal(runs[0], runs[1])


@pytest.mark.parametrize("engine", ENGINES)
def test_coulomb_friction_stops_the_arm(engine: Engine) -> None:
    """At constant deceleration c / J an arm of 1 rad/s stops within J v / c; the pendulum hangs and hardly moves."""
    scenario = Scenario(friction={"arm": Friction(frictionloss=0.02), "pendulum": Friction(viscous=0.01)})
    plant = make_plant(load_robot("furuta"), engine, scenario)
    plant.reset(np.array([0.0, np.pi]), np.array([1.0, 0.0]))
    for _ in range(25):
        plant.step([])
    assert abs(plant.measure()[1][0]) < 0.02
    plant.close()


def test_a_twin_needs_no_mujoco(tmp_path: Path) -> None:
    """A robot's computer has Bullet at most: importing the twin must not import MuJoCo."""
    import subprocess
    import sys

    code = "import sys, landbridge.simulation.bullet_plant; sys.exit('mujoco' in sys.modules or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("kind", "gain"), [("position", "stiffness"), ("velocity", "damping")])
def test_a_drive_without_the_gain_that_it_follows_by_is_refused(engine: Engine, kind: str, gain: str) -> None:
    robot = load_robot("quadruped")
    joints = tuple(joint.model_copy(update={gain: 0.0}) for joint in robot.spec.joints)
    action = robot.spec.action.model_copy(update={"kind": kind})
    idle = Robot(robot.spec.model_copy(update={"joints": joints, "action": action}), robot.folder)
    with pytest.raises(
        InputError, match=rf"robot.yaml: .*'RL_calf_joint'\] are commanded in {kind} and their {gain} is 0"
    ):
        make_plant(idle, engine, Scenario())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_mesh_beside_the_urdf_is_loaded(engine: Engine, tmp_path: Path) -> None:
    """A robot stands on feet of eight triangles in place of spheres."""
    folder = Path(shutil.copytree(load_robot("quadruped").folder, tmp_path / "quadruped"))
    (folder / "foot.obj").write_text(octahedron(0.02))
    urdf = folder / "quadruped.urdf"
    urdf.write_text(
        urdf.read_text().replace('<sphere radius="0.02"/>', '<mesh filename="package://quadruped/foot.obj"/>')
    )
    plant = make_plant(load_robot(folder), engine, Scenario())
    plant.reset(np.array([joint.default_joint_pos for joint in plant.spec.joints]), np.zeros(12))
    fallen = 0.0
    for _ in range(50):
        plant.step([])
        base = plant.measure_base()
        assert base is not None
        fallen -= float(base.lin_vel[0, 2]) * plant.spec.control_dt
    assert fallen < 0.03
    plant.close()


def octahedron(radius: float) -> str:
    """As a Wavefront file."""
    corners = [sign * radius * axis for sign in (1, -1) for axis in np.eye(3)]
    lines = [f"v {x} {y} {z}" for x, y, z in corners]
    faces = [(1, 2, 3), (2, 4, 3), (4, 5, 3), (5, 1, 3), (2, 1, 6), (4, 2, 6), (5, 4, 6), (1, 5, 6)]
    return "\n".join([*lines, *(f"f {a} {b} {c}" for a, b, c in faces)])


def test_a_slow_joint_does_not_slow_the_others_down() -> None:
    """Bullet clamps the speeds of all joints of a body alike."""
    furuta = load_robot("furuta")
    arm, pendulum = furuta.spec.joints
    slow = pendulum.model_copy(update={"velocity_limit": 0.2})
    robot, speeds = Robot(furuta.spec.model_copy(update={"joints": (arm, slow)}), furuta.folder), []
    for engine in ENGINES:
        plant = make_plant(robot, engine, Scenario())
        plant.reset(np.array([0.0, np.pi]), np.zeros(2))
        for _ in range(10):
            plant.step([(0.0, np.array([0.1]))])
        speeds.append(plant.state()[1][0])
        plant.close()
    assert speeds[0] > 5
    assert speeds[1] == pytest.approx(speeds[0], rel=0.02)
