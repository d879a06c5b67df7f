"""The driver against a board on a port: what is wrong is named, the robot stops, and a reset finds the link in order.

Motion and times of reaction are read off the emulated board's own motor output, on the clock that both processes share;
`pytest -s tests/hil` prints them.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import pytest

from landbridge.deploy.hardware import mcu as mcu_module
from landbridge.deploy.hardware import mcu_errors
from landbridge.deploy.hardware.mcu import Mcu
from landbridge.deploy.hardware.port import open_port
from landbridge.deploy.hardware.protocol import State
from landbridge.deploy.hil.emulator import Emulator
from landbridge.deploy.hil.wire import FAULTS
from landbridge.errors import InputError
from landbridge.hardware_spec import McuHardware
from landbridge.joint import Encoder
from landbridge.robot import Robot, load_robot

from .rig import DT, FURUTA, WATCHDOG_MS, Emulated, Rig, recover, until

EFFORT = 0.004  # N m, moves the arm slowly
BUSY_MS = 20  # allowed for a scheduler that is late on a busy machine

HARMLESS = {"duplicate", "joined"}
LASTING = {  # order: the fault that it may be named
    **{f"{fault} to_board": {"crc_storm", "board_watchdog"} for fault in FAULTS if fault not in HARMLESS},
    **{f"{fault} to_host": {"crc_storm", "telemetry_stale"} for fault in FAULTS if fault not in HARMLESS},
    "latency 100": {"telemetry_stale", "board_watchdog"},
    "unplug": {"port_lost"},
    "reboot": {"telemetry_stale"},
}


def move(link: Mcu) -> None:
    """Until the arm turns under the commanded effort; what a busy machine has caused on the way is no matter."""

    def moving() -> bool:
        if link.fault:
            link.recover()
        return not link.fault and link.telemetry["velocity"][0] > 0.2

    until(link, moving, [EFFORT])


def stopped_after_ms(switchboard: Emulated, struck: float) -> float:
    """From the blow to the last moment at which the host's effort was on the motor."""
    changes = switchboard.order("outputs")
    held = [later for (_, _, (effort,)), (later, _, _) in itertools.pairwise(changes) if abs(effort - EFFORT) < 1e-8]
    return max(0.0, 1000 * (max(held) - struck))


@pytest.mark.parametrize("order", LASTING)
def test_a_lasting_wire_fault_is_named_stops_the_robot_and_is_left_by_a_reset(
    prompt_link: Mcu, switchboard: Emulated, order: str
) -> None:
    link = prompt_link
    move(link)
    link.write([EFFORT])  # the longest reaction is that to a blow right after a command
    struck = time.monotonic()
    switchboard.order(order)
    until(link, lambda: bool(link.fault), [EFFORT])
    named = 1000 * (time.monotonic() - struck)
    until(link, lambda: time.monotonic() > struck + 0.12, [EFFORT])  # the guard goes on writing its stop
    assert link.fault in LASTING[order]
    assert all(map(math.isnan, link.read()[0]))
    stopped = stopped_after_ms(switchboard, struck)
    print(f"{order}: {link.fault} after {named:.0f} ms, motor stopped after {stopped:.0f} ms")
    assert stopped <= WATCHDOG_MS + 1000 * DT + BUSY_MS
    switchboard.order("plug" if order == "unplug" else "clear")
    recover(link)
    move(link)


@pytest.mark.parametrize("direction", ["to_board", "to_host"])
@pytest.mark.parametrize("fault", FAULTS)
def test_one_damaged_frame_is_counted_and_control_goes_on(
    link: Mcu, switchboard: Emulated, fault: str, direction: str
) -> None:
    move(link)
    before = link.counters.total()
    switchboard.order(f"{fault} {direction} 1")
    answered, ticks = link.telemetry["answered"], 5
    until(link, lambda: (link.telemetry["answered"] - answered) % 2**16 >= ticks, [EFFORT])
    assert link.fault == ""
    noticed = link.counters.total() - before
    unseen = fault in ("lost", "joined") or (fault, direction) == ("duplicate", "to_host")
    assert noticed == 0 if unseen else 1 <= noticed < mcu_errors.STORM_ERRORS


@pytest.mark.parametrize("order", ["lost to_board", "lost to_host", "latency 100", "unplug"])
def test_a_reset_does_not_help_while_the_cause_lasts(prompt_link: Mcu, switchboard: Emulated, order: str) -> None:
    link = prompt_link
    switchboard.order(order)
    until(link, lambda: bool(link.fault), [EFFORT])
    link.recover()
    until(link, lambda: bool(link.fault), [EFFORT])
    assert link.fault in LASTING[order] | {"board_deaf", "telemetry_stale"}


def test_names_and_units_round_trip(link: Mcu, switchboard: Emulated) -> None:
    position, velocity = link.read()
    seen = switchboard.order("status")
    assert position == pytest.approx(seen["position"], abs=0.01)
    assert velocity == pytest.approx(seen["velocity"], abs=0.2)
    until(link, lambda: switchboard.order("status")["command"] == [pytest.approx(0.0123)], [0.0123])
    until(link, lambda: link.counters["board_limited"] > 0, [7.0])
    assert switchboard.order("status")["command"] == [pytest.approx(0.12)]


def test_measure_move_a_little_and_read_what_is_in_effect(link: Mcu) -> None:
    assert all(map(math.isfinite, [*link.read()[0], *link.read()[1]]))
    until(link, lambda: link.telemetry["state"] == State.RUNNING, [EFFORT])
    assert link.telemetry["torque"] == 1
    stamp = link.telemetry["command_us"]
    until(link, lambda: link.telemetry["command_us"] != stamp, [EFFORT])
    assert (link.telemetry["command_us"] - stamp) % 2**32 == pytest.approx(1e6 * DT, rel=0.9)


def test_a_host_that_hangs_meets_the_watchdog(prompt_link: Mcu, rig: Rig) -> None:
    link = prompt_link
    move(link)
    link.write([EFFORT])
    struck = time.monotonic()
    time.sleep((WATCHDOG_MS + 50) / 1000)  # the hang itself
    link.read()
    assert link.fault == "board_watchdog"
    assert link.telemetry["state"] == State.STOPPED
    if rig.emulated is not None:
        stopped = stopped_after_ms(rig.emulated, struck)
        print(f"host hangs: motor stopped after {stopped:.0f} ms")
        assert stopped <= WATCHDOG_MS + BUSY_MS


def test_closing_leaves_a_stopped_robot(rig: Rig, link: Mcu, switchboard: Emulated) -> None:
    move(link)
    link.close()
    deadline = time.monotonic() + 2
    while switchboard.order("status")["command"][0] > 0:
        assert time.monotonic() < deadline
    again = rig.connect()
    assert again.fault == ""
    again.close()
    link.__init__(FURUTA, McuHardware(port=rig.port))  # type: ignore[misc]


def test_a_torque_off_that_is_lost_is_repeated(link: Mcu, switchboard: Emulated) -> None:
    move(link)
    switchboard.order("lost to_board 1")
    link.disable()
    assert switchboard.order("status")["torque"] is True  # it was lost
    until(link, lambda: switchboard.order("status")["torque"] is False)


def test_a_torque_off_that_is_lost_is_repeated_by_close(rig: Rig, link: Mcu, switchboard: Emulated) -> None:
    move(link)
    switchboard.order("lost to_board 1")
    link.disable()
    assert switchboard.order("status")["torque"] is True
    link.close()
    assert switchboard.order("status")["torque"] is False
    link.__init__(FURUTA, McuHardware(port=rig.port))  # type: ignore[misc]


def test_a_write_while_the_port_vanishes(link: Mcu, switchboard: Emulated) -> None:
    move(link)
    switchboard.order("unplug")
    link.write([EFFORT])
    assert link.fault == "port_lost"
    link.write([EFFORT])
    link.disable()
    assert all(map(math.isnan, link.read()[0]))
    link.recover()
    assert link.fault == "port_lost"


def test_plugged_in_again_under_another_name(link: Mcu, switchboard: Emulated) -> None:
    move(link)
    first = switchboard.order("status")["port"]
    switchboard.order("unplug")
    taken = os.openpty()  # takes the name that has become free
    switchboard.order("plug")
    assert switchboard.order("status")["port"] != first
    until(link, lambda: bool(link.fault))
    until(link, lambda: link._started)
    assert link.fault == "port_lost"  # latched, though the link is up again
    recover(link)
    move(link)
    for end in taken:
        os.close(end)


def test_a_port_that_takes_nothing_is_named_and_never_waited_for(link: Mcu, switchboard: Emulated) -> None:
    move(link)
    switchboard.process.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        for _ in range(20_000):
            link.write([EFFORT])
        assert link.fault == "port_blocked"
        assert time.monotonic() - started < 5
    finally:
        switchboard.process.send_signal(signal.SIGCONT)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may open anything; an ordinary user may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def refused(open_: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        open_()
    return str(caught.value)


def test_ports_that_cannot_be_opened_are_named(link: Mcu, rig: Rig, tmp_path: Path) -> None:
    assert "--port" in refused(lambda: open_port(None, 1_000_000))
    assert "no such port" in refused(lambda: open_port("/dev/serial/by-id/nothing", 1_000_000))
    assert "another program uses this port" in refused(rig.connect)
    (tmp_path / "file").touch()
    for other in ("/dev/null", str(tmp_path), str(tmp_path / "file")):
        assert f"{other}: is no serial port. name one of " in refused(lambda other=other: open_port(other, 1_000_000))
    ends = os.openpty()
    for rate in (0, -1):
        said = refused(lambda rate=rate: open_port(os.ttyname(ends[1]), rate))
        assert f"{os.ttyname(ends[1])}: cannot be opened at {rate} baud" in said
        assert "hardware.baud in robot.yaml, or --baud" in said
    os.chmod(os.ttyname(ends[1]), 0)
    with unprivileged():
        said = refused(lambda: open_port(os.ttyname(ends[1]), 1_000_000))
    assert "permission denied" in said
    assert "usermod -aG" in said
    assert "SUBSYSTEM" in said
    for end in ends:
        os.close(end)


def test_a_port_is_nobody_elses_with_or_without_flock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A pty in place of a device of its own kind: who opens it asks for no lock, as most tools do not."""
    monkeypatch.setattr("landbridge.deploy.hardware.port.PTYS", tmp_path)
    near, far = os.openpty()
    name = os.ttyname(far)
    os.close(far)  # that an emulator would keep
    script = "import os, sys; os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script, name], stdin=PIPE, stdout=PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        said = refused(lambda: open_port(name, 1_000_000))
        assert re.search(rf"another program uses this port: \S+ \({other.pid}\)\. end it", said)
        other.stdin.close()
    port = open_port(name, 1_000_000)
    os.chmod(name, 0o666)
    with unprivileged(), pytest.raises(OSError, match="busy"):
        os.open(name, os.O_RDWR | os.O_NOCTTY)
    port.close()
    os.close(near)


@pytest.mark.parametrize(("step", "number"), [("_others_with", errno.ENOENT), ("fcntl.ioctl", errno.EIO)])
def test_a_plug_that_is_pulled_while_its_port_is_opened_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: str, number: int
) -> None:
    """A plug that makes contact twice: the bridge tries again, and must not die of it."""
    near, far = os.openpty()

    def pulled(*of: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("landbridge.deploy.hardware.port.PTYS", tmp_path)
        patch.setattr("landbridge.deploy.hardware.port._others_with", lambda name: [])
        patch.setattr(f"landbridge.deploy.hardware.port.{step}", pulled)
        assert os.ttyname(far) in refused(lambda: open_port(os.ttyname(far), 1_000_000))
    open_port(os.ttyname(far), 1_000_000).close()  # nobody has kept it
    for end in (near, far):
        os.close(end)


def test_a_port_where_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcu_module, "OPEN_SECONDS", 0.3)
    ends = os.openpty()
    said = refused(lambda: Mcu(FURUTA, McuHardware(port=os.ttyname(ends[1]))))
    assert "no microcontroller answers in 0.3 s" in said
    for end in ends:
        os.close(end)


def test_another_baud_rate(link: Mcu, rig: Rig, switchboard: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcu_module, "OPEN_SECONDS", 0.3)
    link.close()  # the board goes on reporting
    said = refused(lambda: Mcu(FURUTA, McuHardware(port=rig.port, baud=115_200, telemetry_rate_hz=100)))
    assert "bytes came, and no frame in them" in said
    assert "the baud rate is 115200" in said
    monkeypatch.undo()
    link.__init__(FURUTA, McuHardware(port=rig.port))  # type: ignore[misc]


def robot_with(folder: Path, old: str, new: str) -> Path:
    text = (FURUTA.folder / "robot.yaml").read_text()
    assert old in text
    (folder / "robot.yaml").write_text(text.replace(old, new))
    (folder / "furuta.urdf").write_text(FURUTA.urdf.read_text().replace(f'"{old}"', f'"{new}"'))
    return folder


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("arm", "shoulder", "joints ['arm', 'pendulum'], 'furuta' has ['pendulum', 'shoulder']"),
        ("effort_limit: 0.12", "effort_limit: 0.1", "joint arm: the board has (actuated, limits)"),
        ("kind: effort", "kind: velocity", "the board takes effort commands, robot.yaml says velocity"),
    ],
)
def test_the_board_of_another_robot(rig: Rig, tmp_path: Path, old: str, new: str, said: str) -> None:
    other = load_robot(robot_with(tmp_path, old, new))
    assert said in refused(lambda: Mcu(other, McuHardware(port=rig.port)))


def test_another_protocol_version() -> None:
    emulator, ended = Emulator(FURUTA, "none", version=9), threading.Event()

    def be_a_board() -> None:
        while not ended.wait(0.001):
            emulator.poll()

    thread = threading.Thread(target=be_a_board)
    thread.start()
    try:
        said = refused(lambda: Mcu(FURUTA, McuHardware(port=emulator.port)))
    finally:
        ended.set()
        thread.join()
        emulator.close()
    assert "the board speaks protocol version 9, this program 1" in said


def test_a_watchdog_shorter_than_two_periods_is_refused(rig: Rig) -> None:
    said = refused(lambda: Mcu(FURUTA, McuHardware(port=rig.port, watchdog_ms=39)))
    assert "less than two control periods" in said


def test_a_board_that_reports_too_seldom_for_its_watchdog_is_refused() -> None:
    said = refused(lambda: Mcu(FURUTA, McuHardware(watchdog_ms=45, telemetry_rate_hz=20)))
    assert "telemetry_rate_hz 20 is less than once in watchdog_ms" in said
    said = refused(lambda: Mcu(FURUTA, McuHardware(watchdog_ms=60, telemetry_rate_hz=30)))
    assert "telemetry_rate_hz 30 is less than once in max_command_age_ms 30" in said


def test_telemetry_that_the_line_does_not_carry_is_refused() -> None:
    """12 + 34 bytes, CRC, COBS and two delimiters: 53 bytes of ten bits, 500 times a second."""
    said = refused(lambda: Mcu(FURUTA, McuHardware(baud=115_200)))
    assert "telemetry_rate_hz 500 takes 265000 of 115200 baud. lower it or raise hardware.baud" in said
    assert "no microcontroller answers" in refused(
        lambda: Mcu(FURUTA, McuHardware(port=os.ttyname(os.openpty()[1]), baud=331_250))
    )


def test_an_encoder_that_nothing_reads_is_refused() -> None:
    """`calibrate zero` finds it again after it has been written into robot.yaml, and twice as wrong."""
    arm, pendulum = FURUTA.spec.joints
    turned = arm.model_copy(update={"encoder": Encoder(offset=0.1)})
    robot = Robot(FURUTA.spec.model_copy(update={"joints": (turned, pendulum)}), FURUTA.folder)
    said = refused(lambda: Mcu(robot, McuHardware()))
    assert re.search(r"joints \['arm'\] have an encoder of their own.*the board's own `measure`", said)
