"""What a guard and its hardware pass to each other, by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from landbridge.deploy import guarded as module
from landbridge.deploy.guard import GONE_SECONDS, Guard
from landbridge.deploy.guarded import Guarded
from landbridge.deploy.hardware import Hardware
from landbridge.deploy.supervisor import State
from landbridge.observation import Base
from landbridge.robot import load_robot
from landbridge.verdict import Reason, Verdict

FURUTA, QUADRUPED = load_robot("furuta").spec, load_robot("quadruped").spec
STANCE = [joint.default_joint_pos for joint in QUADRUPED.joints]


class Plain:
    """Measures what it was given, and keeps what it was told."""

    def __init__(self, position: Sequence[float] = (0.1, 3.0), velocity: Sequence[float] = (0.2, 0.0)) -> None:
        self.fault = self.warning = ""
        self.counters: Counter[str] = Counter()
        self.position, self.velocity = list(position), list(velocity)
        self.told: list[object] = []

    def read(self) -> tuple[Sequence[float], Sequence[float]]:
        return self.position, self.velocity

    def write(self, command: Sequence[float]) -> None:
        self.told.append(tuple(command))

    def disable(self) -> None:
        self.told.append("disable")

    def recover(self) -> None:
        self.told.append("recover")

    def close(self) -> None:
        self.told.append("close")


class Told(Plain):
    """It knows when it measured."""

    told_at = 5.0


class Board(Plain):
    """A device that tells of itself."""

    torque, limp, stopped, streams = False, (), (), True
    identity: dict[str, str] = {}  # noqa: RUF012
    watchdog = 0.1

    def in_effect(self, written: float) -> bool:
        raise NotImplementedError


class Walker(Plain):
    """Its base leans forward by 0.3 rad."""

    def base(self) -> Base:
        half = 0.15
        quat = np.array([[np.cos(half), 0.0, np.sin(half), 0.0]])
        return Base(quat, np.zeros((1, 3)), np.zeros((1, 3)))


@pytest.fixture(autouse=True)
def _at_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "uptime", lambda: 10.0)


def powered(hardware: Hardware) -> Guarded:
    """Of a furuta whose drive holds 0 N m, since 9.9 s."""
    made = Guarded(Guard(FURUTA), hardware)
    made.guard.supervise(State.STANDBY, 0, 9.8)
    made.guard.supervise(State.ARMED, 0, 9.8)
    made.judge(1, made.read()._replace(taken=9.9))
    assert made.guard.tick(9.9) is not None
    assert made.guard.powered
    return made


def test_hardware_that_knows_no_time_always_has_news() -> None:
    made = Guarded(Guard(FURUTA), Plain())
    first = made.read()
    assert (first.now, first.taken, first.news) == (10.0, 10.0, True)
    assert (first.position, first.velocity, first.base, first.tilt) == ([0.1, 3.0], [0.2, 0.0], None, 0.0)


def test_a_measurement_that_is_given_again_is_no_news_unless_there_is_a_fault() -> None:
    hardware = Told()
    made = Guarded(Guard(FURUTA), hardware)
    assert [made.read().news, made.read().news] == [True, False]
    hardware.told_at = 4.0  # a clock that was corrected
    assert not made.read().news
    hardware.told_at = 5.1
    later = made.read()
    assert (later.now, later.taken, later.news) == (10.0, 5.1, True)
    hardware.fault = "telemetry_stale"
    assert made.read().news


def test_a_measurement_is_judged_under_its_stamp_and_as_of_when_it_was_taken() -> None:
    made = Guarded(Guard(FURUTA), Told())
    made.judge(77, made.read())
    assert made.guard.measured_at(77) == 5.0


def test_a_base_is_measured_with_what_is_new_and_its_tilt_judged() -> None:
    made = Guarded(Guard(QUADRUPED), Walker(STANCE, [0.0] * 12))
    found = made.read()
    assert found.base is not None
    assert found.tilt == pytest.approx(0.3)
    made.judge(1, found)
    assert made.guard._motion.tilt == pytest.approx(0.3)

    class Seldom(Walker, Told):
        pass

    seldom = Guarded(Guard(QUADRUPED), Seldom(STANCE, [0.0] * 12))
    assert [seldom.read().base is None, seldom.read().base is None] == [False, True]


def test_a_floating_robot_has_hardware_that_measures_its_base() -> None:
    with pytest.raises(AssertionError):
        Guarded(Guard(QUADRUPED), Plain(STANCE, [0.0] * 12))


def test_a_stop_is_written_and_a_release_takes_torque_off() -> None:
    hardware = Plain()
    made = Guarded(Guard(FURUTA), hardware)
    made.apply(Verdict((0.05,), Reason.NOT_ACTIVE, write=True))
    made.apply(Verdict((0.0,), Reason.PARKED, write=False, release=True))
    assert hardware.told == [(0.05,), "disable"]


@pytest.mark.parametrize(("hardware", "holds"), [(Plain(), True), (Board(), True), (Board(), False)])
def test_after_a_reset_torque_is_in_effect_unless_a_drive_says_that_it_has_lost_it(
    hardware: Plain, holds: bool
) -> None:
    made = powered(hardware)
    if not holds:
        hardware.limp = ("arm",)  # type: ignore[attr-defined]
    made.recover()
    assert hardware.told == ["recover"]
    assert made.guard.powered is holds


def test_torque_is_on_by_what_was_commanded_or_by_what_the_device_says() -> None:
    assert not Guarded(Guard(FURUTA), Plain()).holds
    assert powered(Plain()).holds
    board = Board()
    made = Guarded(Guard(FURUTA), board)
    assert not made.holds
    board.torque = True
    assert made.holds


def test_a_stop_ends_when_the_robot_rests_and_a_second_after_hardware_is_gone() -> None:
    hardware = Plain(velocity=(5.0, 0.0))
    made = powered(hardware)
    made.guard.supervise(State.DAMP, 0, 10.0)
    assert not made.has_ended(10.0 + GONE_SECONDS)
    hardware.fault = "port_lost"
    assert not made.has_ended(9.9 + GONE_SECONDS)
    assert made.has_ended(10.0 + GONE_SECONDS)
