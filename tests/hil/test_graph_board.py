"""The whole ROS graph on the emulated wire: a bridge with the back end `mcu`, a controller, the monitor."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rclpy

from landbridge.deploy.hardware.port import open_port
from landbridge.deploy.hil.stages import Result
from landbridge.deploy.supervisor import State
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import Robot
from landbridge_nodes import bringup
from landbridge_nodes.bridge import Bridge
from landbridge_nodes.hil import close_the_loop
from landbridge_nodes.operator import Operator
from landbridge_nodes.processes import Processes
from landbridge_nodes.up import up

from .rig import FURUTA, Emulated

pytestmark = pytest.mark.ros
SWING_UP_TICKS = 301  # a whole episode: 6 s at 50 Hz, and the last observation
HASTY = "from landbridge_nodes import bridge; bridge.PORT_SECONDS = 2.0; bridge.main()"  # in place of 10


@pytest.fixture
def graph(emulated: Emulated, ros_domain: None, tmp_path: Path) -> Iterator[tuple[Processes, Operator]]:
    """Bridge on the emulated port, which it does not await for long, classical controller and monitor, starting."""
    for words in ("plug", "clear", "reset"):
        emulated.order(words)
    bridge, *others = bringup.record("furuta", "none", 0, "", port=emulated.port)[1:]  # without the recorder
    (tmp_path / "hasty").mkdir()
    (tmp_path / "hasty" / "bridge.py").write_text(HASTY)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (
        Processes([replace(bridge, package="hasty"), *others], {"PYTHONPATH": path}) as processes,
        Operator(FURUTA, lambda: None, lambda words: emulated.order("reset")) as operator,
    ):
        yield processes, operator


def test_the_furuta_swings_up_and_balances(emulated: Emulated, graph: tuple[Processes, Operator]) -> None:
    _, operator = graph
    operator.wait_ready(recorded=False)
    outcomes = []
    while not any(outcome.success for outcome in outcomes):  # the exciting behaviour is made to fail at times
        outcomes.append(operator.episode(SWING_UP_TICKS))
        print(outcomes[-1])
        assert len(outcomes) <= 4
    operator.refresh_diagnostics()
    assert operator.diagnostics["fault"] == ""
    assert operator.diagnostics["hardware.board_crc_errors"] == operator.diagnostics["hardware.host_crc_errors"] == "0"


def test_plugs_pulled_before_and_while_the_robot_moves(emulated: Emulated, graph: tuple[Processes, Operator]) -> None:
    """Each is a named, latched fault, left by plug, reset and arm; a bridge that dies leaves the board to stop."""

    def reset() -> bool:
        """Until STANDBY lasts: a bridge without its port hears no reset, and without a link the fault comes back."""
        if operator.state is State.FAULT:
            seen.clear()
            emulated.order("reset")  # an arm that is cut off in full swing may have run into its limit
            with contextlib.suppress(InputError):
                operator.call("/monitor/reset")
        seen.append(operator.state)
        return seen[-10:] == [State.STANDBY] * 10

    seen: list[State] = []
    processes, operator = graph
    emulated.order("unplug")
    operator.wait_ready(recorded=False)
    assert operator.state is State.FAULT
    assert operator.reason.endswith(": no such port", 0, len(emulated.port) + len(": no such port"))
    emulated.order("plug")
    operator.wait(reset, 20)
    assert operator.episode(20).ticks == 20
    operator.wait(reset, 20)
    operator.call("/monitor/arm")
    operator.wait(lambda: operator.state is State.ACTIVE, 5)
    emulated.order("unplug")
    operator.wait(lambda: operator.state is State.FAULT, 2)
    assert operator.reason == "port_lost"
    with pytest.raises(InputError, match="arm refused in FAULT"):
        operator.call("/monitor/arm")
    operator.call("/monitor/reset")  # the bridge is well; its hardware is not
    operator.wait(lambda: operator.state is State.FAULT and operator.reason == "port_lost", 2)
    emulated.order("plug")
    operator.wait(reset, 20)
    assert operator.episode(20).ticks == 20
    os.kill(processes.pid("bridge"), signal.SIGKILL)
    emulated.order("flip to_board 0")
    operator.wait(lambda: abs(emulated.order("status")["command"][0]) < 0.01, 2)


def test_the_closed_loop_of_an_acceptance_run_on_the_board_of_its_bring_up(
    linear_bundle: Callable[..., Path], brief_furuta: Robot, tmp_path: Path, ros_domain: None
) -> None:
    still = np.zeros((Observer(FURUTA.spec).size, 1), np.float32)
    bundle = linear_bundle(tmp_path / "bundle", still, robot=brief_furuta.folder)
    link, result = tmp_path / "board", Result("closed loop")
    specs = bringup.hil(str(brief_furuta.folder), "none", 0, str(bundle), link=str(link))
    close_the_loop(brief_furuta, specs, result, by_hand=True, ask=False)
    assert (result.verdict, result.reason) == ("pass", "")
    assert result.figures["ticks"] == 101  # a whole episode: 2 s at 50 Hz, and the last observation
    assert result.figures["success"] is False  # it hangs
    assert not link.is_symlink()  # unplugged


def test_an_emulated_robot_is_put_into_a_start_state_by_nobody_before_each_episode(
    linear_bundle: Callable[..., Path], brief_furuta: Robot, tmp_path: Path, ros_domain: None
) -> None:
    """The policy drives the arm into its limit, where no reset would leave the fault behind."""
    pushing = np.zeros((Observer(FURUTA.spec).size, 1), np.float32)
    pushing[Observer(FURUTA.spec).names.index("joint_cos.pendulum")] = 1.0
    bundle = linear_bundle(tmp_path / "bundle", pushing, robot=brief_furuta.folder)
    figures = up("hil", bundle, str(brief_furuta.folder), "none", episodes=2)
    assert figures is not None
    assert figures["ended"] == ["board_position_limit"] * 2
    assert figures["ticks"] > 10


def test_a_bridge_that_cannot_park_lets_go_of_its_port(
    emulated: Emulated, ros_domain: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("cannot park")

    for words in ("plug", "clear", "reset"):
        emulated.order(words)
    rclpy.init(args=["--ros-args", "-p", f"port:={emulated.port}"])
    try:
        bridge = Bridge()
        bridge.trigger_configure()
        monkeypatch.setattr(bridge, "_park", fail)
        with pytest.raises(InputError, match="another program uses this port"):
            open_port(emulated.port, 1_000_000)
        with pytest.raises(RuntimeError, match="cannot park"):
            bridge.close()
        open_port(emulated.port, 1_000_000).close()
        bridge.destroy_node()
    finally:
        rclpy.shutdown()
