"""`landbridge foxglove` against the real graph, with a client that speaks foxglove.sdk.v1 by hand."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from std_srvs.srv import Trigger
from websockets.asyncio.client import ClientConnection, connect

from landbridge.cli import INPUT_ERROR, main
from landbridge.deploy.supervisor import Event
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge_nodes import bringup, topics
from landbridge_nodes.foxglove_server import STOPPING, foxglove, serve
from landbridge_nodes.listener import REQUESTS
from landbridge_nodes.processes import Processes

pytestmark = pytest.mark.ros
FURUTA = load_robot("furuta")
STILL = np.zeros((Observer(FURUTA.spec).size, 1), np.float32)
MESSAGE_DATA, SERVICE_CALL, SERVICE_RESPONSE = (
    1,
    2,
    3,
)  # opcodes, github.com/foxglove/ws-protocol/blob/main/docs/spec.md


class Client:
    """What Foxglove does: read what is offered, subscribe, call a service."""

    def __init__(self, wire: ClientConnection) -> None:
        self.wire = wire
        self.channels: dict[str, dict[str, Any]] = {}
        self.services: dict[str, dict[str, Any]] = {}
        self._topics: dict[int, str] = {}

    async def learn(self) -> None:
        """Wait until topics and services have been offered."""
        while not (self.channels and self.services):
            told = json.loads(await self.wire.recv())
            self.channels |= {channel["topic"]: channel for channel in told.get("channels", [])}
            self.services |= {service["name"]: service for service in told.get("services", [])}

    async def subscribe(self, topic: topics.Topic) -> None:
        channel = self.channels[topic.name]["id"]
        self._topics[channel] = topic.name
        await self.wire.send(json.dumps({"op": "subscribe", "subscriptions": [{"id": channel, "channelId": channel}]}))

    async def message(self, topic: topics.Topic, wanted: Callable[[Any], bool] = lambda message: True) -> Any:
        """The next one that is `wanted`."""
        while True:
            frame = await self.wire.recv()
            if isinstance(frame, bytes) and frame[0] == MESSAGE_DATA:
                subscription, _ = struct.unpack_from("<IQ", frame, 1)
                if self._topics[subscription] == topic.name:
                    message = deserialize_message(frame[13:], topic.message)
                    if wanted(message):
                        return message

    async def call(self, event: Event) -> Trigger.Response:
        encoding, service = b"cdr", self.services[f"/monitor/{event.value}"]["id"]
        head = struct.pack("<BIII", SERVICE_CALL, service, 7, len(encoding))
        await self.wire.send(head + encoding + b"\x00\x01\x00\x00\x00")
        while True:
            frame = await self.wire.recv()
            if isinstance(frame, bytes) and frame[0] == SERVICE_RESPONSE:
                _, call, length = struct.unpack_from("<III", frame, 1)
                assert call == 7
                return deserialize_message(frame[13 + length :], Trigger.Response)


def meet(port: int, do: Callable[[Client], Awaitable[None]]) -> None:
    """`do` with a client of the server on `port`."""

    async def run() -> None:
        async with (
            asyncio.timeout(30),
            connect(f"ws://127.0.0.1:{port}", subprotocols=["foxglove.sdk.v1"]) as wire,  # type: ignore[list-item]
        ):
            client = Client(wire)
            await client.learn()
            await do(client)

    asyncio.run(run())


def in_state(name: str) -> Callable[[Any], bool]:
    return lambda message: bool(message.name == name)


def test_topics_come_as_they_are_and_an_operator_arms_and_stops(
    ros_domain: None, tmp_path: Path, linear_bundle: Callable[..., Path]
) -> None:
    specs = bringup.deploy("furuta", "none", 0, str(linear_bundle(tmp_path / "bundle", STILL)))

    async def operate(client: Client) -> None:
        for topic in (topics.SAFETY_STATE, topics.JOINT_STATES, topics.GUARD_COMMAND):
            await client.subscribe(topic)
        await client.message(topics.SAFETY_STATE, in_state("STANDBY"))
        assert list((await client.message(topics.JOINT_STATES)).name) == FURUTA.spec.joint_names
        answer = await client.call(Event.ARM)
        assert (answer.success, answer.message) == (True, "arm: ARMED")
        await client.message(topics.GUARD_COMMAND, lambda message: message.header.frame_id == "ok")
        assert (await client.call(Event.ESTOP)).success
        await client.message(topics.SAFETY_STATE, in_state("ESTOP"))
        refused = await client.call(Event.ARM)
        assert not refused.success
        assert refused.message.startswith("arm refused in ESTOP")

    with Processes(specs), serve(topics.every(FURUTA.spec), "127.0.0.1", 0, REQUESTS) as port:
        meet(port, operate)
        meet(port, latched)


async def latched(client: Client) -> None:
    """A client that comes after the bridge's last word gets it."""
    await client.subscribe(topics.BRIDGE_FAULT)
    assert topics.status_value(await client.message(topics.BRIDGE_FAULT), "bridge")


@pytest.mark.parametrize("operate", [False, True])
def test_what_moves_the_robot_is_offered_when_asked_for(monkeypatch: pytest.MonkeyPatch, operate: bool) -> None:
    offered: list[set[Event]] = []

    def note(listed: object, host: str, port: int, events: Sequence[Event]) -> None:
        offered.append({*events})
        raise KeyboardInterrupt

    monkeypatch.setattr("landbridge_nodes.foxglove_server.serve", note)
    with pytest.raises(KeyboardInterrupt):
        foxglove(operate=operate)
    assert (offered[0] >= {Event.ARM, Event.PARK, Event.RESET}) is operate
    assert operate or offered[0] == {Event.DISARM, Event.ESTOP}


def test_what_is_offered(ros_domain: None) -> None:
    """Every topic with a definition that a reader of ROS 2 messages takes; nothing that moves, unless asked for."""

    async def look(client: Client) -> None:
        assert sorted(client.channels) == sorted(topic.name for topic in topics.every(FURUTA.spec))
        known = get_typestore(Stores.EMPTY)
        for topic in topics.every(FURUTA.spec):
            channel = client.channels[topic.name]
            assert (channel["encoding"], channel["schemaEncoding"]) == ("cdr", "ros2msg")
            known.register(get_types_from_msg(channel["schema"], channel["schemaName"]))
            assert topic.type_name in known.types
        assert sorted(client.services) == ["/monitor/disarm", "/monitor/estop"]
        assert "NO ANSWER" in (await client.call(Event.ESTOP)).message

    with serve(topics.every(FURUTA.spec), "127.0.0.1", 0, STOPPING) as port:
        meet(port, look)


def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str], ros_domain: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["foxglove", "--port", str(port)]) == INPUT_ERROR
    assert f"127.0.0.1:{port}" in (said := capsys.readouterr().err)
    assert "choose another --port" in said
    assert main(["foxglove", "--port", "99999"]) == INPUT_ERROR
    assert "127.0.0.1:99999: cannot be listened on" in capsys.readouterr().err
