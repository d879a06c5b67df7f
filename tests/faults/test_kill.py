"""Processes that die, hang, are restarted or doubled in an episode, against the real graph: what the bridge did.

Times are wall-clock times of measurements and verdicts of one machine, for `benchmarks/process_faults.py`.
"""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from functools import partial
from typing import Any

import psutil
import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from mcap.exceptions import EndOfFile
from mcap.stream_reader import StreamReader

from landbridge.deploy.supervisor import State
from landbridge.errors import InputError
from landbridge.verdict import ADMITTED
from landbridge_nodes import topics
from landbridge_nodes.controller import LEAVE_SECONDS
from landbridge_nodes.operator import START_TIMEOUT
from landbridge_nodes.process import LOOP_SECONDS
from landbridge_nodes.processes import Processes
from landbridge_nodes.replay import replay

from .rig import BUSY_MS, DT_MS, FURUTA, HEARTBEAT_MS, SILENCE, Record, Rig, tell

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(
    ("number", "fault"), [(signal.SIGKILL, "silent"), (signal.SIGSTOP, "silent"), (signal.SIGTERM, "controller_lost")]
)
def test_the_policy_dies_hangs_or_ends(rig: Rig, number: signal.Signals, fault: str, record_property: Record) -> None:
    rig.activate()
    stopped, last = rig.stop_after(rig.strike("policy", number), "silent", "not_active", "stopped")
    tell(record_property, f"policy {number.name}", stopped)
    works_on = 1000 * (LOOP_SECONDS + LEAVE_SECONDS) if number is signal.SIGTERM else 0.0
    assert stopped <= works_on + SILENCE * DT_MS + BUSY_MS
    assert last <= works_on + BUSY_MS
    rig.operator.wait(lambda: rig.operator.state is State.FAULT, 5)  # after DAMP, when the arm rests
    assert rig.operator.reason in {fault, "silent"}  # monitor and bridge may both be first where the policy says so
    assert abs(rig.verdicts[-1].effort) < FURUTA.spec.joint("arm").effort_limit


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_monitor_dies_or_hangs(rig: Rig, number: signal.Signals, record_property: Record) -> None:
    rig.activate()
    stopped, last = rig.stop_after(rig.strike("monitor", number), "monitor_lost")
    tell(record_property, f"monitor {number.name}", stopped)
    assert stopped <= HEARTBEAT_MS + DT_MS + BUSY_MS
    assert last <= stopped
    seen = len(rig.verdicts)
    rig.operator.wait(lambda: len(rig.verdicts) > seen + 20, 5)
    assert {v.reason for v in rig.verdicts[seen:]} <= {"monitor_lost", "latched"}


def test_the_recorder_dies_and_control_does_not_notice(rig: Rig, record_property: Record) -> None:
    rig.activate()
    struck = rig.strike("recorder", signal.SIGKILL)
    seen = len(rig.verdicts)
    rig.operator.wait(lambda: len(rig.verdicts) > seen + 50, 5)
    assert {v.reason for v in rig.verdicts[seen:]} <= set(ADMITTED)
    assert rig.operator.state is State.ACTIVE
    assert not (rig.bag / "metadata.yaml").exists()
    newest = 0
    with (rig.bag / "bag_0.mcap").open("rb") as stream, suppress(EndOfFile):  # it was cut
        for record in StreamReader(stream).records:
            newest = max(newest, getattr(record, "log_time", 0))
    lost = (struck - newest) / 1e6
    tell(record_property, "recorder SIGKILL", lost)
    assert newest > 0
    assert lost <= 250


def test_the_bridge_dies_and_the_monitor_says_so(rig: Rig, record_property: Record) -> None:
    rig.activate()
    struck = rig.strike("bridge", signal.SIGKILL)
    rig.operator.wait(lambda: rig.operator.state is State.FAULT, 5)
    took = (time.time_ns() - struck) / 1e6
    tell(record_property, "bridge SIGKILL", took)
    assert rig.operator.reason == "bridge_lost"
    assert took <= HEARTBEAT_MS + 2 * DT_MS + BUSY_MS + 40  # 40: the supervisor's tick


def test_a_restarted_monitor_neither_resets_nor_moves(rig: Rig) -> None:
    """The bridge's latch outlives the monitor that died; a new one must reset, and then arm."""
    rig.activate()
    rig.strike("monitor", signal.SIGKILL)
    rig.operator.wait(lambda: any(v.reason == "monitor_lost" for v in rig.verdicts), 5)
    rig.start("monitor")
    rig.operator.wait(lambda: rig.operator.state is State.FAULT and rig.operator.reason == "monitor_lost", 15)
    assert rig.verdicts[-1].reason in ("monitor_lost", "latched")
    outcome = rig.operator.episode(30)
    assert (outcome.ended, outcome.ticks) == ("STANDBY", 30)


def test_an_estop_outlives_the_monitor_and_the_bridge_that_heard_it(rig: Rig) -> None:
    """The monitor alone knew of it; a bridge that is started anew learns it from the monitor."""
    told: list[Any] = []
    topics.subscribe(rig.operator.node, topics.BRIDGE_FAULT, told.append)
    rig.activate()
    rig.operator.call("/monitor/estop")
    rig.operator.wait(lambda: rig.verdicts[-1].reason == "stopped", 5)
    rig.strike("monitor", signal.SIGKILL)
    rig.start("monitor")
    rig.operator.wait(lambda: rig.operator.state is State.FAULT and rig.operator.reason == "estop", 15)
    with pytest.raises(InputError, match="arm refused in FAULT"):
        rig.operator.call("/monitor/arm")
    rig.strike("bridge", signal.SIGKILL)
    told.clear()
    rig.start("bridge")
    rig.operator.wait(lambda: any(status.message == "estop" for status in told), 15)
    rig.reset()
    assert rig.operator.episode(20).ended == "STANDBY"


BUSY = """
import sys
from landbridge_nodes.policy import CONTROLLER_PRIORITY, PolicyNode, run

class Busy(PolicyNode):
    calls = 0
    def act(self, obs):
        self.calls += 1
        while self.calls > 100:
            pass
        return super().act(obs)

sys.exit(run(Busy, CONTROLLER_PRIORITY))
"""


def test_a_policy_whose_thread_hangs_while_its_middleware_lives(rig: Rig, record_property: Record) -> None:
    """Liveliness that the middleware asserts by itself would be satisfied by this one."""
    rig.renew(policy=BUSY)
    rig.activate()
    at, periods = rig.await_silence()
    tell(record_property, "policy hangs", periods, "periods")
    assert periods <= SILENCE + BUSY_MS / DT_MS
    assert not any(v.reason in ADMITTED for v in rig.verdicts[at:])
    rig.strike("policy", signal.SIGKILL)  # it does not hear SIGTERM


WARPED = """
import signal, time

real, stepped = time.time_ns, []
time.time_ns = lambda: real() - 3_600_000_000_000 * len(stepped)
signal.signal(signal.SIGUSR1, lambda *_: stepped.append(True))

from landbridge_nodes.bridge import main
main()
"""


def test_an_arm_does_not_outlast_its_controller(rig: Rig) -> None:
    """Killed so shortly before that nobody knows it yet."""
    rig.strike("policy", signal.SIGKILL)
    rig.operator.call("/monitor/arm")
    rig.await_fault("controller_lost")


def test_a_wall_clock_that_steps_back_an_hour_changes_nothing(rig: Rig) -> None:
    rig.renew(bridge=WARPED, recorder="")
    rig.activate()
    stepped = rig.strike("bridge", signal.SIGUSR1) - 1_800_000_000_000
    rig.operator.wait(lambda: sum(v.stamp < stepped and v.reason == "ok" for v in rig.verdicts) > 25, 5)
    assert not {v.reason for v in rig.verdicts} & {"unknown_stamp", "duplicate"}
    assert rig.operator.state is State.ACTIVE
    rig.strike("recorder", signal.SIGTERM)
    rig.operator.wait((rig.bag / "metadata.yaml").exists, 5)
    figures = replay(rig.bag, rig.bundle, tolerance=0)
    assert {row["stage"] for row in figures["stages"] if row["compared"] > 30} >= {"action", "guard"}


def test_a_foreign_publisher_of_commands_is_a_fault(rig: Rig, record_property: Record) -> None:
    rig.activate()
    foreign = rig.operator.node.create_publisher(topics.COMMAND.message, topics.COMMAND.name, 1)
    struck = time.time_ns()
    rig.operator.wait(lambda: rig.operator.state is not State.ACTIVE, 5)
    took = (time.time_ns() - struck) / 1e6
    tell(record_property, "foreign publisher", took)
    assert took <= 500  # discovery, and the monitor's next heartbeat
    rig.await_fault("foreign_publisher")
    rig.reset()
    rig.operator.call("/monitor/arm")
    rig.await_fault("foreign_publisher")  # it is still there
    rig.operator.node.destroy_publisher(foreign)
    assert rig.operator.episode(20).ended == "STANDBY"


def test_two_policies_at_once_are_a_fault(rig: Rig) -> None:
    def publishers() -> set[tuple[int, ...]]:
        """One that was killed in an earlier test outlives it here by seconds."""
        return {tuple(info.endpoint_gid) for info in node.get_publishers_info_by_topic(topics.COMMAND.name)}

    def answered(step: int) -> bool:
        """By the second, once it hears this client; the first refuses, for it is active already, and says nothing."""
        asked = change.call_async(ChangeState.Request(transition=Transition(id=step)))
        with suppress(InputError):
            rig.operator.wait(asked.done, 2)
        return bool(asked.done())

    rig.activate()
    node = rig.operator.node
    change, before = node.create_client(ChangeState, "/policy/change_state"), publishers()
    with Processes([rig.specs["policy"]]):
        rig.operator.wait(lambda: bool(publishers() - before), 15)
        for step in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            rig.operator.wait(partial(answered, step), 10)
        rig.await_fault("foreign_publisher")
    assert rig.operator.episode(20).ended == "STANDBY"


def test_a_policy_that_somebody_shuts_down_is_named(rig: Rig) -> None:
    """Its lifecycle leads nowhere from there; its process is still up, and would be waited for without end."""
    rig.activate()
    change = rig.operator.node.create_client(ChangeState, "/policy/change_state")
    shutdown = Transition(id=Transition.TRANSITION_ACTIVE_SHUTDOWN)
    rig.operator.wait(change.service_is_ready, 5)
    change.call_async(ChangeState.Request(transition=shutdown))
    rig.await_fault("silent")
    rig.operator.wait(rig.is_reset, 5)
    why = "policy (shut down, end its process and start it anew)"
    rig.operator.wait(lambda: rig.operator.reason == f"reset, waiting for {why}", 5)
    assert rig.operator.state is State.UNCONFIGURED
    rig.strike("policy", signal.SIGKILL)
    rig.start("policy")
    rig.operator.wait(lambda: rig.operator.state is State.STANDBY, START_TIMEOUT)


def test_a_second_bridge_is_a_fault_and_so_is_one_in_the_place_of_the_first(rig: Rig) -> None:
    """ARMED, which a policy that stands still does not end: a bridge that hears of it has not been armed itself."""
    rig.strike("policy", signal.SIGSTOP)
    rig.operator.call("/monitor/arm")
    rig.operator.wait(lambda: rig.operator.state is State.ARMED, 5)
    with Processes([rig.specs["bridge"]]):
        rig.await_fault("bridge_replaced", START_TIMEOUT)
        rig.strike("bridge", signal.SIGKILL)
        rig.strike("policy", signal.SIGCONT)
        rig.reset()
        rig.operator.wait(lambda: rig.operator.accepted("/bridge/reset_plant"), 10)  # the monitor leads the second one
        assert rig.operator.episode(20).ended == "STANDBY"


def test_policy_and_bridge_are_restarted_while_active(rig: Rig) -> None:
    """The bridge parks before it ends; nothing moves again before a reset and an arm."""
    rig.activate()
    rig.strike("policy", signal.SIGKILL)
    rig.await_fault("silent")
    rig.start("policy")
    rig.reset()
    rig.activate()
    rig.strike("bridge", signal.SIGTERM)
    rig.operator.wait(lambda: rig.verdicts[-1].reason == "parked", 5)
    rig.await_fault("bridge_lost")
    rig.start("bridge")
    rig.reset()
    seen = len(rig.verdicts)
    outcome = rig.operator.episode(20)
    assert (outcome.ended, outcome.reason) == ("STANDBY", "disarm")
    assert rig.verdicts[seen].reason in ("not_active", "armed")


def test_a_bridge_that_is_ended_after_an_estop_moves_nothing(rig: Rig) -> None:
    """Whether anything may be moved is for a reset to say; and torque that holds is for a person to take off."""
    rig.activate()
    rig.operator.call("/monitor/estop")
    rig.operator.wait(lambda: rig.verdicts[-1].reason == "stopped", 5)
    bridge = psutil.Process(rig.pid("bridge"))
    rig.strike("bridge", signal.SIGTERM)
    rig.operator.wait(lambda: bridge.status() == psutil.STATUS_ZOMBIE, 10)
    assert "torque is left on (estop): support the robot and cut its power" in rig.log("bridge")
    assert "parked" not in {v.reason for v in rig.verdicts}
    assert rig.operator.state is State.ESTOP


def test_a_monitor_that_is_ended_leaves_a_parked_robot(rig: Rig) -> None:
    rig.activate()
    rig.strike("monitor", signal.SIGINT)
    rig.operator.wait(lambda: rig.verdicts[-1].reason == "parked", 5)
    assert "monitor_lost" not in {v.reason for v in rig.verdicts}
