"""A bag as the control ticks that it holds: what was measured, seen, asked for and judged, under one stamp each.

Stamps are wall time, which may be set while the robot runs; they name measurements. `timeline` tells when something
reached the guard, on one clock that no step of the wall clock moves. Needs no ROS 2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from landbridge import messages
from landbridge.bag import BagReader
from landbridge.deploy.supervisor import State
from landbridge.errors import InputError
from landbridge.messages import named_values, to_ns
from landbridge.observation import Base, Observer, by_name
from landbridge.robot import RobotSpec
from landbridge_nodes.base import read_base

STEP = 1_000_000_000  # ns between two measurements, beyond which it was the wall clock that went on
Judged = tuple[str, tuple[float, ...]]  # the guard's reason and the command in effect
Values = tuple[float, ...]


class Heard(NamedTuple):
    """A message that names no measurement, or perhaps not one of this bag.

    Attributes:
        after: The last measurement recorded before it; None if there was none.
        later: How much later the recorder had it [ns], by the wall clock.
        carried: (state, epoch), or (stamp, names, values) of a command.
    """

    after: int | None
    later: int
    carried: Any


class Input(NamedTuple):
    """What reached the guard.

    Attributes:
        time: ns, on the clock of `timeline`.
        kind: measurement, state or command.
        carried: The measurement's stamp, or as in `Heard`.
    """

    time: int
    kind: str
    carried: Any


@dataclass
class Log:
    """What a bag holds, by the stamp [ns] of the measurement and in the order in which it was recorded.

    Values are in the robot's order of joints and columns.

    Attributes:
        measured: Positions and velocities of all joints.
        recorded: When the recorder had the measurement [ns, wall clock].
        taken: When the measurement was taken [ns, the bridge's monotonic clock]; of those that were answered.
        imu, odometry: Messages of a floating base's sensors.
        obs: What the policy saw.
        action: What it asked for, in [-1, 1].
        tick: How many measurements of the episode it had answered; -1 in a log that does not say.
        command: The same in the command's unit, once per message.
        received: How long after the measurement the guard had each command that answers it [ns].
        verdict: The guard's answers, stops included.
        commands, states: All that were heard.
    """

    spec: RobotSpec
    measured: dict[int, tuple[list[float], list[float]]] = field(default_factory=dict)
    recorded: dict[int, int] = field(default_factory=dict)
    taken: dict[int, int] = field(default_factory=dict)
    imu: dict[int, Any] = field(default_factory=dict)
    odometry: dict[int, Any] = field(default_factory=dict)
    obs: dict[int, Values] = field(default_factory=dict)
    action: dict[int, Values] = field(default_factory=dict)
    tick: dict[int, int] = field(default_factory=dict)
    command: dict[int, Values] = field(default_factory=dict)
    received: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    verdict: dict[int, list[Judged]] = field(default_factory=lambda: defaultdict(list))
    commands: list[Heard] = field(default_factory=list)
    states: list[Heard] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.columns = Observer(self.spec).names

    def base(self, stamp: int) -> Base | None:
        """The floating base of a measurement; None where a sensor's message is missing, as for every fixed one."""
        if stamp not in self.imu or stamp not in self.odometry:
            return None
        return read_base(self.imu[stamp], self.odometry[stamp])

    def heard(self, at: int, carried: Any) -> Heard:
        """What the recorder had at `at` [ns], now that it is read."""
        after = next(reversed(self.recorded), None)
        return Heard(after, 0 if after is None else at - self.recorded[after], carried)


def read_log(reader: BagReader, spec: RobotSpec) -> Log:
    """The log of a bag.

    Raises:
        InputError: A message lacks a joint or a column of this robot, or the bag a topic that a policy behind its
            guard leaves there.
    """
    log = Log(spec)
    try:
        for topic, at, message in reader.messages(_TAKE):
            _TAKE[topic](log, at, message)
    except KeyError as error:
        raise InputError(reader.path, str(error.args[0]), f"replay it with a bundle for {spec.name}") from error
    kept = log.measured, log.obs, log.action, log.commands, log.verdict, log.states
    if missing := [topic for topic, found in zip(_NEEDED, kept, strict=True) if not found]:
        problem = f"holds no message of {', '.join(missing)}"
        raise InputError(reader.path, problem, "record it with `landbridge up deploy --record`")
    return log


def timeline(log: Log) -> list[Input]:
    """All that reached the guard, in order.

    A command's time follows from its measurement's, to a microsecond. What names none is placed by the recorder's wall
    clock, from the last measurement on, but within a control period of it: that clock might have been set.
    """
    period, times = round(log.spec.control_dt * 1e9), measured_at(log)

    def at(heard: Heard) -> int:
        return 0 if heard.after is None else times[heard.after] + min(max(heard.later, 0), period)

    inputs = [Input(time, "measurement", stamp) for stamp, time in times.items()]
    inputs += [Input(at(heard), "state", heard.carried) for heard in log.states]
    received = {stamp: iter(delays) for stamp, delays in log.received.items()}
    for heard in log.commands:
        stamp = heard.carried[0]
        delay = next(received.get(stamp, iter(())), None)
        time = at(heard) if delay is None or stamp not in times else times[stamp] + delay
        inputs.append(Input(time, "command", heard.carried))
    return sorted(inputs, key=lambda item: item.time)


def measured_at(log: Log) -> dict[int, int]:
    """When each measurement was taken [ns since the first].

    By the bridge's monotonic clock, where the log has it; in between, and in older logs, by the stamps, unless they
    show that the wall clock was set: then a control period after the last.
    """
    times: dict[int, int] = {}
    time, before, known = 0, None, None
    for stamp in log.measured:
        if before is not None:
            time += stamp - before if 0 < stamp - before < STEP else round(log.spec.control_dt * 1e9)
        if (taken := log.taken.get(stamp)) is not None:
            time = time if known is None else times[known] + taken - log.taken[known]
            known = stamp
        times[stamp], before = time, stamp
    return times


def _stamp(message: Any) -> int:
    return to_ns(message.header.stamp)


def _ordered(names: Sequence[str], message: Any, kind: str) -> Values:
    return tuple(by_name(list(names), dict(zip(message.name, getattr(message, kind), strict=True))).tolist())


def _joint_states(log: Log, at: int, message: Any) -> None:
    position, velocity = (list(_ordered(log.spec.joint_names, message, kind)) for kind in ("position", "velocity"))
    stamp = _stamp(message)
    log.measured[stamp], log.recorded[stamp] = (position, velocity), at


def _imu(log: Log, at: int, message: Any) -> None:
    log.imu[_stamp(message)] = message


def _odometry(log: Log, at: int, message: Any) -> None:
    log.odometry[_stamp(message)] = message


def _observation(log: Log, at: int, message: Any) -> None:
    stamp, values = named_values(message)
    log.obs[stamp] = tuple(by_name(log.columns, values).tolist())


def _action(log: Log, at: int, message: Any) -> None:
    stamp, values = named_values(message)
    log.action[stamp] = tuple(by_name(log.spec.actuated, values).tolist())
    log.tick[stamp] = int(values.get("tick", -1))


def _command(log: Log, at: int, message: Any) -> None:
    """One that the guard refuses for its names or its field is no policy's."""
    stamp, values = _stamp(message), getattr(message, log.spec.action.kind).tolist()
    if sorted(message.name) == sorted(log.spec.actuated) and len(values) == len(message.name):
        log.command[stamp] = _ordered(log.spec.actuated, message, log.spec.action.kind)
    log.commands.append(log.heard(at, (stamp, message.name, values)))


def _verdict(log: Log, at: int, message: Any) -> None:
    judged = message.header.frame_id, _ordered(log.spec.actuated, message, log.spec.action.kind)
    log.verdict[_stamp(message)].append(judged)


def _timing(log: Log, at: int, message: Any) -> None:
    stamp, values = named_values(message)
    log.received[stamp].append(round(values["received_ms"] * 1e6))
    if "measured_ms" in values:
        log.taken[stamp] = round(values["measured_ms"] * 1e6)


def _state(log: Log, at: int, message: Any) -> None:
    """What no monitor can have sent is skipped, as the nodes did."""
    values = {pair.key: pair.value for pair in message.values}
    with suppress(KeyError, ValueError):
        log.states.append(log.heard(at, (State(message.name), int(values["epoch"]))))


_TAKE: dict[str, Callable[[Log, int, Any], None]] = {
    messages.JOINT_STATES: _joint_states,
    messages.IMU: _imu,
    messages.ODOM: _odometry,
    messages.OBSERVATION: _observation,
    messages.ACTION: _action,
    messages.COMMAND: _command,
    messages.GUARD_COMMAND: _verdict,
    messages.GUARD_TIMING: _timing,
    messages.SAFETY_STATE: _state,
}
_NEEDED = (
    messages.JOINT_STATES,
    messages.OBSERVATION,
    messages.ACTION,
    messages.COMMAND,
    messages.GUARD_COMMAND,
    messages.SAFETY_STATE,
)
