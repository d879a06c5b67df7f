"""The motions that the guard makes by itself: to the default pose, to a stop, to the parking pose."""

from __future__ import annotations

import math

import pytest

from landbridge.deploy.guard import GONE_SECONDS, PARKED, REST_SECONDS, SETTLE_SECONDS, Guard
from landbridge.deploy.supervisor import State
from landbridge.verdict import Reason

from .guarded import DT, MS, ZEROS, Bench, spec


def test_arming_leads_a_powered_robot_slowly_from_its_target_to_the_default_pose() -> None:
    bench = Bench("position", state=State.ARMED, position=(0.5, 0.0, 0.5), parking_speed=0.5)
    for bench.state, bench.epoch in ((State.HOLD, 0), (State.STANDBY, 1)):  # held there after some stop
        bench.measure((0.5, 0.0, 0.5))
        for _ in range(50):
            bench.measure((0.5, 0.0, 0.5))
            bench.guard.tick(bench.now)
        assert bench.guard.written == pytest.approx((0.5, 0.5))
    bench.state = State.ARMED
    begun = bench.now + DT
    duration = 15 / 8 * 0.5 / 0.5
    while bench.now < begun + duration:
        bench.measure((0.5, 0.0, 0.5))
        bench.guard.tick(bench.now)
        ready = bench.now + 0.002 >= begun + duration
        assert bench.answer(0.0, 0.0).reason is (Reason.ARMED if ready else Reason.NOT_READY)
    assert ready
    assert bench.guard.written == pytest.approx((0.0, 0.0), abs=1e-3)


@pytest.mark.parametrize("state", [State.HOLD, State.FAULT, State.ESTOP, State.STANDBY])
def test_a_stop_starts_from_where_the_joints_are(state: State) -> None:
    bench = Bench("position")
    bench.answer(0.1, 0.1)
    bench.measure((0.05, 0.0, 0.05))
    bench.state = state
    bench.measure((0.05, 0.0, 0.05))
    stop = bench.guard.tick(bench.now + DT)
    assert stop is not None
    assert stop.command == pytest.approx((0.05, 0.05))


def test_a_stop_after_a_fault_starts_from_where_the_joints_are_and_goes_on_when_the_supervisor_follows() -> None:
    bench = Bench("position")
    bench.answer(0.1, 0.1)
    bench.measure((0.05, 0.0, 0.05), (0.0, 61.0, 0.0))
    for state in (State.ACTIVE, State.HOLD, State.FAULT):
        stop = bench.guard.tick(bench.now)
        assert stop is not None
        assert stop.command == pytest.approx((0.05, 0.05)), state
        bench.state = state
        bench.measure((0.04, 0.0, 0.04))  # what the joints do meanwhile does not matter


def test_a_moving_joint_is_stopped_within_its_acceleration_and_jerk() -> None:
    bench = Bench("position")
    bench.measure((0.04, 0.0, 0.0), (2.0, 0.0, 0.0))
    bench.state = State.HOLD
    targets = []
    for _ in range(5):
        bench.measure((0.08, 0.0, 0.0), (2.0, 0.0, 0.0))
        stop = bench.guard.tick(bench.now)
        assert stop is not None
        targets.append(stop.command[0])
    # T = max(1.5 * 2 / 100, sqrt(6 * 2 / 4000)) = 0.0548 s; the way is 2 * T / 2
    assert targets == pytest.approx([0.08, 0.11564, 0.13291, 0.13477, 0.13477], abs=1e-5)


def test_a_stop_damps_by_the_smaller_of_the_two_speeds() -> None:
    def damped(way: float, speed: float) -> float:
        bench = Bench(state=State.ARMED)
        bench.measure((way, 0.0, 0.0), (speed, 0.0, 0.0))
        stop = bench.guard.tick(bench.now)
        assert stop is not None
        return stop.command[0]

    assert damped(0.04, 3.0) == pytest.approx(-0.2)  # 2 rad/s of the positions
    assert damped(0.04, 1.0) == pytest.approx(-0.1)
    assert damped(-0.04, -1.0) == pytest.approx(0.1)
    assert damped(-0.04, 1.0) == 0.0
    assert damped(0.0, 1.0) == 0.0
    assert damped(0.04, 0.0) == 0.0


@pytest.mark.parametrize(("kind", "state"), [("effort", State.DAMP), ("velocity", State.HOLD)])
def test_a_stop_is_settled_when_it_has_come_to_rest_and_keeps_its_torque(kind: str, state: State) -> None:
    bench = Bench(kind)
    bench.answer(0.0, 0.0)
    bench.measure((0.05, 0.0, 0.0), (2.5, 0.0, 0.0))
    bench.state, moved = state, bench.now
    for count in range(30):
        assert bench.guard.settled(bench.now) == (bench.now - moved >= REST_SECONDS), count
        if count == 0:
            moved = bench.now + DT
        bench.measure((0.1, 0.0, 0.0), (2.5 if count == 0 else 0.0, 0.0, 0.0))
        bench.guard.tick(bench.now)
    assert bench.guard.settled(bench.now)
    assert bench.guard.powered


def test_a_stop_has_ended_a_tenth_of_a_second_after_the_last_motion() -> None:
    guard = Guard(spec("effort"))
    guard.measure(0, -DT, ZEROS, ZEROS)
    guard.supervise(State.ARMED, 0, -DT)
    guard.tick(-DT)
    guard.supervise(State.DAMP, 0, 0.0)
    guard.measure(1, 0.0, ZEROS, (1.0, 0.0, 0.0))
    for count in range(1, 5):
        guard.measure(1 + count, count * DT, ZEROS, ZEROS)
    assert guard.powered
    assert not guard.settled(math.nextafter(REST_SECONDS, 0))
    assert guard.settled(REST_SECONDS)


@pytest.mark.parametrize("state", [State.DAMP, State.PARK])
def test_a_swing_has_not_come_to_rest_where_it_turns(state: State) -> None:
    """A joint that hangs, commanded in effort, to and fro once a second."""
    bench = Bench(heartbeat_timeout_ms=5000)
    bench.answer(0.0, 0.0)
    bench.state, began = state, bench.now
    while bench.now - began < 3.0:
        phase = math.tau * (bench.now + DT - began)
        bench.measure((-0.5 + math.cos(phase), 0.0, 0.0), (-math.tau * math.sin(phase), 0.0, 0.0))
        stop = bench.guard.tick(bench.now)
        assert stop is not None
        assert stop.write
        assert not bench.guard.settled(bench.now)


def test_a_stop_of_a_robot_commanded_in_effort_damps_at_once_and_park_within_its_rate() -> None:
    for state, effort in ((State.DAMP, -0.2), (State.ESTOP, -0.2), (State.PARK, 0.3 - 5 * DT)):
        bench = Bench()
        for _ in range(3):
            bench.measure()
            bench.answer(0.0, 1.0)
        assert bench.guard.written == (0.0, pytest.approx(0.3))
        bench.state = state
        bench.measure((0.0, 0.0, 0.02), (0.0, 0.0, 1.0))  # damping 0.2 N m s/rad
        stop = bench.guard.tick(bench.now)
        assert stop is not None and stop.command == (0.0, pytest.approx(effort, abs=0.01))  # answered 2 ms late
    blind = bench.guard
    bench.state = State.ESTOP
    bench.guard.supervise(State.ESTOP, 0, bench.now)
    nothing = blind.tick(bench.now + 1.0)
    assert nothing is not None and nothing.command == (0.0, 0.0)


def test_a_stop_of_a_robot_commanded_in_velocity_brakes_at_once_and_park_within_its_rate() -> None:
    """`rate_limit` 5 rad/s^2 is how fast the policy may change its mind, and no limit of what brakes."""
    for state, next_speed in ((State.HOLD, 0.0), (State.ESTOP, 0.0), (State.PARK, 0.3 - 5 * DT)):
        bench = Bench("velocity")
        for _ in range(3):
            bench.measure()
            bench.answer(0.0, 1.0)
        assert bench.guard.written == (0.0, pytest.approx(0.3))
        bench.state = state
        bench.measure()
        stop = bench.guard.tick(bench.now)
        assert stop is not None and stop.command == (0.0, pytest.approx(next_speed, abs=0.01))  # answered 2 ms late


def test_a_measurement_that_is_no_good_does_not_count_as_rest() -> None:
    bench = Bench(state=State.ARMED)
    bench.state = State.DAMP
    for _ in range(2):
        began = bench.now
        while bench.now - began < REST_SECONDS + DT:
            bench.measure()
            bench.guard.tick(bench.now)
        assert bench.guard.settled(bench.now)
        bench.measure((math.nan, 0.0, 0.0))
        for _ in range(4):  # nor is what may have happened meanwhile known
            assert not bench.guard.settled(bench.now)
            bench.measure()


def test_a_stop_is_not_settled_before_its_way_has_ended() -> None:
    bench = Bench("position")
    bench.measure((0.2, 0.0, 0.0), (9.0, 0.0, 0.0))
    bench.state = State.HOLD
    bench.guard.supervise(State.HOLD, 0, bench.now)
    assert bench.guard.tick(bench.now) is not None
    ends = bench.now + 1.5 * 9 / 100
    for _ in range(12):
        bench.measure((0.2, 0.0, 0.0))
        bench.guard.tick(bench.now)
        assert bench.guard.settled(bench.now) == (bench.now >= ends)


@pytest.mark.parametrize("kind", ["effort", "velocity", "position"])
@pytest.mark.parametrize("state", [State.UNCONFIGURED, State.STANDBY])
@pytest.mark.parametrize("before", [State.ARMED, State.ACTIVE, State.PARK])
def test_a_supervisor_that_leads_nowhere_from_a_motion_is_another_one(kind: str, state: State, before: State) -> None:
    """Two take turns at the bridge: each ARMED or PARK would begin from where the last STANDBY let a joint sag to."""
    bench = Bench(kind)
    bench.state = before
    bench.measure()
    if before is State.ACTIVE:
        bench.answer(0.1, 0.0)
    assert bench.guard.fault is None
    bench.state = state
    bench.measure()
    assert bench.guard.fault is Reason.MONITOR_REPLACED
    bench.epoch += 1
    bench.measure()
    assert bench.guard.fault is None


@pytest.mark.parametrize(("seconds", "over"), [(GONE_SECONDS, True), (GONE_SECONDS - 0.001, False)])
def test_a_stop_that_nothing_tells_of_is_given_a_while(seconds: float, over: bool) -> None:
    """Hardware that is gone: joints that still obey come to rest meanwhile, and limp ones have fallen."""
    bench = Bench("position")
    bench.state = State.HOLD
    bench.measure((math.nan,) * 3)
    began = bench.now
    bench.state = State.FAULT  # of the same stop
    bench.measure((math.nan,) * 3)
    assert bench.guard.settled(began + seconds, gone=True) is over
    assert not bench.guard.settled(began + seconds)


def test_a_stop_pulls_no_more_at_a_target_that_was_not_reached_however_slow_targets_may_be() -> None:
    bench = Bench("position")
    for target in (0.4, 0.8):
        bench.measure()
        bench.answer(target, 0.0)
    assert bench.guard.written[0] == pytest.approx(0.8)
    bench.state = State.ESTOP
    bench.measure((0.1, 0.0, 0.0))
    stop = bench.guard.tick(bench.now)
    assert stop is not None
    assert stop.command[0] == pytest.approx(0.1)  # and not 0.8 - 0.4, the joint's rate


def test_a_robot_at_work_that_stands_still_is_not_at_the_end_of_a_stop() -> None:
    """The way to its pose has ended long ago, and belongs to ARMED."""
    bench = Bench("position", state=State.ARMED)
    for _ in range(5):
        bench.measure()
        bench.guard.tick(bench.now)
    assert bench.guard.settled(bench.now)
    bench.state = State.ACTIVE
    bench.measure()
    assert not bench.guard.settled(bench.now)


def test_what_is_parked_may_be_told_so() -> None:
    guard = Guard(spec())
    guard.measure(0, 0.0, ZEROS, ZEROS)
    for state in (State.PARK, State.STANDBY, State.UNCONFIGURED):
        guard.supervise(state, 0, 0.0)
    assert guard.fault is None


def test_park_goes_on_from_the_last_target() -> None:
    bench = Bench("position")
    bench.answer(0.1, 0.1)
    bench.state = State.PARK
    bench.measure((0.05, 0.0, 0.05))
    stop = bench.guard.tick(bench.now)
    assert stop is not None
    assert (stop.reason, stop.command) == (Reason.NOT_ACTIVE, pytest.approx((0.1, 0.1)))


@pytest.mark.parametrize("kind", ["effort", "velocity"])
def test_park_ends_with_torque_off_once_every_actuated_joint_rests(kind: str) -> None:
    """Wherever that is: what is not commanded in position has no pose to go to."""
    bench = Bench(kind, position=(0.5, 0.0, 0.0), heartbeat_timeout_ms=5000)
    bench.answer(0.0, 0.0)
    bench.state = State.PARK
    began = bench.now + DT
    for velocity in ((0.61, 0, 0), (0, 0, 0.21), (0.6, 60, 0.2), (-0.6, -60, -0.2)):
        bench.measure((0.5 + 0.001 * bench.stamp / MS, 0.0, 0.0), velocity)
        stop = bench.guard.tick(bench.now)
        assert stop is not None
        assert (stop.reason, stop.write, stop.release) == (Reason.NOT_ACTIVE, True, False)
        assert bench.guard.powered
        assert not bench.guard.settled(bench.now)
    bench.measure((0.5, 0.0, 0.0), (0.0, 0.0, 0.2))
    for now in (bench.now, math.nextafter(began + SETTLE_SECONDS, 0)):  # it may only begin to sink
        bench.guard.supervise(State.PARK, 0, now)
        damped = bench.guard.tick(now)
        assert damped is not None
        assert damped.write
    bench.guard.supervise(State.PARK, 0, began + SETTLE_SECONDS)
    end = bench.guard.tick(began + SETTLE_SECONDS)
    assert end is not None
    assert (end.reason, end.write, end.release) == (Reason.PARKED, False, True)
    assert not bench.guard.powered
    assert bench.guard.settled(bench.now)
    assert bench.guard.tick(bench.now + DT) == end  # what has not been heard is said again


@pytest.mark.parametrize("kind", ["effort", "velocity"])
def test_a_joint_that_the_policy_has_held_has_not_yet_rested_in_park(kind: str) -> None:
    bench = Bench(kind, heartbeat_timeout_ms=5000)
    for _ in range(30):
        bench.measure()
        bench.answer(0.0, 0.0)
    bench.now = 101.0  # exact in binary
    bench.measure(period=0.0)
    bench.answer(0.0, 0.0)
    bench.state = State.PARK
    for now in (101.0, math.nextafter(101.0 + SETTLE_SECONDS, 0)):
        bench.guard.supervise(State.PARK, 0, now)
        let_down = bench.guard.tick(now)
        assert let_down is not None
        assert let_down.write
    bench.guard.supervise(State.PARK, 0, 101.0 + SETTLE_SECONDS)
    released = bench.guard.tick(101.0 + SETTLE_SECONDS)
    assert released is not None
    assert released.release


@pytest.mark.parametrize("kind", ["effort", "position"])
def test_park_takes_torque_off_drives_that_this_guard_never_commanded(kind: str) -> None:
    """A bridge restarted over powered drives; drives that hold beside one that has lost its torque."""
    guard = Guard(spec(kind))
    guard.supervise(State.STANDBY, 0, 0.0)
    assert guard.tick(0.0) is None
    guard.supervise(State.PARK, 0, 0.0)
    for count in range(2):  # before any measurement, and after one
        off = guard.tick(0.0)
        assert off is not None
        assert (off.command, off.reason, off.write, off.release) == ((0.0, 0.0), Reason.PARKED, False, True)
        guard.measure(count, 0.0, ZEROS, ZEROS)
    guard.measure(2, DT, ZEROS, (31.0, 0.0, 0.0))
    assert guard.fault is Reason.VELOCITY_LIMIT
    assert guard.tick(DT) is None


def test_park_ends_no_sooner_than_its_way_does() -> None:
    bench = Bench("position", parking_pose={"left": 0.5}, parking_speed=1.0)
    bench.answer(0.0, 0.0)
    bench.state = State.PARK
    begun, left = bench.now + DT, 0.0
    while bench.guard.powered:
        bench.measure((left, 0.0, 0.0))
        stop = bench.guard.tick(bench.now)
        assert stop is not None
        assert stop.release == (bench.now >= begun + 15 / 8 * 0.5)
        left = stop.command[0]
    assert stop.command == pytest.approx((0.5, 0.0))


@pytest.mark.parametrize(("periods", "again"), [(2.99, False), (3.01, True)])
def test_a_way_that_was_left_is_begun_anew_and_not_caught_up_with(periods: float, again: bool) -> None:
    """A bridge that stood still for a while: its robot has come to rest at the last target."""
    bench = Bench("position", parking_pose={"left": 0.5}, parking_speed=1.0)
    bench.answer(0.0, 0.0)
    bench.state = State.PARK
    steps, left = [], 0.0
    while bench.guard.powered:
        paused = len(steps) == 24
        bench.measure((left, 0.0, 0.0), period=(periods if paused else 1) * DT)
        stop = bench.guard.tick(bench.now)
        assert stop is not None
        steps.append(stop.command[0] - left)
        left = stop.command[0]
    assert steps[23] == pytest.approx(DT * 1.0, rel=0.01)  # at its largest speed
    assert (steps[24] == 0.0) is again
    assert max(steps) < (1 if again else periods) * DT * 1.001
    assert left == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("rate", "pause", "again"),
    [
        (1 / DT, 3 * DT, False),
        (1 / DT, math.nextafter(3 * DT, 1.0), True),
        (1000.0, 0.0599, False),  # three periods are 3 ms there, which no computer keeps to
        (1000.0, 0.0601, True),
    ],
)
def test_three_periods_are_no_pause_yet(rate: float, pause: float, again: bool) -> None:
    guard = Guard(spec("position", default=(0.5, 0.0)).model_copy(update={"control_rate_hz": rate}))
    for stamp, at in enumerate((0.0, pause)):
        guard.measure(stamp, at, ZEROS, ZEROS)
        guard.supervise(State.ARMED, 0, at)
        stop = guard.tick(at)
        assert stop is not None
    assert (stop.command[0] == 0.0) is again


@pytest.mark.parametrize("pause", [DT, 1.0])
def test_where_a_stop_has_ended_is_held_through_a_pause(pause: float) -> None:
    """To hold anew where the joints are would let one that sags under its load down with every pause."""
    bench = Bench("position")
    bench.state = State.FAULT
    for left, period in ((0.0, DT), (-0.1, pause)):
        bench.measure((left, 0.0, 0.0), period=period)
        stop = bench.guard.tick(bench.now)
        assert stop is not None
        assert stop.command == (0.0, 0.0)


@pytest.mark.parametrize("off", [-PARKED, PARKED])
def test_torque_stays_on_a_robot_that_something_keeps_from_its_parking_pose(off: float) -> None:
    """Its trajectory ends all the same."""
    bench = Bench("position", parking_speed=1.0)
    bench.answer(0.0, 0.0)
    bench.state = State.PARK
    for _ in range(100):
        bench.measure((math.nextafter(off, 2 * off), 0.0, 0.0))
        stop = bench.guard.tick(bench.now)
        assert stop is not None
        assert (stop.reason, stop.release) == (Reason.NOT_ACTIVE, False)
    assert stop.command == pytest.approx((0.0, 0.0))
    bench.measure((off, 0.0, 0.0))
    released = bench.guard.tick(bench.now)
    assert released is not None
    assert released.release
