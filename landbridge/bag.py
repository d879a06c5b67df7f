"""Reading our own bags: control ticks with the stamps they were measured at, cut into episodes.

A tick is complete when the bag holds its measurement, the observation that the controller built from it, and the
command that the guard admitted in answer; all three name the measurement by its stamp. The guard admits commands in
ACTIVE only, and the bridge writes a stop (`not_active`, or `stopped` by the supervisor) as soon as ACTIVE ends, on the
same topic: between two such stops lies one episode, whatever the order in which the topics reached the recorder.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Message, Metadata, Schema
from mcap.stream_reader import CRCValidationError, StreamReader, breakup_chunk
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore
from zstandard import ZstdError

from landbridge.errors import InputError
from landbridge.messages import (
    GUARD_COMMAND,
    GUARD_TIMING,
    JOINT_STATES,
    OBSERVATION,
    is_labelled,
    named_values,
    to_ns,
)
from landbridge.observation import Observer, by_name
from landbridge.robot import RobotSpec, option
from landbridge.verdict import ADMITTED, Reason

STOPPED = (Reason.NOT_ACTIVE, Reason.STOPPED)  # reasons of stops that the bridge itself writes outside ACTIVE
FAILED = (Reason.TILT, Reason.TRACKING_ERROR, Reason.POSITION_LIMIT, Reason.VELOCITY_LIMIT)  # for what the robot does
GAP_PERIODS = 1.5  # control periods between two measurements beyond which one was lost
ABOUT = "landbridge"  # name of the recorder's metadata record
SPEAKER = "joint_states_of"  # in the notes: frame_id of the bridge's own, beside which there may be others' in the bag
REQUIRED = ("robot", "robot_hash", "scenario", "controller")
MAGIC = b"\x89MCAP0\r\n"
FRAME = struct.Struct("<BQ")  # opcode and length before every MCAP record
# What reading a damaged record raises; RuntimeError: lz4 has no other.
DAMAGED = (McapError, CRCValidationError, ZstdError, RuntimeError, struct.error, UnicodeDecodeError)


@dataclass(frozen=True)
class Segment:
    """At least two measurements of one episode, each one control period after the last; none lost between them.

    Between two of them nothing but the admitted command was in effect. The last measurement needs no answer: when the
    guard stopped the robot because of it, it shows what the last command led to.

    Attributes:
        stamps: (T,) measurement times [s] since the first.
        joint_pos: (T, J) [rad] in `spec.joint_names` order.
        obs: (T, n) what the controller saw.
        commands: (T - 1, A) what the guard wrote in answer, in `spec.actuated` order.
        written: (T - 1,) how long after the measurement [s]; NaN where the bag lacks it.
        failed: Whether the guard stopped the robot for what it did by the last measurement.
    """

    stamps: NDArray[np.float64]
    joint_pos: NDArray[np.float64]
    obs: NDArray[np.float32]
    commands: NDArray[np.float64]
    written: NDArray[np.float64]
    failed: bool


@dataclass(frozen=True)
class Bag:
    """What a bag holds.

    Attributes:
        about: The recorder's notes: robot, robot_hash, scenario, controller and more; `compensation` names the
            calibration by which the commands of a policy were changed before they were sent.
        rate_hz: Median rate of the measurements.
        lost_ticks: Control periods inside episodes without a complete tick.
        repaired: What was lost with the end of a bag that was cut off, or None.
        seen: Stamps of all observations in it [ns, wall clock].
        known: How many of these were known beforehand.
    """

    about: dict[str, str]
    rate_hz: float
    lost_ticks: int
    repaired: str | None
    segments: list[Segment]
    seen: frozenset[int]
    known: int


@dataclass
class _Raw:
    """Values by name, by the stamp [ns] of the measurement they belong to."""

    joint_pos: dict[int, dict[str, float]] = field(default_factory=dict)
    obs: dict[int, dict[str, float]] = field(default_factory=dict)
    commands: dict[int, dict[str, float]] = field(default_factory=dict)
    written_ms: dict[int, float] = field(default_factory=dict)
    stretches: list[list[int]] = field(default_factory=list)  # stamps of admitted commands, by stretch of ACTIVE
    stops: set[int] = field(default_factory=set)  # measurements after which a stop was written
    failures: set[int] = field(default_factory=set)  # measurements for which the guard stopped the robot
    stopped: bool = True


class BagReader:
    """The decoded messages of a bag folder (or one .mcap file), in the order in which they were recorded.

    Attributes:
        about: The recorder's notes.
        repaired: What was lost with the end of a bag that was cut off, or None.

    Raises:
        InputError: No bag, a damaged one, or one that does not say which robot it is of.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, _mcap_file(path)
        with self._file.open("rb") as stream:
            self._end, self.repaired = _last_whole_record(path, stream)
            notes = (r for r in _records(path, stream, self._end) if isinstance(r, Metadata) and r.name == ABOUT)
            self.about: dict[str, str] = next((dict(record.metadata) for record in notes), {})
        if missing := [key for key in REQUIRED if key not in self.about]:
            lost = f" ({self.repaired})" if self.repaired else ""
            raise InputError(path, f"its notes lack {missing}{lost}", "record it with `landbridge record`")

    def messages(self, topics: Container[str]) -> Iterator[tuple[str, int, Any]]:
        """Topic, time of receipt [ns] by the recorder and message, of these topics.

        Joint states are the bridge's alone, and arrays those that name their values: what else was said there by others
        is passed over.
        """
        types, speaker = get_typestore(Stores.ROS2_JAZZY), self.about.get(SPEAKER)
        for schema, channel, message in self.raw():
            if channel.topic not in topics:
                continue
            decoded: Any = types.deserialize_cdr(message.data, schema.name)
            if channel.topic == JOINT_STATES and speaker is not None and decoded.header.frame_id != speaker:
                continue
            if hasattr(decoded, "layout") and not is_labelled(decoded):
                continue
            yield channel.topic, message.log_time, decoded

    def raw(self) -> Iterator[tuple[Schema, Channel, Message]]:
        """Every message as it was recorded, with its type and its topic."""
        schemas: dict[int, Schema] = {}
        channels: dict[int, Channel] = {}
        with self._file.open("rb") as stream:
            for record in _records(self.path, stream, self._end):
                if isinstance(record, Schema):
                    schemas[record.id] = record
                elif isinstance(record, Channel):
                    channels[record.id] = record
                elif isinstance(record, Message):
                    channel = channels[record.channel_id]
                    yield schemas[channel.schema_id], channel, record


def read_bag(path: Path, spec: RobotSpec, known: Container[int] = ()) -> Bag:
    """Read a bag of the robot `spec`, also one that was cut off; without the measurements whose stamps are `known`.

    Raises:
        InputError: No bag, a bag of another robot, a damaged one, or nothing usable in it.
    """
    reader = BagReader(path)
    require_robot(path, reader.about, spec)
    raw = _Raw()
    for topic, _, message in reader.messages(_TAKE):
        _TAKE[topic](raw, message)
    seen = frozenset(raw.obs)
    for stamp in [stamp for stamp in seen if stamp in known]:
        del raw.obs[stamp]
    segments = _segments(path, raw, spec)
    if not segments and len(raw.obs) == len(seen):
        lost = f" ({reader.repaired})" if reader.repaired else ""
        raise InputError(path, f"holds no two consecutive control ticks in ACTIVE{lost}", "record again")
    periods = np.diff([*raw.joint_pos]) * 1e-9
    rate, lost_ticks = float(1 / np.median(periods)), _lost_ticks(raw, spec)
    return Bag(reader.about, rate, lost_ticks, reader.repaired, segments, seen, len(seen) - len(raw.obs))


def _lost_ticks(raw: _Raw, spec: RobotSpec) -> int:
    complete = raw.joint_pos.keys() & raw.obs.keys()
    stretches = [[stamp for stamp in stretch if stamp in complete] for stretch in raw.stretches]
    steps = np.concatenate([np.diff(stretch) for stretch in stretches]) * 1e-9
    return int(np.maximum(np.rint(steps / spec.control_dt) - 1, 0).sum())  # a clock set back loses nothing


def _segments(path: Path, raw: _Raw, spec: RobotSpec) -> list[Segment]:
    """Maximal runs of exact transitions: admitted in answer to the first measurement, undisturbed to the second.

    Measurements follow each other as they were recorded: stamps are wall time, and sorted by them, those before and
    after a clock was set back would be neighbours.
    """
    measured = [s for s in raw.joint_pos if s in raw.obs and _finite(raw.joint_pos[s], raw.obs[s])]
    gap = GAP_PERIODS * spec.control_dt * 1e9  # ns
    stamps = np.array(measured, np.int64)
    answered = np.array([stamp in raw.commands and stamp not in raw.stops for stamp in measured], bool)
    exact = answered[:-1] & (np.diff(stamps) > 0) & (np.diff(stamps) <= gap)
    edges = np.flatnonzero(np.diff(exact, prepend=False, append=False))
    try:
        return [_segment(raw, spec, measured[a : b + 1]) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    except KeyError as error:
        raise InputError(path, str(error.args[0]), f"record it with the joints of {spec.name}") from error


def _segment(raw: _Raw, spec: RobotSpec, stamps: list[int]) -> Segment:
    columns = Observer(spec).names
    return Segment(
        stamps=np.array([(stamp - stamps[0]) * 1e-9 for stamp in stamps]),
        joint_pos=np.stack([by_name(spec.joint_names, raw.joint_pos[stamp]) for stamp in stamps]),
        obs=np.stack([by_name(columns, raw.obs[stamp]) for stamp in stamps]).astype(np.float32),
        commands=np.stack([by_name(spec.actuated, raw.commands[stamp]) for stamp in stamps[:-1]]),
        written=np.array([raw.written_ms.get(stamp, math.nan) / 1000 for stamp in stamps[:-1]]),
        failed=stamps[-1] in raw.failures,
    )


def _mcap_file(path: Path) -> Path:
    if not path.exists():
        raise InputError(path, "no such file or folder", "name the --out of `landbridge record`")
    files = [path] if path.is_file() else sorted(path.glob("*.mcap"))
    if len(files) == 1:
        return files[0]
    remedy = "name the --out of `landbridge record`"
    if bags := sorted({file.parent.name for file in path.glob("*/*.mcap")}):
        remedy = f"name one of the bags in it: {', '.join(bags)}"
    elif any(path.glob("*.hdf5")):
        remedy = "it is a dataset: `train`, `diagnose` and `calibrate` read it as it is"
    raise InputError(path, f"holds {len(files)} .mcap files, expected one", remedy)


def _last_whole_record(path: Path, stream: IO[bytes]) -> tuple[int, str | None]:
    """Where the last complete record ends, and what was lost when that is not the end of a complete file."""
    if stream.read(len(MAGIC)) != MAGIC:
        raise InputError(path, "is not an MCAP file, or an empty one", "name the --out of `landbridge record`")
    size, end, footer = os.fstat(stream.fileno()).st_size, len(MAGIC), False
    last_chunk: int | None = None  # where it begins
    while not footer and len(frame := stream.read(FRAME.size)) == FRAME.size:
        opcode, length = FRAME.unpack(frame)
        if opcode == 0 or end + FRAME.size + length > size:  # 0 is no record: a power loss may leave zeros
            break
        last_chunk = end if opcode == Opcode.CHUNK else last_chunk
        end = stream.seek(end + FRAME.size + length)
        footer = opcode == Opcode.FOOTER
    if not footer and last_chunk is not None and not _reads(stream, last_chunk):
        end = last_chunk  # a power loss may leave a file's length and not its content
    stream.seek(0)
    if footer and size == end + len(MAGIC):
        return end, None
    after = f"{size - end} bytes after the last complete record are lost"
    return end, f"cut off: {after if size > end else 'what came after the last complete record is lost'}"


def _reads(stream: IO[bytes], start: int) -> bool:
    """Whether the chunk that begins at this byte is as its checksum says."""
    stream.seek(start)
    try:
        breakup_chunk(next(iter(StreamReader(stream, skip_magic=True, emit_chunks=True).records)), validate_crc=True)
    except DAMAGED:
        return False
    return True


def _records(path: Path, stream: IO[bytes], end: int) -> Iterator[Any]:
    """Records before `end`, those inside chunks too."""
    if end == len(MAGIC):
        return
    try:
        for record in StreamReader(stream, emit_chunks=True).records:
            yield from breakup_chunk(record, validate_crc=True) if isinstance(record, Chunk) else (record,)
            if stream.tell() >= end:
                return
    except DAMAGED as error:
        raise InputError(path, f"is damaged before byte {stream.tell()}: {error}", "copy it again") from error


def require_robot(path: Path, about: dict[str, str], spec: RobotSpec) -> None:
    """Raise InputError unless the bag `path` with these notes was recorded on exactly this robot."""
    if (other := about["robot"]) != spec.name:
        raise InputError(path, f"is of robot {other!r}, not {spec.name!r}", f"add {option(other)}")
    if about["robot_hash"] != spec.digest():
        raise InputError(
            path,
            f"{spec.name} has changed since the recording (hash {spec.digest()[:12]}, then {about['robot_hash'][:12]})",
            "restore that robot.yaml or record again",
        )


def _finite(*values: dict[str, float]) -> bool:
    return all(math.isfinite(value) for named in values for value in named.values())


def _take_joint_states(raw: _Raw, message: Any) -> None:
    stamp = to_ns(message.header.stamp)
    if len(message.position) == len(message.name):  # else it is no bridge's, in a bag that does not say whose are
        raw.joint_pos[stamp] = dict(zip(message.name, message.position.tolist(), strict=True))


def _take_observation(raw: _Raw, message: Any) -> None:
    stamp, values = named_values(message)
    raw.obs[stamp] = values


def _take_timing(raw: _Raw, message: Any) -> None:
    stamp, values = named_values(message)
    raw.written_ms[stamp] = values["written_ms"]


def _take_command(raw: _Raw, message: Any) -> None:
    stamp = to_ns(message.header.stamp)
    if message.header.frame_id in ADMITTED:
        values = next(v for v in (message.position, message.velocity, message.effort) if len(v))
        raw.commands[stamp] = dict(zip(message.name, values.tolist(), strict=True))
        if raw.stopped:
            raw.stretches.append([])
        raw.stretches[-1].append(stamp)
        raw.stopped = False
    elif message.header.frame_id in STOPPED:
        raw.stopped = True
        raw.stops.add(stamp)
    elif message.header.frame_id in FAILED:
        raw.failures.add(stamp)


_TAKE = {
    JOINT_STATES: _take_joint_states,
    OBSERVATION: _take_observation,
    GUARD_TIMING: _take_timing,
    GUARD_COMMAND: _take_command,
}
