"""The supervisor: exhaustive over its model, and timeouts by hand."""

from __future__ import annotations

from landbridge.deploy.supervisor import ADMISSIBLE_TO_ACTIVATE, ARM_TIMEOUT, TRANSITIONS, Event, State, Supervisor
from landbridge.robot import load_robot

SPEC = load_robot("furuta").spec


def active(now: float = 0.0) -> Supervisor:
    supervisor = Supervisor(SPEC)
    supervisor.bridge_seen(now)
    assert supervisor.handle(Event.CONFIGURED, now).accepted
    assert supervisor.handle(Event.ARM, now).accepted
    for _ in range(ADMISSIBLE_TO_ACTIVATE):
        supervisor.command_judged(True, now)
    assert supervisor.state is State.ACTIVE
    return supervisor


def paths(start: State, goal: State, without: set[Event]) -> bool:
    """Whether `goal` can be reached from `start` by events outside `without`."""
    reached, front = {start}, [start]
    while front:
        state = front.pop()
        for event in set(Event) - without:
            following = TRANSITIONS.get((state, event))
            if following is not None and following not in reached:
                reached.add(following)
                front.append(following)
    return goal in reached


def test_estop_and_fault_need_a_reset_and_a_separate_arm() -> None:
    for latched in (State.ESTOP, State.FAULT):
        assert paths(latched, State.ACTIVE, set())
        for missing in (Event.RESET, Event.ARM, Event.ADMISSIBLE, Event.CONFIGURED):
            assert not paths(latched, State.ACTIVE, {missing})
        leaving = [e for e in Event if TRANSITIONS.get((latched, e), latched) is not latched]
        assert leaving == ([Event.RESET] if latched is State.ESTOP else [Event.ESTOP, Event.RESET])


def test_estop_is_heard_in_every_state_and_active_is_entered_from_armed_only() -> None:
    assert all(TRANSITIONS[(state, Event.ESTOP)] is State.ESTOP for state in State)
    assert [key for key, state in TRANSITIONS.items() if state is State.ACTIVE] == [(State.ARMED, Event.ADMISSIBLE)]


def test_an_event_unknown_to_a_state_is_refused_and_changes_nothing() -> None:
    for state in State:
        for event in Event:
            if (state, event) in TRANSITIONS:
                continue
            supervisor = Supervisor(SPEC)
            supervisor.state = state
            answer = supervisor.handle(event, 0.0)
            assert not answer.accepted
            assert state.value in answer.message
            assert (supervisor.state, supervisor.epoch) == (state, 0)


def test_reset_is_refused_while_the_bridge_is_silent_and_raises_the_epoch_otherwise() -> None:
    supervisor = active()
    supervisor.handle(Event.ESTOP, 0.1)
    assert not supervisor.handle(Event.RESET, 0.5).accepted
    assert (supervisor.state, supervisor.epoch) == (State.ESTOP, 0)
    supervisor.bridge_seen(0.5)
    assert supervisor.handle(Event.RESET, 0.5).accepted
    assert (supervisor.state, supervisor.epoch) == (State.UNCONFIGURED, 1)


def test_admissible_commands_must_come_in_a_row() -> None:
    supervisor = active()
    supervisor.handle(Event.DISARM, 1.0)
    supervisor.handle(Event.ARM, 1.0)
    for admissible in (True, True, False, True, True):
        supervisor.command_judged(admissible, 1.0)
        assert supervisor.state is State.ARMED
    supervisor.command_judged(True, 1.0)
    assert supervisor.state is State.ACTIVE


def test_a_bridge_lost_in_standby_is_waited_for() -> None:
    supervisor = active()
    supervisor.handle(Event.DISARM, 0.0)
    for now in (0.26, 0.3):
        supervisor.tick(now)
    assert (supervisor.state, supervisor.reason) == (State.UNCONFIGURED, "bridge_lost")
    assert not supervisor.handle(Event.CONFIGURED, 0.4).accepted
    supervisor.bridge_seen(0.4)
    assert supervisor.handle(Event.CONFIGURED, 0.4).accepted


def test_silence_of_the_bridge_and_a_barren_arm_become_faults_in_time() -> None:
    supervisor = active()
    for now in (0.1, 0.15, 0.2):
        supervisor.tick(now)
        assert supervisor.state is State.ACTIVE
    supervisor.tick(0.2001)
    assert (supervisor.state, supervisor.reason) == (State.FAULT, "bridge_lost")

    supervisor = active()
    supervisor.handle(Event.DISARM, 0.0)
    supervisor.handle(Event.ARM, 0.0)
    for now in (ARM_TIMEOUT, ARM_TIMEOUT + 0.001):
        supervisor.bridge_seen(now)
        assert supervisor.state is State.ARMED
        supervisor.tick(now)
    assert (supervisor.state, supervisor.reason) == (State.FAULT, "arm_timeout")


def test_a_supervisor_that_slept_reads_its_messages_before_it_judges() -> None:
    supervisor = active()
    supervisor.tick(0.0)
    supervisor.tick(0.5)
    assert supervisor.state is State.ACTIVE
    supervisor.tick(0.54)
    assert (supervisor.state, supervisor.reason) == (State.FAULT, "bridge_lost")


def test_a_controller_without_measurements_is_not_the_one_that_is_lost() -> None:
    for heard, reason in ((0.05, "controller_lost"), (0.03, "bridge_lost")):
        supervisor = active()
        supervisor.bridge_seen(heard)
        supervisor.controller_lost(0.1)  # 3 control periods are 0.06 s
        assert (supervisor.state, supervisor.reason) == (State.FAULT, reason)


def test_a_restarted_monitor_takes_the_bridges_epoch() -> None:
    supervisor = Supervisor(SPEC)
    supervisor.adopt_epoch(7)
    supervisor.adopt_epoch(3)
    assert supervisor.epoch == 7
