"""What is believed of the encoders, and limits on commands, by hand."""

from __future__ import annotations

import math

import pytest

from landbridge.deploy.guard import Guard
from landbridge.deploy.limits import Limits
from landbridge.deploy.motion import Motion
from landbridge.deploy.supervisor import State
from landbridge.robot import RobotSpec, load_robot
from landbridge.verdict import Reason

FURUTA, QUADRUPED = load_robot("furuta").spec, load_robot("quadruped").spec
STANCE = [joint.default_joint_pos for joint in QUADRUPED.joints]


def slow(limit: float) -> RobotSpec:
    """The furuta with joints that may not turn faster than `limit` [rad/s]."""
    return FURUTA.model_copy(
        update={"joints": tuple(joint.model_copy(update={"velocity_limit": limit}) for joint in FURUTA.joints)}
    )


def test_a_slow_joint_may_read_the_same_count_again() -> None:
    coarsest = 2 * math.tau / 4096 / (3 * FURUTA.control_dt)  # rad/s: two counts of 12 bits in three periods, 0.051
    for speed, frozen in ((coarsest, None), (math.nextafter(coarsest, 1.0), Reason.FROZEN_ENCODER)):
        motion = Motion(slow(0.5))
        for count in range(4):
            motion.take((0.0, 0.0), (speed, 0.0), 0.02 * count)
        assert motion.outside(0.0) is frozen, speed


def test_a_slow_joint_rests_though_its_speed_counts_to_and_fro() -> None:
    for speed, rests in ((0.03, True), (math.nextafter(0.03, 1.0), False)):
        motion = Motion(slow(1.0))
        for count in range(3):
            motion.take((0.0, 0.0), (speed, 0.0), 0.02 * count)
        assert motion.rests is rests, speed


def test_rest_and_frozen_are_counted_from_the_first_measurement() -> None:
    resting, turning = Motion(FURUTA), Motion(FURUTA)
    for count in range(3):
        assert not resting.rests
        assert turning.outside(0.0) is None, count
        resting.take((0.0, 0.0), (0.6, 60.0), 0.02 * count)  # the pendulum is not actuated
        turning.take((0.0, 0.0), (0.7, 0.0), 0.02 * count)
    assert resting.rests
    resting.take((0.0, 0.0), (0.7, 0.0), 0.06)
    for count in range(3):
        assert not resting.rests
        resting.take((0.0, 0.0), (0.6, 0.0), 0.08 + 0.02 * count)
    assert resting.rests
    assert resting.moved_at == 0.06
    assert turning.outside(0.0) is Reason.FROZEN_ENCODER
    assert resting.take((float("nan"), 0.0), (0.0, 0.0), 0.14) is Reason.MEASUREMENT_NOT_FINITE
    for count in range(3):
        assert not resting.rests
        resting.take((0.0, 0.0), (0.0, 0.0), 0.16 + 0.02 * count)
    assert resting.rests
    assert resting.moved_at == 0.14


def test_before_the_first_measurement_nothing_is_known_of_rest() -> None:
    motion = Motion(FURUTA)
    for at in (2.0, 2.02):
        motion.take((0.0, 0.0), (0.0, 0.0), at)
        assert motion.moved_at == 2.0


def test_the_pace_is_the_smaller_of_the_reported_speed_and_that_of_the_positions() -> None:
    motion = Motion(FURUTA)
    assert motion.pace() == [0.0, 0.0]
    motion.take((0.2, 1.0), (1.0, 1.0), 1.0)
    assert motion.pace() == [0.0, 0.0]  # one position shows no speed
    motion.take((0.24, 0.99), (3.0, -0.1), 1.02)
    assert motion.pace() == pytest.approx([2.0, -0.1])
    motion.take((0.25, 1.0), (-3.0, 0.0), 1.04)
    assert motion.pace() == [0.0, 0.0]
    motion.take((0.26, 1.0), (0.4, 0.0), 1.06)
    assert motion.pace() == pytest.approx([0.4, 0.0])


def test_nothing_is_known_of_the_joints_three_periods_after_the_last_sane_measurement() -> None:
    motion = Motion(FURUTA)
    assert motion.blind(0.0)
    motion.take((0.0, 0.0), (0.0, 0.0), 0.0)
    motion.take((math.nan, 0.0), (0.0, 0.0), 0.04)
    assert not motion.blind(3 * FURUTA.control_dt)
    assert motion.blind(math.nextafter(3 * FURUTA.control_dt, 1.0))


def test_sensors_slower_than_the_control_rate_leave_no_gaps_while_a_command_may_answer_them() -> None:
    """At 1 kHz three periods are 3 ms, and a board that reports at 100 Hz would be damped for 3 ms of each 10."""
    motion = Motion(FURUTA.model_copy(update={"control_rate_hz": 1000.0}))
    motion.take((0.0, 0.0), (0.0, 0.0), 0.0)
    assert not motion.blind(0.030)
    assert motion.blind(math.nextafter(0.030, 1.0))


def test_the_pace_is_finite_whatever_was_measured() -> None:
    motion = Motion(FURUTA)
    for position in (1e308, -1e308):
        motion.forget()
        assert motion.take((position, 0.0), (1.0, 0.0), 1.0) is None
        assert motion.pace() == [0.0, 0.0]


def test_a_jump_at_the_very_speed_limit_is_a_jump() -> None:
    motion = Motion(FURUTA)
    motion.take((0.0, 0.0), (0.0, 0.0), 0.0)
    assert motion.take((0.7, 0.0), (30.0, 0.0), 0.02) is Reason.POSITION_JUMP
    assert motion.position == (0.0, 0.0)


def test_a_speed_that_explains_a_jump_makes_it_no_place_to_hold() -> None:
    """Of a glitch whose speed is the quotient of the positions."""
    motion, rest = Motion(QUADRUPED), [0.0] * 12
    limit = QUADRUPED.joints[0].velocity_limit
    motion.take(STANCE, rest, 0.0)
    jump = limit * 0.02 * 1.1
    assert motion.take([STANCE[0] + jump, *STANCE[1:]], [1.1 * limit, *rest[1:]], 0.02) is Reason.VELOCITY_LIMIT
    assert (motion.position, motion.pace()) == (tuple(STANCE), rest)
    assert motion.take([STANCE[0] + 0.001, *STANCE[1:]], [-1.1 * limit, *rest[1:]], 0.04) is None
    assert motion.outside(math.inf) is Reason.VELOCITY_LIMIT
    assert motion.pace() == rest


def test_a_joint_that_is_too_fast_is_known_to_a_robot_that_damps() -> None:
    motion = Motion(FURUTA)
    motion.take((0.0, 0.0), (0.0, 0.0), 0.0)
    assert motion.take((0.7, 0.0), (35.0, 0.0), 0.02) is None
    assert motion.outside(0.0) is Reason.VELOCITY_LIMIT
    assert motion.pace() == pytest.approx([35.0, 0.0])


def test_a_robot_that_cannot_be_measured_is_not_driven_by_its_last_speed() -> None:
    guard = Guard(FURUTA)
    guard.measure(1, 1.0, (0.0, 0.0), (0.0, 0.0))
    guard.supervise(State.ARMED, 0, 1.0)
    guard.tick(1.0)
    guard.measure(2, 1.02, (0.1, 0.0), (5.0, 0.0))
    guard.supervise(State.DAMP, 0, 1.02)
    damped = []
    for period in range(1, 8):
        now = 1.02 + 0.02 * period
        guard.measure(2 + period, now, (math.nan, 0.0), (5.0, 0.0))
        stop = guard.tick(now)
        assert stop is not None
        damped.append(stop.command[0])
    assert damped[0] == pytest.approx(-FURUTA.joints[0].damping * 5.0)
    assert damped[-3:] == [0.0] * 3


def test_a_base_is_upright_until_a_measurement_says_otherwise() -> None:
    motion = Motion(QUADRUPED)
    assert not motion.tilted
    motion.take(STANCE, [0.0] * 12, 0.0)
    assert not motion.tilted


def test_a_tilt_that_is_no_number_is_no_measurement() -> None:
    motion = Motion(QUADRUPED)
    assert motion.take(STANCE, [0.0] * 12, 0.0, math.nan) is Reason.MEASUREMENT_NOT_FINITE
    assert motion.take(STANCE, [0.0] * 12, 0.0, QUADRUPED.safety.max_tilt or 0.0) is None
    assert not motion.tilted


def test_a_robot_that_tips_over_is_stopped_where_its_joints_are() -> None:
    guard, beyond = Guard(QUADRUPED), math.nextafter(QUADRUPED.safety.max_tilt or 0.0, math.inf)
    guard.measure(1, 0.0, STANCE, [0.0] * 12, beyond)
    assert guard.fault is None  # nobody has armed it: it may lie on its side
    guard.supervise(State.ARMED, 0, 0.0)
    assert guard.fault is Reason.TILT
    guard.supervise(State.STANDBY, 1, 0.01)
    guard.measure(2, 0.02, STANCE, [0.0] * 12, 0.0)
    for state in (State.ARMED, State.ACTIVE):
        guard.supervise(state, 1, 0.03)
    moved = [pos + 0.05 for pos in STANCE]
    guard.measure(3, 0.04, moved, [0.0] * 12, beyond)
    stop = guard.tick(0.04)
    assert guard.fault is Reason.TILT
    assert stop is None or stop.command == pytest.approx(moved)
    assert not guard.admit(3, QUADRUPED.actuated, STANCE, 0.045).write


def test_a_robot_that_has_fallen_can_be_parked_and_not_armed() -> None:
    """It falls no farther, and whoever lifts it should not have to lift a powered one."""
    guard, beyond = Guard(QUADRUPED), math.nextafter(QUADRUPED.safety.max_tilt or 0.0, math.inf)
    guard.measure(0, 0.0, STANCE, [0.0] * 12)
    guard.supervise(State.ARMED, 0, 0.0)
    guard.tick(0.0)
    for number, state in enumerate((State.FAULT, State.STANDBY, *[State.PARK] * 600), 1):
        now = 0.02 * number
        guard.measure(number, now, guard.written, [0.0] * 12, beyond)
        guard.supervise(state, int(state is not State.FAULT), now)
        guard.tick(now)
    assert (guard.fault, guard.powered) == (None, False)
    guard.supervise(State.ARMED, 1, now)
    assert guard.fault is Reason.TILT


def test_what_is_wrong_with_the_joints_of_a_fallen_robot_is_a_fault_in_park_too() -> None:
    limit = QUADRUPED.safety.max_tracking_error or 0.0
    guard = Guard(QUADRUPED)
    guard.measure(0, 0.0, STANCE, [0.0] * 12)
    guard.supervise(State.ARMED, 0, 0.0)
    guard.tick(0.0)
    guard.supervise(State.PARK, 0, 0.02)
    guard.measure(1, 1.0, [pos + 1.01 * limit for pos in STANCE], [0.0] * 12, math.pi)
    assert guard.fault is Reason.TRACKING_ERROR


def test_a_reset_holds_the_robot_where_it_is_by_then() -> None:
    """Not where it was stopped: without torque it may have fallen while nothing was read."""
    fallen = [pos + 0.4 for pos in STANCE]
    assert held_after_a_reset(fallen) == pytest.approx(fallen)


def test_a_reset_holds_a_joint_that_sags_beyond_its_limit_at_the_limit() -> None:
    lower, upper = QUADRUPED.joints[0].position_limit or (0.0, 0.0)
    for beyond, limit in ((upper + 0.1, upper), (lower - 0.1, lower)):
        assert held_after_a_reset([beyond, *STANCE[1:]]) == pytest.approx((limit, *STANCE[1:]))


def held_after_a_reset(fallen: list[float]) -> tuple[float, ...]:
    guard = Guard(QUADRUPED)
    guard.measure(1, 0.0, STANCE, [0.0] * 12)
    for state in (State.ARMED, State.ACTIVE):
        guard.supervise(state, 0, 0.0)
        guard.tick(0.0)
    guard.measure(2, 0.02, [math.nan] * 12, [0.0] * 12)
    stop = guard.tick(0.02)
    assert stop is not None
    assert guard.fault is Reason.MEASUREMENT_NOT_FINITE
    assert stop.command == pytest.approx(STANCE)
    guard.supervise(State.UNCONFIGURED, 1, 0.5)
    assert guard.tick(0.5) is None
    guard.measure(3, 0.52, fallen, [0.0] * 12)
    anchor = guard.written
    held = guard.tick(0.52)
    assert held is not None
    assert held.command == anchor  # nothing jumps from there
    return anchor


def test_after_a_release_torque_waits_for_a_measurement() -> None:
    """A hand may have moved the robot: arming holds it where it is by then."""
    guard = Guard(QUADRUPED)
    guard.measure(1, 0.0, STANCE, [0.0] * 12)
    guard.torque_is_off()
    guard.supervise(State.ARMED, 0, 0.0)
    assert guard.tick(0.0) is None
    moved = [pos + 0.1 for pos in STANCE]
    guard.measure(2, 0.02, moved, [0.0] * 12)
    held = guard.tick(0.02)
    assert held is not None
    assert held.command == pytest.approx(moved)


def test_a_position_command_ends_at_the_position_limit() -> None:
    lower, upper = QUADRUPED.joints[0].position_limit
    at, rest = [upper - 0.01, *STANCE[1:]], [0.0] * 12
    assert Limits(QUADRUPED).apply([9.0, *STANCE[1:]], at, 0.02, at, rest)[0] == upper
    at[0] = lower + 0.01
    assert Limits(QUADRUPED).apply([-9.0, *STANCE[1:]], at, 0.02, at, rest)[0] == lower


def test_velocity_commands_are_eased_to_standstill_at_a_position_limit() -> None:
    robot = FURUTA.model_copy(update={"action": FURUTA.action.model_copy(update={"kind": "velocity"})})
    limits = Limits(robot)
    assert limits.apply((20.0,), (20.0,), 0.02, (2.4, 0.0), (0.0, 0.0)) == pytest.approx((19.6,))  # 20 rad/s^2
    assert limits.apply((0.3,), (0.3,), 0.02, (2.4, 0.0), (0.0, 0.0)) == (0.0,)
    assert limits.apply((-0.3,), (-0.3,), 0.02, (-2.4, 0.0), (0.0, 0.0)) == (0.0,)


def test_a_slow_approach_is_eased_too() -> None:
    # 0.01 rad at 0.5 rad/s are 0.02 s, a fifth of BRAKE_TIME; that is rest, which is not reversed
    command = Limits(FURUTA).apply((0.1,), (0.0,), 0.02, (2.39, 0.0), (0.5, 0.0))
    assert command == pytest.approx((0.12 / 5,))
    # 0.024 rad at 1.2 rad/s, twice as fast as rest: the bound is 0.12 * (-1 + 2 / 5)
    command = Limits(FURUTA).apply((0.1,), (0.0,), 0.02, (2.4 - 0.024, 0.0), (1.2, 0.0))
    assert command == pytest.approx((-0.072,))


def test_a_velocity_robot_is_brought_to_zero_and_a_robot_at_its_pose_is_ready_at_once() -> None:
    robot = FURUTA.model_copy(update={"action": FURUTA.action.model_copy(update={"kind": "velocity"})})
    guard = Guard(robot)
    guard.measure(0, 1.0, (0.0, 0.0), (0.0, 0.0))
    for state in (State.ARMED, State.ACTIVE):
        guard.supervise(state, 0, 1.0)
    assert guard.admit(0, ["arm"], [0.3], 1.0).command == pytest.approx((0.3,))
    guard.supervise(State.HOLD, 0, 1.1)
    stop = guard.tick(1.1)
    assert stop is not None
    assert stop.command == (0.0,)

    guard = Guard(QUADRUPED)
    guard.measure(0, 1.0, STANCE, [0.0] * 12)
    guard.supervise(State.ARMED, 0, 1.0)
    guard.tick(1.0)
    assert guard.admit(0, QUADRUPED.actuated, STANCE, 1.0).reason is Reason.ARMED


def test_a_fault_on_the_way_to_a_pose_holds_the_robot_where_it_is() -> None:
    guard, at = Guard(QUADRUPED), [p + 0.2 for p in STANCE]
    guard.measure(0, 1.0, at, [0.0] * 12)
    guard.supervise(State.ARMED, 0, 1.0)
    for tick in range(1, 20):
        now = 1.0 + 0.02 * tick
        guard.supervise(State.ARMED, 0, now)
        guard.measure(tick, now, at, [0.0] * 12 if tick < 19 else [31.0] + [0.0] * 11)
        stop = guard.tick(now)
        assert stop is not None
    assert guard.fault is Reason.VELOCITY_LIMIT
    assert stop.command == pytest.approx(at)
