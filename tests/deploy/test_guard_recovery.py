"""What a fault leaves behind, and the one way back to motion: reset, then ARMED."""

from __future__ import annotations

import math

import pytest

from landbridge.deploy.guard import Guard
from landbridge.deploy.supervisor import STOPS, State
from landbridge.verdict import Reason

from .guarded import ZEROS, Bench, spec


def test_nothing_is_written_before_the_first_heartbeat_and_the_first_measurement() -> None:
    for kind in ("effort", "position"):
        guard = Guard(spec(kind))
        assert guard.tick(0.0) is None
        guard.supervise(State.ARMED, 0, 0.0)
        assert guard.tick(0.0) is None
        guard.measure(0, 0.0, ZEROS, ZEROS)
        stop = guard.tick(0.0)
        assert stop is not None
        assert guard.powered


def test_active_without_armed_before_it_is_a_fault_and_brings_no_torque() -> None:
    guard = Guard(spec())
    guard.supervise(State.ACTIVE, 0, 1.0)
    guard.measure(1, 1.0, ZEROS, ZEROS)
    assert guard.fault is Reason.NOT_ARMED
    assert guard.admit(1, ("left", "right"), (0.1, 0.1), 1.0).reason is Reason.LATCHED
    assert guard.tick(1.0) is None
    assert not guard.powered


def test_after_a_reset_only_armed_leads_to_active() -> None:
    bench = Bench()
    bench.measure(velocity=(31.0, 0.0, 0.0))
    assert bench.guard.fault is Reason.VELOCITY_LIMIT
    bench.epoch += 1
    bench.measure()
    assert bench.guard.fault is Reason.NOT_ARMED
    bench.epoch += 1
    for state, reason in ((State.STANDBY, Reason.NOT_ACTIVE), (State.ARMED, Reason.ARMED), (State.ACTIVE, Reason.OK)):
        bench.state = state
        bench.measure()
        bench.guard.tick(bench.now)
        assert bench.answer(0.0, 0.0).reason is reason


def test_a_reset_while_active_needs_armed_again() -> None:
    bench = Bench()
    bench.epoch += 1
    bench.measure()
    assert bench.guard.fault is Reason.NOT_ARMED


@pytest.mark.parametrize("stop", [State.ESTOP, State.HOLD])
def test_after_a_reset_a_stop_of_the_supervisors_is_no_place_to_go_either(stop: State) -> None:
    """The e-stop, and what only the monitor has seen: the robot may have moved as well."""
    bench = Bench("position")
    bench.state = stop
    for _ in range(5):
        bench.measure()
        bench.guard.tick(bench.now)
    assert bench.guard.fault is Reason.STOPPED
    bench.measure((math.nan,) * 3)  # hardware that has a fault; meanwhile the joint sags
    bench.epoch += 1
    bench.state = State.UNCONFIGURED
    bench.guard.supervise(bench.state, bench.epoch, bench.now)
    assert bench.guard.tick(bench.now) is None
    bench.measure((0.4, 0.0, 0.0))
    held = bench.guard.tick(bench.now)
    assert held is not None
    assert held.command == pytest.approx((0.4, 0.0))


def test_an_old_epoch_does_not_unlatch() -> None:
    bench = Bench()
    bench.epoch = 4
    for state in (State.ARMED, State.ACTIVE):
        bench.state = state
        bench.measure()
    bench.measure(velocity=(31.0, 0.0, 0.0))
    assert bench.guard.fault is Reason.VELOCITY_LIMIT
    for epoch in (0, 4):  # a restarted monitor; the epoch of the fault itself
        bench.epoch = epoch
        bench.measure()
        assert bench.answer(0.1, 0.0).reason is Reason.LATCHED
        assert (bench.guard.fault, bench.guard.epoch) == (Reason.VELOCITY_LIMIT, 4)


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("before", [State.ARMED, State.ACTIVE, State.PARK])
def test_a_stop_of_a_supervisor_that_died_is_still_a_stop_for_the_next_one(stop: State, before: State) -> None:
    """The reason for it was known to the supervisor alone; the new one begins where nothing is wrong."""
    bench = Bench("position", state=State.ARMED, parking_pose={"left": 0.5})
    for bench.state in (before, stop):
        bench.measure()
        bench.guard.tick(bench.now)
    held = bench.guard.written
    for bench.state in (State.UNCONFIGURED, State.STANDBY, State.ARMED, State.ACTIVE, State.PARK):
        bench.measure((0.01, 0.0, 0.0))
        stopped = bench.guard.tick(bench.now)
        assert bench.guard.fault is Reason.STOPPED
        assert stopped is not None
        assert (stopped.command, stopped.reason, stopped.release) == (held, Reason.STOPPED, False)
        assert bench.answer(0.1, 0.0).reason is Reason.LATCHED
    assert bench.guard.counters["fault.stopped"] == 1
    bench.epoch += 1
    bench.state = State.STANDBY
    bench.measure()
    assert bench.guard.fault is None


def test_a_stop_says_first_what_made_it() -> None:
    bench = Bench()
    bench.measure(velocity=(31.0, 0.0, 0.0))
    for bench.state in (State.DAMP, State.FAULT, State.ESTOP):
        bench.measure()
        assert bench.guard.fault is Reason.VELOCITY_LIMIT
    bench.epoch += 1  # with the news of another stop in the same message
    bench.measure()
    assert bench.guard.fault is Reason.STOPPED
