"""Every pure row of the fault table in virtual time; the safety page says what they say."""

from __future__ import annotations

from pathlib import Path

import faults
import pytest
import safety_page
from virtual_rig import ROBOTS, Rig

from landbridge.deploy.supervisor import Event, State


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: f"{fault.name} {'+'.join(fault.robots)}")
def test_a_fault_is_named_stops_the_robot_in_time_and_needs_the_stated_way_back(fault: faults.Fault) -> None:
    outcome = faults.worst(fault)
    assert (outcome.notice, outcome.state) == (fault.notice, fault.state)
    assert outcome.outside == 0
    assert outcome.after_stop == 0
    goes_on = fault.state == "ACTIVE" and fault.notice != "monitor_lost"
    assert (outcome.back == ()) == goes_on
    if goes_on:
        return
    assert outcome.stopped is None or outcome.stopped <= fault.periods
    assert outcome.last is None or outcome.last <= fault.periods
    assert outcome.back[-1] == "arm"
    assert ("reset" in outcome.back) == (fault.state != "STANDBY")


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("state", list(State))
def test_an_estop_in_each_state_stops_and_needs_reset_and_arm(robot: str, state: State) -> None:
    rig = Rig(robot)
    _lead(rig, state)
    if rig.supervisor.state is not state:
        assert state is (State.HOLD if robot == "furuta" else State.DAMP)  # no state of this robot
        return
    assert rig.operate(Event.ESTOP, 0.5)
    written = len(rig.writes)
    rig.run(0.5)
    asked = [asked for _, _, asked in rig.writes[written:]]
    assert not any(asked)
    assert bool(asked) is (state not in (State.UNCONFIGURED, State.STANDBY))  # in which no torque is on to stop with
    assert rig.supervisor.state is State.ESTOP
    for event in set(Event) - {Event.ESTOP, Event.RESET}:
        assert not rig.operate(event, 0.0), event
    rig.heal()
    rig.run(0.2)  # until it is known again to rest
    assert rig.operate(Event.RESET, 0.5)
    assert rig.supervisor.state is State.STANDBY
    rig.activate()
    assert rig.outside == 0


def _lead(rig: Rig, state: State) -> None:
    if state is State.UNCONFIGURED:
        return
    rig.run(0.5)
    if state is State.STANDBY:
        return
    if state is State.ARMED:
        rig.policy_runs = False
        rig.operate(Event.ARM, 0.2)
        return
    rig.activate()
    if state is State.PARK:
        rig.operate(Event.DISARM, 0.02)
    elif state in (State.HOLD, State.DAMP):
        faults.measured(float("nan"))(rig)
        rig.run(0.2)
    elif state is State.FAULT:
        rig.policy_runs = False
        rig.run(1.0)
    elif state is State.ESTOP:
        rig.operate(Event.ESTOP, 0.2)


def test_an_estop_during_activation_wins() -> None:
    for steps in range(12):
        rig = Rig("furuta")
        rig.run(0.5)
        rig.operate(Event.ARM, steps * 0.01)
        rig.operate(Event.ESTOP, 0.5)
        written = len(rig.writes)
        rig.run(0.5)
        assert rig.supervisor.state is State.ESTOP
        assert not any(asked for _, _, asked in rig.writes[written:])


def test_an_estop_is_not_reset_while_the_robot_moves() -> None:
    rig = Rig("furuta")
    rig.run(0.5)
    rig.activate()
    rig.velocity[0] = 5.0
    rig.operate(Event.ESTOP, 0.1)
    assert rig.supervisor.state is State.ESTOP
    while abs(rig.velocity[0]) > 0.02 * rig.spec.joints[0].velocity_limit:
        assert not rig.operate(Event.RESET, 0.02)
    rig.run(0.2)
    assert rig.operate(Event.RESET, 0.5)
    assert rig.supervisor.state is State.STANDBY


def test_a_reset_while_faulty_leads_to_the_same_fault_without_motion() -> None:
    rig = Rig("quadruped")
    rig.run(0.5)
    rig.activate()
    rig.sense = lambda position, velocity: (position, [31.0, *velocity[1:]])
    rig.run(0.2)
    assert (rig.supervisor.state, rig.supervisor.reason) == (State.HOLD, "velocity_limit")
    assert not rig.operate(Event.RESET)  # it cannot be seen to rest
    rig.run(30.0)
    assert rig.supervisor.state is State.FAULT
    assert rig.operate(Event.RESET)
    held = rig.writes[-1][1].command
    assert rig.operate(Event.ARM)
    assert (rig.supervisor.state, rig.supervisor.reason) == (State.HOLD, "velocity_limit")
    assert not any(asked for step, _, asked in rig.writes if step > rig.step - 40)
    assert max(abs(a - b) for a, b in zip(held, rig.writes[-1][1].command, strict=True)) < 0.01


def test_arm_without_reset_and_reset_then_immediate_command() -> None:
    rig = Rig("furuta")
    rig.run(0.5)
    rig.activate()
    rig.policy_runs = False
    rig.run(1.0)
    assert not rig.operate(Event.ARM)
    rig.policy_runs = True
    written = len(rig.writes)
    assert rig.operate(Event.RESET, 0.0)
    command = rig.answer(rig.stamp(rig.step // 2 * 2), rig.position)[0]
    for _ in range(20):
        rig._judge(command._replace(stamp=rig.stamp(rig.step // 2 * 2)))
        rig.run(0.01)
    assert not any(asked for _, _, asked in rig.writes[written:])
    assert rig.guard.counters["not_active"] > 0


@pytest.mark.parametrize("robot", ROBOTS)
def test_torque_goes_off_only_after_the_robot_is_parked(robot: str) -> None:
    rig = Rig(robot)
    rig.run(0.5)
    assert not rig.torque
    rig.activate()
    assert rig.torque
    rig.operate(Event.DISARM, 0.0)
    while rig.supervisor.state is State.PARK:
        rig.run(0.01)
    *_, (_, last, _) = rig.writes
    assert [verdict.release for _, verdict, _ in rig.writes].count(True) == 1
    assert last.release
    assert not rig.torque
    if robot == "quadruped":
        pose = [rig.spec.parking[name] for name in rig.spec.actuated]
        assert [rig.position[i] for i in rig.at] == pytest.approx(pose, abs=0.01)
    assert max(abs(rig.velocity[i]) for i in rig.at) <= 0.02 * 30
    rig.run(1.0)
    assert rig.writes[-1][1] is last  # nothing more is written
    rig.activate()
    assert rig.torque


def test_a_monitor_that_never_started_leaves_the_robot_without_torque() -> None:
    rig = Rig("quadruped")
    rig.monitor_runs = False
    rig.run(2.0)
    assert rig.writes == []
    assert (rig.guard.state, rig.guard.fault) == (State.UNCONFIGURED, None)


def test_a_crouched_robot_stands_up_slowly_before_the_policy_is_followed() -> None:
    rig = Rig("quadruped")
    rig.position = [rig.spec.parking[joint.name] for joint in rig.spec.joints]
    rig.run(0.5)
    rig.operate(Event.ARM, 0.0)
    fastest = 0.0
    while rig.supervisor.state is not State.ACTIVE:
        rig.run(0.01)
        fastest = max(fastest, *(abs(v) for v in rig.velocity))
    assert 0.4 < fastest < 0.6  # parking_speed 0.5 rad/s
    assert [rig.position[i] for i in rig.at] == pytest.approx([j.default_joint_pos for j in rig.spec.joints], abs=0.15)
    assert rig.guard.counters["not_ready"] > 100


def test_the_safety_page_says_what_the_code_and_the_measurements_say(repository: Path) -> None:
    page = (repository / "SAFETY.md").read_text()
    for name, make in safety_page.SECTIONS.items():
        assert safety_page.section(page, name) == make(), "run python benchmarks/safety_page.py"
