"""Which friction model the data support, on twins with and without a Stribeck curve."""

from __future__ import annotations

import numpy as np
import pytest

from landbridge.calibration.design import run_episodes
from landbridge.calibration.fit import Linear, Point, Problem, pressing, solve
from landbridge.calibration.friction import Choice, Model, Trial, _bends, choose, overlooked
from landbridge.calibration.windows import cut
from landbridge.joint import Friction
from landbridge.robot import Robot, load_robot
from landbridge.simulation.behaviour import load_behaviours
from landbridge.simulation.parameters import free_parameters, to_scenario, to_values, without_stribeck
from landbridge.simulation.scenario import Scenario

ROBOT = load_robot("furuta")
KNOWN = ("link_mass_scale.arm_link", "link_length_scale.arm_link", "link_length_scale.pendulum_link")
FREE = free_parameters(ROBOT, KNOWN)
CURVE = {"friction.arm.excess": 0.002, "friction.arm.stribeck_velocity": 0.5}


def chosen(hidden: dict[str, float], model: Model = "auto") -> Choice:
    """The choice from 12 s of a noisy Bullet twin."""
    values = to_values(ROBOT, Scenario()) | {"friction.arm.frictionloss": 0.003} | hidden
    scenario = to_scenario(ROBOT, values, Scenario(joint_pos_noise=0.0006, joint_vel_noise=0.02))
    policy = load_behaviours(ROBOT)["excite"](2, np.random.default_rng(3))
    episodes = run_episodes(ROBOT, "bullet", scenario, policy, batch=2, seed=3)
    return choose(ROBOT, FREE, cut(episodes, ROBOT, 15, "the twin"), model)


def test_a_curve_is_found_where_the_robot_has_one() -> None:
    found = chosen(CURVE)
    assert {joint: choice.model for joint, choice in found.models.items()} == {"arm": "stribeck", "pendulum": "coulomb"}
    arm, pendulum = found.rows()
    assert arm["frictionloss"] + arm["excess"] == pytest.approx(0.005, rel=0.1)
    assert arm["stribeck_error"] < arm["coulomb_error"]
    assert pendulum["excess"] == 0.0
    assert "friction.pendulum.excess" not in {p.name for p in found.problem.free}


def test_a_simple_robot_is_given_no_curve() -> None:
    found = chosen({})
    assert {choice.model for choice in found.models.values()} == {"coulomb"}
    assert found.rows()[0]["frictionloss"] == pytest.approx(0.003, rel=0.05)
    assert all(choice.gain is None or choice.gain < 10 for choice in found.models.values())


def test_a_score_test_promises_what_a_curve_gains_and_a_curve_that_is_overlooked_widens_the_friction() -> None:
    without = chosen(CURVE, "coulomb")
    bend = max(_bends(without, FREE, "arm"), key=lambda each: each.promise)
    found = solve(bend.richer, bend.start(), without.here.starts)
    gain = without.here.cost - found.cost
    assert bend.promise > 20
    pressed = pressing(without.problem, without.here, without.linear)
    assert pressed[[p.name for p in without.problem.free].index("friction.pendulum.frictionloss")]
    assert not bend.along[pressed].any()  # it stays at its bound, whatever the curve would have it do
    assert gain == pytest.approx(bend.promise, rel=0.3)
    shifts = overlooked(without, FREE, 1.0, 2000, np.random.default_rng(0))
    assert np.mean(shifts.any(1)) == pytest.approx(0.5, abs=0.05)  # the pendulum is found without any dry friction
    place = [p.name for p in without.problem.free].index("friction.arm.frictionloss")
    truth = without.problem.free[place].coordinate(0.003)
    low, high = np.quantile(without.here.z[place] + shifts[:, place], (0.025, 0.975))
    assert low < truth < without.here.z[place] <= high + 1e-9  # the plain fit takes part of the curve for dry friction


def trial(gains: list[float]) -> Trial:
    empty = np.empty((len(gains), 0))
    point = Point(np.empty(0), empty, np.zeros((len(gains), 10)))
    problem = Problem(ROBOT, (), None, np.ones(4))  # type: ignore[arg-type]
    nothing = Linear(*[np.empty(0)] * 5)
    return Trial(problem, point, nothing, np.array(gains) + 10.0, np.full(len(gains), 10.0))


@pytest.mark.parametrize(
    ("gains", "supported"),
    [
        ([1.0, 1.2, 1.1, 1.0], True),  # 4.3 in all, one standard error is 0.19
        ([0.1, 0.2, 0.1, 0.1], False),  # sure, and small
        ([40.0, -12.0, -12.0, -10.0], False),  # 6 in all, by one window: its standard error is 51
        ([-3.0, -3.0, -3.0, -3.0], False),
    ],
)
def test_a_gain_must_be_large_and_beyond_chance(gains: list[float], supported: bool) -> None:
    assert trial(gains).supported is supported
    assert trial(gains).gain == pytest.approx(sum(gains))


def test_without_a_curve_a_nominal_stiction_is_gone_too() -> None:
    sticky = Friction(frictionloss=0.001, stiction=0.002, viscous=0.0008)
    joints = tuple(joint.model_copy(update={"friction": sticky}) for joint in ROBOT.spec.joints)
    robot = Robot(ROBOT.spec.model_copy(update={"joints": joints}), ROBOT.folder)
    values = to_values(robot, without_stribeck(robot, ["arm"]))
    assert (values["friction.arm.excess"], values["friction.pendulum.excess"]) == (0.0, 0.001)
    assert values["friction.arm.frictionloss"] == 0.001
