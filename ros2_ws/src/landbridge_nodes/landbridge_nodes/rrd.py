"""`landbridge rerun`: a recorded log as a recording for the Rerun viewer (rerun.io), with the robot moving in it.

Whatever a bag holds of a control tick lies on one timeline, by the measurement's stamp, under the name of its topic.
Needs no ROS 2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from landbridge import messages
from landbridge.bag import BagReader, require_robot
from landbridge.errors import InputError
from landbridge.files import require_new, write_atomic
from landbridge.messages import named_values, to_ns
from landbridge.robot import Robot, load_robot, option, robots

TIMELINE = "measured"
WORLD = "world"  # what a floating base turns in
FIELDS = ("position", "velocity", "effort")  # of a JointState
SIGNALS = (messages.JOINT_STATES, messages.COMMAND, messages.GUARD_COMMAND)
ARRAYS = (messages.OBSERVATION, messages.ACTION, messages.GUARD_TIMING)
STATES = (messages.SAFETY_STATE, messages.BRIDGE_FAULT)
VERDICT = "/guard/verdict"  # no topic: what GUARD_COMMAND says beside the command

ByPath = dict[str, tuple[list[int], list[Any]]]  # stamps [ns] and values


@dataclass
class Series:
    """What a bag holds, one quantity after the other.

    Attributes:
        numbers: By topic and name, as in /guard/timing/written_ms or /joint_states/arm/position.
        states: The supervisor's state, the bridge's fault, and the guard's verdict, whenever they change.
        turns: Orientation of a floating base as x, y, z, w.
    """

    numbers: ByPath = field(default_factory=lambda: defaultdict(lambda: ([], [])))
    states: ByPath = field(default_factory=lambda: defaultdict(lambda: ([], [])))
    turns: tuple[list[int], list[list[float]]] = field(default_factory=lambda: ([], []))

    def add(self, topic: str, received: int, message: Any) -> None:
        """Take one message; what bears no stamp of a measurement is placed at its receipt [ns]."""
        if topic in STATES:
            self._change(topic, received, message.name if topic == messages.SAFETY_STATE else message.message)
        elif topic in ARRAYS:
            stamp, values = named_values(message)
            for name, value in values.items():
                _append(self.numbers[f"{topic}/{name}"], stamp, value)
        else:
            stamp = to_ns(message.header.stamp)
            if topic == messages.IMU:
                q = message.orientation
                _append(self.turns, stamp, [q.x, q.y, q.z, q.w])
                return
            for kind in FIELDS:
                for name, value in zip(message.name, getattr(message, kind).tolist(), strict=False):
                    _append(self.numbers[f"{topic}/{name}/{kind}"], stamp, value)
            if topic == messages.GUARD_COMMAND:
                self._change(VERDICT, stamp, message.header.frame_id)

    def _change(self, path: str, stamp: int, state: str) -> None:
        _, states = self.states[path]
        if not states or states[-1] != state:
            _append(self.states[path], stamp, state)


def rerun(bag: Path, /, out: Path, robot: str | None = None) -> dict[str, Any]:
    """Turn a recorded log into an .rrd file for the Rerun viewer: signals, latencies, verdicts, the robot in motion.

    Example: landbridge rerun bags/deploy --out deploy.rrd && rerun deploy.rrd

    Args:
        bag: Bag folder or .mcap file of `landbridge record` or `up deploy --record`.
        out: File to write.
        robot: Folder of a robot that does not ship; by default the one that the bag names.
    """
    try:
        import rerun as rr
    except ModuleNotFoundError as error:
        raise InputError("rerun", "is not installed", "pip install 'landbridge[rerun]'") from error
    require_new(out)
    reader = BagReader(bag)
    named = reader.about["robot"]
    if robot is None and named not in robots():
        raise InputError(bag, f"is of robot {named!r}, which does not ship", f"add {option(named)}")
    machine = load_robot(robot or named)
    require_robot(bag, reader.about, machine.spec)
    series = Series()
    for topic, received, message in reader.messages((*SIGNALS, *ARRAYS, *STATES, messages.IMU)):
        series.add(topic, received, message)
    if not series.numbers:
        raise InputError(bag, "holds no control tick", "record it with `landbridge record`")
    content, rows = encode(rr, series, machine, bag.name)
    write_atomic(out, content, "free space, or choose another --out")
    return {
        "bag": str(bag),
        "rerun": str(out),
        "bytes": len(content),
        "series": len(series.numbers),
        "rows": rows,
        "states": {path: len(states) for path, (_, states) in series.states.items()},
    }


def encode(rr: Any, series: Series, robot: Robot, name: str) -> tuple[bytes, int]:
    """The content of the .rrd file, and how many rows it has.

    In memory, where the log is too: Rerun's own way to a file waits for ever on a full disk.
    """
    recording = rr.RecordingStream("landbridge", recording_id=name)
    memory = recording.memory_recording()
    recording.send_blueprint(_layout(), make_active=False)
    rows = 0

    def send(entity: str, stamps: list[int], columns: Any) -> None:
        nonlocal rows
        rows += len(stamps)
        index = rr.TimeColumn(TIMELINE, timestamp=np.array(stamps, "datetime64[ns]"))
        rr.send_columns(entity, [index], columns, recording=recording, strict=True)

    for entity, (stamps, values) in series.numbers.items():
        send(entity, stamps, rr.Scalars.columns(scalars=values))
    for entity, (stamps, states) in series.states.items():
        send(entity, stamps, rr.StateChange.columns(state=states))
    _send_motion(rr, series, robot, recording, send)
    return memory.drain_as_bytes(), rows


def _send_motion(
    rr: Any, series: Series, robot: Robot, recording: Any, send: Callable[[str, list[int], Any], None]
) -> None:
    """The robot's URDF, its joints where they were measured, and the base as the IMU turned (no sensor places it)."""
    tree = rr.urdf.UrdfTree.from_file_path(robot.urdf)
    tree.log_urdf_to_recording(recording)
    for name in robot.spec.joint_names:
        stamps, positions = series.numbers[f"{messages.JOINT_STATES}/{name}/position"]
        send(f"/motion/{name}", stamps, tree.get_joint_by_name(name).compute_transform_columns(positions, clamp=False))
    stamps, turns = series.turns
    if stamps:
        frames = {"parent_frame": [WORLD] * len(stamps), "child_frame": [tree.root_link().name] * len(stamps)}
        send("/motion/base", stamps, rr.Transform3D.columns(quaternion=turns, **frames))


def _layout() -> Any:
    """The robot above its states as lanes; beside them joints, the commands before and after the guard, latencies."""
    import rerun.blueprint as rrb

    plotted = (("joints", SIGNALS[0]), ("policy", SIGNALS[1]), ("guard", SIGNALS[2]), ("latency [ms]", ARRAYS[2]))
    lanes = rrb.StateTimelineView(name="states", contents=[*STATES, VERDICT])
    contents = ["+ $origin/**", "- $origin/measured_ms"]  # a time, no latency
    plots = [rrb.TimeSeriesView(name=name, origin=origin, contents=contents) for name, origin in plotted]
    left = rrb.Vertical(rrb.Spatial3DView(name="robot"), lanes, row_shares=[2, 1])
    return rrb.Blueprint(rrb.Horizontal(left, rrb.Vertical(*plots)), collapse_panels=True)


def _append(to: tuple[list[int], list[Any]], stamp: int, value: Any) -> None:
    to[0].append(stamp)
    to[1].append(value)
