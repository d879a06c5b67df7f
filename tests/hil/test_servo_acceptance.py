"""`landbridge hil run` on an emulated bus of servos, whose arm falls onto its stops whenever torque goes off."""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from landbridge.cli import main
from landbridge.deploy.hardware import choose_hardware, open_hardware
from landbridge.deploy.hardware.servo_bus import Bus
from landbridge.deploy.hil import acceptance, loop, nudge, stages
from landbridge.deploy.hil.acceptance import accept
from landbridge.deploy.hil.stages import Plan
from landbridge.robot import Robot

from .arm import ARM
from .conftest import altered
from .rig import Emulated, real_time

BRIEF = Plan(("elbow",), soak_s=1.0, latency_s=1.0)
ALTERED = (  # patient, since a busy machine may be late, and with short ways from pose to pose
    ("max_command_age_ms: 30", "max_command_age_ms: 300"),
    ("latency_budget_ms: 10", "latency_budget_ms: 300"),
    ("name: shoulder_lift,", "name: shoulder_lift, default_joint_pos: -1.5,"),
    ("name: elbow,", "name: elbow, default_joint_pos: 1.4,"),
    ("name: wrist_flex,", "name: wrist_flex, default_joint_pos: 1.4,"),
    ("default_joint_pos: 0.5", "default_joint_pos: 1.4"),
    ("gripper: 0}", "gripper: 1.55}"),
)
TWIN = "hardware: {kind: twin}"


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Robot:
    folder = tmp_path_factory.mktemp("altered") / "arm"
    return altered(ARM, folder, *ALTERED, (TWIN, "hardware: {kind: dynamixel, watchdog_ms: 400}"))


@pytest.fixture(scope="module")
def started(arm: Robot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    link = tmp_path_factory.mktemp("by-id") / "landbridge-arm"
    bus = Emulated(link, "--robot", str(arm.folder), "--hardware", "dynamixel")
    yield bus
    assert bus.end() == 0


@pytest.fixture(autouse=True)
def _a_steep_ramp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody stands beside an emulated arm, and what swings there shows at once."""
    monkeypatch.setattr(nudge, "STILL_SECONDS", 0.2)
    monkeypatch.setattr(nudge, "RAMP_SECONDS", 0.8)


@pytest.fixture
def bus(started: Emulated) -> Emulated:
    started.order("clear")
    return started


def test_an_arm_that_falls_between_stages_is_accepted(
    bus: Emulated, arm: Robot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "MISSED_SHARE", 1.0)  # how regular a loop is, is tested on the board
    out = tmp_path / "hil"
    times = ["--joints", "elbow", "--soak-s", "1", "--latency-s", "1"]
    assert main(["hil", "run", "--robot", str(arm.folder), "--port", bus.port, "--yes", "--out", str(out), *times]) == 0
    (suite,) = ET.parse(out / "junit.xml").getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) == ("7", "0", "0")
    said = {case.attrib["name"]: case.findtext("system-out") or "" for case in suite.iter("testcase")}
    assert "stopped_within_ms: 420" in said["watchdog"]
    assert not any(bus.order("status")["torque"])
    parked = arm.spec.parking["shoulder_lift"]
    deadline = time.monotonic() + 5
    while bus.order("status")["position"][1] > parked - 0.04:  # it falls whenever it is let go
        assert time.monotonic() < deadline


@pytest.mark.filterwarnings("ignore:feetech")
def test_feetech_servos_are_accepted_without_the_watchdog_that_they_have_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "MISSED_SHARE", 1.0)
    brief = ("identity", "wiring", "latency", "watchdog")
    monkeypatch.setattr(acceptance, "STAGES", {name: stages.STAGES[name] for name in brief})
    robot, out = altered(ARM, tmp_path / "arm", *ALTERED, (TWIN, "hardware: {kind: feetech}")), tmp_path / "hil"
    bus = Emulated(tmp_path / "port", "--robot", str(robot.folder), "--hardware", "feetech")
    times = ["--joints", "elbow", "--soak-s", "1", "--latency-s", "1"]
    try:
        command = ["hil", "run", "--robot", str(robot.folder), "--port", bus.port, "--yes", "--out", str(out), *times]
        assert main(command) == 0
        assert not any(bus.order("status")["torque"])
    finally:
        assert bus.end() == 0
    (suite,) = ET.parse(out / "junit.xml").getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) == ("4", "0", "1")
    (skipped,) = [case for case in suite.iter("testcase") if case.find("skipped") is not None]
    assert skipped.attrib["name"] == "watchdog" and "holds it" in skipped.find("skipped").attrib["message"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("order", "stage", "said"),
    [
        ("reversed elbow", "wiring", "farthest from its target is elbow"),
        (
            "watchdog_dead elbow",
            "watchdog",
            "bus_watchdog:shoulder_pan, but the watchdog of elbow is dead",
        ),
    ],
)
def test_a_defect_is_named_and_torque_is_off(
    bus: Emulated, arm: Robot, monkeypatch: pytest.MonkeyPatch, order: str, stage: str, said: str
) -> None:
    monkeypatch.setattr(acceptance, "STAGES", {name: stages.STAGES[name] for name in ("identity", stage, "soak")})
    bus.order(order)
    settings = choose_hardware(arm.spec, port=bus.port)
    with real_time(), closing(open_hardware(arm, settings, "none", 0)) as hardware:
        account = accept(arm, hardware, BRIEF, "tester")
        hardware.recover()  # watchdogs that have stopped their servos would be a fault of the next driver
    assert [result.verdict for result in account.results] == ["pass", "fail", "not run"]
    assert re.search(said, account.results[1].reason), account.results[1].reason
    assert not any(bus.order("status")["torque"])


def test_goals_that_never_arrive_are_not_in_effect(bus: Emulated, arm: Robot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second one is the one that has been there from the beginning."""
    monkeypatch.setattr(acceptance, "STAGES", {name: stages.STAGES[name] for name in ("identity", "latency")})
    monkeypatch.setattr(stages, "MISSED_SHARE", 0.3)
    say, swaying, lost = Bus.sync_write, stages._swaying, []

    def lossy(bus: Bus, register: str, values: Mapping[int, int]) -> None:
        if not (lost and register == "goal_position"):
            say(bus, register, values)

    def from_now_on(control: loop.Loop, plan: Plan) -> Iterator[Sequence[float]]:
        lost.append(plan)
        return swaying(control, plan)

    monkeypatch.setattr(Bus, "sync_write", lossy)
    monkeypatch.setattr(stages, "_swaying", from_now_on)
    with real_time(), closing(open_hardware(arm, choose_hardware(arm.spec, port=bus.port), "none", 0)) as hardware:
        account = accept(arm, hardware, BRIEF, "tester")
    found = re.search(r"^(\d+) of (\d+) commands were in effect", account.results[1].reason)
    assert found and int(found[1]) <= 0.55 * int(found[2]), account.results[1]
    assert not any(bus.order("status")["torque"])


def test_an_arm_that_is_kept_in_motion_is_not_armed(bus: Emulated, arm: Robot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "FALL_SECONDS", 0.3)
    falling: list[list[float]] = []
    bus.order("reset")

    def put_upright(result: stages.Result) -> None:
        if result.stage == "identity":
            bus.order("reset")
            falling.append(bus.order("status")["position"])

    with real_time(), closing(open_hardware(arm, choose_hardware(arm.spec, port=bus.port), "none", 0)) as hardware:
        account = accept(arm, hardware, BRIEF, "tester", put_upright)
    falling.append(bus.order("status")["position"])
    assert "in 0.3 s without torque: support what falls" in account.results[1].reason, account.results
    assert max(abs(after - before) for before, after in zip(*falling, strict=True)) > 0.1
    assert not any(bus.order("status")["torque"])
