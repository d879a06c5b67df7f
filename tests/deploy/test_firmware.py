"""The firmware's state machine, in virtual time: what it does to the motors after each event, to the microsecond."""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from landbridge.deploy.hardware import protocol
from landbridge.deploy.hardware.protocol import Fault, Frame, Kind, Receiver, State, encode
from landbridge.deploy.hil.board import Board, compile_library
from landbridge.robot import Robot, load_robot

FURUTA = load_robot("furuta")
ARM = FURUTA.spec.joint("arm")
WATCHDOG_US, TELEMETRY_US = 60_000, 2_000
SESSION = 0xC0FFEE


class Bench:
    """A board on the bench: clock, serial line, sensors and motor in the test's hands."""

    def __init__(self, robot: Robot, library: Path) -> None:
        self.now, self.sequence = 2**32 - 100_000, 0  # the clock wraps during most tests
        self.inbox = b""
        self.sent: list[Frame] = []
        self.position, self.velocity, self.sensed = [0.1, 3.0], [0.0, 0.0], True
        self.torque, self.command = False, [0.0]
        self.receiver = Receiver()
        self.board = Board(robot, self, library)
        self.pass_()

    def time_us(self) -> int:
        return self.now

    def receive(self, size: int) -> bytes:
        data, self.inbox = self.inbox[:size], self.inbox[size:]
        return data

    def send(self, data: bytes) -> None:
        self.sent += self.receiver.feed(data)

    def measure(self) -> tuple[Sequence[float], Sequence[float]] | None:
        return (self.position, self.velocity) if self.sensed else None

    def actuate(self, torque: bool, command: Sequence[float]) -> None:
        self.torque, self.command = torque, list(command)

    def pass_(self, after_us: int = 0) -> None:
        self.now += after_us
        self.board.poll()

    def host(self, kind: Kind, payload: bytes = b"", session: int = SESSION, sequence: int | None = None) -> None:
        self.sequence = self.sequence + 1 if sequence is None else sequence
        self.inbox += encode(kind, self.sequence, session, 77, payload)
        self.pass_()

    def start(self, watchdog_us: int = WATCHDOG_US) -> None:
        self.host(Kind.HELLO)
        self.host(Kind.START, struct.pack("<II", watchdog_us, TELEMETRY_US))

    def order(self, *values: float, age_us: int = 0, sequence: int | None = None) -> None:
        payload = struct.pack(f"<I{len(values)}f", (self.now - age_us) % 2**32, *values)
        self.host(Kind.COMMAND, payload, sequence=sequence)

    @property
    def telemetry(self) -> dict[str, Any]:
        """After one telemetry period."""
        self.pass_(TELEMETRY_US)
        found = protocol.read(Kind.TELEMETRY, self.sent[-1].payload, 2, 1)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bench]:
    """A new board, for commands of one kind; built once."""

    @functools.cache
    def built(kind: str, reach: float | None) -> tuple[Robot, Path]:
        arm, pendulum = FURUTA.spec.joints
        limited = pendulum.model_copy(update={"position_limit": reach and (-reach, reach)})
        action = FURUTA.spec.action.model_copy(update={"kind": kind})
        spec = FURUTA.spec.model_copy(update={"action": action, "joints": (arm, limited)})
        robot = Robot(spec, FURUTA.folder)
        return robot, compile_library(robot, tmp_path_factory.mktemp(kind))

    return lambda kind="effort", reach=None: Bench(*built(kind, reach))


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    started = make()
    started.start()
    return started


def test_the_table_is_told_by_name(make: Callable[..., Bench]) -> None:
    bench = make()
    assert bench.sent == []
    bench.host(Kind.HELLO)
    device, *joints = bench.sent
    assert protocol.read(Kind.DEVICE, device.payload) == {"joints": 2, "mode": 2, "robot": b"furuta".ljust(24, b"\0")}
    told = [protocol.read(Kind.JOINT, frame.payload) for frame in joints]
    assert [protocol.name_text(joint["name"]) for joint in told if joint] == ["arm", "pendulum"]
    assert told[0] is not None
    assert told[0]["effort_limit"] == pytest.approx(0.12)
    assert (told[0]["lower"], told[1] and told[1]["upper"]) == (pytest.approx(-2.4), math.inf)
    assert {frame.session for frame in bench.sent} == {SESSION}
    bench.pass_(10 * TELEMETRY_US)
    assert len(bench.sent) == 3  # nothing more before START


def test_torque_comes_with_the_first_command_and_goes_with_disable(bench: Bench) -> None:
    assert (bench.torque, bench.telemetry["state"]) == (False, State.READY)
    bench.order(0.05)
    assert (bench.torque, bench.command) == (True, [pytest.approx(0.05)])
    told = bench.telemetry
    assert (told["state"], told["torque"], told["command_us"], told["answered"]) == (State.RUNNING, 1, 77, 3)
    assert told["position"] == pytest.approx((0.1, 3.0))
    bench.host(Kind.DISABLE)
    assert (bench.torque, bench.command, bench.telemetry["state"]) == (False, [0.0], State.READY)


def test_the_watchdog_expires_to_the_microsecond_and_damps(bench: Bench) -> None:
    bench.order(0.05)
    bench.velocity = [5.0, 1.0]
    bench.pass_(WATCHDOG_US)
    assert bench.command == [pytest.approx(0.05)]
    bench.pass_(1)
    assert (bench.torque, bench.command) == (True, [pytest.approx(-ARM.damping * 5.0)])
    told = bench.telemetry
    assert (told["state"], told["faults"]) == (State.STOPPED, Fault.WATCHDOG)
    bench.order(0.05)  # heard, and without effect
    assert bench.command == [pytest.approx(-ARM.damping * 5.0)]
    assert bench.telemetry["refused"] == 0
    bench.host(Kind.START, struct.pack("<II", WATCHDOG_US, TELEMETRY_US))
    assert (bench.torque, bench.command) == (True, [pytest.approx(-ARM.damping * 5.0)])  # no gap in the torque
    bench.order(0.05)
    assert bench.command == [pytest.approx(0.05)]
    assert bench.telemetry["faults"] == 0


def test_a_command_that_answers_an_old_measurement_is_refused(bench: Bench) -> None:
    """So latency in either direction ends at the watchdog, though commands come in time."""
    bench.order(0.05, age_us=WATCHDOG_US)
    assert bench.torque
    for _ in range(4):
        bench.pass_(20_000)
        bench.order(0.09, age_us=WATCHDOG_US + 1)
    assert bench.telemetry["faults"] == Fault.WATCHDOG
    assert bench.telemetry["refused"] == 4
    bench.start()
    bench.order(0.05, age_us=-1)  # from the future
    assert bench.command == [0.0]


def test_copies_and_stragglers_change_nothing(bench: Bench) -> None:
    bench.order(0.05)
    newest = bench.sequence
    bench.order(0.01, sequence=newest)
    bench.order(0.01, sequence=newest - 1)
    bench.host(Kind.DISABLE, sequence=newest - 2)
    bench.host(Kind.COMMAND, struct.pack("<If", bench.now % 2**32, 0.01), session=SESSION + 1, sequence=newest + 1)
    assert (bench.torque, bench.command, bench.telemetry["refused"]) == (True, [pytest.approx(0.05)], 4)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stops_the_robot(bench: Bench, value: float) -> None:
    bench.order(0.05)
    bench.velocity = [2.0, 0.0]
    bench.order(value)
    assert bench.command == [pytest.approx(-ARM.damping * 2.0)]
    assert bench.telemetry["faults"] == Fault.NOT_FINITE


@pytest.mark.parametrize("value", [0.1201, 3e38, -7.0])
def test_what_is_merely_large_is_limited(bench: Bench, value: float) -> None:
    bench.order(value)
    assert bench.command == [pytest.approx(math.copysign(ARM.effort_limit, value))]
    assert bench.telemetry["limited"] == 1


@pytest.mark.parametrize(
    ("position", "velocity", "fault"),
    [
        ([2.41, 3.0], [0.0, 0.0], Fault.POSITION_LIMIT),
        ([-2.41, 3.0], [0.0, 0.0], Fault.POSITION_LIMIT),
        ([0.0, 1e6], [0.0, 60.5], Fault.VELOCITY_LIMIT),
        ([0.0, 3.0], [-30.5, 0.0], Fault.VELOCITY_LIMIT),
        ([math.nan, 3.0], [0.0, 0.0], Fault.SENSOR),
        ([0.0, 3.0], [0.0, math.inf], Fault.SENSOR),
    ],
)
def test_measurements_are_judged_on_the_board(
    bench: Bench, position: list[float], velocity: list[float], fault: Fault
) -> None:
    bench.position, bench.velocity = position, velocity
    assert bench.telemetry["faults"] == 0  # nothing moves yet
    bench.order(0.05)
    assert bench.telemetry["faults"] == fault
    assert abs(bench.command[0]) <= ARM.effort_limit + 1e-6
    if fault is Fault.SENSOR:
        assert bench.command == [0.0]
        assert all(map(math.isnan, bench.telemetry["position"]))


def test_a_passive_joint_keeps_its_limit_whatever_the_others_take(make: Callable[..., Bench]) -> None:
    """Of joints that are commanded in position a driven one may sag."""
    for kind, beyond, fault in (
        ("position", 0, 0),
        ("position", 1, Fault.POSITION_LIMIT),
        ("velocity", 0, Fault.POSITION_LIMIT),
    ):
        bench = make(kind, 3.5)
        bench.start()
        bench.order(0.05)
        bench.position[beyond] = (2.41, 3.51)[beyond]
        bench.pass_(1000)
        assert bench.telemetry["faults"] == fault


def test_sensors_that_fail_while_running(bench: Bench) -> None:
    bench.order(0.05)
    bench.sensed = False
    assert bench.telemetry["faults"] == Fault.SENSOR
    assert (bench.torque, bench.command) == (True, [0.0])
    bench.host(Kind.START, struct.pack("<II", WATCHDOG_US, TELEMETRY_US))
    bench.order(0.05)  # a robot that cannot be measured is not moved
    assert (bench.command, bench.telemetry["faults"]) == ([0.0], Fault.SENSOR)


def test_stop_damps_until_the_next_start(bench: Bench) -> None:
    bench.order(0.05)
    bench.velocity = [-3.0, 0.0]
    bench.host(Kind.STOP)
    assert bench.command == [pytest.approx(ARM.damping * 3.0)]
    bench.order(0.05)
    told = bench.telemetry
    assert (told["state"], told["faults"]) == (State.STOPPED, Fault.HOST)
    assert bench.command == [pytest.approx(ARM.damping * 3.0)]


def test_a_new_session_ends_the_motion_and_forgets_no_fault(bench: Bench) -> None:
    bench.order(0.05)
    bench.host(Kind.STOP)
    bench.host(Kind.HELLO, session=99, sequence=5)
    bench.order(0.05)  # of the old session
    assert bench.command == [0.0]
    bench.inbox += encode(Kind.START, 6, 99, 0, struct.pack("<II", WATCHDOG_US, TELEMETRY_US))
    assert bench.telemetry["faults"] == 0


@pytest.mark.parametrize("watchdog_us", [0, 200_001, 2**32 - 1])
def test_a_watchdog_out_of_bounds_is_refused(make: Callable[..., Bench], watchdog_us: int) -> None:
    bench = make()
    bench.start(watchdog_us)
    bench.order(0.05)
    assert not bench.torque


def test_another_version_is_answered_and_not_obeyed(bench: Bench) -> None:
    bench.sent.clear()
    bench.inbox += encode(Kind.HELLO, 1, 5, 0, version=9)
    bench.pass_()
    assert [frame.version for frame in bench.sent] == [protocol.VERSION] * 3
    bench.inbox += encode(Kind.START, 2, 5, 0, struct.pack("<II", WATCHDOG_US, TELEMETRY_US), version=9)
    bench.pass_(TELEMETRY_US)
    assert len(bench.sent) == 3


def test_position_drives_hold_where_the_stop_began(make: Callable[..., Bench]) -> None:
    bench = make("position")
    bench.start()
    bench.position = [0.7, 3.0]
    bench.order(9.0)
    assert bench.command == [pytest.approx(2.4)]  # inside the position limits
    bench.position = [0.8, 3.0]
    bench.pass_(WATCHDOG_US + 1)
    bench.position = [0.5, 3.0]
    bench.sensed = False
    bench.pass_(1000)
    assert (bench.torque, bench.command) == (True, [pytest.approx(0.8)])


def test_a_sample_that_cannot_be_is_no_place_to_hold(make: Callable[..., Bench]) -> None:
    bench = make("position")
    bench.start()
    bench.position = [0.1, 3.0]
    bench.order(0.1)
    bench.position, bench.velocity = [1.6, 3.0], [1500.0, 0.0]
    bench.pass_(1000)
    bench.position, bench.velocity = [0.1, 3.0], [0.0, 0.0]
    for _ in range(5):
        bench.pass_(1000)
        assert (bench.torque, bench.command) == (True, [pytest.approx(0.1)])
    assert bench.telemetry["faults"] == Fault.VELOCITY_LIMIT


def test_a_line_that_never_falls_silent_holds_up_no_watchdog(bench: Bench) -> None:
    bench.order(0.05)
    bench.velocity = [2.0, 0.0]
    bench.inbox = bytes(1 << 20)
    bench.pass_(WATCHDOG_US + 1)
    assert bench.inbox
    assert bench.command == [pytest.approx(-ARM.damping * 2.0)]


def test_velocity_drives_come_to_rest(make: Callable[..., Bench]) -> None:
    bench = make("velocity")
    bench.start()
    bench.order(-99.0)
    assert bench.command == [pytest.approx(-ARM.velocity_limit)]
    bench.velocity = [4.0, 0.0]
    bench.pass_(WATCHDOG_US + 1)
    assert (bench.torque, bench.command) == (True, [0.0])


def test_telemetry_keeps_its_rate_and_does_not_burst_after_a_pause(bench: Bench) -> None:
    bench.sent.clear()
    for _ in range(1000):
        bench.pass_(300)
    assert len(bench.sent) == pytest.approx(1000 * 300 / TELEMETRY_US, abs=1)
    bench.sent.clear()
    for _ in range(10):
        bench.pass_(500_000 if not bench.sent else 100)
    assert len(bench.sent) == 1
    assert [frame.sequence for frame in bench.sent] == sorted(frame.sequence for frame in bench.sent)
