"""Which friction model the data support, on twins with and without a Stribeck curve and friction by load."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from landbridge.calibration import friction
from landbridge.calibration.design import run_episodes
from landbridge.calibration.fit import Fit, Linear, Point, Problem, descend, pressing
from landbridge.calibration.friction import Choice, Model, Trial, _bends, _with_term, choose, embedded, overlooked
from landbridge.calibration.windows import cut
from landbridge.joint import Friction
from landbridge.robot import Robot, load_robot
from landbridge.simulation.behaviour import load_behaviours
from landbridge.simulation.calibrated import Term
from landbridge.simulation.parameters import TERMS, Parameter, free_parameters, to_scenario, to_values, without_terms
from landbridge.simulation.scenario import Scenario

ROBOT = load_robot("furuta")
KNOWN = ("link_mass_scale.arm_link", "link_length_scale.arm_link", "link_length_scale.pendulum_link")
FREE = free_parameters(ROBOT, KNOWN)
CURVE = {"friction.arm.excess": 0.002, "friction.arm.stribeck_velocity": 0.5}
EVERY = [("arm", "stribeck"), ("arm", "load"), ("pendulum", "stribeck")]  # the pendulum has no drive that loads it


def chosen(hidden: dict[str, float], model: Model = "auto", free: list[Parameter] = FREE) -> Choice:
    """The choice from 12 s of a noisy Bullet twin."""
    values = to_values(ROBOT, Scenario()) | {"friction.arm.frictionloss": 0.003} | hidden
    scenario = to_scenario(ROBOT, values, Scenario(joint_pos_noise=0.0006, joint_vel_noise=0.02))
    policy = load_behaviours(ROBOT)["excite"](2, np.random.default_rng(3))
    episodes = run_episodes(ROBOT, "bullet", scenario, policy, batch=2, seed=3)
    return choose(ROBOT, free, cut(episodes, ROBOT, 15, "the twin"), model)


def has(found: Choice) -> list[tuple[str, Term]]:
    """The terms that were chosen."""
    return [place for place, choice in found.trials.items() if choice.chosen]


def test_a_curve_is_found_where_the_robot_has_one() -> None:
    found = chosen(CURVE)
    assert has(found) == [("arm", "stribeck")]
    arm, pendulum = found.rows()
    assert arm["frictionloss"] + arm["excess"] == pytest.approx(0.005, rel=0.1)
    curve = found.terms["arm"]["stribeck"]
    assert curve.error_with is not None and curve.error_without is not None
    assert curve.error_with < curve.error_without
    assert pendulum["excess"] == arm["load"] == 0.0
    assert not {"friction.pendulum.excess", "friction.arm.load"} & {p.name for p in found.problem.free}


def test_gears_that_rub_more_under_load_are_found() -> None:
    found = chosen({"friction.arm.load": 0.1})
    assert has(found) == [("arm", "load")]
    arm = found.rows()[0]
    assert arm["load"] == pytest.approx(0.1, rel=0.05)
    assert arm["frictionloss"] == pytest.approx(0.003, rel=0.05)
    assert arm["excess"] == 0.0


def test_a_curve_and_friction_by_load_are_told_apart() -> None:
    found = chosen({**CURVE, "friction.arm.excess": 0.004, "friction.arm.load": 0.2})
    assert has(found) == [("arm", "stribeck"), ("arm", "load")]  # which hides the curve until it is there
    arm = found.rows()[0]
    assert arm["load"] == pytest.approx(0.2, rel=0.05)
    assert arm["frictionloss"] + arm["excess"] == pytest.approx(0.007, rel=0.1)


def test_a_fit_is_never_worse_than_one_of_a_model_nested_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though with one more term it begins where it ends in a wrong minimum: at the longest latency, here 0."""
    plain = chosen({"friction.arm.load": 0.2}, "coulomb")
    (bend,) = _bends(plain, FREE, ("arm", "load"))
    z = np.where([p.name == "latency_ms" for p in bend.richer.free], bend.richer.bounds[1], bend.start())
    far, ends = bend.richer.point(z, bend.richer.windows.states[:, 0]), []

    def followed(problem: Problem, here: Point) -> Fit:
        ends.append(descend(problem, here))
        return ends[-1]

    monkeypatch.setattr(friction, "begin", lambda problem, z: far)
    monkeypatch.setattr(friction, "descend", followed)
    assert embedded(bend.richer, plain).cost == pytest.approx(plain.here.cost)
    trial = _with_term(bend, [plain], plain.here.losses)
    assert [end.here.cost > 10 * plain.here.cost for end in ends] == [True, False]
    assert trial.here.cost < 0.1 * plain.here.cost
    assert trial.supported


def test_a_curve_whose_speed_is_known_is_asked_for_all_the_same() -> None:
    free = free_parameters(ROBOT, (*KNOWN, "friction.arm.stribeck_velocity"))
    plain = chosen(CURVE, "coulomb", free)
    assert "friction.arm.excess" not in {p.name for p in plain.problem.free}
    (bend,) = _bends(plain, free, ("arm", "stribeck"))
    assert bend.promise > 20


def test_a_simple_robot_is_given_neither() -> None:
    found = chosen({})
    assert list(found.trials) == EVERY
    assert has(found) == []
    assert found.rows()[0]["frictionloss"] == pytest.approx(0.003, rel=0.05)
    assert all(choice.gain is None or choice.gain < 10 for choice in found.trials.values())


def test_terms_are_known_by_the_same_names_in_file_and_parameters() -> None:
    assert get_args(Term) == tuple(TERMS)


def test_a_score_test_promises_what_a_curve_gains_and_a_curve_that_is_overlooked_widens_the_friction() -> None:
    without = chosen(CURVE, "coulomb")
    bend = max(_bends(without, FREE, ("arm", "stribeck")), key=lambda each: each.promise)
    found = descend(bend.richer, bend.richer.point(bend.start(), without.here.starts))
    gain = without.here.cost - found.here.cost
    assert bend.promise > 20
    pressed = pressing(without.problem, without.here, without.linear)
    assert pressed[[p.name for p in without.problem.free].index("friction.pendulum.frictionloss")]
    assert not bend.along[pressed].any()  # it stays at its bound, whatever the curve would have it do
    assert gain == pytest.approx(bend.promise, rel=0.3)
    shifts = overlooked(without, FREE, 1.0, 2000, np.random.default_rng(0))
    assert np.mean(shifts.any(1)) == pytest.approx(
        0.75, abs=0.05
    )  # the arm's two; the pendulum is found without dry friction
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
    values = to_values(robot, without_terms(robot, [("arm", "stribeck")]))
    assert (values["friction.arm.excess"], values["friction.pendulum.excess"]) == (0.0, 0.001)
    assert values["friction.arm.frictionloss"] == 0.001
