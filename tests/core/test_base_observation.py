"""What a floating base and a gait clock add to the observation, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from landbridge.observation import Base, Observer
from landbridge.robot import RobotSpec, load_robot

DOCUMENT: dict[str, Any] = {
    "schema_version": 1,
    "name": "hopper",
    "urdf": "none.urdf",
    "base": "floating",
    "base_height": 0.3,
    "control_rate_hz": 50,
    "decimation": 1,
    "latency_budget_ms": 10,
    "joints": [
        {
            "name": "a",
            "velocity_limit": 1,
            "effort_limit": 1,
            "rate_limit": 1,
            "acceleration_limit": 1,
            "jerk_limit": 1,
        }
    ],
    "observation": [
        {"kind": "projected_gravity"},
        {"kind": "base_ang_vel", "scale": 0.25},
        {"kind": "base_lin_vel", "scale": 2.0, "clip": 1.5},
        {"kind": "gait_phase", "period_s": 0.4, "scale": 0.5},
        {"kind": "action_history"},
    ],
    "action": {"kind": "position", "relative": True, "scale": {"a": 1.0}},
    "safety": {"max_command_age_ms": 30, "max_tracking_error": 1},
}
OBSERVER = Observer(RobotSpec.model_validate(DOCUMENT))
NONE = np.zeros((1, 1))


def base(quat: list[float]) -> Base:
    return Base(np.array([quat]), np.array([[0.4, -0.8, 1.2]]), np.array([[0.5, -0.25, 3.0]]))


def test_an_observation_computed_by_hand() -> None:
    """Nose down by 30 deg: gravity gains a part ahead. Tick 5 of 20 is a quarter of the clock."""
    tilted = base([np.cos(np.pi / 12), 0.0, np.sin(np.pi / 12), 0.0])
    obs = OBSERVER(NONE, NONE, np.full((1, 1, 1), 0.7), tilted, tick=5)
    gravity = [0.5, 0.0, -np.sqrt(3) / 2]
    expected = [*gravity, 0.1, -0.2, 0.3, 1.0, -0.5, 1.5, 0.5, 0.0, 0.7]
    np.testing.assert_allclose(obs, [expected], atol=1e-7)
    assert OBSERVER.names[:3] == ["projected_gravity.x", "projected_gravity.y", "projected_gravity.z"]
    assert OBSERVER.names[-3:] == ["gait_phase.sin", "gait_phase.cos", "action_history.a.0"]


@pytest.mark.parametrize(
    ("quat", "gravity"),
    [
        ([1, 0, 0, 0], [0, 0, -1]),
        ([0, 1, 0, 0], [0, 0, 1]),  # on its back
        ([np.sqrt(0.5), np.sqrt(0.5), 0, 0], [0, -1, 0]),  # rolled to its right: the left side (+y) is up
        ([np.sqrt(0.5), 0, np.sqrt(0.5), 0], [1, 0, 0]),  # on its nose
        ([np.sqrt(0.5), 0, 0, np.sqrt(0.5)], [0, 0, -1]),  # yaw does not show
    ],
)
def test_gravity_in_the_body_frame(quat: list[float], gravity: list[float]) -> None:
    np.testing.assert_allclose(base(quat).projected_gravity(), [gravity], atol=1e-12)


def test_the_clock_is_known_beforehand_and_the_base_is_not() -> None:
    assert OBSERVER.measured.tolist() == [True] * 9 + [False] * 3


def test_advancing_the_clock_equals_observing_one_tick_later() -> None:
    level = base([1, 0, 0, 0])
    for tick in range(45):
        before = OBSERVER(NONE, NONE, np.zeros((1, 1, 1)), level, tick)
        after = OBSERVER(NONE, NONE, np.full((1, 1, 1), 0.3), level, tick + 1)
        np.testing.assert_allclose(OBSERVER.advance_history(before, np.array([[0.3]])), after, atol=1e-6)


def test_a_missing_base_state_is_named() -> None:
    with pytest.raises(ValueError, match=r"hopper observes .* given no base state"):
        OBSERVER(NONE, NONE, np.zeros((1, 1, 1)))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"base": "fixed", "base_height": None}, "a fixed base does not have"),
        ({"base_height": None}, "base_height is None"),
        ({"observation": [{"kind": "gait_phase"}]}, "period_s is None"),
        ({"observation": [{"kind": "base_lin_vel", "period_s": 1.0}]}, "period_s is 1.0"),
        ({"observation": [{"kind": "projected_gravity", "joints": ["a"]}]}, r"joints is \['a'\]"),
        ({"observation": [{"kind": "gait_phase", "period_s": 1.0, "clip": 1.0}]}, "takes no clip"),
        ({"observation": 2 * [{"kind": "gait_phase", "period_s": 1.0}]}, "more than one gait_phase"),
    ],
)
def test_contradictions_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        RobotSpec.model_validate(DOCUMENT | change)


def test_new_fields_leave_the_digest_of_robots_without_them() -> None:
    """Datasets and bundles of before stay valid: this is the furuta's digest when there were fixed bases only."""
    assert load_robot("furuta").spec.digest() == "2478a13917cd359d9f8b001f181cd18cb8d27539397250696e076a8795d28137"
    spec = OBSERVER.spec
    changed = [{"base_height": 0.4}, {"friction_smoothing": 0.2}]
    changed += [{"observation": [*DOCUMENT["observation"][:3], {"kind": "gait_phase", "period_s": 0.5, "scale": 0.5}]}]
    digests = {RobotSpec.model_validate(DOCUMENT | change).digest() for change in changed}
    assert len({spec.digest(), *digests}) == 4
