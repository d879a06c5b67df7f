"""The floating base in both engines: what they hold, how they stand and trot, and what the behaviours reach."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np
import pytest

from landbridge.joint import Friction
from landbridge.observation import Base
from landbridge.robot import load_robot
from landbridge.simulation.behaviour import load_behaviours
from landbridge.simulation.bullet_plant import BulletPlant, pybullet
from landbridge.simulation.mujoco_plant import MujocoPlant
from landbridge.simulation.plant import Engine, Plant, make_plant
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import Payload, Push, Scenario, load_scenario
from landbridge.task import load_task

from .urdf import links_of, tensor

ROBOT = load_robot("quadruped")
TASK = load_task(ROBOT)
DEFAULT = np.array([joint.default_joint_pos for joint in ROBOT.spec.joints])
ENGINES: list[Engine] = ["mujoco", "bullet"]
LOADED = Scenario(payload={"trunk": Payload(mass=3, position=(-0.15, 0.04, 0.08))})


@pytest.fixture(params=ENGINES)
def plant(request: pytest.FixtureRequest) -> Iterator[Plant]:
    plant = make_plant(ROBOT, request.param, Scenario())
    plant.reset(DEFAULT, np.zeros(12))
    yield plant
    plant.close()


def base(plant: Plant) -> Base:
    state = plant.measure_base()
    assert state is not None
    return state


def place(plant: Plant) -> np.ndarray:
    """Position of the trunk's frame in the world [m]."""
    if isinstance(plant, MujocoPlant):
        return plant.data.qpos[:3].copy()
    assert isinstance(plant, BulletPlant)
    centre = pybullet.getBasePositionAndOrientation(plant.body, plant.client)
    return np.array(pybullet.multiplyTransforms(*centre, *plant._frame_in_centre)[0])


def test_payload_by_hand() -> None:
    """3 kg on a trunk of 5.5 kg pull the centre 3 / 8.5 of the way; inertias add about it (parallel axes)."""
    at = np.array([-0.15, 0.04, 0.08])
    centre = at * 3 / 8.5
    expected = tensor(links_of(ROBOT)["trunk"]) + 3 * 0.1**2 / 6 * np.eye(3)
    for mass, place in ((5.5, -centre), (3, at - centre)):
        expected += mass * (place @ place * np.eye(3) - np.outer(place, place))
    plants = [make_plant(ROBOT, engine, LOADED) for engine in ENGINES]
    assert isinstance(plants[0], MujocoPlant) and isinstance(plants[1], BulletPlant)
    body = plants[0].model.body("trunk")
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, body.iquat)
    info = pybullet.getDynamicsInfo(plants[1].body, -1, plants[1].client)
    frames = rotation.reshape(3, 3), np.reshape(pybullet.getMatrixFromQuaternion(info[4]), (3, 3))
    for frame, mass, ipos, inertia in zip(
        frames, (body.mass[0], info[0]), (body.ipos, info[3]), (body.inertia, info[2]), strict=True
    ):
        assert mass == pytest.approx(8.5)
        np.testing.assert_allclose(ipos, centre, atol=1e-9)
        np.testing.assert_allclose(frame @ np.diag(inertia) @ frame.T, expected, atol=1e-7)
    plants[1].close()


@pytest.mark.parametrize("scenario", [Scenario(), LOADED], ids=["nominal", "payload"])
def test_free_fall_keeps_the_base_frame(scenario: Scenario) -> None:
    """Before the feet touch, the engines agree on the frame of the trunk, wherever its centre of mass is."""
    seen = []
    for engine in ENGINES:
        plant = make_plant(ROBOT, engine, scenario)
        plant.reset(np.tile([0.1, 1.0, -2.0], 4), np.zeros(12))  # shorter legs: 7 cm above the ground
        for _ in range(5):
            plant.step([(0.0, DEFAULT + 0.1)])
        state = base(plant)
        seen.append(np.concatenate([place(plant), *(part[0] for part in state), *plant.measure()]))
        plant.close()
    np.testing.assert_allclose(seen[0][:3], seen[1][:3], atol=1e-3)
    np.testing.assert_allclose(seen[0][3:7], seen[1][3:7], atol=5e-3)
    np.testing.assert_allclose(seen[0][10:13], seen[1][10:13], atol=2e-2)


def test_it_stands(plant: Plant) -> None:
    """Two seconds: level within 1 deg, 0.28 to 0.31 m high, at rest."""
    for _ in range(100):
        plant.step([(0.0, DEFAULT)])
    state = base(plant)
    assert 0.28 < place(plant)[2] < 0.31
    assert -state.projected_gravity()[0, 2] > np.cos(np.radians(1))
    assert np.abs(state.lin_vel).max() < 0.01
    assert np.abs(state.ang_vel).max() < 0.02


def test_a_push_is_a_change_of_velocity_in_the_world(plant: Plant) -> None:
    for _ in range(100):
        plant.step([(0.0, DEFAULT)])
    before = base(plant).lin_vel[0]
    plant._kick(0.3, -0.2)
    np.testing.assert_allclose(base(plant).lin_vel[0] - before, [0.3, -0.2, 0], atol=0.01)  # it stands level


def test_pushes_come_at_their_interval() -> None:
    scenario = Scenario(push=Push(speed=0.5, interval_s=0.6))
    plant = make_plant(ROBOT, "mujoco", scenario, np.random.default_rng(3))
    kicks: list[tuple[float, float, float]] = []
    plant._kick = lambda x, y: kicks.append((plant.time, x, y))  # type: ignore[method-assign]
    plant.reset(DEFAULT, np.zeros(12))
    for _ in range(150):
        plant.step([(0.0, DEFAULT)])
    times, x, y = np.array(kicks).T
    assert len(times) == 5
    np.testing.assert_allclose(np.diff(times), 0.6, atol=0.021)
    np.testing.assert_allclose(np.hypot(x, y), 0.5)
    assert np.std(x) > 0.05


@pytest.mark.parametrize("name", ["none", "moderate"])
def test_engines_trot_alike(name: str) -> None:
    """An open-loop trot of 1 s: trunks part by less than 40 mm and 3 deg of tilt."""
    scenario = load_scenario(ROBOT, name).model_copy(update={"push": None})
    trot = load_behaviours(ROBOT)["tuned"](1, np.random.default_rng(0))
    level = Base(np.array([[1.0, 0, 0, 0]]), np.zeros((1, 3)), np.array([[0.5, 0, 0]]))
    ways = []
    for engine in ENGINES:
        plant = make_plant(ROBOT, engine, scenario)
        plant.reset(DEFAULT, np.zeros(12))
        way = []
        for tick in range(50):
            history = TASK.observer.initial_history(1)
            action = trot(TASK.observer(DEFAULT[None], np.zeros((1, 12)), history, level, tick))
            scale = np.array([ROBOT.spec.action.scale[joint] for joint in ROBOT.spec.actuated])
            plant.step([(0.0, DEFAULT + scale * action[0])])
            way.append(np.concatenate([place(plant), base(plant).projected_gravity()[0]]))
        ways.append(np.array(way))
        plant.close()
    apart = np.abs(ways[0] - ways[1]).max(0)
    assert apart[:3].max() < 0.04
    assert apart[3:].max() < np.radians(3)
    assert ways[0][-1, 0] > 0.08, "it hardly walked: the comparison would show little"


def test_friction_slows_both_engines_alike() -> None:
    """Hip friction of 2 N m against the default: a swung leg lags behind, in both engines by the same angle."""
    scenario = Scenario(friction={f"{leg}_hip_joint": Friction(frictionloss=2.0) for leg in ("FR", "FL", "RR", "RL")})
    lag = []
    for engine in ENGINES:
        plant = make_plant(ROBOT, engine, scenario)
        plant.reset(np.tile([0.0, 1.2, -2.4], 4), np.zeros(12))
        for _ in range(4):
            plant.step([(0.0, np.tile([0.3, 1.2, -2.4], 4))])
        lag.append(plant.measure()[0][::3])
        plant.close()
    np.testing.assert_allclose(lag[0], lag[1], atol=5e-3)


@pytest.mark.parametrize("engine", ENGINES)
def test_reset_repeats_a_run_exactly(engine: Engine) -> None:
    """Also with contacts of the last episode left in the engine."""
    plant = make_plant(ROBOT, engine, LOADED.model_copy(update={"latency_ms": 7}))
    runs = []
    for _ in range(2):
        plant.reset(DEFAULT, np.zeros(12))
        for k in range(40):
            plant.step([(0.0, DEFAULT + 0.1 * np.sin(k))])
        runs.append(np.concatenate([*plant.measure(), *(part[0] for part in base(plant))]))
    plant.close()
    np.testing.assert_array_equal(runs[0], runs[1])


def success(behaviour: str, engine: Engine, rung: str, episodes: int) -> tuple[float, float]:
    """Share of successes and of falls."""
    scenario = load_scenario(ROBOT, rung)
    plants = [make_plant(ROBOT, engine, scenario, np.random.default_rng(i)) for i in range(episodes)]
    rng = np.random.default_rng(4)
    runs = lockstep(plants, TASK, load_behaviours(ROBOT)[behaviour](episodes, rng), rng)
    for plant in plants:
        plant.close()
    return float(np.mean([TASK.success(run.obs) for run in runs])), float(np.mean([run.terminated[-1] for run in runs]))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_trot_tracks_on_the_nominal_robot(engine: Engine) -> None:
    reached, fallen = success("tuned", engine, "none", 10)
    assert reached >= 0.8
    assert fallen <= 0.1


def test_a_mix_of_behaviours_shows_success_and_failure() -> None:
    assert success("random", "mujoco", "none", 6)[0] == 0
    reached, fallen = success("noisy", "mujoco", "none", 16)
    assert 0.05 <= reached <= 0.9
    assert fallen <= 0.6


def test_excitation_mostly_stays_up_on_moderate() -> None:
    assert success("excite", "bullet", "moderate", 8)[1] <= 0.6


def test_every_rung_loads_in_both_engines() -> None:
    for name in ("none", "mild", "moderate", "severe", "extreme"):
        scenario = load_scenario(ROBOT, name)
        assert scenario.push == load_scenario(ROBOT, "none").push
        for engine in ENGINES:
            plant = make_plant(ROBOT, engine, scenario)
            plant.reset(DEFAULT, np.zeros(12))
            plant.step([(0.0, DEFAULT)])
            assert np.isfinite(plant.measure()).all()
            plant.close()
