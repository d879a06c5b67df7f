"""The recorder: every topic of the graph, raw, into a rosbag2 folder with MCAP storage.

Messages are never decoded. Chunks are closed and handed to the operating system every `FLUSH_PERIOD`, so `kill -9`
loses no more than that; what it leaves is a bag without `metadata.yaml` and summary, which `landbridge ingest` reads.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from mcap.writer import CompressionType, Writer
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rosbags.typesys import Stores, get_typestore
from std_srvs.srv import Trigger

from landbridge import __version__
from landbridge.bundle import read_bundle
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge_nodes import topics
from landbridge_nodes.process import run

FLUSH_PERIOD = 0.2  # s
CHUNK_SIZE = 64 * 1024  # bytes
METADATA_VERSION = 8  # read by the rosbag2 of Humble and of Jazzy


class Bag:
    """One rosbag2 folder being written: `<name>/<name>_0.mcap`, and `metadata.yaml` when it is closed.

    Args:
        about: Stored in the MCAP file as metadata record `landbridge`, and as the bag's custom data.

    Raises:
        InputError: `path` exists.
    """

    def __init__(self, path: Path, about: dict[str, str]) -> None:
        if path.exists():
            raise InputError(path, "already exists", "choose another --out or remove it")
        path.mkdir(parents=True)
        self.path, self.about = path, about
        self.file = path / f"{path.name}_0.mcap"
        self._stream = self.file.open("wb")
        self._writer = Writer(self._stream, CHUNK_SIZE, CompressionType.NONE)
        self._writer.start(profile="ros2", library=f"landbridge {__version__}")
        self._writer.add_metadata("landbridge", about)
        self._types = get_typestore(Stores.ROS2_JAZZY)
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, tuple[int, topics.Topic]] = {}
        self.counts: dict[str, int] = {}
        self._first = self._last = 0

    def add(self, topic: topics.Topic) -> None:
        """Register a topic."""
        name = topic.type_name
        if name not in self._schemas:
            definition, _ = self._types.generate_msgdef(name, ros_version=2)
            self._schemas[name] = self._writer.register_schema(name, "ros2msg", definition.encode())
        metadata = {
            "offered_qos_profiles": _yaml(_qos(topic)),
            "topic_type_hash": self._types.hash_rihs01(name),
        }
        channel = self._writer.register_channel(topic.name, "cdr", self._schemas[name], metadata)
        self._channels[topic.name] = (channel, topic)
        self.counts[topic.name] = 0

    def write(self, topic: str, raw: bytes, now: int) -> None:
        """Append one serialised message that was received at `now` [ns]."""
        self._first, self._last = self._first or now, now
        self.counts[topic] += 1
        self._writer.add_message(self._channels[topic][0], now, raw, now, self.counts[topic])

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._writer.flush()

    def close(self) -> None:
        """Write summary and `metadata.yaml`; a bag without any message is removed."""
        self._writer.finish()
        self._stream.close()
        if not self._first:
            shutil.rmtree(self.path)
            return
        partial = self.path / "metadata.yaml.partial"
        partial.write_text(_yaml(self._metadata()))
        partial.rename(self.path / "metadata.yaml")

    def _metadata(self) -> dict[str, Any]:
        start, duration = {"nanoseconds_since_epoch": self._first}, {"nanoseconds": self._last - self._first}
        count = sum(self.counts.values())
        listed = [
            {
                "topic_metadata": {
                    "name": topic.name,
                    "type": topic.type_name,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": _yaml(_qos(topic)),
                    "type_description_hash": self._types.hash_rihs01(topic.type_name),
                },
                "message_count": self.counts[topic.name],
            }
            for _, topic in self._channels.values()
        ]
        return {
            "rosbag2_bagfile_information": {
                "version": METADATA_VERSION,
                "storage_identifier": "mcap",
                "duration": duration,
                "starting_time": start,
                "message_count": count,
                "topics_with_message_count": listed,
                "compression_format": "",
                "compression_mode": "",
                "relative_file_paths": [self.file.name],
                "files": [
                    {"path": self.file.name, "starting_time": start, "duration": duration, "message_count": count}
                ],
                "custom_data": self.about,
                "ros_distro": "jazzy",
            }
        }


class _Dumper(yaml.SafeDumper):
    """Without anchors, which not every reader of bags knows."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(data: Any) -> str:
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False))


def _qos(topic: topics.Topic) -> list[dict[str, Any]]:
    """The profile in the form of rosbag2's version 8: policies as the numbers of rmw's enumerations."""
    profile = topics.qos(topic)
    forever = {"sec": 9223372036, "nsec": 854775807}
    return [
        {
            "history": int(profile.history),
            "depth": profile.depth,
            "reliability": int(profile.reliability),
            "durability": int(profile.durability),
            "deadline": forever,
            "lifespan": forever,
            "liveliness": int(profile.liveliness),
            "liveliness_lease_duration": forever,
            "avoid_ros_namespace_conventions": False,
        }
    ]


class Recorder(Node):  # type: ignore[misc]
    """Node `recorder`. Parameters: robot, out (the new bag folder); noted in the bag: scenario, controller, bundle."""

    def __init__(self) -> None:
        super().__init__("recorder")
        robot, out, scenario, controller, bundle = (
            self.declare_parameter(name, default).value
            for name, default in (
                ("robot", "furuta"),
                ("out", ""),
                ("scenario", "real"),
                ("controller", ""),
                ("bundle", ""),
            )
        )
        spec = load_robot(robot).spec
        about = {
            "robot": spec.name,
            "robot_hash": spec.digest(),
            "control_rate_hz": repr(spec.control_rate_hz),
            "scenario": scenario,
            "controller": controller,
            "landbridge": __version__,
            **({"bundle": read_bundle(Path(bundle)).digest} if bundle else {}),
        }
        self.bag = Bag(Path(out), about)
        self._topics = topics.every(spec)
        for topic in self._topics:
            self.bag.add(topic)
            topics.subscribe(self, topic, self._keep(topic.name), raw=True)
        self.create_service(Trigger, "~/ready", self._on_ready)
        self.create_timer(FLUSH_PERIOD, self.bag.flush, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Complete the bag."""
        self.bag.close()

    def _on_ready(self, request: Any, response: Any) -> Any:
        """Whether every topic has been found: what is published before is not recorded."""
        missing = [topic.name for topic in self._topics if not self.count_publishers(topic.name)]
        response.success, response.message = not missing, f"no publisher of {missing}" if missing else "recording"
        return response

    def _keep(self, topic: str) -> Any:
        return lambda raw: self.bag.write(topic, raw, time.time_ns())


def main() -> None:
    """Entry point of the executable `recorder`."""
    sys.exit(run(Recorder))


if __name__ == "__main__":
    main()
