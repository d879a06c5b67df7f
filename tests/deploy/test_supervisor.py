"""The supervisor: exhaustive over its model, and timeouts by hand."""

from __future__ import annotations

import math

import pytest

from landbridge.deploy.supervisor import (
    ADMISSIBLE_TO_ACTIVATE,
    ARM_TIMEOUT,
    COMMANDED,
    RECOVERIES,
    RECOVERY_TIMEOUT,
    Event,
    State,
    Supervisor,
    timeouts,
    transitions,
)
from landbridge.robot import RobotSpec, load_robot

from .guarded import spec as guarded_spec

FURUTA, QUADRUPED = load_robot("furuta").spec, load_robot("quadruped").spec
STOPS = (State.HOLD, State.DAMP)
LATCHED = (State.FAULT, State.ESTOP)


def active(now: float = 0.0, spec: RobotSpec = FURUTA) -> Supervisor:
    supervisor = Supervisor(spec)
    supervisor.bridge_seen(now)
    assert supervisor.handle(Event.CONFIGURED, now).accepted
    assert supervisor.handle(Event.ARM, now).accepted
    for _ in range(ADMISSIBLE_TO_ACTIVATE):
        supervisor.command_judged(True, now)
    assert supervisor.state is State.ACTIVE
    return supervisor


def reachable(start: State, stop: State, without: set[Event]) -> set[State]:
    """States that events outside `without` lead to from `start`."""
    table, reached, front = transitions(stop), {start}, [start]
    while front:
        state = front.pop()
        for event in set(Event) - without:
            following = table.get((state, event))
            if following is not None and following not in reached:
                reached.add(following)
                front.append(following)
    return reached


@pytest.mark.parametrize("stop", STOPS)
def test_every_stop_needs_a_reset_and_a_separate_arm(stop: State) -> None:
    for latched in (*LATCHED, stop):
        assert State.ACTIVE in reachable(latched, stop, set())
        for missing in (Event.RESET, Event.ARM, Event.ADMISSIBLE, Event.CONFIGURED):
            also = {Event.PARK} if missing is Event.CONFIGURED else set()  # which leads to STANDBY as well, at rest
            assert State.ACTIVE not in reachable(latched, stop, {missing, *also})
        assert not {*COMMANDED, State.PARK} & reachable(latched, stop, {Event.RESET})
        assert not {*COMMANDED, State.PARK} & reachable(latched, stop, {Event.ARM, Event.PARK})


@pytest.mark.parametrize("stop", STOPS)
def test_what_leads_out_of_every_state(stop: State) -> None:
    table = transitions(stop)
    other = State.HOLD if stop is State.DAMP else State.DAMP
    leaving = {
        state: {e.value: table[state, e] for e in Event if table.get((state, e), state) is not state} for state in State
    }
    faults = dict.fromkeys(("bridge_fault", "controller_lost", "foreign_publisher"), stop)
    lost = {"bridge_lost": State.FAULT, "estop": State.ESTOP}
    parks = {"disarm": State.PARK, "bridge_warning": State.PARK}
    ends = {"settled": State.FAULT, "not_settled": State.FAULT}
    assert leaving == {
        State.UNCONFIGURED: {
            "configured": State.STANDBY,
            "park": State.PARK,
            "bridge_fault": State.FAULT,
            "estop": State.ESTOP,
        },
        State.STANDBY: {
            "arm": State.ARMED,
            "park": State.PARK,
            "bridge_fault": State.FAULT,
            "bridge_lost": State.UNCONFIGURED,
            "estop": State.ESTOP,
        },
        State.ARMED: {"admissible": State.ACTIVE, "arm_timeout": stop, **parks, **faults, **lost},
        State.ACTIVE: {**parks, **faults, **lost},
        State.PARK: {"settled": State.STANDBY, "not_settled": State.FAULT, "bridge_fault": stop, **lost},
        stop: {**ends, **lost},
        other: {"estop": State.ESTOP},  # no state of this robot
        State.FAULT: {"reset": State.UNCONFIGURED, "estop": State.ESTOP},
        State.ESTOP: {"reset": State.UNCONFIGURED},
    }
    assert other not in reachable(State.UNCONFIGURED, stop, set())


@pytest.mark.parametrize("stop", STOPS)
def test_estop_is_heard_in_every_state_and_active_is_entered_from_armed_only(stop: State) -> None:
    table = transitions(stop)
    assert all(table[(state, Event.ESTOP)] is State.ESTOP for state in State)
    assert [key for key, state in table.items() if state is State.ACTIVE] == [(State.ARMED, Event.ADMISSIBLE)]


def test_a_warning_parks_the_robot_and_keeps_it_from_being_armed() -> None:
    supervisor = active(spec=QUADRUPED)
    supervisor.warned("", 1.0)
    assert supervisor.state is State.ACTIVE
    supervisor.warned("servo_temperature:knee", 1.0)
    assert (supervisor.state, supervisor.reason) == (State.PARK, "servo_temperature:knee")
    supervisor.settled("PARK", 2.0)
    supervisor.warned("servo_temperature:hip", 2.0)  # nothing moves
    assert (supervisor.state, supervisor.reason) == (State.STANDBY, "servo_temperature:knee")
    answer = supervisor.handle(Event.ARM, 2.0)
    assert (answer.accepted, answer.message) == (False, "arm refused while there is servo_temperature:hip")
    assert supervisor.handle(Event.PARK, 2.0).accepted
    supervisor.settled("PARK", 3.0)
    supervisor.warned("", 3.0)
    assert supervisor.handle(Event.ARM, 3.0).accepted


def test_a_warning_does_not_hold_up_a_stop_nor_the_park_after_it() -> None:
    supervisor = active(spec=QUADRUPED)
    supervisor.handle(Event.BRIDGE_FAULT, 1.0, "silent")
    supervisor.warned("servo_temperature:knee", 1.0)
    supervisor.settled("HOLD", 1.0)
    assert (supervisor.state, supervisor.reason) == (State.FAULT, "silent")
    supervisor.bridge_seen(1.0)
    for event in (Event.RESET, Event.CONFIGURED, Event.PARK):
        assert supervisor.handle(event, 1.0).accepted
    assert supervisor.state is State.PARK


def test_an_effort_robot_damps_and_any_other_holds() -> None:
    velocity = QUADRUPED.model_copy(update={"action": QUADRUPED.action.model_copy(update={"kind": "velocity"})})
    for spec, stop in ((FURUTA, State.DAMP), (QUADRUPED, State.HOLD), (velocity, State.HOLD)):
        supervisor = active(spec=spec)
        supervisor.handle(Event.BRIDGE_FAULT, 0.0, "silent")
        assert (supervisor.state, supervisor.reason) == (stop, "silent")


@pytest.mark.parametrize("spec", [FURUTA, QUADRUPED])
def test_an_event_unknown_to_a_state_is_refused_and_changes_nothing(spec: RobotSpec) -> None:
    table = transitions(State.DAMP if spec is FURUTA else State.HOLD)
    for state in State:
        for event in Event:
            supervisor = Supervisor(spec)
            supervisor.bridge_seen(0.0)
            supervisor.state = state
            answer = supervisor.handle(event, 0.0)
            assert answer.accepted == ((state, event) in table)
            if answer.accepted:
                assert supervisor.state is table[state, event]
                assert answer.message == supervisor.state.value
            else:
                assert answer.message == f"{event.value} refused in {state.value} (starting)"
                assert (supervisor.state, supervisor.epoch) == (state, 0)


def test_the_start() -> None:
    supervisor = Supervisor(FURUTA)
    assert (supervisor.state, supervisor.reason, supervisor.epoch) == (State.UNCONFIGURED, "starting", 0)
    answer = supervisor.handle(Event.CONFIGURED, 0.0)
    assert (answer.accepted, answer.message) == (False, "configured refused: nothing heard from the bridge")


def test_reset_is_refused_while_the_bridge_is_silent_and_raises_the_epoch_otherwise() -> None:
    supervisor = active()
    supervisor.handle(Event.ESTOP, 0.1)
    assert not supervisor.handle(Event.RESET, 0.5).accepted
    assert (supervisor.state, supervisor.epoch) == (State.ESTOP, 0)
    supervisor.bridge_seen(0.5)
    supervisor.settled("ESTOP", 0.5)
    assert supervisor.handle(Event.RESET, 0.5).accepted
    assert (supervisor.state, supervisor.epoch) == (State.UNCONFIGURED, 1)
    supervisor.handle(Event.ESTOP, 0.5)
    supervisor.settled("ESTOP", 0.5)
    assert supervisor.handle(Event.RESET, 0.5).accepted
    assert supervisor.epoch == 2


def test_an_estop_is_reset_once_the_robot_rests_or_has_failed_to() -> None:
    supervisor = active()
    refused = (False, "reset refused: the robot has not come to rest")
    for state in (State.ESTOP, State.ESTOP, State.ESTOP):
        supervisor.handle(Event.ESTOP, 1.0)
        supervisor.bridge_seen(1.0)
        for news in ("", "DAMP"):  # the latter of before the e-stop
            supervisor.settled(news, 1.0)
            answer = supervisor.handle(Event.RESET, 1.0)
            assert (answer.accepted, answer.message, supervisor.state) == (*refused, state)
    supervisor.settled("ESTOP", 1.0)
    assert supervisor.state is State.ESTOP
    supervisor.handle(Event.ESTOP, 1.0)  # once more, at rest
    assert (supervisor.reason, supervisor.epoch) == ("estop", 0)
    supervisor.settled("", 1.0)  # pushed
    assert not supervisor.handle(Event.RESET, 1.0).accepted
    supervisor.settled("ESTOP", 1.0)
    assert supervisor.handle(Event.RESET, 1.0).accepted

    supervisor.handle(Event.ESTOP, 2.0)
    for now, accepted in ((2.0 + RECOVERY_TIMEOUT, False), (2.0 + RECOVERY_TIMEOUT + 0.001, True)):
        supervisor.bridge_seen(now)
        assert supervisor.handle(Event.RESET, now).accepted is accepted


def test_a_fault_is_reset_once_the_robot_rests_or_has_failed_to() -> None:
    refused = (False, "reset refused: the robot has not come to rest")
    supervisor = active(spec=QUADRUPED)
    supervisor.handle(Event.BRIDGE_LOST, 1.0)  # it hung, and goes on: the robot is still in motion
    supervisor.bridge_seen(1.0)
    for news, accepted in (("", False), ("HOLD", False), ("FAULT", True)):
        supervisor.settled(news, 1.0)
        answer = supervisor.handle(Event.RESET, 1.0)
        assert accepted or (answer.accepted, answer.message) == refused
    assert supervisor.state is State.UNCONFIGURED

    supervisor = active(1.0, spec=QUADRUPED)
    supervisor.handle(Event.BRIDGE_FAULT, 1.0)
    supervisor.settled("HOLD", 1.0)  # at rest: that is how it came to FAULT
    assert supervisor.handle(Event.RESET, 1.0).accepted

    for event, reason in ((Event.BRIDGE_FAULT, "silent"), (Event.BRIDGE_LOST, "bridge_lost")):
        supervisor = active(spec=QUADRUPED)
        supervisor.handle(event, 1.0, reason)
        for now, accepted in ((1.0 + RECOVERY_TIMEOUT, False), (1.0 + RECOVERY_TIMEOUT + 0.001, True)):
            supervisor.bridge_seen(now)
            supervisor.tick(now)  # HOLD becomes FAULT, which is no new stop
            assert supervisor.handle(Event.RESET, now).accepted is accepted


def test_an_estop_of_a_robot_that_is_stopped_already_is_a_new_stop() -> None:
    supervisor = active()
    supervisor.handle(Event.BRIDGE_LOST, 1.0)
    supervisor.handle(Event.ESTOP, 40.0)
    supervisor.bridge_seen(40.0)
    assert not supervisor.handle(Event.RESET, 40.0).accepted
    supervisor.settled("ESTOP", 40.0)
    assert supervisor.handle(Event.RESET, 40.0).accepted


def test_admissible_commands_must_come_in_a_row() -> None:
    supervisor = active()
    supervisor.handle(Event.DISARM, 1.0)
    supervisor.settled("PARK", 1.0)
    supervisor.command_judged(True, 1.0)
    supervisor.handle(Event.ARM, 1.0)
    for admissible in (True, True, False, True, True):
        supervisor.command_judged(admissible, 1.0)
        assert supervisor.state is State.ARMED
    supervisor.command_judged(True, 1.0)
    assert supervisor.state is State.ACTIVE


def test_a_stop_ends_when_the_guard_says_so_and_keeps_its_reason() -> None:
    supervisor = active(spec=QUADRUPED)
    supervisor.handle(Event.BRIDGE_FAULT, 1.0, "silent")
    for other in ("", "DAMP", "PARK"):
        supervisor.settled(other, 1.0)
        assert supervisor.state is State.HOLD
    supervisor.settled("HOLD", 1.0)
    assert (supervisor.state, supervisor.reason) == (State.FAULT, "silent")
    supervisor.settled("FAULT", 1.0)
    assert supervisor.state is State.FAULT


def test_park_ends_in_standby() -> None:
    supervisor = active()
    supervisor.handle(Event.DISARM, 1.0)
    assert (supervisor.state, supervisor.reason) == (State.PARK, "disarm")
    supervisor.settled("PARK", 2.0)
    assert (supervisor.state, supervisor.reason) == (State.STANDBY, "disarm")


@pytest.mark.parametrize(("event", "reason"), [(Event.BRIDGE_FAULT, "silent"), (Event.DISARM, "not_settled")])
def test_a_recovery_that_does_not_end_becomes_a_fault(event: Event, reason: str) -> None:
    supervisor = active()
    supervisor.handle(event, 1.0, "silent")
    for now in (1.0 + RECOVERY_TIMEOUT, 1.0 + RECOVERY_TIMEOUT + 0.001):
        supervisor.bridge_seen(now)
        assert supervisor.state in RECOVERIES
        supervisor.tick(now)
    assert (supervisor.state, supervisor.reason) == (State.FAULT, reason)


def test_a_bridge_lost_in_standby_is_waited_for() -> None:
    supervisor = active()
    supervisor.handle(Event.DISARM, 0.0)
    supervisor.settled("PARK", 0.0)
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
    supervisor.settled("PARK", 0.0)
    supervisor.handle(Event.ARM, 1.0)
    for now in (1.0 + ARM_TIMEOUT, 1.0 + ARM_TIMEOUT + 0.001):
        supervisor.bridge_seen(now)
        assert supervisor.state is State.ARMED
        supervisor.tick(now)
    assert (supervisor.state, supervisor.reason) == (State.DAMP, "arm_timeout")


def test_only_arming_and_recoveries_run_out_of_time() -> None:
    supervisor = active()
    supervisor.bridge_seen(1000.0)
    supervisor.tick(1000.0)
    assert supervisor.state is State.ACTIVE


@pytest.mark.parametrize(
    ("kind", "speed", "seconds"), [("position", 0.1, 56.25 + 5), ("position", 1.0, 0), ("effort", 0.1, 0)]
)
def test_a_robot_that_is_led_slowly_is_given_the_time(kind: str, speed: float, seconds: float) -> None:
    """3 rad from one limit to the other take 15/8 * 3 / 0.1 s."""
    for event, state, least in ((Event.ARM, State.ARMED, ARM_TIMEOUT), (Event.PARK, State.PARK, RECOVERY_TIMEOUT)):
        supervisor = Supervisor(guarded_spec(kind, parking_speed=speed))
        supervisor.bridge_seen(math.inf)
        supervisor.handle(Event.CONFIGURED, 0.0)
        supervisor.handle(event, 0.0)
        supervisor.tick(max(least, seconds) - 0.01)
        assert supervisor.state is state
        supervisor.tick(max(least, seconds) + 0.01)
        assert supervisor.state is not state


def test_a_joint_without_limits_is_given_the_time_for_all_that_a_command_can_ask() -> None:
    """From -8 to 8 rad at 0.5 rad/s: 15/8 * 16 / 0.5 s and a margin."""
    spec = guarded_spec("position", parking_speed=0.5)
    far = spec.model_copy(update={"action": spec.action.model_copy(update={"scale": {"left": 1.0, "right": 8.0}})})
    assert far.joint("right").position_limit is None
    assert timeouts(far) == (pytest.approx(60 + 5, abs=1), pytest.approx(60 + 5, abs=1))


def test_a_supervisor_that_slept_reads_its_messages_before_it_judges() -> None:
    supervisor = active()
    for now in (0.0, 0.04, 0.5):
        supervisor.tick(now)
    assert supervisor.state is State.ACTIVE
    supervisor.tick(0.54)
    assert (supervisor.state, supervisor.reason) == (State.FAULT, "bridge_lost")


def test_a_supervisor_that_is_late_again_and_again_is_excused_once() -> None:
    """On a busy computer it may tick just often enough for its own heartbeat, and a bridge is lost all the same."""
    supervisor = active()
    for now in (0.0, 0.04, 0.19, 0.34):
        assert supervisor.state is State.ACTIVE
        supervisor.tick(now)
    assert (supervisor.state, supervisor.reason) == (State.FAULT, "bridge_lost")


def test_a_sleep_of_less_than_half_the_silence_is_none() -> None:
    for slept, state in ((0.125, State.FAULT), (0.1251, State.ACTIVE)):
        spec = FURUTA.model_copy(update={"safety": FURUTA.safety.model_copy(update={"heartbeat_timeout_ms": 250.0})})
        supervisor = active(spec=spec)
        supervisor.bridge_seen(0.8)
        for now in (0.96, 1.0, 1.0 + slept):  # the first one counts as slept too
            supervisor.tick(now)
        assert supervisor.state is state


def test_a_controller_without_measurements_is_not_the_one_that_is_lost() -> None:
    spec = FURUTA.model_copy(update={"control_rate_hz": 64.0})
    for silence, state, reason in (
        (3 / 64, State.DAMP, "controller_lost"),  # 3 control periods
        (3.01 / 64, State.FAULT, "bridge_lost"),
    ):
        supervisor = active(1.0, spec)
        supervisor.controller_lost(1.0 + silence)
        assert (supervisor.state, supervisor.reason) == (state, reason)


def test_a_restarted_monitor_takes_the_bridges_epoch() -> None:
    supervisor = Supervisor(FURUTA)
    supervisor.adopt_epoch(7)
    supervisor.adopt_epoch(3)
    assert supervisor.epoch == 7
