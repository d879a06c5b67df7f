"""How a fit goes down: to where a whole step promises nothing, and beyond the ridges beside a gear's gap and rotor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from landbridge.calibration.descent import Rough, Smooth
from landbridge.calibration.design import run_episodes
from landbridge.calibration.fit import (
    CONVERGED,
    Fit,
    Point,
    Problem,
    _promise,
    descend,
    fit,
    linearise,
    relaxed,
    sharpened,
)
from landbridge.calibration.valley import least_valley
from landbridge.calibration.windows import cut
from landbridge.joint import Transmission
from landbridge.robot import Robot, load_robot
from landbridge.simulation.behaviour import load_behaviours
from landbridge.simulation.parameters import parameters, to_scenario
from landbridge.simulation.scenario import Scenario

Array = NDArray[np.float64]

FURUTA = load_robot("furuta")
GEAR = Transmission(backlash=0.0175, rotor_inertia=2e-4, stiffness=100, damping=0.05)
ARM, PENDULUM = FURUTA.spec.joints
GEARED = Robot(
    FURUTA.spec.model_copy(update={"joints": (ARM.model_copy(update={"transmission": GEAR}), PENDULUM)}), FURUTA.folder
)
NOISE = np.array([0.0006, 0.0006, 0.02, 0.02])


def problem(robot: Robot, hidden: dict[str, float]) -> Problem:
    """12 s of a noisy robot, of which these parameters are not known."""
    scenario = to_scenario(robot, hidden, Scenario(joint_pos_noise=NOISE[0], joint_vel_noise=NOISE[2]))
    policy = load_behaviours(robot)["excite"](2, np.random.default_rng(3))
    episodes = run_episodes(robot, "mujoco", scenario, policy, 2, 3)
    free = [p for p in parameters(robot) if p.name in hidden]
    return Problem(robot, free, cut(episodes, robot, 15, "the robot"), NOISE)


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit(problem(FURUTA, {"actuator_gain": 0.8, "friction.arm.viscous": 0.0015, "latency_ms": 24.0}))


@pytest.mark.parametrize("descent", [Smooth(), Rough()])
@pytest.mark.parametrize("at_bound", [0, 1])
def test_differences_have_a_width_at_the_bounds_and_beyond(found: Fit, descent: Smooth, at_bound: int) -> None:
    bounds = found.problem.bounds
    for beyond in (0.0, 1e-9):
        z = bounds[at_bound] + (1 if at_bound else -1) * beyond
        below, above = np.split(descent.probes(found.problem, z), 2)
        widths = np.diag(above - below)
        assert (widths > 0.9 * min(descent.width, 1.0)).all()
        assert (np.diag(below) >= bounds[0]).all() and (np.diag(above) <= bounds[1]).all()


def test_a_fit_ends_where_a_whole_step_promises_nothing(found: Fit) -> None:
    assert [p.value(z) for p, z in zip(found.problem.free, found.here.z, strict=True)] == pytest.approx(
        [0.8, 0.0015, 24.0], rel=0.01
    )
    np.testing.assert_array_equal(found.linear.error, linearise(found.problem, found.here).error)
    assert 0 <= _promise(found.problem, found.here, found.linear) < CONVERGED
    away = found.problem.point(found.here.z + 1e-4, found.here.starts)
    promise = _promise(found.problem, away, linearise(found.problem, away))
    assert promise == pytest.approx(away.cost - found.here.cost, rel=0.25)  # weights of soft L1 change with it


def test_a_step_that_was_cut_short_is_no_end() -> None:
    assert not Smooth().ended(promise=166.2, gain=0.3, cost=972.1, tolerance=CONVERGED)
    assert Smooth().ended(promise=0.04, gain=5000, cost=972.1, tolerance=CONVERGED)
    assert Smooth().ended(promise=0.9, gain=0.01, cost=972.1, tolerance=CONVERGED)  # as smooth as knocks let it be
    assert Rough().ended(promise=166.2, gain=0.3, cost=972.1, tolerance=CONVERGED)


def test_start_states_are_mended_window_by_window(found: Fit) -> None:
    starts = found.here.starts.copy()
    starts[3:6] += NOISE
    off = found.problem.point(found.here.z, starts)
    mended = relaxed(found.problem, off, found.linear)
    assert off.cost > found.here.cost + 20
    assert mended.cost - found.here.cost < 0.05 * (off.cost - found.here.cost)
    np.testing.assert_array_equal(mended.z, off.z)
    assert (mended.losses <= off.losses).all()


def test_noise_is_that_of_the_residuals(found: Fit) -> None:
    loud = descend(replace(found.problem, noise=5 * NOISE), found.here)
    np.testing.assert_allclose(sharpened(loud).problem.noise, NOISE, rtol=0.25)


class TwoValleys(Problem):
    """A cost of gap and rotor that is least, 0, at `LEAST`, and has a second minimum at `SECOND`: errors by hand."""

    LEAST, SECOND = (0.02, 1.0), (0.02 / 1.5, 1.5)

    @property
    def loose(self) -> NDArray[np.intp]:
        return np.arange(0)

    def points(self, zs: Sequence[Array], starts: Sequence[Array]) -> list[Point]:
        found = []
        for z, start in zip(zs, starts, strict=True):
            gap, rotor = (p.value(each) for p, each in zip(self.free, z, strict=True))
            product, across = np.log(gap * rotor / 0.02), np.log(gap / rotor / 0.02) / 2 / np.log(1.5)
            error = [50 * product, 20 * across * (across + 1), 3 * across]
            found.append(Point(z, start, np.array([error])))
        return found


def test_beside_a_narrow_gap_with_a_heavy_rotor_a_wide_one_with_a_light_rotor_is_found() -> None:
    free = [p for p in parameters(GEARED) if p.name in ("backlash.arm", "rotor_inertia_scale.arm")]
    valleys = TwoValleys(GEARED, free, None, NOISE)  # type: ignore[arg-type]
    starts = np.zeros((1, 4))

    def ended(values: Sequence[float]) -> Fit:
        z = np.array([p.coordinate(value) for p, value in zip(free, values, strict=True)])
        return descend(valleys, valleys.point(z, starts))

    second, least = ended(TwoValleys.SECOND), ended(TwoValleys.LEAST)
    assert second.here.cost > least.here.cost + 1
    np.testing.assert_allclose(least_valley(second).here.z, least.here.z, atol=0.01)
    assert least_valley(least).here.cost == pytest.approx(least.here.cost, abs=0.1)
    without = replace(second, problem=replace(valleys, free=free[:1]))  # of a known rotor there is one valley
    assert least_valley(without) is without
