"""`landbridge foxglove`: a running robot in Foxglove, live: its topics as they are, and the operator's services."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rclpy.serialization import serialize_message
from rich.console import Console
from std_srvs.srv import Trigger

from landbridge.deploy.supervisor import Event
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge_nodes import topics
from landbridge_nodes.bag import describe
from landbridge_nodes.listener import REQUESTS, Listener
from landbridge_nodes.process import require_one_ros

PORT = 8765  # Foxglove's default
STOPPING = (Event.DISARM, Event.ESTOP)  # PARK moves a robot that is held, and takes torque off one that nobody holds
TRIGGER, ANSWER = "std_srvs/srv/Trigger", "bool success\nstring message"


def foxglove(robot: str = "furuta", host: str = "127.0.0.1", port: int = PORT, operate: bool = False) -> None:
    """Serve the topics of a running robot to Foxglove, by WebSocket, until Ctrl-C; `docs/foxglove.json` is a layout.

    Whoever reaches the port may disarm and stop the robot; what moves it needs `--operate`. Foxglove's
    protocol asks for no password, and any page in a browser on this machine reaches a local port.

    Example: landbridge foxglove --robot furuta

    Args:
        robot: Name of a robot, or a folder with robot.yaml: which topics there are.
        host: Address to listen on; 0.0.0.0: everybody who reaches this machine sees the robot.
        port: TCP port.
        operate: Offer arm, park and reset, too.
    """
    require_one_ros()
    spec = load_robot(robot).spec
    with serve(topics.every(spec), host, port, REQUESTS if operate else STOPPING) as found:
        offered = "arm, reset, disarm, park, estop" if operate else "disarm, estop; --operate: arm, park, reset"
        say = Console(stderr=True, markup=False, soft_wrap=True).print
        say(f"Foxglove: Open connection, ws://{host}:{found}   (services: {offered})")
        threading.Event().wait()


@contextmanager
def serve(listed: Sequence[topics.Topic], host: str, port: int, offered: Sequence[Event]) -> Iterator[int]:
    """Hand every message of `listed` on, and take requests for `offered`; yields the port (0 chooses a free one).

    Raises:
        InputError: Nothing can listen there.
    """
    from foxglove import Channel, Context, start_server
    from foxglove.websocket import Capability

    context = Context()
    channels = {
        topic: Channel(topic.name, message_encoding="cdr", schema=_schema(topic), context=context) for topic in listed
    }
    listener = Listener(listed, lambda topic, raw: channels[topic].log(raw, log_time=time.time_ns()))
    latched: Any = _Latched(listener, channels)
    try:
        server = start_server(
            name="landbridge",
            host=host,
            port=port,
            capabilities=[Capability.Services],
            server_listener=latched,
            supported_encodings=["cdr"],
            services=[_service(listener, event) for event in offered],
            context=context,
        )
    except (RuntimeError, OverflowError) as error:  # a port beyond 65535
        remedy = "choose another --port, up to 65535, or --host"
        raise InputError(f"{host}:{port}", f"cannot be listened on: {error}", remedy) from error
    try:
        with listener:
            yield server.port
    finally:
        server.stop()


class _Latched:
    """A client that comes later gets the newest message of a latched topic at once, as the topic promises."""

    def __init__(self, listener: Listener, channels: Mapping[topics.Topic, Any]) -> None:
        self._heard = {topic.name: inbox for topic, inbox in listener.heard.items() if topic.latched}
        self._channels = {topic.name: channel for topic, channel in channels.items()}

    def on_subscribe(self, client: Any, channel: Any) -> None:
        """Called by Foxglove's server."""
        inbox = self._heard.get(channel.topic)
        if inbox is not None and inbox.raw:
            self._channels[channel.topic].log(inbox.raw, log_time=time.time_ns())


def _schema(topic: topics.Topic) -> Any:
    from foxglove import Schema

    return Schema(name=topic.type_name, encoding="ros2msg", data=describe(topic).definition.encode())


def _service(listener: Listener, event: Event) -> Any:
    from foxglove import MessageSchema, Schema, Service, ServiceSchema

    def serve(request: Any) -> bytes:
        answer = listener.ask(event)
        return bytes(serialize_message(Trigger.Response(success=answer.accepted, message=answer.message)))

    request, response = (
        MessageSchema(encoding="cdr", schema=Schema(name=f"{TRIGGER}_{part}", encoding="ros2msg", data=text.encode()))
        for part, text in (("Request", ""), ("Response", ANSWER))
    )
    schema = ServiceSchema(name=TRIGGER, request=request, response=response)
    return Service(f"/monitor/{event.value}", schema=schema, handler=serve)
