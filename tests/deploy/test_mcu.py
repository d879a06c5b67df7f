"""The driver against the firmware in virtual time: one clock for both, which moves only when a test moves it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from landbridge.deploy.hardware import mcu as mcu_module
from landbridge.deploy.hardware.mcu import Mcu
from landbridge.deploy.hardware.protocol import Fault, Kind, Receiver, State, encode
from landbridge.deploy.hil.board import Board, compile_library
from landbridge.deploy.hil.wire import Wire
from landbridge.errors import InputError
from landbridge.hardware_spec import McuHardware
from landbridge.robot import Robot, load_robot

FURUTA = load_robot("furuta")
EFFORT = 0.01  # N m
PASS = 0.001  # s, of the firmware's main loop
ALL = 10**9  # frames
FAULTS_AT, MODE_AT = 2, 1  # offsets of these fields in TELEMETRY and DEVICE


class Desk:
    """The board's pins, and the host's end of its serial line as `serial.Serial` offers it.

    Attributes:
        patches: What another port of the firmware says: one byte of the payload of a kind, by its offset.
        heard: Kinds of the frames that have reached the board.
    """

    def __init__(self, library: Path) -> None:
        self.now = 1000.0
        self.to_board, self.to_host = Wire(np.random.default_rng(0)), Wire(np.random.default_rng(1))
        self.patches: dict[Kind, tuple[int, int]] = {}
        self.heard: list[int] = []
        self.torque, self.command = False, [0.0]
        self._host_end, self._board_end = os.pipe()
        os.set_blocking(self._host_end, False)
        self._inbox = self._outbox = b""
        self._said, self._hears = Receiver(), Receiver()
        self.board = Board(FURUTA, self, library)

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds / PASS)):
            self.now += PASS
            with contextlib.suppress(BlockingIOError):
                self.to_board.push(os.read(self._host_end, 4096), self.now)
            arrived = self.to_board.pop(self.now)
            self.heard += [frame.kind for frame in self._hears.feed(arrived)]
            self._inbox += arrived
            self.board.poll()
            self._outbox += self.to_host.pop(self.now)

    def cut(self) -> None:
        for wire in (self.to_board, self.to_host):
            wire.inject("lost", ALL)

    def mend(self) -> None:
        for wire in (self.to_board, self.to_host):
            wire.clear()

    def time_us(self) -> int:
        return round(1e6 * self.now)

    def receive(self, size: int) -> bytes:
        data, self._inbox = self._inbox[:size], self._inbox[size:]
        return data

    def send(self, data: bytes) -> None:
        for frame in self._said.feed(data):
            payload = bytearray(frame.payload)
            if (patch := self.patches.get(Kind(frame.kind))) is not None:
                payload[patch[0]] = patch[1]
            told = encode(frame.kind, frame.sequence, frame.session, frame.time_us, bytes(payload))
            self.to_host.push(told, self.now)

    def measure(self) -> tuple[Sequence[float], Sequence[float]]:
        return [0.1, 3.0], [0.0, 0.0]

    def actuate(self, torque: bool, command: Sequence[float]) -> None:
        self.torque, self.command = torque, list(command)

    def read(self, size: int) -> bytes:
        data, self._outbox = self._outbox[:size], self._outbox[size:]
        return data

    def fileno(self) -> int:
        return self._board_end

    def close(self) -> None:
        """The wire stays where it is, for the next who opens the port."""

    def end(self) -> None:
        for pipe in (self._host_end, self._board_end):
            os.close(pipe)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(FURUTA, tmp_path_factory.mktemp("firmware"))


@pytest.fixture
def desk(library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    made = Desk(library)
    monkeypatch.setattr(mcu_module, "open_port", lambda name, baud: made)
    monkeypatch.setattr(mcu_module.time, "sleep", made.advance)
    yield made
    made.end()


def connect(
    desk: Desk, rate_hz: float = 50.0, max_age_ms: float = 30.0, watchdog_ms: float = 60.0, telemetry_hz: float = 500.0
) -> Mcu:
    safety = FURUTA.spec.safety.model_copy(update={"max_command_age_ms": max_age_ms})
    spec = FURUTA.spec.model_copy(update={"control_rate_hz": rate_hz, "safety": safety})
    settings = McuHardware(port="/dev/virtual", watchdog_ms=watchdog_ms, telemetry_rate_hz=telemetry_hz)
    return Mcu(Robot(spec, FURUTA.folder), settings, lambda: desk.now)


def control(desk: Desk, link: Mcu, ticks: int, effort: float | None = EFFORT) -> None:
    for _ in range(ticks):
        desk.advance(link._spec.control_dt)
        link.read()
        if effort is not None:
            link.write([effort])
    desk.advance(2 * PASS)


def running(desk: Desk) -> bool:
    return desk.torque and desk.command == [pytest.approx(EFFORT)]


def test_what_has_lain_in_a_full_port_does_not_pass_for_fresh(desk: Desk) -> None:
    link = connect(desk)
    control(desk, link, 5)
    desk.advance(0.5)
    desk._outbox = desk._outbox[:4096]  # what Linux keeps of a port that nobody reads
    link.read()
    assert desk.now - link.told_at > 0.3


class TestASilentLine:
    @pytest.mark.parametrize(
        ("rate_hz", "max_age_ms", "watchdog_ms"),
        [(50, 30, 60), (50, 100, 60), (20, 80, 100), (20, 200, 200), (10, 150, 200), (10, 400, 200)],
    )
    def test_is_named_by_robots_of_every_rate_and_nothing_moves_when_it_speaks_again(
        self, desk: Desk, rate_hz: float, max_age_ms: float, watchdog_ms: float
    ) -> None:
        link = connect(desk, rate_hz, max_age_ms, watchdog_ms)
        control(desk, link, 5)
        assert running(desk)
        desk.cut()
        link.read()
        last_told = link.told_at
        while not link.fault and desk.now - last_told < 2:
            control(desk, link, 1)
            assert link.told_at == last_told  # old data do not pass for new ones
        assert link.fault == "telemetry_stale"
        assert desk.now - last_told <= max_age_ms / 1000 + link._spec.control_dt + 0.01
        control(desk, link, round(0.5 * rate_hz))
        desk.mend()
        for _ in range(round(rate_hz)):
            control(desk, link, 1)
            assert link.fault == "telemetry_stale"
            assert all(map(math.isnan, link.read()[0]))
            assert not running(desk)
        link.recover()
        control(desk, link, 5)
        assert link.fault == ""
        assert running(desk)

    def test_is_named_whoever_finds_it(self, desk: Desk) -> None:
        link = connect(desk)
        control(desk, link, 5)
        desk.cut()
        link.read()
        desk.advance(0.2)
        link.recover()  # takes what has come, as `read` does, but judges nothing
        assert link.fault == "telemetry_stale"

    def test_shorter_than_the_age_allowed_is_none(self, desk: Desk) -> None:
        link = connect(desk, rate_hz=20, max_age_ms=300, watchdog_ms=200)
        control(desk, link, 5)
        desk.to_host.inject("lost", ALL)
        control(desk, link, 3)
        desk.mend()
        control(desk, link, 3)
        assert link.fault == ""
        assert running(desk)
        assert desk.heard.count(Kind.HELLO) == 1


def test_a_wire_that_was_cut_for_longer_than_numbers_last_needs_one_reset(desk: Desk) -> None:
    """Frames are numbered by 16 bits: after half of them, 11 minutes at 50 Hz, a new one looks old to the board."""
    link = connect(desk)
    control(desk, link, 5)
    desk.to_board.inject("lost", ALL)
    control(desk, link, 50)
    assert link.fault
    link._sequence = (link._sequence + 0x8000) & 0xFFFF  # as eleven minutes of it would
    control(desk, link, 5)
    desk.mend()
    link.recover()
    control(desk, link, 5)
    assert link.fault == ""
    assert running(desk)


def test_a_fault_at_the_host_stops_the_board_before_its_watchdog_does(desk: Desk) -> None:
    link = connect(desk, watchdog_ms=200)
    control(desk, link, 5)
    assert running(desk)
    link.fault = "crc_storm"
    control(desk, link, 2)
    assert link.telemetry["faults"] == Fault.HOST
    assert not running(desk)


def test_what_a_board_says_while_it_starts_is_no_storm(desk: Desk) -> None:
    desk._outbox = b"\x12\x00" * 12  # at another rate, and no frame
    link = connect(desk)
    control(desk, link, 5)
    assert link.fault == ""
    assert link.counters["host_framing_errors"] + link.counters["host_crc_errors"] >= 10


def test_a_line_that_takes_longer_for_the_table_than_a_question_waits_is_opened(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcu_module, "RETRY_SECONDS", 0.04)
    read, turns = desk.read, itertools.cycle((2, 0))  # bytes a millisecond
    monkeypatch.setattr(desk, "read", lambda size: read(next(turns)))
    link = connect(desk, telemetry_hz=20, max_age_ms=500)
    assert desk.heard.count(Kind.HELLO) == 1
    assert link.fault == ""


def test_a_board_that_restarts_between_its_table_and_its_start_is_taken_up_again(desk: Desk) -> None:
    link = connect(desk)
    control(desk, link, 5)
    desk.board.restart()
    while link._started or not link._greeted:
        desk.advance(link._spec.control_dt)
        link.read()
    desk.board.restart()
    control(desk, link, 50)
    assert link.fault == "telemetry_stale"
    assert link._started
    link.recover()
    control(desk, link, 5)
    assert link.fault == ""
    assert running(desk)


def test_of_much_telemetry_the_newest_is_taken(desk: Desk) -> None:
    """100 of 53 bytes and more come in a control period, and a port gives out 4096 bytes at a time."""
    link = connect(desk, rate_hz=10, max_age_ms=150, watchdog_ms=200, telemetry_hz=1000)
    for _ in range(10):
        control(desk, link, 1)
        assert (desk.time_us() - link._answers_us) % 2**32 <= 4000
    assert link.fault == ""
    assert running(desk)


class TestTorqueOff:
    @pytest.fixture
    def link(self, desk: Desk) -> Mcu:
        connected = connect(desk)
        control(desk, connected, 5)
        assert running(desk)
        return connected

    @pytest.mark.parametrize("lost", [1, 2])  # more take longer than the board's watchdog, which is a fault
    def test_that_is_lost_is_repeated(self, desk: Desk, link: Mcu, lost: int) -> None:
        desk.to_board.inject("lost", lost)
        link.disable()
        control(desk, link, lost, effort=None)
        assert not desk.torque
        control(desk, link, 50, effort=None)
        assert link.fault == ""
        assert desk.heard.count(Kind.DISABLE) == 1  # once it is heard there is no more

    def test_is_repeated_once_a_reading(self, desk: Desk, link: Mcu) -> None:
        sent: list[int] = []
        desk.to_board.push = lambda data, now: sent.extend(f.kind for f in Receiver().feed(data))  # type: ignore[method-assign]
        link.disable()
        control(desk, link, 10, effort=None)
        assert 2 <= sent.count(Kind.DISABLE) <= 11

    def test_is_not_repeated_to_a_robot_that_is_driven_again(self, desk: Desk, link: Mcu) -> None:
        link.disable()
        control(desk, link, 20)
        assert running(desk)
        assert desk.heard.count(Kind.DISABLE) == 1

    def test_outlives_a_reset_and_a_session(self, desk: Desk, link: Mcu) -> None:
        desk.cut()
        link.disable()
        control(desk, link, 20, effort=None)
        assert link.fault == "telemetry_stale"
        assert desk.torque  # damped by the board's watchdog
        desk.mend()
        control(desk, link, 10, effort=None)
        link.recover()
        control(desk, link, 2, effort=None)
        assert not desk.torque
        assert link.fault == ""

    @pytest.mark.parametrize("lost", [0, 1, 3])
    def test_is_made_sure_of_by_close(self, desk: Desk, link: Mcu, lost: int, caplog: pytest.LogCaptureFixture) -> None:
        desk.to_board.inject("lost", lost)
        link.disable()
        link.close()
        assert not desk.torque
        assert caplog.records == []
        link.close()

    def test_is_made_sure_of_though_no_telemetry_has_told_of_torque(
        self, desk: Desk, caplog: pytest.LogCaptureFixture
    ) -> None:
        link = connect(desk)
        link.read()
        link.write([EFFORT])
        desk.advance(PASS)
        desk.to_board.inject("lost", 1)
        assert not link.torque
        link.disable()
        link.close()
        assert not desk.torque
        assert caplog.records == []

    def test_that_close_cannot_make_sure_of_is_said(
        self, desk: Desk, link: Mcu, caplog: pytest.LogCaptureFixture
    ) -> None:
        desk.cut()
        link.disable()
        started = desk.now
        link.close()
        assert desk.now - started <= mcu_module.OFF_SECONDS + 2 / McuHardware().telemetry_rate_hz + PASS
        (said,) = caplog.records
        assert said.levelno == logging.ERROR
        assert "/dev/virtual: the board does not say that torque is off" in said.getMessage()

    def test_that_was_not_asked_for_is_not_waited_for(
        self, desk: Desk, link: Mcu, caplog: pytest.LogCaptureFixture
    ) -> None:
        started = desk.now
        link.close()
        assert desk.now == started
        assert desk.torque
        assert caplog.records == []


class TestAnotherPortOfTheFirmware:
    @pytest.mark.parametrize("bit", range(8))
    def test_may_report_any_fault(self, desk: Desk, bit: int) -> None:
        link = connect(desk)
        control(desk, link, 5)
        desk.patches[Kind.TELEMETRY] = FAULTS_AT, 1 << bit
        control(desk, link, 1)
        name = Fault(1 << bit).name if bit < len(Fault) else None
        assert link.fault == (f"board_{name.lower()}" if name else f"board_fault_{1 << bit}")
        assert all(map(math.isnan, link.read()[0]))
        control(desk, link, 2)
        assert link.telemetry["state"] == State.STOPPED  # it has been told to stop

    def test_with_an_unknown_mode_is_refused(self, desk: Desk) -> None:
        desk.patches[Kind.DEVICE] = MODE_AT, 7
        with pytest.raises(InputError, match=r"the board takes mode_7 commands, robot.yaml says effort"):
            connect(desk)

    def test_with_an_unknown_mode_in_the_middle_of_the_work_is_a_fault(self, desk: Desk) -> None:
        link = connect(desk)
        control(desk, link, 5)
        desk.patches[Kind.DEVICE] = MODE_AT, 7
        desk.board.restart()
        control(desk, link, 50)
        assert link.fault == "wrong_board"
        link.recover()
        control(desk, link, 5)
        assert link.fault == "wrong_board"
