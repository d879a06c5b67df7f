"""Feed-forward from a calibration: by hand, against the drive of the simulators, and in closed loop."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from landbridge.errors import InputError
from landbridge.joint import Friction
from landbridge.robot import Robot, load_robot
from landbridge.simulation.calibrated import Calibration, Estimate
from landbridge.simulation.compensation import Compensation, load_compensation, require_nominal
from landbridge.simulation.drive import ArrayDrive
from landbridge.simulation.parameters import FACTOR_SD, parameters, to_scenario
from landbridge.simulation.plant import Engine, make_plant
from landbridge.simulation.scenario import Scenario, load_scenario

ROBOT, ARM = load_robot("furuta"), load_robot("arm")
GAIN, DRY, VISCOUS = 0.8, 0.003, 0.002
NOMINAL_DRY, NOMINAL_VISCOUS, SMOOTHING = 0.001, 0.0008, 0.1  # of robot.yaml
FOUND = {"actuator_gain": GAIN, "friction.arm.frictionloss": DRY, "friction.arm.viscous": VISCOUS}

Make = Callable[..., Calibration]


def commanded_in(kind: str, robot: Robot = ROBOT, **joint: float) -> Robot:
    """The robot with commands of this kind, its first joint with these gains."""
    first, *others = robot.spec.joints
    action = robot.spec.action.model_copy(update={"kind": kind, "relative": False, "scale": {"arm": 9.0}})
    joints = (first.model_copy(update=joint), *others)
    return Robot(robot.spec.model_copy(update={"action": action, "joints": joints}), robot.folder)


def of(robot: Robot, values: dict[str, float], certain: Calibration) -> Calibration:
    """As the calibration `certain`, of another robot."""
    estimates = {name: Estimate(value=v, low=v, high=v, identifiable=True) for name, v in values.items()}
    about = {"robot_hash": robot.spec.digest(), "urdf_hash": robot.urdf_digest(), "estimates": estimates}
    return certain.model_copy(update={**about, "covariance": ((0.0,) * len(values),) * len(values)})


@pytest.mark.parametrize("velocity", [2.0, -2.0, 0.05, 0.0])
@pytest.mark.parametrize(
    ("kind", "asked", "to_effort"),
    [
        ("effort", 0.02, lambda c, q, v: c),
        ("velocity", 3.0, lambda c, q, v: 0.01 * (c - v)),
        ("position", 0.9, lambda c, q, v: 0.2 * (c - q) - 0.01 * v),
    ],
)
def test_a_command_of_each_kind_by_hand(
    kind: str, asked: float, to_effort: Callable[..., float], velocity: float, calibration: Make
) -> None:
    """The effort that the command sent asks for is b (e* - f*) + f / g; with masses as they are b = 1 / g, or 1."""
    robot, q = commanded_in(kind, stiffness=0.2, damping=0.01), 0.4
    sent = Compensation(robot, calibration(**FOUND))(np.array([asked]), np.array([velocity, 7.0]))
    boost = 1 / GAIN if kind == "effort" else 1.0
    friction, nominal = (
        dry * math.tanh(velocity / SMOOTHING) + viscous * velocity
        for dry, viscous in ((DRY, VISCOUS), (NOMINAL_DRY, NOMINAL_VISCOUS))
    )
    expected = boost * (to_effort(asked, q, velocity) - nominal) + friction / GAIN
    assert to_effort(sent[0], q, velocity) == pytest.approx(expected, rel=1e-12)
    assert sent.shape == (1,)


@pytest.mark.parametrize("robot", [commanded_in("effort"), ARM], ids=["furuta", "arm"])
def test_the_torque_on_every_driven_joint_is_the_nominal_one(robot: Robot, calibration: Make) -> None:
    """In the drive of the simulators; what is not compensated is left out of them: Stribeck, the gain of a position."""
    driven = robot.spec.driven_at
    values = {"actuator_gain": 0.9 if robot.spec.action.kind == "effort" else 1.0}
    for i, name in enumerate(robot.spec.actuated):
        friction = robot.spec.joint(name).friction
        values |= {f"friction.{name}.frictionloss": friction.frictionloss + 0.001 * (i + 1)}
        values |= {f"friction.{name}.viscous": friction.viscous * 1.5 + 1e-5}
    order = {p.name: values[p.name] for p in parameters(robot) if p.name in values}
    compensation = Compensation(robot, of(robot, order, calibration()))
    nominal = ArrayDrive(robot.spec, Scenario())
    hidden = ArrayDrive(robot.spec, to_scenario(robot, order))
    rng, actuated = np.random.default_rng(0), len(robot.spec.actuated)
    for _ in range(50):
        pos = np.array([joint.default_joint_pos for joint in robot.spec.joints]) + rng.uniform(-0.02, 0.02)
        vel = 0.1 * rng.standard_normal(len(pos))
        asked = pos[driven] + rng.uniform(-0.05, 0.05, actuated)
        sent = compensation(asked, vel)
        np.testing.assert_allclose(hidden(pos, vel, sent)[driven], nominal(pos, vel, asked)[driven], atol=1e-12)
        assert np.abs(hidden(pos, vel, asked)[driven] - nominal(pos, vel, asked)[driven]).min() > 1e-7


@pytest.mark.parametrize(
    ("arm", "pendulum", "gain", "spread", "boost"),
    [
        (1.0, 1.0, 0.8, 0.0, 1 / 0.8),
        (1.2, 1.5, 1.0, 0.0, 1.2),  # what the lightest link asks for
        (1.2, 0.9, 1.0, 0.0, 1.0),  # links that disagree
        (0.8, 0.7, 1.0, 0.0, 0.8),
        (1.0, 1.0, 0.8, 0.3, (1 - 1.96 * 0.3 * FACTOR_SD) / 0.8),  # the low end of the interval
        (1.0, 1.0, 0.8, 2.0, 1.0),  # the data do not tell
    ],
)
def test_the_boost_is_the_least_that_the_data_ask_for(
    arm: float, pendulum: float, gain: float, spread: float, boost: float, calibration: Make
) -> None:
    masses = {"link_mass_scale.arm_link": arm, "link_mass_scale.pendulum_link": pendulum}
    found = calibration(actuator_gain=gain, **masses)
    found = found.model_copy(update={"covariance": ((spread**2, 0, 0), (0, 0, 0), (0, 0, 0))})  # of the gain
    assert Compensation(ROBOT, found).boost == pytest.approx(boost)


def test_friction_is_the_low_end_of_its_interval_and_never_made(calibration: Make) -> None:
    def added(value: float, deviations: float, overlooked: float = 0.0) -> float:
        made = calibration(**{"friction.arm.frictionloss": value})
        moments = {"covariance": ((deviations**2,),), "overlooked": ((overlooked**2,),)}
        return float(Compensation(ROBOT, made.model_copy(update=moments)).frictionloss[0])

    sd = next(p.sd for p in parameters(ROBOT) if p.name == "friction.arm.frictionloss")
    assert added(0.003, 0.05) == pytest.approx(0.003 - 1.96 * 0.05 * sd - NOMINAL_DRY)
    assert added(0.003, 0.04, 0.03) == pytest.approx(added(0.003, 0.05))  # a curve may hide in it
    assert added(0.003, 10.0) == 0.0  # the data do not tell
    assert added(0.0004, 0.0) == 0.0  # less than in robot.yaml


def test_ratios_are_told_where_gain_mass_and_friction_are_not(calibration: Make) -> None:
    """All three by one factor more or less, which no motion shows."""
    names = ("actuator_gain", "link_mass_scale.arm_link", "link_mass_scale.pendulum_link", "friction.arm.frictionloss")
    found = calibration(**dict(zip(names, (GAIN, 1.0, 1.1, DRY), strict=True)))
    sd = next(p.sd for p in parameters(ROBOT) if p.name == names[-1])
    common = np.array([1 / FACTOR_SD] * 3 + [DRY / sd])  # z by the factor's logarithm
    compensation = Compensation(
        ROBOT, found.model_copy(update={"covariance": tuple(map(tuple, 0.1 * np.outer(common, common)))})
    )
    assert compensation.boost == pytest.approx(1 / GAIN)
    assert compensation.frictionloss[0] == pytest.approx((DRY - NOMINAL_DRY) / GAIN)


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("effort", -0.12, 0.12), ("velocity", -30.0, 30.0), ("position", -2.4, 2.4)]
)
def test_nothing_is_sent_beyond_the_joints_limits(kind: str, low: float, high: float, calibration: Make) -> None:
    robot = commanded_in(kind, stiffness=0.2, damping=0.01)
    compensation = Compensation(robot, calibration(**FOUND))
    for asked, limit in ((9.0 * low, low), (9.0 * high, high)):
        assert compensation(np.array([asked]), np.array([math.copysign(20.0, asked), 0.0])) == limit


@pytest.mark.parametrize("kind", ["effort", "velocity", "position"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e308])
def test_what_is_not_finite_leaves_the_command_as_it_is(kind: str, bad: float, calibration: Make) -> None:
    """And raises nothing: the guard has its names for it."""
    compensation = Compensation(commanded_in(kind, stiffness=0.2, damping=0.01), calibration(**FOUND))
    sent = compensation(np.array([0.02]), np.array([bad, bad]))
    assert sent[0] == 0.02 or (math.isfinite(bad) and abs(sent[0]) <= 30.0)
    assert np.isnan(compensation(np.array([math.nan]), np.zeros(2))).all()


@pytest.mark.parametrize("engine", ["mujoco", "bullet"])
def test_a_compensated_joint_follows_the_nominal_one(engine: Engine, calibration: Make) -> None:
    """Through two seconds of swinging, in which friction and gain cost the bare one more than half of the way."""
    hidden = Scenario(actuator_gain=GAIN, friction={"arm": Friction(frictionloss=DRY, viscous=VISCOUS)})
    compensation = Compensation(ROBOT, calibration(**FOUND))

    def swing(scenario: Scenario, compensate: bool) -> np.ndarray:
        plant, seen = make_plant(ROBOT, engine, scenario), []
        plant.reset(np.array([0.0, np.pi]), np.zeros(2))
        for tick in range(100):
            asked = np.array([0.02 * math.sin(2 * math.pi * tick / 40)])
            plant.step([(0.0, compensation(asked, plant.measure()[1]) if compensate else asked)])
            seen.append(plant.measure()[0][0])
        plant.close()
        return np.array(seen)

    nominal = swing(Scenario(), compensate=False)
    error, bare = (np.abs(swing(hidden, compensate) - nominal).max() for compensate in (True, False))
    assert np.ptp(nominal) > 1.0
    assert error < 0.02 * np.ptp(nominal)
    assert bare > 0.5 * np.ptp(nominal)


def test_a_pushed_joint_comes_to_rest_and_three_times_as_much_would_make_it_hunt(calibration: Make) -> None:
    """On `severe`, with its 30 ms of delay and noise: why no more is taken off than there surely is."""
    severe = load_scenario(ROBOT, "severe")
    friction, nominal = severe.friction["arm"], ROBOT.spec.joint("arm").friction

    def travelled(times: float) -> float:
        """What the arm covers in the last 4 s of 8 s [rad], the excess of its friction compensated so many times."""
        parts = {
            f"friction.arm.{name}": getattr(nominal, name) + times * (getattr(friction, name) - getattr(nominal, name))
            for name in ("frictionloss", "viscous")
        }
        compensation = Compensation(ROBOT, calibration(actuator_gain=severe.actuator_gain, **parts))
        plant, seen = make_plant(ROBOT, "mujoco", severe), []
        plant.reset(np.array([0.0, np.pi]), np.array([1.0, 0.0]))
        for _ in range(400):
            plant.step([(0.0, compensation(np.zeros(1), plant.measure()[1]))])
            seen.append(plant.state()[0][0])
        plant.close()
        return float(np.ptp(seen[200:]))

    assert travelled(1.0) < 0.02
    assert travelled(3.0) > 1.0


def test_what_would_compensate_wrongly_is_refused(tmp_path: Path, calibration: Make) -> None:
    file = tmp_path / "calibration.yaml"
    calibration(**FOUND).write(file)
    assert len(load_compensation(file, ROBOT).digest) == 64
    of(ARM, {"actuator_gain": 0.9}, calibration()).write(tmp_path / "arm.yaml")
    with pytest.warns(UserWarning, match="arm is commanded in position, where feed-forward has won nothing yet"):
        load_compensation(tmp_path / "arm.yaml", ARM)
    with pytest.raises(InputError, match=r"no such file\. make it with `landbridge calibrate all` or"):
        load_compensation(tmp_path / "none.yaml", ROBOT)
    with pytest.raises(InputError, match=r"is a folder. name the calibration in it, such as .*/calibration.yaml"):
        load_compensation(tmp_path, ROBOT)
    newer = tmp_path / "newer.yaml"
    newer.write_text(file.read_text().replace("schema_version: 2", "schema_version: 9"))
    with pytest.raises(InputError, match=r"schema_version: 9, this landbridge reads 2\. name a file of the right"):
        load_compensation(newer, ROBOT)
    with pytest.raises(InputError, match=r"calibrates another 'furuta' \([0-9a-f]{12}\) than 'arm' \([0-9a-f]{12}\)"):
        load_compensation(file, ARM)
    changed = shutil.copytree(ROBOT.folder, tmp_path / "furuta")
    urdf = changed / ROBOT.spec.urdf
    urdf.write_text(urdf.read_text().replace('mass value="', 'mass value="1', 1))
    with pytest.raises(InputError, match=r"calibrates furuta with another furuta\.urdf"):
        load_compensation(file, load_robot(changed))
    with pytest.raises(InputError, match="joint arm's velocity command asks for no effort: its gain is 0"):
        Compensation(commanded_in("velocity", damping=0.0), calibration(**FOUND))
    require_nominal(Path("p"), {"target_calibration": "a" * 64, "commit": ""})
    with pytest.raises(InputError, match=r"p: learned from logs .* calibrated \(aaaaaaaaaaaa\): .* compensated twice"):
        require_nominal(Path("p"), {"source_calibration": "a" * 64})
