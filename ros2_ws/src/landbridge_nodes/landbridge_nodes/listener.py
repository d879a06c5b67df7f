"""What an onlooker hears of a graph: the newest message of each topic, and the monitor's services."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.serialization import deserialize_message
from rclpy.task import Future
from std_srvs.srv import Trigger

from landbridge.deploy.supervisor import Answer, Event
from landbridge_nodes import topics
from landbridge_nodes.process import LOOP_SECONDS, Client, client, make_executor
from landbridge_nodes.transport import stay_on_this_machine

ANSWER_SECONDS = 1.0
DEPTH = 100  # messages that may wait here: an onlooker counts them, and is slower than the robot
REQUESTS = (Event.ARM, Event.DISARM, Event.PARK, Event.RESET, Event.ESTOP)


@dataclass
class Inbox:
    """One topic: how many messages came, when the last one did [s, monotonic], and its bytes."""

    count: int = 0
    at: float = 0.0
    raw: bytes = b""


class Listener(Client):
    """A node in a thread of its own; a context manager.

    Messages are kept as they came, and read when they are looked at: a few times a second, and not 500.

    Args:
        heard: What to listen to.
        then: Called with every message as it came, in that thread.

    Attributes:
        heard: By topic.
        reports: The last DiagnosticStatus of each name: nodes take turns on that topic.
    """

    def __init__(
        self, heard: Sequence[topics.Topic], then: Callable[[topics.Topic, bytes], None] = lambda topic, raw: None
    ) -> None:
        super().__init__()
        self.heard, self._then = {topic: Inbox() for topic in heard}, then
        self.reports: dict[str, Any] = {}

    def open(self) -> None:
        """Join the graph."""
        stay_on_this_machine()
        node = self.enter_context(client("watch"))
        self._executor, self._over = make_executor(node.context), Future()
        self.callback(self._executor.shutdown)
        self._executor.add_node(node)
        for topic in self.heard:
            topics.subscribe(node, topic, self._keep(topic), raw=True, depth=DEPTH)
        self._clients = {event: node.create_client(Trigger, f"/monitor/{event.value}") for event in REQUESTS}
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self.callback(self._end)

    def _spin(self) -> None:
        while not self._over.done():
            self._executor.spin_until_future_complete(self._over, timeout_sec=LOOP_SECONDS)

    def _end(self) -> None:
        self._over.set_result(None)
        self._thread.join()

    def _keep(self, topic: topics.Topic) -> Any:
        inbox = self.heard[topic]

        def keep(raw: bytes) -> None:
            inbox.count, inbox.at, inbox.raw = inbox.count + 1, time.monotonic(), raw
            if topic is topics.DIAGNOSTICS:
                self.reports |= {status.name: status for status in deserialize_message(raw, topic.message).status}
            self._then(topic, raw)

        return keep

    def message(self, topic: topics.Topic) -> Any | None:
        """The newest message of `topic`, None before the first."""
        raw = self.heard[topic].raw
        return deserialize_message(raw, topic.message) if raw else None

    def ask(self, event: Event) -> Answer:
        """Ask the monitor for `event`; its answer, or that there is none. Waits <= 1 s: not in a UI's thread."""
        answered = threading.Event()
        future = self._clients[event].call_async(Trigger.Request())
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(ANSWER_SECONDS):
            self._clients[event].remove_pending_request(future)
            return Answer(False, f"{event.value}: NO ANSWER from the monitor in {ANSWER_SECONDS:g} s")
        answer = future.result()
        return Answer(answer.success, f"{event.value}: {answer.message}" if answer.success else answer.message)
