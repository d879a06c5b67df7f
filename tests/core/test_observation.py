from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landbridge.observation import Observer, action_to_command, by_name, command_to_action, nearest_turn, push_action
from landbridge.robot import ObservationTerm, RobotSpec, load_robot

DRIVE = {"effort_limit": 1, "rate_limit": 1, "acceleration_limit": 1, "jerk_limit": 1}
SPEC = RobotSpec.model_validate(
    {
        "schema_version": 1,
        "name": "two_link",
        "urdf": "none.urdf",
        "control_rate_hz": 50,
        "decimation": 1,
        "latency_budget_ms": 10,
        "joints": [
            {"name": "a", "velocity_limit": 1, **DRIVE, "default_joint_pos": 0.5},
            {"name": "free", "actuated": False, "velocity_limit": 1},
            {"name": "b", "velocity_limit": 1, **DRIVE, "default_joint_pos": -0.25},
        ],
        "observation": [
            {"kind": "joint_pos", "joints": ["b", "a"], "scale": 0.5},
            {"kind": "joint_sin", "joints": ["free"]},
            {"kind": "joint_cos", "joints": ["free"]},
            {"kind": "joint_vel", "joints": ["free"], "scale": 0.1, "clip": 1.0},
            {"kind": "action_history", "history": 2},
        ],
        "action": {"kind": "position", "relative": True, "scale": {"b": 4.0, "a": 2.0}},
        "safety": {"max_command_age_ms": 30, "max_tracking_error": 1},
    }
)
OBSERVER = Observer(SPEC)


def test_an_observation_computed_by_hand() -> None:
    joint_pos = np.array([[0.2, np.pi / 6, -0.4]])
    joint_vel = np.array([[9.0, 30.0, 9.0]])
    actions = np.array([[[0.1, 0.2], [0.3, 0.4]]])
    obs = OBSERVER(joint_pos, joint_vel, actions)
    expected = [-0.2, 0.1, 0.5, np.sqrt(3) / 2, 1.0, 0.1, 0.2, 0.3, 0.4]
    np.testing.assert_allclose(obs, [expected], rtol=1e-6)
    assert obs.dtype == np.float32
    assert OBSERVER.names == [
        "joint_pos.b",
        "joint_pos.a",
        "joint_sin.free",
        "joint_cos.free",
        "joint_vel.free",
        "action_history.a.0",
        "action_history.b.0",
        "action_history.a.1",
        "action_history.b.1",
    ]


def test_past_actions_are_replaced_as_if_they_had_been_sent() -> None:
    rng = np.random.default_rng(0)
    pos, vel, actions, others = (rng.uniform(-1, 1, shape) for shape in ((5, 3), (5, 3), (5, 2, 2), (5, 2, 2)))
    obs = OBSERVER(pos, vel, actions)
    np.testing.assert_array_equal(OBSERVER.with_sent(obs, others), OBSERVER(pos, vel, others))
    np.testing.assert_array_equal(OBSERVER.with_sent(obs, OBSERVER.sent(obs)), obs)


def test_columns_read_back_unscaled_and_unknown_ones_are_named() -> None:
    obs = OBSERVER(np.array([[0.2, 2.5, -0.4]]), np.zeros((1, 3)), np.zeros((1, 2, 2)))
    assert OBSERVER.column(obs, "joint_pos.b") == pytest.approx([-0.4])
    assert OBSERVER.angle(obs, "free") == pytest.approx([2.5])
    with pytest.raises(KeyError, match="known"):
        OBSERVER.column(obs, "joint_pos.free")


@given(st.lists(st.floats(-1, 1), min_size=8, max_size=8))
def test_advancing_the_history_equals_observing_after_the_push(values: list[float]) -> None:
    joint_pos, joint_vel = np.array([[0.1, 0.2, 0.3]]), np.zeros((1, 3))
    actions, action = np.array(values[:4]).reshape(1, 2, 2), np.array([values[4:6]])
    before = OBSERVER(joint_pos, joint_vel, actions)
    after = OBSERVER(joint_pos, joint_vel, push_action(actions, action))
    np.testing.assert_allclose(OBSERVER.advance_history(before, action), after, atol=1e-7)
    assert OBSERVER.measured.tolist() == [True] * 5 + [False] * 4


def test_state_and_actions_sent_are_read_back_from_the_observation() -> None:
    rng = np.random.default_rng(0)
    spec = SPEC.model_copy(
        update={"observation": [*SPEC.observation, ObservationTerm(kind="joint_vel", joints=["b", "a"])]}
    )
    observer = Observer(spec)
    pos, vel, sent = rng.uniform(-3, 3, (5, 3)), rng.uniform(-8, 8, (5, 3)), rng.uniform(-1, 1, (5, 2, 2))
    obs = observer(pos, vel, sent)
    np.testing.assert_allclose(np.stack(observer.joint_state(obs)), np.stack([pos, vel]), atol=1e-5)
    np.testing.assert_allclose(observer.sent(obs), sent, atol=1e-6)
    with pytest.raises(KeyError, match="joint_vel"):
        OBSERVER.joint_state(OBSERVER(pos, vel, sent))
    memoryless = Observer(SPEC.model_copy(update={"observation": spec.observation[-1:]}))
    assert memoryless.sent(memoryless(pos, vel, sent[:, :0])).shape == (5, 0, 2)


def test_actions_become_commands_by_joint_name_and_back() -> None:
    command = action_to_command(SPEC, np.array([[0.5, -1.0]]))
    np.testing.assert_allclose(command, [[0.5 + 2.0 * 0.5, -0.25 - 4.0]])
    np.testing.assert_allclose(command_to_action(SPEC, command), [[0.5, -1.0]])
    np.testing.assert_allclose(action_to_command(SPEC, np.array([[9.0, -9.0]])), [[2.5, -4.25]])


def test_the_history_drops_its_oldest() -> None:
    pushed = push_action(np.array([[[1.0], [2.0], [3.0]]]), np.array([[9.0]]))
    np.testing.assert_array_equal(pushed, [[[9.0], [1.0], [2.0]]])
    assert push_action(np.zeros((1, 0, 1)), np.ones((1, 1))).shape == (1, 0, 1)


def test_values_by_name_ignore_order_and_name_what_is_missing() -> None:
    np.testing.assert_array_equal(by_name(["a", "b"], {"b": 2.0, "a": 1.0}), [1.0, 2.0])
    with pytest.raises(KeyError, match=r"\['c'\]"):
        by_name(["a", "c"], {"a": 1.0})


def test_a_way_is_the_near_one_where_a_turn_is_not_seen() -> None:
    """The furuta's pendulum is seen by sine and cosine, its arm is not."""
    ways = np.array([[7.0, 2 * np.pi - 0.1], [-7.0, -np.pi], [0.1, 0.1]])
    near = nearest_turn(Observer(load_robot("furuta").spec), ["arm", "pendulum"], ways)
    np.testing.assert_allclose(near, [[7.0, -0.1], [-7.0, np.pi], [0.1, 0.1]])
