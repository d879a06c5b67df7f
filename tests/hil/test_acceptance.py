"""`landbridge hil run` on the emulated board: a sound one is accepted, each defect is named where it belongs.

Whatever happens, the board's own output says that torque is off afterwards.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from landbridge.cli import main
from landbridge.deploy.hardware import choose_hardware, open_hardware
from landbridge.deploy.hil import acceptance, nudge, stages
from landbridge.deploy.hil.acceptance import Account, accept, plan_for, reduced
from landbridge.deploy.hil.board import FIRMWARE
from landbridge.deploy.hil.loop import Failed, Loop, Tick
from landbridge.deploy.hil.stages import Plan, Result
from landbridge.robot import Robot, load_robot

from .conftest import altered
from .rig import FURUTA, PATIENT_MS, Emulated, real_time

BRIEF = Plan(("arm",), soak_s=1.0, latency_s=1.0)
WATCHDOG_LINE = "fw->now - fw->commanded_at > fw->watchdog_us"


@pytest.fixture(autouse=True)
def _a_pendulum_at_rest(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing swings on the emulated board, so that nobody need wait to see how far."""
    for words in ("plug", "clear", "reset"):
        emulated.order(words)
    monkeypatch.setattr(nudge, "STILL_SECONDS", 0.2)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Robot:
    """The furuta for a machine that is busy with other things."""
    return altered(
        FURUTA,
        tmp_path_factory.mktemp("patient") / "furuta",
        ("max_command_age_ms: 30", f"max_command_age_ms: {PATIENT_MS:g}"),
        ("latency_budget_ms: 10", "latency_budget_ms: 20"),
        ("hardware: {kind: twin}", f"hardware: {{kind: mcu, watchdog_ms: {PATIENT_MS:g}}}"),
    )


def run(robot: Robot, port: str, out: Path) -> int:
    times = ["--soak-s", "1", "--latency-s", "1"]
    return main(["hil", "run", "--robot", str(robot.folder), "--port", port, "--yes", "--out", str(out), *times])


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(acceptance, "STAGES", {name: stages.STAGES[name] for name in names})


def verdicts(out: Path) -> dict[str, str]:
    """By stage, as CI reads them."""
    found = {}
    for case in ET.parse(out / "junit.xml").getroot().iter("testcase"):
        outcome = case.find("failure"), case.find("skipped")
        found[case.attrib["name"]] = next((o.attrib["message"] for o in outcome if o is not None), "pass")
    return found


def test_more_periods_missed_than_one_in_a_hundred_fail_a_stage() -> None:
    for missed, periods in ((1, 10), (2, 200)):
        stages._require_regular(Result("soak", figures={"missed": missed, "periods": periods}))
    with pytest.raises(Failed, match="3 of 200 control periods were missed"):
        stages._require_regular(Result("soak", figures={"missed": 3, "periods": 200}))


def test_a_sound_board_is_accepted_and_signed_off(
    emulated: Emulated, patient: Robot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hil"
    assert run(patient, emulated.port, out) == 0
    assert verdicts(out) == dict.fromkeys(stages.STAGES, "pass")
    (suite,) = ET.parse(out / "junit.xml").getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) == ("7", "0", "0")
    properties = {p.attrib["name"]: p.attrib["value"] for p in suite.iter("property")}
    assert properties["digest of robot.yaml"] == patient.spec.digest()
    assert properties["board of"] == "furuta"
    said = {case.attrib["name"]: case.findtext("system-out") or "" for case in suite.iter("testcase")}
    (noticed,) = re.findall(r"noticed_after_ms: ([\d.]+)", said["watchdog"])
    assert PATIENT_MS - 20 <= float(noticed) <= PATIENT_MS + 40
    largest = max(abs(effort) for _, _, (effort,) in emulated.order("outputs"))
    assert largest <= acceptance.SHARE * FURUTA.spec.joint("arm").effort_limit * (1 + 1e-6)  # float32
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 4  # two moves, the latencies, one stop
    assert "src=" not in page and "<link" not in page and "<script" not in page
    assert emulated.order("status")["torque"] is False
    assert run(patient, emulated.port, out) == 2
    assert "already exists" in capsys.readouterr().err


def accepted(robot: Robot, emulated: Emulated, unplug_after: str = "") -> Account:
    def tell(result: Result) -> None:
        if result.stage == unplug_after:
            emulated.order("unplug")

    settings = choose_hardware(robot.spec, port=emulated.port)
    with real_time(), closing(open_hardware(robot, settings, "none", 0)) as hardware:
        return accept(robot, hardware, BRIEF, "tester", tell)


@pytest.mark.parametrize(
    ("order", "stage", "said"),
    [
        ("reverse arm", "wiring", "the motor or the encoder is reversed"),
        ("swap arm pendulum", "identity", "its encoder is that of another joint"),
        ("speed arm -1", "wiring", "the speed has a wrong sign or unit"),
        ("speed arm 0.1", "wiring", "the speed has a wrong sign or unit"),
    ],
)
def test_bad_wiring_fails_at_once_and_leaves_no_torque(
    emulated: Emulated,
    patient: Robot,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    order: str,
    stage: str,
    said: str,
) -> None:
    emulated.order(order)
    assert run(patient, emulated.port, tmp_path / "hil") == 2
    assert said in capsys.readouterr().err
    found = verdicts(tmp_path / "hil")
    before, after = list(found)[: list(found).index(stage)], list(found)[list(found).index(stage) + 1 :]
    assert [found[name] for name in before] == ["pass"] * len(before)
    assert said in found[stage]
    assert [found[name] for name in after] == ["not run"] * len(after)
    assert emulated.order("status")["torque"] is False


@pytest.fixture
def without_watchdog(tmp_path: Path) -> Iterator[Emulated]:
    """A board whose firmware has lost its watchdog."""
    folder = shutil.copytree(FIRMWARE, tmp_path / "firmware")
    source = (folder / "firmware.c").read_text()
    assert source.count(WATCHDOG_LINE) == 1
    (folder / "firmware.c").write_text(source.replace(WATCHDOG_LINE, "false"))
    program = (
        "import pathlib, sys; from landbridge.deploy.hil import board; from landbridge.cli import main;"
        f"board.FIRMWARE = pathlib.Path({str(folder)!r}); sys.exit(main(sys.argv[1:]))"
    )
    board = Emulated(tmp_path / "port", program=(sys.executable, "-c", program))
    yield board
    assert board.end() == 0


def test_a_dead_watchdog_is_found(without_watchdog: Emulated, patient: Robot, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "identity", "watchdog", "soak")
    account = accepted(patient, without_watchdog)
    assert [result.verdict for result in account.results] == ["pass", "fail", "not run"]
    assert account.results[1].reason == "in 220 ms of silence: no fault, its watchdog is dead"
    assert without_watchdog.order("status")["torque"] is False


def test_a_board_that_is_lost_is_said_to_have_torque(
    emulated: Emulated, patient: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "identity", "wiring", "soak")
    account = accepted(patient, emulated, unplug_after="identity")
    assert account.results[1].verdict == "fail"
    assert "port_lost" in account.results[1].reason
    assert account.results[2].verdict == "not run"


def test_ctrl_c_stops_the_robot_and_takes_torque_off(emulated: Emulated, patient: Robot, tmp_path: Path) -> None:
    ended = threading.Event()

    def interrupt_in_motion() -> None:
        while not ended.is_set():
            if emulated.order("status")["torque"]:
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=interrupt_in_motion)
    thread.start()
    try:
        assert run(patient, emulated.port, tmp_path / "hil") == 2
    finally:
        ended.set()
        thread.join()
    assert verdicts(tmp_path / "hil")["wiring"] == "interrupted"
    assert emulated.order("status")["torque"] is False


def test_a_second_ctrl_c_while_it_stops_takes_torque_off_too(
    emulated: Emulated, patient: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(loop: Loop, plan: Plan, result: Result) -> None:
        loop.arm()
        loop.trusted = True
        assert emulated.order("status")["torque"] is True
        monkeypatch.setattr(loop, "tick", lambda: os.kill(os.getpid(), signal.SIGINT))
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(acceptance, "STAGES", {"identity": stages.identity, "soak": interrupted})
    (_, soak) = accepted(patient, emulated).results
    assert soak.reason.startswith("interrupted; and again while stopping")
    assert emulated.order("status")["torque"] is False


def test_two_silent_periods_are_enough_for_the_limits(
    emulated: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "identity", "limits")
    robot = altered(
        FURUTA,
        tmp_path / "furuta",
        ("max_command_age_ms: 30", f"max_command_age_ms: {PATIENT_MS:g}"),
        ("max_silence_periods: 3", "max_silence_periods: 2"),
        ("hardware: {kind: twin}", f"hardware: {{kind: mcu, watchdog_ms: {PATIENT_MS:g}}}"),
    )
    assert accepted(robot, emulated).failure is None


def test_joints_commanded_in_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "identity", "wiring", "stop")
    monkeypatch.setattr(nudge, "STILL_SECONDS", 1.0)  # this pendulum swings
    servo = "rate_limit: 30\n    acceleration_limit: 60\n    jerk_limit: 3000\n    stiffness: 0.5 # "
    changes = ("rate_limit: 20", servo), ("damping: 0.004", "damping: 0.02"), ("kind: effort", "kind: position")
    robot = altered(FURUTA, tmp_path / "servo", *changes, ("safety:", "safety:\n  max_tracking_error: 1.0"))
    with closing(open_hardware(robot, choose_hardware(robot.spec), "none", 0)) as hardware:
        account = accept(robot, hardware, BRIEF, "tester")
    assert account.failure is None
    stopped = account.results[2].rows[0]
    assert abs(stopped["from_rad_s"]) <= robot.spec.safety.parking_speed
    assert stopped["distance_rad"] < 0.02


def test_a_stop_of_what_did_not_move_is_no_stop(
    emulated: Emulated, patient: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "identity", "stop")
    monkeypatch.setattr(nudge, "_largest", lambda loop, joint: 0.0)
    found = accepted(patient, emulated).results[1]
    assert found.verdict == "fail" and "arm: commanded" in found.reason and found.rows == []


NAMES = ["hip", "knee", "wheel"]


@pytest.mark.parametrize(
    ("ways", "said"),
    [
        ([0.11, 0.02, 0.0], ""),
        ([0.11, 0.06, 0.0], "that of knee by +0.060: motors or encoders are swapped"),
        ([0.00, -0.12, 0.0], "that of knee by -0.120: motors or encoders are swapped"),
        ([-0.11, 0.0, 0.0], "the motor or the encoder is reversed (encoder.sign)"),
        ([0.09, 0.0, 0.0], "it is blocked, or motor, encoder or power is not connected"),
        ([0.11, 0.0, 0.12], "that of wheel by +0.120: motors or encoders are swapped"),
    ],
)
def test_what_a_move_shows(ways: list[float], said: str) -> None:
    problem = nudge.Move("hip", 1, 0.5, NAMES, ways, allowed=[0.05, 0.05, 0.1], ticks=_ticks(0.11)).problem()
    assert problem.endswith(said) if said else problem == ""


@pytest.mark.parametrize(
    ("by_speed", "right"), [(0.05, True), (0.3, True), (-0.11, False), (0.03, False), (0.4, False)]
)
def test_a_speed_that_adds_up_to_another_way_is_wrong(by_speed: float, right: bool) -> None:
    move = nudge.Move("hip", 1, 0.5, NAMES, [0.11, 0.0, 0.0], allowed=[0.05, 0.05, 0.1], ticks=_ticks(by_speed))
    assert (move.problem() == "") == right
    assert move.by_speed == pytest.approx(by_speed)


def _ticks(way: float) -> list[Tick]:
    """Half a second of a hip whose speed rises evenly, and adds up to `way` [rad]."""
    speeds = [(t, 8 * way * t) for t in (0.0, 0.1, 0.3, 0.5)]
    return [Tick(t, False, True, (0.0, 0.0, 0.0), (speed, 0.0, 0.0), t, None) for t, speed in speeds]


def test_limits_are_reduced_for_what_is_driven_only() -> None:
    spec = reduced(FURUTA.spec, 0.2)
    assert spec.joint("arm").effort_limit == pytest.approx(0.024)
    assert spec.joint("arm").velocity_limit == pytest.approx(6)
    assert spec.joint("pendulum") == FURUTA.spec.joint("pendulum")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--joints", "pendulum"], "--joints: ['pendulum'] are no actuated joints of furuta. name some of ['arm']"),
        (["--soak-s", "0"], "--soak-s: is 0. give 1 or more"),
        (["--hardware", "twin", "--port", "x"], "is of no use to the twin"),
    ],
)
def test_mistakes_are_named_before_anything_moves(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["hil", "run", *arguments, "--yes", "--out", str(tmp_path / "hil")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "hil").exists()


def test_it_asks_before_it_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115  closed with the process
    assert main(["hil", "run", "--hardware", "twin", "--out", str(tmp_path / "hil")]) == 2
    assert "asks before it moves, and nobody answers. give --yes" in capsys.readouterr().err
    assert main(["hil", "run", "--port", str(tmp_path / "none"), "--out", str(tmp_path / "hil")]) == 2
    assert "nobody answers" in capsys.readouterr().err  # before the port is opened: nobody reads it meanwhile
    assert plan_for(FURUTA, (), 600, 10).joints == ("arm",)


def test_it_says_beforehand_that_a_robot_commanded_in_position_moves_every_joint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for robot, led in (("arm", True), ("furuta", False)):
        monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115  closed with the process
        joint = load_robot(robot).spec.actuated[0]
        out = str(tmp_path / "hil")
        assert main(["hil", "run", "--robot", robot, "--joints", joint, "--hardware", "twin", "--out", out]) == 2
        said = " ".join(capsys.readouterr().err.split())
        speed = load_robot(robot).spec.safety.parking_speed
        assert ("every joint, named or not, first goes to its default position" in said) is led
        assert (f"after each stage to the parking pose, at up to {speed:g} rad/s; {joint} will move" in said) is led
        assert ("20% of its speed, and all the force that its drives have" in said) is led
