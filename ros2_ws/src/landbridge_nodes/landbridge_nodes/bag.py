"""Writing a bag: one rosbag2 folder with MCAP storage, messages raw as they came."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from mcap.writer import CompressionType, Writer
from rosbags.typesys import Stores, get_typestore

from landbridge import __version__
from landbridge.files import not_written, require_new
from landbridge_nodes import topics

CHUNK_SIZE = 64 * 1024  # bytes
METADATA = "metadata.yaml"
METADATA_VERSION = 8  # read by the rosbag2 of Humble and of Jazzy


class BagWriter:
    """One rosbag2 folder being written: `<name>/<name>_0.mcap`, and `metadata.yaml` when it is closed.

    Once open, nothing here raises: a full disk is named by `fault`, and what was written until then stays readable.

    Args:
        about: Stored in the MCAP file as metadata record `landbridge`, and as the bag's custom data.
        listed: The topics that may be written.

    Attributes:
        fault: Why nothing is written any more; "" while all is well.

    Raises:
        InputError: `path` exists, or cannot be written.
    """

    def __init__(self, path: Path, about: dict[str, str], listed: Sequence[topics.Topic]) -> None:
        require_new(path)
        self.path, self.about = path, about
        self.file = path / f"{path.name}_0.mcap"
        self.fault = ""
        try:
            path.mkdir(parents=True)
            self._stream = self.file.open("wb")
        except OSError as error:
            raise not_written(path, error, "choose another folder") from error
        self._writer = Writer(self._stream, CHUNK_SIZE, CompressionType.NONE)
        self._writer.start(profile="ros2", library=f"landbridge {__version__}")
        self._writer.add_metadata("landbridge", about)
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, tuple[int, topics.Topic]] = {}
        self.counts: dict[str, int] = {}
        self._first = self._last = 0
        for topic in listed:
            self._add(topic)

    def write(self, topic: str, raw: bytes, now: int) -> None:
        """Append one serialised message that was received at `now` [ns]."""
        if self.fault:
            return
        self._first, self._last = min(self._first or now, now), max(self._last, now)  # wall time may be set back
        self.counts[topic] += 1
        try:
            self._writer.add_message(self._channels[topic][0], now, raw, now, self.counts[topic])
        except OSError as error:
            self._give_up(error)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        if self.fault:
            return
        try:
            self._writer.flush()
        except OSError as error:
            self._give_up(error)

    def sync(self) -> None:
        """Have everything on the disk, so that it outlives a loss of power: takes as long as the disk needs."""
        self.flush()
        if self.fault:
            return
        try:
            _sync(self.file, self.path, self.path.parent)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Write summary and `metadata.yaml`, the sign of a complete bag; one without any message is removed."""
        if self.fault:
            return
        try:
            self._writer.finish()
            self._stream.close()
            if not self._first:
                shutil.rmtree(self.path)
                return
            partial = self.path / f"{METADATA}.partial"
            partial.write_text(_yaml(self._metadata()))
            _sync(self.file, partial)
            partial.rename(self.path / METADATA)
            _sync(self.path, self.path.parent)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.fault = f"{self.file}: {error.strerror}"
        with suppress(OSError):  # what its buffer holds cannot be written either
            self._stream.close()

    def _add(self, topic: topics.Topic) -> None:
        name, described = topic.type_name, describe(topic)
        if name not in self._schemas:
            self._schemas[name] = self._writer.register_schema(name, "ros2msg", described.definition.encode())
        metadata = {"offered_qos_profiles": described.qos, "topic_type_hash": described.type_hash}
        channel = self._writer.register_channel(topic.name, "cdr", self._schemas[name], metadata)
        self._channels[topic.name] = (channel, topic)
        self.counts[topic.name] = 0

    def _metadata(self) -> dict[str, Any]:
        start, duration = {"nanoseconds_since_epoch": self._first}, {"nanoseconds": self._last - self._first}
        count = sum(self.counts.values())
        listed = [
            {
                "topic_metadata": {
                    "name": topic.name,
                    "type": topic.type_name,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": describe(topic).qos,
                    "type_description_hash": describe(topic).type_hash,
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


def _sync(*paths: Path) -> None:
    """Wait until the disk has each file's content, or the names in a folder, one after the other."""
    for path in paths:
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


class Described(NamedTuple):
    """What a bag says of a topic: its type's definition and hash, its QoS profiles as YAML."""

    definition: str
    type_hash: str
    qos: str


@cache
def describe(topic: topics.Topic) -> Described:
    """What every bag says of a topic; the first time takes 0.2 s."""
    types = get_typestore(Stores.ROS2_JAZZY)
    definition, _ = types.generate_msgdef(topic.type_name, ros_version=2)
    return Described(definition, types.hash_rihs01(topic.type_name), _yaml(_qos(topic)))


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
