"""The monitor as a node, beside a policy's lifecycle and the reports of bridges by hand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from std_srvs.srv import Trigger

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

    def report(self, bridge: str, fault: str = "") -> None:
        values = {"epoch": self.supervisor.epoch, "settled": "", "warning": "", "bridge": bridge}
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


def test_a_policy_whose_lifecycle_has_ended_is_not_armed(graph: Graph) -> None:
    graph.standby()
    graph.policy.trigger_shutdown()
    graph.until(lambda: graph.monitor._controller.ended)
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
    graph.report("first")
    for event in events:
        assert graph.supervisor.handle(event, 0.0).accepted
    before = graph.supervisor.state
    graph.report("first")
    assert graph.supervisor.state is before
    graph.report("second")
    assert graph.supervisor.state is then
    assert (graph.supervisor.reason == "bridge_replaced") == (then is not before)
