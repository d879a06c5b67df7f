"""The monitor as a node, beside a policy's lifecycle and the reports of bridges by hand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import rclpy
from lifecycle_msgs.msg import State as NodeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from landbridge.deploy.clock import uptime
from landbridge.deploy.supervisor import Event, State
from landbridge_nodes import topics
from landbridge_nodes.monitor import Monitor

pytestmark = pytest.mark.ros
ENDED = "policy (shut down, end its process and start it anew)"


class Graph:
    """A monitor and the policy that it leads; the bridge is heard all the time."""

    def __init__(self) -> None:
        self.monitor, self.policy = Monitor(), LifecycleNode("policy")
        self.executor = SingleThreadedExecutor()
        for node in (self.monitor, self.policy):
            self.executor.add_node(node)
        self.supervisor = self.monitor.supervisor
        self.supervisor.bridge_seen(math.inf)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, (self.supervisor.state, self.monitor._text())
            self.executor.spin_once(timeout_sec=0.05)

    def standby(self) -> None:
        self.until(lambda: self.monitor._controller.reached)
        assert self.supervisor.handle(Event.CONFIGURED, 0.0).accepted

    def arm(self) -> str:
        response = Trigger.Response()
        self.monitor._service(Event.ARM)(None, response)
        return str(response.message)

    def report(self, bridge: str, fault: str = "", powered: str = "") -> None:
        values = {"epoch": self.supervisor.epoch, "settled": "", "warning": "", "bridge": bridge, "powered": powered}
        self.monitor._on_fault(topics.status_message("bridge", fault, values))


@pytest.fixture
def graph(ros_domain: None) -> Iterator[Graph]:
    rclpy.init()
    made = Graph()
    yield made
    made.executor.shutdown()
    for node in (made.monitor, made.policy):
        node.destroy_node()
    rclpy.try_shutdown()


def test_a_state_is_published_before_it_is_logged(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(graph.monitor, "_safety", SimpleNamespace(publish=lambda message: order.append(message.name)))
    monkeypatch.setattr(graph.monitor, "_log", lambda text, at_once: order.append(f"log of {text.split(':')[0]}"))
    graph.monitor._service(Event.ESTOP)(None, Trigger.Response())
    assert order[:2] == ["ESTOP", "log of ESTOP"]


def test_a_policy_whose_lifecycle_has_ended_is_not_armed(graph: Graph) -> None:
    graph.standby()
    graph.policy.trigger_shutdown()
    graph.until(lambda: graph.monitor._controller.found == NodeState.PRIMARY_STATE_FINALIZED)
    assert graph.arm() == f"arm refused: {ENDED}"
    assert graph.supervisor.state is State.STANDBY


def test_a_policy_whose_lifecycle_ends_in_armed_is_lost(graph: Graph) -> None:
    """At once, and not after the time that arming may take."""
    graph.standby()
    assert graph.arm() == "ARMED"
    graph.policy.trigger_shutdown()
    graph.until(lambda: graph.supervisor.state is State.DAMP)
    assert graph.supervisor.reason == "controller_lost"


def test_an_unconfigured_robot_says_what_it_waits_for(graph: Graph) -> None:
    waiting = "starting, waiting for bridge (no answer), policy (no answer)"
    assert graph.monitor._text() == waiting
    graph.until(lambda: graph.monitor._controller.reached)
    assert graph.monitor._text() == "starting, waiting for bridge (no answer)"
    graph.policy.trigger_shutdown()
    graph.until(lambda: graph.monitor._text() == f"starting, waiting for bridge (no answer), {ENDED}")
    graph.until(lambda: graph.monitor._logged == f"UNCONFIGURED: {graph.monitor._text()}")  # it stays so


@pytest.mark.parametrize(
    ("events", "then"),
    [
        ((), State.UNCONFIGURED),
        ((Event.CONFIGURED,), State.UNCONFIGURED),
        ((Event.CONFIGURED, Event.ARM), State.FAULT),
        ((Event.CONFIGURED, Event.ARM, Event.ADMISSIBLE), State.FAULT),
        ((Event.CONFIGURED, Event.PARK), State.FAULT),
        ((Event.CONFIGURED, Event.ARM, Event.FOREIGN_PUBLISHER), State.FAULT),
        ((Event.ESTOP,), State.ESTOP),
    ],
)
def test_another_bridge_has_not_been_armed(graph: Graph, events: tuple[Event, ...], then: State) -> None:
    """One that takes the first one's place before its silence is noticed, or that stands beside it."""
    graph.until(lambda: graph.monitor._controller.reached)
    graph.report("first")
    for event in events:
        assert graph.arm() == "ARMED" if event is Event.ARM else graph.supervisor.handle(event, 0.0).accepted
    before = graph.supervisor.state
    graph.report("first")
    assert graph.supervisor.state is before
    graph.report("second")
    assert graph.supervisor.state is then
    assert (graph.supervisor.reason == "bridge_replaced") == (then is not before)


def test_a_robot_is_not_armed_for_nobody(graph: Graph) -> None:
    graph.standby()
    graph.policy.trigger_cleanup()
    graph.until(lambda: graph.monitor._controller.found == NodeState.PRIMARY_STATE_UNCONFIGURED)
    assert graph.arm() == "arm refused: policy (not configured)"
    graph.until(lambda: graph.monitor._controller.reached)
    assert graph.arm() == "ARMED"


def test_a_policy_that_is_started_anew_in_armed_is_not_the_one_that_was_armed(graph: Graph) -> None:
    """A push may have led `current` to another bundle meanwhile."""
    graph.standby()
    assert graph.arm() == "ARMED"
    graph.until(lambda: graph.monitor._controller.found == NodeState.PRIMARY_STATE_ACTIVE)
    graph.executor.remove_node(graph.policy)
    graph.policy.destroy_node()
    graph.policy = LifecycleNode("policy")
    graph.executor.add_node(graph.policy)
    graph.until(lambda: graph.supervisor.state is State.DAMP)
    assert graph.supervisor.reason == "controller_lost"


def test_a_reset_asks_anew_who_is_there(graph: Graph) -> None:
    """Else a policy that has just been ended would be armed for one that only starts."""
    graph.standby()
    graph.supervisor.handle(Event.ESTOP, 0.0)
    graph.until(lambda: graph.monitor._controller.reached)
    graph.monitor._service(Event.RESET)(None, Trigger.Response())
    assert graph.monitor._text() == "reset, waiting for bridge (no answer), policy (no answer)"
    graph.until(lambda: graph.monitor._controller.reached)


def test_a_monitor_that_ends_takes_no_torque_off_drives_that_nobody_commands(graph: Graph) -> None:
    """A bridge restarted over them: they may hold up a robot, and PARK would drop it."""
    graph.standby()
    graph.report("first")
    graph.monitor.close()
    assert graph.supervisor.state is State.STANDBY


@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.parametrize(("settles", "then"), [(True, State.STANDBY), (False, State.ESTOP)])
def test_a_monitor_that_ends_sees_a_powered_robot_parked_or_stopped(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, settles: bool, then: State, configured: bool
) -> None:
    """After a reset torque is on, also while the policy is away; nothing moves when nobody is left to stop it."""
    monkeypatch.setattr("landbridge_nodes.monitor.PARK_SECONDS", 0.5)
    if configured:
        graph.standby()
    graph.report("first", powered="yes")
    if settles:
        graph.monitor.create_timer(0.1, lambda: graph.supervisor.settled("PARK", 0.0))
    states = []
    graph.monitor._log = lambda text, at_once: states.append(text)  # type: ignore[method-assign]
    graph.monitor.close()
    assert states[0] == "PARK: monitor ends"
    assert graph.supervisor.state is then
    assert graph.supervisor.reason == ("monitor ends" if settles else "not parked when the monitor ended")


def test_joint_states_of_another_are_no_sign_of_life_of_the_bridge(graph: Graph) -> None:
    """As a joint_state_publisher has them, beside RViz."""
    graph.supervisor.bridge_seen(-math.inf)
    graph.monitor._on_measurement(serialize_message(JointState(name=["arm", "pendulum"])))
    assert not graph.supervisor._bridge_alive(time.monotonic())
    own = JointState(header=Header(frame_id=topics.MEASURED), name=["arm", "pendulum"])
    graph.monitor._on_measurement(serialize_message(own))
    assert graph.supervisor._bridge_alive(uptime())
