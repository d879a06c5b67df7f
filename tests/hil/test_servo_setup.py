"""`landbridge servo scan|setup` against emulated buses: what is right is done, what is wrong is named before."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import tty
from typing import Any

import pytest

from landbridge.deploy.hardware.feetech import FeetechBus
from landbridge.deploy.hardware.servo_bus import TRIES, Bus
from landbridge.deploy.hardware.servo_port import KEPT, SdkPort
from landbridge.deploy.hardware.servo_setup import scan, setup
from landbridge.errors import InputError

from .rig import Emulated

OTHER = {"dynamixel": "feetech", "feetech": "dynamixel"}
MODELS = {"dynamixel": "XL430-W250", "feetech": "STS3215"}
LOCKED = {"dynamixel": "", "feetech": "closed"}


def answers(port: str, kind: Any, id: int, baud: int) -> bool:
    with contextlib.suppress(InputError):
        return scan(port, kind, baud, id)["servos"][-1]["id"] == id
    return False


def test_a_scan_lists_what_answers_at_whatever_rate(kind: Any, arm_bus: Emulated) -> None:
    rows = scan(arm_bus.port, last_id=7)["servos"]
    assert [row["id"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {row["model"] for row in rows} == {MODELS[kind]}
    assert {(row["volts"], row["deg_c"], row["error"]) for row in rows} == {(12.0, 35, "")}
    assert scan(arm_bus.port, kind, baud=1_000_000, last_id=2)["servos"] == rows[:2]
    with pytest.raises(InputError, match=f"nothing answers with ids 0 to 2; tried {OTHER[kind]} 1000000"):
        scan(arm_bus.port, OTHER[kind], last_id=2)


def test_a_servo_whose_first_answer_is_lost_is_found(kind: Any, arm_bus: Emulated) -> None:
    arm_bus.order("lost to_host 3")
    assert [row["id"] for row in scan(arm_bus.port, kind, 1_000_000, 7)["servos"]] == [1, 2, 3, 4, 5, 6]


def test_what_a_servo_knows_better_than_robot_yaml_is_taken_out(kind: Any, arm_bus: Emulated) -> None:
    arm_bus.order("homing elbow -100")
    arm_bus.order("narrow elbow 3000")
    arm_bus.order("mode elbow 1")
    written = setup(arm_bus.port, 3, kind, yes=True)["written"]
    assert all(word in written for word in ("homing_offset = 0", "max_position_limit = 4095", "operating_mode = "))
    assert setup(arm_bus.port, 3, kind, yes=True)["written"] == "nothing"


def test_a_lock_that_was_left_open_is_shown_and_closed(kind: Any, arm_bus: Emulated) -> None:
    if kind == "dynamixel":
        pytest.skip("dynamixel servos have no lock of their own")
    bus = FeetechBus(arm_bus.port, 1_000_000)
    bus.write(3, "lock", 0)
    bus.close()
    assert scan(arm_bus.port, kind, baud=1_000_000, last_id=3)["servos"][-1]["lock"] == "open"
    done = setup(arm_bus.port, 3, kind, yes=True)
    assert (done["written"], done["servos"][0]["lock"]) == ("lock = 1", "closed")


def test_a_servo_gets_another_id_and_rate_and_its_own_back(kind: Any, arm_bus: Emulated) -> None:
    before = scan(arm_bus.port, kind, baud=1_000_000, last_id=7)
    try:
        _there_and_back(kind, arm_bus)
        assert len(scan(arm_bus.port, kind, baud=1_000_000, last_id=7)["servos"]) == len(before["servos"]) == 6
    finally:
        with contextlib.suppress(InputError):
            setup(arm_bus.port, 12, kind, baud=57_600, new_id=3, new_baud=1_000_000, yes=True)


def _there_and_back(kind: Any, arm_bus: Emulated) -> None:
    done = setup(arm_bus.port, 3, kind, new_id=12, new_baud=57_600, return_delay_us=20, yes=True)
    assert [(row["id"], row["baud"], row["delay_us"]) for row in done["servos"]] == [(12, 57_600, 20)]
    assert scan(arm_bus.port, kind, baud=57_600, last_id=12)["servos"] == done["servos"]
    assert done["servos"][0]["lock"] == LOCKED[kind]
    assert [row["id"] for row in scan(arm_bus.port, kind, baud=1_000_000, last_id=12)["servos"]] == [1, 2, 4, 5, 6]
    arm_bus.order("reboot")
    deadline = time.monotonic() + 3
    while not answers(arm_bus.port, kind, 12, 57_600):
        assert time.monotonic() < deadline
    setup(arm_bus.port, 12, kind, baud=57_600, new_id=3, new_baud=1_000_000, yes=True)  # it has survived that
    assert setup(arm_bus.port, 3, kind, yes=True)["written"] == "nothing"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": -1}, "--id: -1 is not in 0 .. 252"),
        ({"id": 254}, "--id: 254 is not in 0 .. 252"),
        ({"baud": 0}, "cannot be opened at 0 baud"),
        ({"id": 9}, "no (dynamixel|feetech) servo 9 answers at 1000000 baud"),
        ({"baud": 57_600}, "no (dynamixel|feetech) servo 3 answers at 57600 baud"),
        ({"new_id": 4}, "servo 4 is on this bus already"),
        ({"new_id": 300}, "300 is not in 0 .. 252"),
        ({"new_baud": 12_345}, "has no rate 12345"),
        ({"return_delay_us": 600}, "600 is not in 0 .. 508"),
        ({"new_id": 12, "yes": False}, "servo 3 .*: nobody can be asked whether to take torque off and write id = 12"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(
    kind: Any, arm_bus: Emulated, changes: dict[str, Any], said: str
) -> None:
    before = scan(arm_bus.port, kind, baud=1_000_000, last_id=12)
    with pytest.raises(InputError, match=said):
        setup(arm_bus.port, **({"id": 3, "hardware": kind, "yes": True} | changes))
    assert scan(arm_bus.port, kind, baud=1_000_000, last_id=12) == before


def test_a_scan_asks_nobody_beyond_the_ids_that_servos_have() -> None:
    for last_id in (-1, 254):
        with pytest.raises(InputError, match=f"--last-id: {last_id} is not in 0 .. 252"):
            scan("/dev/null", last_id=last_id)


def test_a_servo_that_answers_only_once_is_named(kind: Any, arm_bus: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Bus.model

    def asked(bus: Bus, id: int, tries: int = TRIES) -> int | None:
        number = ask(bus, id, tries)
        if number is not None:
            arm_bus.order("lost to_host")
        return number

    monkeypatch.setattr(Bus, "model", asked)
    for command in (lambda: scan(arm_bus.port, kind, 1_000_000, 3), lambda: setup(arm_bus.port, 1, kind, yes=True)):
        arm_bus.order("clear")
        with pytest.raises(InputError, match="answers only sometimes, or refuses to: servo"):
            command()


def test_a_line_that_never_falls_quiet_is_not_waited_for() -> None:
    ends, ended = os.openpty(), threading.Event()
    tty.setraw(ends[1])
    os.set_blocking(ends[0], False)

    def babble() -> None:
        while not ended.is_set():
            with contextlib.suppress(BlockingIOError):
                os.write(ends[0], b"x")

    port, thread = SdkPort(os.ttyname(ends[1]), 1_000_000), threading.Thread(target=babble, daemon=True)
    thread.start()
    settled = threading.Thread(target=port.settle, daemon=True)
    settled.start()
    settled.join(5)
    assert not settled.is_alive()
    ended.set()
    thread.join()
    port.close()
    for end in ends:
        os.close(end)


def test_a_line_that_babbles_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDKs look at their time only when nothing has come."""
    ends = os.openpty()
    tty.setraw(ends[1])
    port = SdkPort(os.ttyname(ends[1]), 4_000_000)
    monkeypatch.setattr("landbridge.deploy.hardware.servo_port.os.read", lambda file, size: b"\xff" * size)
    monkeypatch.setattr(port, "_readable", lambda seconds: True)
    for _ in range(2):
        port.setPacketTimeoutMillis(5)
        heard = sum(len(port.readPort(300)) for _ in range(1000))
        assert KEPT <= heard < KEPT + 300
    port.close()
    for end in ends:
        os.close(end)


def test_an_unknown_model_is_shown_and_left_alone(kind: Any, arm_bus: Emulated) -> None:
    arm_bus.order("model elbow 350")
    row = scan(arm_bus.port, kind, baud=1_000_000, last_id=3)["servos"][-1]
    assert row["model"] == f"unknown {kind} 350"
    with pytest.raises(InputError, match=f"servo 3 has model unknown {kind} 350"):
        setup(arm_bus.port, 3, kind, new_id=12, yes=True)
