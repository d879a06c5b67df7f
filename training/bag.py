"""Reading our own bags: control ticks with the stamps they were measured at, cut into episodes.

A tick is complete when the bag holds its measurement, the observation the controller built from it, and the command
that the guard admitted in answer. The guard admits commands in ACTIVE only, so admitted ticks are the stretches of
ACTIVE, and the newest `/safety/state` before a tick tells one stretch from the next.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mcap.exceptions import McapError
from mcap.records import Channel, Message, Metadata, Schema
from mcap.stream_reader import StreamReader
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from landbridge.errors import InputError
from landbridge.observation import by_name
from landbridge.robot import RobotSpec

ADMITTED = ("ok", "limited")  # verdicts of the guard with which a command is written
GAP_PERIODS = 1.5  # control periods between two ticks beyond which one was lost
ABOUT = "landbridge"  # name of the recorder's metadata record


@dataclass(frozen=True)
class Segment:
    """Consecutive ticks of one stretch of ACTIVE, none lost. T ticks, joints and commands in the robot's order.

    Attributes:
        stamps: (T,) measurement times [s] since the first.
        joint_pos: (T, J) [rad].
        obs: (T, n) what the controller saw.
        commands: (T, A) what the guard wrote in answer.
        lost: Whether a tick was lost right after it.
    """

    stamps: NDArray[np.float64]
    joint_pos: NDArray[np.float64]
    obs: NDArray[np.float32]
    commands: NDArray[np.float64]
    lost: bool


@dataclass(frozen=True)
class Bag:
    """What a bag holds.

    Attributes:
        about: The recorder's notes: robot, robot_hash, scenario, controller.
        rate_hz: Median rate of the measurements within episodes.
        latency_ms: Measurement to motor write of every admitted command.
        lost_ticks: Ticks missing inside episodes.
        repaired: What was lost with the end of a bag that was cut off, or None.
    """

    about: dict[str, str]
    rate_hz: float
    latency_ms: list[float]
    lost_ticks: int
    repaired: str | None
    segments: list[Segment]


@dataclass
class _Raw:
    """Messages by the measurement stamp [ns] they name."""

    about: dict[str, str] = field(default_factory=dict)
    joints: dict[int, dict[str, float]] = field(default_factory=dict)
    obs: dict[int, list[float]] = field(default_factory=dict)
    commands: dict[int, dict[str, float]] = field(default_factory=dict)
    logged: dict[int, int] = field(default_factory=dict)  # stamp -> log time of the admitted command
    written_ms: dict[int, float] = field(default_factory=dict)
    activations: list[int] = field(default_factory=list)  # log times at which ACTIVE began
    state: str = ""
    repaired: str | None = None


def read_bag(path: Path, spec: RobotSpec) -> Bag:
    """Read a bag folder (or one .mcap file), also one that was cut off.

    Raises:
        InputError: No bag, a bag of another robot, or nothing usable in it.
    """
    raw = _Raw()
    types = get_typestore(Stores.ROS2_JAZZY)
    file = _mcap_file(path)
    for item in _records(file, raw):
        if isinstance(item, Metadata):
            if item.name == ABOUT:
                raw.about = dict(item.metadata)
        else:
            topic, kind, message = item
            _take(raw, topic, types.deserialize_cdr(message.data, kind), message.log_time, spec.action.kind)
    _require_robot(path, raw, spec)
    segments, lost = _segments(raw, spec)
    if not segments:
        problem = "holds no control tick that was ACTIVE" + (f" ({raw.repaired})" if raw.repaired else "")
        raise InputError(path, problem, "record again; the robot must be armed")
    periods = np.concatenate([np.diff(segment.stamps) for segment in segments])
    rate = 1 / float(np.median(periods)) if len(periods) else float("nan")
    return Bag(raw.about, rate, [raw.written_ms[s] for s in sorted(raw.written_ms)], lost, raw.repaired, segments)


def _mcap_file(path: Path) -> Path:
    files = [path] if path.suffix == ".mcap" and path.is_file() else sorted(path.glob("*.mcap"))
    if len(files) != 1:
        raise InputError(path, f"holds {len(files)} .mcap files, expected one", "name the --out of `landbridge record`")
    return files[0]


def _records(file: Path, raw: _Raw) -> Iterator[Metadata | tuple[str, str, Message]]:
    """Metadata and (topic, type, message) in file order, up to the end or to where the file was cut off."""
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    with file.open("rb") as stream:
        whole = 0
        try:
            for record in StreamReader(stream, record_size_limit=None).records:
                whole = stream.tell()
                if isinstance(record, Schema):
                    schemas[record.id] = record
                elif isinstance(record, Channel):
                    channels[record.id] = record
                elif isinstance(record, Metadata):
                    yield record
                elif isinstance(record, Message):
                    channel = channels[record.channel_id]
                    yield channel.topic, schemas[channel.schema_id].name, record
        except (McapError, EOFError, ValueError) as error:
            # A bag that ends in the middle of a record: everything before it is whole.
            missing = file.stat().st_size - whole
            raw.repaired = f"cut off: the last {missing} bytes are no complete record ({type(error).__name__})"


def _take(raw: _Raw, topic: str, message: Any, logged: int, kind: str) -> None:
    if topic == "/joint_states":
        raw.joints[_stamp(message)] = dict(zip(message.name, message.position.tolist(), strict=True))
    elif topic == "/policy/observation":
        sec, nanosec, *values = message.data.tolist()
        raw.obs[int(sec) * 10**9 + int(nanosec)] = values
    elif topic == "/guard/command" and message.header.frame_id in ADMITTED:
        stamp = _stamp(message)
        raw.commands[stamp] = dict(zip(message.name, getattr(message, kind).tolist(), strict=True))
        raw.logged[stamp] = logged
    elif topic == "/guard/timing":
        names = message.layout.dim[0].label.split(",")
        sec, nanosec, *values = message.data.tolist()
        raw.written_ms[int(sec) * 10**9 + int(nanosec)] = dict(zip(names[2:], values, strict=True))["written_ms"]
    elif topic == "/safety/state":
        if message.name == "ACTIVE" and raw.state != "ACTIVE":
            raw.activations.append(logged)
        raw.state = message.name


def _stamp(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def _require_robot(path: Path, raw: _Raw, spec: RobotSpec) -> None:
    recorded = raw.about.get("robot")
    if recorded is None:
        raise InputError(path, "does not say which robot it is of", "record it with `landbridge record`")
    if recorded != spec.name:
        raise InputError(path, f"is of robot {recorded!r}, not {spec.name!r}", f"add --robot {recorded}")
    if raw.about["robot_hash"] != spec.digest():
        raise InputError(
            path,
            f"{spec.name} has changed since the recording "
            f"(hash {spec.digest()[:12]}, then {raw.about['robot_hash'][:12]})",
            "restore that robot.yaml or record again",
        )


def _segments(raw: _Raw, spec: RobotSpec) -> tuple[list[Segment], int]:
    """Complete ticks in order of their stamps, cut where ACTIVE began anew or a tick is missing; and how many are."""
    stamps = sorted(set(raw.joints) & set(raw.obs) & set(raw.commands))
    stretch = {stamp: bisect.bisect_right(raw.activations, raw.logged[stamp]) for stamp in stamps}
    runs: list[tuple[list[int], bool]] = []
    lost = 0
    for stamp in stamps:
        if runs and stretch[runs[-1][0][-1]] == stretch[stamp]:
            periods = (stamp - runs[-1][0][-1]) * 1e-9 / spec.control_dt
            if periods <= GAP_PERIODS:
                runs[-1][0].append(stamp)
                continue
            lost += round(periods) - 1
            runs[-1] = (runs[-1][0], True)
        runs.append(([stamp], False))
    return [_segment(raw, spec, run, gap) for run, gap in runs], lost


def _segment(raw: _Raw, spec: RobotSpec, stamps: list[int], lost: bool) -> Segment:
    return Segment(
        stamps=np.array([(stamp - stamps[0]) * 1e-9 for stamp in stamps]),
        joint_pos=np.stack([by_name(spec.joint_names, raw.joints[stamp]) for stamp in stamps]),
        obs=np.array([raw.obs[stamp] for stamp in stamps], np.float32),
        commands=np.stack([by_name(spec.actuated, raw.commands[stamp]) for stamp in stamps]),
        lost=lost,
    )
