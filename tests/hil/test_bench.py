"""The emulated benches as a user drives them by hand: a mistake is answered, and the board goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from landbridge.deploy.hil import bench as bench_module
from landbridge.deploy.hil import emulator as emulator_module
from landbridge.deploy.hil.emulator import Emulator
from landbridge.deploy.hil.servo_bench import ServoBench
from landbridge.errors import InputError
from landbridge.hardware_spec import DynamixelHardware, FeetechHardware
from landbridge.robot import Robot, load_robot
from landbridge.simulation.plant import make_plant
from landbridge.simulation.scenario import load_scenario

ARM, FURUTA = load_robot("arm"), load_robot("furuta")


@pytest.fixture(scope="module")
def bench() -> Iterator[ServoBench]:
    made = ServoBench(ARM, DynamixelHardware(), "none")
    yield made
    made.close()


@pytest.mark.parametrize(
    "order",
    [
        *("latency abc", "latency nan", "flip to_board x", "gone elbow abc", "weak elbow 100", "voltage elbow -5"),
        *("wrong_id elbow 300", "mode elbow 300", "model elbow 99999", "jump elbow nan"),
    ],
)
def test_an_order_that_cannot_be_done_is_answered(bench: ServoBench, order: str) -> None:
    assert bench.obey(order).startswith("not done: ")


def test_an_order_for_what_a_family_has_not_is_answered() -> None:
    made = ServoBench(ARM, FeetechHardware(), "none")
    assert made.obey("unwatched elbow") == "not done: feetech has no bus_watchdog"
    made.close()


def test_a_temperature_beyond_its_register_is_as_high_as_that_goes(bench: ServoBench) -> None:
    assert bench.obey("temperature elbow 400") == "done"
    bench._serve(b"", 1e9)
    assert bench.servos[2].get("present_temperature") == 255
    bench.clear()


def test_a_board_is_held_at_a_start_state_until_torque_comes_on() -> None:
    board = Emulator(FURUTA, "none")
    try:
        start = board._plant.state()
        for torque, still in ((False, True), (True, False)):
            board.actuate(torque, [0.1 * torque])
            board._stepped_at -= board._dt  # physics follow real time
            board.poll()
            assert (board._plant.state() == start) is still
    finally:
        board.close()


def test_a_link_that_leads_somewhere_is_left_alone_and_one_into_nothing_replaced(tmp_path: Path) -> None:
    """Another board's, or one of before this machine gave its pty to somebody else."""
    link = tmp_path / "board"
    link.symlink_to(tmp_path / "gone")
    first = Emulator(FURUTA, "none", link=link)
    assert str(link.resolve()) == first.port
    with pytest.raises(InputError, match=f"is taken: it is {first.port}"):
        Emulator(FURUTA, "none", link=link)
    assert str(link.resolve()) == first.port
    first.close()
    assert not link.is_symlink()


def test_rates_and_links_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dynamixel servos have no rate 12345"):
        ServoBench(ARM, DynamixelHardware(baud=12345), "none")
    with pytest.raises(InputError, match="feetech servos have no rate 19200"):
        ServoBench(ARM, FeetechHardware(baud=19200), "none")
    with pytest.raises(InputError, match="a pty has no rate 12345"):
        Emulator(FURUTA, "none", baud=12345)
    with pytest.raises(InputError, match="no such folder"):
        Emulator(FURUTA, "none", link=tmp_path / "missing" / "port")


def test_a_command_acts_from_when_it_came_and_a_state_is_of_when_it_was_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both between two physics steps, of 2 ms: the command 13.3 ms after the start, the measurement 20.5 ms."""
    now = 100.0
    board = Emulator(FURUTA, "none")
    for module in (bench_module, emulator_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(board, "_serve", lambda *_: None)  # the firmware, which nobody has started
    board.reset()
    often = Robot(FURUTA.spec.model_copy(update={"control_rate_hz": 500.0, "decimation": 1}), FURUTA.folder)
    plant = make_plant(often, "bullet", load_scenario(FURUTA, "none"))
    plant.reset(*map(np.array, board.measure()))
    board.actuate(True, [0.02])
    now = 100.0133
    board.actuate(True, [-0.1])
    states = []
    for step in range(11):
        plant.step({0: [(0.0, np.array([0.02]))], 6: [(0.0013, np.array([-0.1]))]}.get(step, []))
        states.append(np.concatenate(plant.measure()))
    for now in (100.0135, 100.0185, 100.0205):  # noqa: B007 - what the clock says
        board.poll()
    expected = states[9] + 0.25 * (states[10] - states[9])
    np.testing.assert_allclose(np.concatenate(board.measure()), expected, atol=2e-4)
    assert np.abs(states[10] - states[9]).max() > 0.02
    board.close()
    plant.close()
