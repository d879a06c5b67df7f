from __future__ import annotations

import numpy as np
import pytest

from landbridge.calibration.fit import Linear, Point
from landbridge.calibration.posterior import (
    covariance,
    doubts,
    estimates,
    inflation,
    resample,
    stride_inflation,
    undetermined,
)
from landbridge.calibration.windows import Windows
from landbridge.robot import load_robot
from landbridge.simulation.parameters import Parameter, parameters

EVERY = {p.name: p for p in parameters(load_robot("furuta"))}
WINDOWS, ROWS = 200, 30


def linear(reduced: np.ndarray, error: np.ndarray) -> Linear:
    """A problem without start states: what is reduced is all there is."""
    return Linear(error, reduced, reduced, np.zeros((*error.shape, 0)), np.zeros((len(error), 0, 0)))


def test_white_errors_give_the_spread_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    reduced = rng.normal(size=(WINDOWS, ROWS, 2)) * [1.0, 10.0]
    error = rng.normal(size=(WINDOWS, ROWS))
    samples = resample(Point(np.zeros(2), np.zeros((WINDOWS, 0)), error), linear(reduced, error), 1.0, rng)
    # Unit noise under least squares, widened by what soft L1 at 2 sigma makes of it: rows are unweighted here.
    curvature = np.mean((1 + np.square(error / 2)) ** -1.5) / np.mean((1 + np.square(error / 2)) ** -0.5)
    expected = 1 / np.sqrt(WINDOWS * ROWS * np.array([1.0, 100.0])) / curvature
    np.testing.assert_allclose(samples.std(0), expected, rtol=0.15)
    np.testing.assert_allclose(samples.mean(0), 0, atol=4 * expected.max() / np.sqrt(len(samples)))


def test_errors_that_agree_inside_a_window_widen_the_spread() -> None:
    rng = np.random.default_rng(0)
    reduced, error = np.ones((WINDOWS, ROWS, 1)), np.repeat(rng.normal(size=(WINDOWS, 1)), ROWS, axis=1)
    here = Point(np.zeros(1), np.zeros((WINDOWS, 0)), error)
    samples = resample(here, linear(reduced, error), 1.0, rng)
    assert samples.std() * here.curvature == pytest.approx(1 / np.sqrt(WINDOWS), rel=0.2)  # as many facts as windows


def test_what_the_data_do_not_touch_is_as_wide_as_the_prior() -> None:
    rng = np.random.default_rng(0)
    reduced = np.stack([rng.normal(size=(WINDOWS, ROWS)), np.zeros((WINDOWS, ROWS))], -1)
    error = rng.normal(size=(WINDOWS, ROWS))
    samples = resample(Point(np.zeros(2), np.zeros((WINDOWS, 0)), error), linear(reduced, error), 3.0, rng)
    assert samples[:, 1].std() == pytest.approx(1.0, rel=0.1)  # inflation is of what the data say


def test_data_of_little_worth_leave_the_prior_where_they_say_little() -> None:
    rng = np.random.default_rng(0)
    much, little = 1e4, 5.0  # information of all windows
    reduced = rng.normal(size=(WINDOWS, ROWS, 2)) * np.sqrt(np.array([much, little]) / (WINDOWS * ROWS))
    error, z = rng.normal(size=(WINDOWS, ROWS)), np.array([1.0, -1.0])
    here, problem = Point(z, np.zeros((WINDOWS, 0)), error), linear(reduced, error)
    whole, tempered = (resample(here, problem, 10.0, rng, worth).std(0) for worth in (1.0, 1e-2))
    assert tempered[0] == pytest.approx(whole[0], rel=0.15) == pytest.approx(0.1 / here.curvature, rel=0.15)
    # Weakly told: sqrt(score's variance + prior's) / (information + prior's), as data stand and as powers of 1/100.
    assert whole[1] == pytest.approx(np.sqrt(100 * little + 1) / (here.curvature * little + 1), rel=0.15)
    assert tempered[1] == pytest.approx(1.0, rel=0.1)


def test_a_walk_is_worth_one_stride() -> None:
    walker, pendulum = load_robot("quadruped"), load_robot("furuta")
    number, before, late, taken = np.zeros(80, np.intp), np.zeros((80, 5, 34)), np.zeros((80, 15)), np.zeros((80, 11))
    windows = Windows(np.zeros((80, 11, 34)), np.zeros((80, 15, 12)), number, before, late, taken)
    assert stride_inflation(walker, windows) == pytest.approx(np.sqrt(80 * 10 / 50 / 0.4))  # of 0.2 s; a trot of 0.4 s
    assert stride_inflation(walker, windows.where(np.arange(80) == 0)) == 1.0  # half a stride
    assert stride_inflation(pendulum, windows) == pytest.approx(np.sqrt(80))  # no clock: each may be like the next


def test_inflation_of_white_and_of_correlated_errors() -> None:
    rng = np.random.default_rng(0)
    white = rng.normal(size=(2000, 40, 1))
    assert inflation(white, 0.9) == pytest.approx(1.0, abs=1e-9)
    assert inflation(white, 4.0) == pytest.approx(2.0)
    correlated = np.zeros_like(white)
    for t in range(1, 40):
        correlated[:, t] = 0.5 * correlated[:, t - 1] + white[:, t]
    # 1 + 2 (0.5 + 0.25 + ... ) = 3 for an endless AR(1) of 0.5; what is below 0.05 does not count
    assert inflation(correlated[:, 10:], 1.0) == pytest.approx(np.sqrt(1 + 2 * (0.5 + 0.25 + 0.125 + 0.0625)), rel=0.05)


def test_a_fit_that_leaves_no_noise_or_predicts_worse_is_doubted() -> None:
    near, far = {"a": 0.03, "b": 0.04}, {"a": 0.3, "b": 0.4}
    assert doubts("fixed", 1.07, far, near) == []
    (colour,) = doubts("fixed", 2.5, far, near)
    assert "is no noise (inflation 2.50, " in colour
    assert "it is 0.05 rad off, and the nominal simulator 0.5: if that is much more, go on" in colour
    assert doubts("floating", 2.5, far, near) == []  # contacts leave that much however good the fit is
    (worse,) = doubts("fixed", 1.0, near, far)
    assert "worse than the nominal simulator, by 0.5 and 0.05 rad" in worse
    assert doubts("fixed", 1.0, near, near) == []  # the robot may be nominal


def test_an_estimate_is_its_value_its_quantiles_and_whether_they_are_near() -> None:
    free = [EVERY["actuator_gain"], EVERY["friction.arm.viscous"], EVERY["latency_ms"]]
    rng = np.random.default_rng(0)
    z = np.array([0.5, 0.1, 0.4])
    found = estimates(free, z, z + rng.normal(size=(4000, 3)) * [0.01, 0.3, 0.01])
    gain, viscous, latency = found.values()
    assert gain.value == pytest.approx(np.exp(0.15)) and gain.identifiable
    assert gain.low == pytest.approx(np.exp(0.3 * (0.5 - 0.0196)), rel=1e-3)
    assert viscous.low == 0.0 and not viscous.identifiable
    assert latency.value == pytest.approx(20.0) and latency.high == pytest.approx(20.98, abs=0.05)
    assert latency.identifiable


def test_a_direction_is_named_after_what_moves_along_it() -> None:
    free = list(EVERY.values())
    rng = np.random.default_rng(0)
    samples = 0.01 * rng.normal(size=(3000, len(free)))
    shared = [i for i, p in enumerate(free) if p.name in {"actuator_gain", "link_mass_scale.arm_link"}]
    lonely = [i for i, p in enumerate(free) if p.name == "friction.pendulum.stribeck_velocity"]
    samples[:, shared] += rng.normal(size=(3000, 1))
    samples[:, lonely] += rng.normal(size=(3000, 1))
    named = sorted(tuple(sorted(direction)) for direction in undetermined(free, samples))
    assert named == [("actuator_gain", "link_mass_scale.arm_link"), ("friction.pendulum.stribeck_velocity",)]
    assert undetermined(free, 0.01 * rng.normal(size=(3000, len(free)))) == []


def test_an_interval_that_ends_at_a_bound_tells_nothing_of_what_is_beyond() -> None:
    """Friction and delay cannot be less than none; a gain of 4, a load 0.3 m off, are only as far as anybody looks."""
    gain = Parameter("gain", "", 1.0, 0.3, 0.25, 4.0, log=True)
    late = Parameter("latency_ms", "ms", 0.0, 50.0, 0.0, 100.0, log=False)
    spread = np.random.default_rng(0).normal(scale=1e-3, size=(1000, 2))
    for values, told in (((2.0, 50.0), (True, True)), ((4.0, 100.0), (False, False)), ((0.25, 0.0), (False, True))):
        z = np.array([gain.coordinate(values[0]), late.coordinate(values[1])])
        found = estimates([gain, late], z, z + spread)
        assert tuple(estimate.identifiable for estimate in found.values()) == told
    aside = Parameter("payload.hand.x", "m", 0.0, 0.1, -0.3, 0.3, log=False)
    for value, known in ((-0.3, False), (-0.2, True), (0.3, False)):
        at = np.array([aside.coordinate(value)])
        assert estimates([aside], at, at + spread[:, :1])["payload.hand.x"].identifiable is known


def test_a_single_parameter_has_a_variance() -> None:
    samples = np.array([[1.0], [2.0], [3.0]])
    assert covariance(samples).tolist() == [[1.0]]
    (parameter,) = [p for p in parameters(load_robot("furuta")) if p.name == "latency_ms"]
    assert undetermined([parameter], 0.01 * samples) == []
