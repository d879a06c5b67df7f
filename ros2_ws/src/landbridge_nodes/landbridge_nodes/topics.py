"""The graph's topics: names, types, QoS, and how their messages carry what they carry.

Every message of a control tick names the measurement it belongs to by that measurement's stamp: in `header.stamp`, or,
in a Float64MultiArray, in the first two values. An array explains itself: `layout.dim[0].label` holds the names of its
values, joined by commas, beginning with `stamp_sec,stamp_nanosec`.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Quaternion, Vector3
from nav_msgs.msg import Odometry
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64MultiArray, MultiArrayDimension

from landbridge import messages
from landbridge.deploy.supervisor import State
from landbridge.observation import Base
from landbridge.robot import RobotSpec

BASE_FRAME = "base_link"  # REP 105
HISTORY = 5000  # messages of a topic kept for a reader that a busy machine holds up: 10 s at 500 Hz
NEWEST = 10  # kept by a reader that acts on what is new
STAMP = ("stamp_sec", "stamp_nanosec")
INFERENCE = ("inference_start_ms", "inference_end_ms")  # after receipt of the measurement by the controller
TICK = "tick"  # measurements answered in this episode before: at 0 the controller has no past
MEASURED = "landbridge"  # frame_id of a bridge's joint states: those of anyone else are not heard
TIMING = ("received_ms", "gated_ms", "written_ms", "measured_ms")  # bridge's uptime; the others after the last


class Topic(NamedTuple):
    """One topic; `latched` keeps the last message for late subscribers (transient_local)."""

    name: str
    message: type[Any]
    latched: bool = False

    @property
    def type_name(self) -> str:
        """As in `sensor_msgs/msg/JointState`."""
        return f"{self.message.__module__.split('.')[0]}/msg/{self.message.__name__}"


JOINT_STATES = Topic(messages.JOINT_STATES, JointState)
IMU = Topic(messages.IMU, Imu)
ODOM = Topic(messages.ODOM, Odometry)
OBSERVATION = Topic(messages.OBSERVATION, Float64MultiArray)
ACTION = Topic(messages.ACTION, Float64MultiArray)
COMMAND = Topic(messages.COMMAND, JointState)
GUARD_COMMAND = Topic(messages.GUARD_COMMAND, JointState)
GUARD_TIMING = Topic(messages.GUARD_TIMING, Float64MultiArray)
BRIDGE_FAULT = Topic(messages.BRIDGE_FAULT, DiagnosticStatus, latched=True)
SAFETY_STATE = Topic(messages.SAFETY_STATE, DiagnosticStatus, latched=True)
DIAGNOSTICS = Topic(messages.DIAGNOSTICS, DiagnosticArray)
TOPICS = (
    JOINT_STATES,
    OBSERVATION,
    ACTION,
    COMMAND,
    GUARD_COMMAND,
    GUARD_TIMING,
    BRIDGE_FAULT,
    SAFETY_STATE,
    DIAGNOSTICS,
)


def measured(spec: RobotSpec) -> tuple[Topic, ...]:
    """The topics that make up one measurement of a robot, all with one stamp."""
    return (JOINT_STATES, IMU, ODOM) if spec.base == "floating" else (JOINT_STATES,)


def every(spec: RobotSpec) -> tuple[Topic, ...]:
    """All topics of a robot's graph."""
    return (*measured(spec), *(topic for topic in TOPICS if topic is not JOINT_STATES))


def publish(node: Any, topic: Topic) -> Any:
    """A publisher of `topic` on `node`."""
    return node.create_publisher(topic.message, topic.name, qos(topic))


def subscribe(node: Any, topic: Topic, callback: Callable[[Any], None], raw: bool = False, depth: int = 0) -> Any:
    """A subscription of `node` to `topic`; `raw` hands over serialised bytes, `depth` keeps more than the newest."""
    profile = qos(topic)
    profile.depth = depth or min(profile.depth, NEWEST)
    return node.create_subscription(topic.message, topic.name, callback, profile, raw=raw)


def qos(topic: Topic) -> QoSProfile:
    """What a publisher offers: reliable, sent again to whoever missed it; of a latched topic only the newest."""
    if topic.latched:
        return QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    return QoSProfile(depth=HISTORY)


def command_qos(lease_seconds: float) -> QoSProfile:
    """For the publisher of `/policy/command` and its watchers: a hung publisher must not pass for a living one."""
    profile = qos(COMMAND)
    profile.liveliness = LivelinessPolicy.MANUAL_BY_TOPIC
    profile.liveliness_lease_duration = Duration(seconds=lease_seconds)
    return profile


to_ns = messages.to_ns


def to_time(ns: int) -> Time:
    """The inverse of `to_ns`."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def joint_message(ns: int, names: Sequence[str], kind: str, values: Sequence[float], frame_id: str = "") -> JointState:
    """A command: `values` in the field that `kind` (position, velocity, effort) names."""
    message = JointState(name=list(names))
    message.header.frame_id = frame_id
    return joint_message_again(message, ns, **{kind: values})


def joint_message_again(message: JointState, ns: int, **fields: Sequence[float]) -> JointState:
    """`message` with another stamp and other `fields`, which spares a control tick the making of a new one."""
    stamp = message.header.stamp
    stamp.sec, stamp.nanosec = divmod(ns, 1_000_000_000)
    for field, values in fields.items():
        setattr(message, field, array("d", values))
    return message


def base_messages(ns: int, base: Base) -> tuple[Imu, Odometry]:
    """A floating base (one row): orientation and turning as of an IMU, velocity as of a state estimator (REP 145, 105).

    What is not measured has covariance -1, as REP 145 asks for; the pose in the odometry stays empty.
    """
    (w, x, y, z), turning, velocity = (values[0].tolist() for values in base)
    imu = Imu(orientation=Quaternion(x=x, y=y, z=z, w=w), angular_velocity=_vector(turning))
    imu.linear_acceleration_covariance[0] = -1.0
    odometry = Odometry(child_frame_id=BASE_FRAME)
    odometry.twist.twist.linear, odometry.twist.twist.angular = _vector(velocity), _vector(turning)
    odometry.pose.covariance[0] = -1.0
    imu.header.stamp = odometry.header.stamp = to_time(ns)
    imu.header.frame_id, odometry.header.frame_id = BASE_FRAME, "odom"
    return imu, odometry


def _vector(values: Sequence[float]) -> Vector3:
    x, y, z = values
    return Vector3(x=x, y=y, z=z)


def array_message(ns: int, names: Sequence[str], values: Sequence[float]) -> Float64MultiArray:
    """Named values that answer the measurement `ns`."""
    size = len(STAMP) + len(names)
    message = Float64MultiArray()
    message.layout.dim = [MultiArrayDimension(label=",".join((*STAMP, *names)), size=size, stride=size)]
    return array_message_again(message, ns, values)


def array_message_again(message: Float64MultiArray, ns: int, values: Sequence[float]) -> Float64MultiArray:
    """As `joint_message_again`, for a message of `array_message`."""
    message.data = array("d", (*divmod(ns, 1_000_000_000), *values))
    return message


def status_message(
    name: str, message: str, values: Mapping[str, object], level: bytes = DiagnosticStatus.OK
) -> DiagnosticStatus:
    """A DiagnosticStatus; `level` is one of its OK, WARN, ERROR and STALE."""
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(name=name, message=message, level=level, hardware_id="", values=pairs)


def diagnostics_message(
    name: str, message: str, values: Mapping[str, object], level: bytes = DiagnosticStatus.OK
) -> DiagnosticArray:
    """The one status of a node, as of now."""
    told = DiagnosticArray(status=[status_message(name, message, values, level)])
    told.header.stamp = to_time(time.time_ns())
    return told


def status_value(status: DiagnosticStatus, key: str) -> str:
    """The value of `key`; raises KeyError."""
    return {str(pair.key): str(pair.value) for pair in status.values}[key]


def read_state(status: DiagnosticStatus) -> tuple[State, int] | None:
    """The supervisor's state and epoch, of a message of SAFETY_STATE; None if no monitor can have sent it."""
    with suppress(KeyError, ValueError):
        return State(status.name), int(status_value(status, "epoch"))
    return None
