"""The monitor: runs the supervisor in a process of its own, owns the lifecycle of bridge and controller.

Services `~/arm`, `~/disarm`, `~/park`, `~/estop`, `~/reset` (std_srvs/Trigger) answer with what was done or why it was
refused. `/safety/state` is at once the state and the heartbeat. Lifecycle states are brought about by comparing what
each node is with what the supervisor's state asks of it, so a restarted node is led back like one that has just
started.
"""

from __future__ import annotations

import math
import sys
import uuid
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from lifecycle_msgs.msg import State as NodeState
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import LivelinessPolicy
from rclpy.serialization import deserialize_message
from std_srvs.srv import Trigger

from landbridge.deploy.clock import uptime
from landbridge.deploy.supervisor import COMMANDED, Event, State, Supervisor
from landbridge.real_time import MONITOR_PRIORITY
from landbridge.robot import HEARTBEAT_MS, load_robot
from landbridge.verdict import ADMISSIBLE, Reason
from landbridge_nodes import topics
from landbridge_nodes.neighbours import NAMELESS
from landbridge_nodes.parameters import CONTROLLER, ROBOT, declare
from landbridge_nodes.process import PARK_SECONDS, run, spin_while

PARAMETERS = (ROBOT, CONTROLLER)
REQUEST_TIMEOUT = 0.5  # s without an answer after which a lifecycle request is made again: it may have been lost
ABSENT_SECONDS = 2.0  # without an answer: it is not there
DISCOVERY_SECONDS = 1.0  # that it may take; a node that never gets a name is not ours
WAITING = (Reason.NOT_ACTIVE, Reason.NOT_READY)  # for the bridge itself: no verdict on the controller
MOVING = (Event.ARM, Event.PARK, Event.RESET)  # what one monitor may ask of one robot only; a stop is for all
SHARED_SECONDS = 1.0  # after another monitor's last heartbeat, during which it counts as running
SHARED = "another monitor runs in this ROS domain, and would do the same: end it, or give one its own ROS_DOMAIN_ID"
HELD_SECONDS = 1.0  # without a heartbeat: it was held up, and whoever asked meanwhile was told that nobody answers
HELD = "the monitor was held up, and this may have been asked long ago: ask again"
WAITING_SECONDS = 2.0  # in UNCONFIGURED, after which the log says what for: a start of all nodes takes less
MEASURED_BY = topics.MEASURED.encode()
NEVER = -1  # no lifecycle state
LACKS = {
    NEVER: "no answer",
    NodeState.PRIMARY_STATE_UNCONFIGURED: "not configured",
    NodeState.PRIMARY_STATE_INACTIVE: "not active",
    NodeState.PRIMARY_STATE_ACTIVE: "still active",
    NodeState.PRIMARY_STATE_FINALIZED: "shut down, end its process and start it anew",
}
NEXT = {
    (NodeState.PRIMARY_STATE_UNCONFIGURED, NodeState.PRIMARY_STATE_INACTIVE): Transition.TRANSITION_CONFIGURE,
    (NodeState.PRIMARY_STATE_UNCONFIGURED, NodeState.PRIMARY_STATE_ACTIVE): Transition.TRANSITION_CONFIGURE,
    (NodeState.PRIMARY_STATE_INACTIVE, NodeState.PRIMARY_STATE_ACTIVE): Transition.TRANSITION_ACTIVATE,
    (NodeState.PRIMARY_STATE_ACTIVE, NodeState.PRIMARY_STATE_INACTIVE): Transition.TRANSITION_DEACTIVATE,
}


class Managed:
    """One lifecycle node as the monitor sees it: where it is, where it should be, one request at a time."""

    def __init__(self, node: Node, name: str) -> None:
        self._get = node.create_client(GetState, f"/{name}/get_state")
        self._change = node.create_client(ChangeState, f"/{name}/change_state")
        self._pending: tuple[Any, Any, float] | None = None
        self.name = name
        self.wanted = NodeState.PRIMARY_STATE_INACTIVE
        self.found = NEVER
        self._answered_at = -math.inf  # [s, uptime]
        self.anew = False  # it was found unconfigured: another process than before, or one started since

    @property
    def reached(self) -> bool:
        """Whether the node is where it should be."""
        return self.found == self.wanted

    def absent(self, now: float) -> bool:
        """Whether there is nobody to arm. An answer is lost now and then, and that alone means nothing."""
        unable = (NodeState.PRIMARY_STATE_UNCONFIGURED, NodeState.PRIMARY_STATE_FINALIZED)
        return self.found in unable or now - self._answered_at > ABSENT_SECONDS

    @property
    def lacks(self) -> str:
        """What keeps the node from where it should be; "" if nothing does."""
        return "" if self.reached else f"{self.name} ({LACKS.get(self.found, 'in transition')})"

    def want(self, state: int, now: float) -> None:
        """Lead the node towards `state`."""
        self.wanted = state
        self.step(now)

    def step(self, now: float) -> None:
        """Ask where the node is, unless a question is open; the answer leads to the transition that is due."""
        if self._pending is not None:
            client, future, asked = self._pending
            if now - asked < REQUEST_TIMEOUT:
                return
            client.remove_pending_request(future)
            self._pending, self.found = None, NEVER
        if not self._get.service_is_ready():
            self.found = NEVER
        else:
            self._call(self._get, GetState.Request(), self._on_state)

    def _call(self, client: Any, request: Any, then: Any) -> None:
        future = client.call_async(request)
        self._pending = (client, future, uptime())
        future.add_done_callback(then)

    def _on_state(self, future: Any) -> None:
        self._pending = None
        self.found, self._answered_at = future.result().current_state.id, uptime()
        self.anew |= self.found == NodeState.PRIMARY_STATE_UNCONFIGURED
        transition = NEXT.get((self.found, self.wanted))
        if transition is not None and self._change.service_is_ready():
            self._call(self._change, ChangeState.Request(transition=Transition(id=transition)), self._on_changed)

    def _on_changed(self, future: Any) -> None:
        self._pending = None
        if future.result().success:
            self.step(uptime())


class Monitor(Node):  # type: ignore[misc]
    """Node `monitor`."""

    def __init__(self) -> None:
        super().__init__("monitor")
        read = declare(self, PARAMETERS)
        spec = load_robot(read["robot"]).spec
        self.supervisor = Supervisor(spec)
        self._bridge = Managed(self, "bridge")
        self._commander = read["controller"]
        self._controller = Managed(self, self._commander)
        self._nameless_since = math.inf  # since when there is a publisher of commands without a name [s, uptime]
        self._alive = 0  # publishers of commands whose liveliness has not run out
        self._published: tuple[State, int] | None = None
        self._said, self._said_at = "", -math.inf  # the newest text, and since when [s, uptime]
        self._logged = ""  # the newest one in the log
        self._bridge_id = ""  # of the bridge that reports
        self._powered = False  # whether the drives hold what it has commanded
        self._id = KeyValue(key="monitor", value=uuid.uuid4().hex)
        self._other_at = -math.inf  # when another monitor was heard [s, uptime]
        self._beat_at, self._held_at = uptime(), -math.inf  # the newest beat, and the newest that was late [s, uptime]
        self._ends = False  # this process does: whoever wants to move must ask the next one
        self._safety = topics.publish(self, topics.SAFETY_STATE)
        for event in (Event.ARM, Event.DISARM, Event.PARK, Event.ESTOP, Event.RESET):
            self.create_service(Trigger, f"~/{event.value}", self._service(event))
        topics.subscribe(self, topics.SAFETY_STATE, self._on_state)
        topics.subscribe(self, topics.JOINT_STATES, self._on_measurement, raw=True)
        topics.subscribe(self, topics.GUARD_COMMAND, self._on_verdict, raw=True)
        topics.subscribe(self, topics.BRIDGE_FAULT, self._on_fault)
        self.create_subscription(
            topics.COMMAND.message,
            topics.COMMAND.name,
            lambda message: None,
            topics.command_qos(spec.safety.heartbeat_timeout_ms / 1000),
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(liveliness=self._on_liveliness),
        )
        self.create_timer(HEARTBEAT_MS / 1000, self._beat, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Have the bridge park the robot now, and be there for an e-stop until it has; one that has not is stopped."""
        self._ends = True
        after_reset = self.supervisor.state in (State.UNCONFIGURED, State.STANDBY) and self._powered  # torque stays on
        self.supervisor.handle(Event.PARK if after_reset else Event.DISARM, uptime(), "monitor ends")
        self._settle()
        spin_while(self, lambda: self.supervisor.state is State.PARK, PARK_SECONDS)
        if self.supervisor.state is State.PARK:  # nothing moves when nobody is left to stop it
            self.supervisor.handle(Event.ESTOP, uptime(), "not parked when the monitor ended")
            self._settle()

    def _service(self, event: Event) -> Any:
        def serve(request: Any, response: Any) -> Any:
            now = uptime()
            if event in MOVING and (why := self._why_not(event, now)):
                response.success, response.message = False, f"{event.value} refused: {why}"
                return response
            answer = self.supervisor.handle(event, now)
            response.success, response.message = answer.accepted, answer.message
            if event is Event.ARM and answer.accepted:
                self._controller.anew = False
            if event is Event.RESET and answer.accepted:  # those that answered may have been ended since
                self._bridge.found = self._controller.found = NEVER
            self._settle()
            return response

        return serve

    def _why_not(self, event: Event, now: float) -> str:
        """What, other than the robot's state, forbids any motion; "" if nothing does."""
        if self._ends:
            return "the monitor ends"
        if now - self._other_at <= SHARED_SECONDS:
            return SHARED
        if now - self._beat_at > HELD_SECONDS or now - self._held_at < HELD_SECONDS:
            return HELD
        absent = self.supervisor.state is State.STANDBY and self._controller.absent(now)
        return self._controller.lacks if event is Event.ARM and absent else ""

    def _on_state(self, message: Any) -> None:
        """The services of two bring-ups in one domain have the same names: what is asked of one moves both robots."""
        if self._id in message.values:
            return
        now = uptime()
        if now - self._other_at > SHARED_SECONDS:
            self.get_logger().error(SHARED)
        self._other_at = now

    def _on_measurement(self, raw: bytes) -> None:
        if MEASURED_BY in raw[:32]:  # the header comes first: 4 bytes of the encoding, the stamp's 8, the name's length
            self.supervisor.bridge_seen(uptime())

    def _on_verdict(self, raw: bytes) -> None:
        """Only ARMED waits for verdicts; the stops in between, which the bridge writes itself, say nothing."""
        if self.supervisor.state is not State.ARMED:
            return
        reason = deserialize_message(raw, topics.GUARD_COMMAND.message).header.frame_id
        if reason not in WAITING:
            self.supervisor.command_judged(reason in ADMISSIBLE, uptime())
            self._settle()

    def _on_fault(self, message: Any) -> None:
        try:
            epoch = int(topics.status_value(message, "epoch"))
            keys = ("settled", "warning", "bridge", "powered")
            settled, warning, bridge, powered = (topics.status_value(message, key) for key in keys)
        except (KeyError, ValueError):
            self.get_logger().error(f"not a bridge's, and ignored: {message.name!r}", throttle_duration_sec=1.0)
            return
        if self._bridge_id not in ("", bridge):  # within its heartbeat, or there are two: this one has not been armed
            self.supervisor.handle(Event.BRIDGE_LOST, uptime(), "bridge_replaced")
        self._bridge_id, self._powered = bridge, bool(powered)
        current = epoch >= self.supervisor.epoch  # a fault of before the last reset is over
        self.supervisor.adopt_epoch(epoch)
        if message.message and current:
            self.supervisor.handle(Event.BRIDGE_FAULT, uptime(), message.message)
        self.supervisor.warned(warning, uptime())
        self.supervisor.settled(settled, uptime())
        self._settle()

    def _on_liveliness(self, status: Any) -> None:
        self._alive = status.alive_count
        if self._alive == 0 and self.supervisor.state is State.ACTIVE:
            self.supervisor.controller_lost(uptime())
        self._settle()

    def _beat(self) -> None:
        now = uptime()
        if now - self._beat_at > HELD_SECONDS:
            self._held_at = now
        self._beat_at = now
        self.supervisor.tick(now)
        if self.supervisor.state in COMMANDED and self._foreign_publisher():
            self.supervisor.handle(Event.FOREIGN_PUBLISHER, uptime())
        self._lead()
        self._publish()

    def _foreign_publisher(self) -> bool:
        """Whether another node commands, or two of the controller, or one that merely has its name.

        A publisher that died without a word stays known for seconds: only living ones are counted. The
        middleware learns of a publisher before it learns its node's name: a controller just started is given that time.
        """
        now, nameless, foreign = uptime(), False, self._alive > 1
        for info in self.get_publishers_info_by_topic(topics.COMMAND.name):
            nameless |= info.node_name == NAMELESS
            named_otherwise = info.node_name not in (self._commander, NAMELESS)
            foreign |= named_otherwise or info.qos_profile.liveliness != LivelinessPolicy.MANUAL_BY_TOPIC
        self._nameless_since = min(self._nameless_since, now) if nameless else math.inf
        return foreign or now - self._nameless_since > DISCOVERY_SECONDS

    def _settle(self) -> None:
        """After an event: publish a changed state at once, and only then lead the nodes there."""
        if self._published != (self.supervisor.state, self.supervisor.epoch):
            self._publish()
            self._lead()

    def _lead(self) -> None:
        now, state = uptime(), self.supervisor.state
        wanted = NodeState.PRIMARY_STATE_ACTIVE if state in COMMANDED else NodeState.PRIMARY_STATE_INACTIVE
        if state is not State.ACTIVE:  # nothing is asked of a node in its control loop
            self._bridge.want(NodeState.PRIMARY_STATE_ACTIVE, now)
            self._controller.want(wanted, now)
        if state is State.ARMED and (self._controller.anew or self._controller.absent(now)):  # what was armed is gone
            self.supervisor.handle(Event.CONTROLLER_LOST, now)
            self._settle()
        if state is State.UNCONFIGURED and self._bridge.reached and self._controller.reached:
            self.supervisor.handle(Event.CONFIGURED, now)
            self._settle()

    def _publish(self) -> None:
        state, epoch, text = self.supervisor.state, self.supervisor.epoch, self._text()
        new = self._published is None or self._published[0] is not state
        self._published = (state, epoch)
        level = DiagnosticStatus.ERROR if state in (State.FAULT, State.ESTOP) else DiagnosticStatus.OK
        values = {"epoch": epoch, "reason": self.supervisor.reason, self._id.key: self._id.value}
        self._safety.publish(topics.status_message(state.value, text, values, level))
        self._log(f"{state.value}: {text}", new)  # only now: a reader that stalls may hold this process up

    def _text(self) -> str:
        """What led to this state, and what an UNCONFIGURED robot waits for."""
        lacks = [node.lacks for node in (self._bridge, self._controller) if node.lacks]
        waits = self.supervisor.state is State.UNCONFIGURED and lacks
        return f"{self.supervisor.reason}, waiting for {', '.join(lacks)}" if waits else self.supervisor.reason

    def _log(self, text: str, at_once: bool) -> None:
        now = uptime()
        if text != self._said:
            self._said, self._said_at = text, now
        if at_once or (text != self._logged and now - self._said_at > WAITING_SECONDS):
            self._logged = text
            self.get_logger().info(text)


def main() -> None:
    """Entry point of the executable `monitor`."""
    sys.exit(run(Monitor, MONITOR_PRIORITY))


if __name__ == "__main__":
    main()
