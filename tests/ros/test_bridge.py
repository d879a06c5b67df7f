"""The bridge as a node, its messages and transitions by hand: what others may do to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import TransitionCallbackReturn

from landbridge.deploy.guard import GONE_SECONDS
from landbridge.deploy.hardware import Resettable
from landbridge.deploy.supervisor import State
from landbridge.verdict import Reason
from landbridge_nodes import bridge as bridge_module
from landbridge_nodes import topics
from landbridge_nodes.bridge import Bridge

pytestmark = pytest.mark.ros


@pytest.fixture
def bridge(ros_domain: None) -> Iterator[Bridge]:
    """Of the twin, which hangs free, measuring."""
    rclpy.init()
    node = Bridge()
    for step in (node.trigger_configure, node.trigger_activate):
        assert step() is TransitionCallbackReturn.SUCCESS
    assert isinstance(node.hardware, Resettable)
    node.hardware.let_go()
    yield node
    node.close()
    node.destroy_node()
    rclpy.try_shutdown()


def say(bridge: Bridge, *states: State, epoch: object = 0, reason: str = "") -> None:
    """The monitor's states, and a control period after each."""
    for state in states:
        bridge._on_state(topics.status_message(state.value, reason, {"epoch": epoch}))
        if bridge._timer is not None:
            bridge._tick()


def test_what_others_say_where_the_monitor_speaks_is_not_heard(bridge: Bridge) -> None:
    """A control loop never raises; and who is no monitor is no heartbeat."""
    say(bridge, State.STANDBY, State.ARMED)
    heard = bridge.guard._heartbeat
    for name, values in (("OK", {"epoch": 1}), ("ARMED", {}), ("ARMED", {"epoch": "many"}), ("", {})):
        bridge._on_state(topics.status_message(name, "", values))
    assert (bridge.guard.state, bridge.guard.epoch, bridge.guard._heartbeat) == (State.ARMED, 0, heard)


def test_a_bridge_that_somebody_deactivates_parks_and_moves_no_more_before_a_reset(bridge: Bridge) -> None:
    """The monitor leads it back at once, and may still be ARMED."""
    say(bridge, State.STANDBY, *[State.ARMED] * 5)
    assert bridge.guard.powered
    assert bridge.trigger_deactivate() is TransitionCallbackReturn.SUCCESS
    say(bridge, State.ARMED)
    assert bridge.trigger_activate() is TransitionCallbackReturn.SUCCESS
    powered = bridge.guard.powered
    say(bridge, *[State.ARMED] * 5)
    assert bridge.guard.powered is powered
    assert bridge._report.news is not None
    assert bridge._report.news.fault == "deactivated"
    say(bridge, State.UNCONFIGURED, State.STANDBY, epoch=1)
    assert bridge.guard.fault is None


def test_a_port_that_is_not_there_yet_is_waited_for_and_later_a_fault(
    ros_domain: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board that starts with the bridge, or a cable that is plugged in while it starts."""
    port = tmp_path / "board"
    rclpy.init(args=["--ros-args", "-p", f"port:={port}"])
    node = Bridge()
    try:
        for told in (None, f"{port}: no such port"):
            assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
            assert (node._report.news and node._report.news.fault.partition(".")[0]) == told
            monkeypatch.setattr(bridge_module, "PORT_SECONDS", 0.0)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def test_hardware_that_is_opened_anew_is_not_led_to_where_it_was(bridge: Bridge) -> None:
    say(bridge, State.STANDBY, *[State.ARMED] * 5, State.ESTOP, reason="estop")
    assert bridge.guard.powered
    steps = (bridge.trigger_deactivate, bridge.trigger_cleanup, bridge.trigger_configure, bridge.trigger_activate)
    assert [step() for step in steps] == [TransitionCallbackReturn.SUCCESS] * 4
    assert not bridge.guard.powered
    say(bridge, State.ESTOP, reason="estop")
    assert not bridge.guard.powered


def test_a_stop_is_not_over_because_the_hardware_is_gone(bridge: Bridge) -> None:
    """A reset would follow at once, while what still obeys is on its way to rest and what does not is falling."""
    say(bridge, State.STANDBY, *[State.ARMED] * 5, State.ACTIVE)
    assert bridge.hardware is not None
    bridge.hardware.fault = "servo_silent:elbow"
    say(bridge, State.DAMP, reason="servo_silent:elbow")
    assert bridge._report.news is not None
    assert bridge._report.news.settled == ""
    bridge.guard._since -= GONE_SECONDS
    say(bridge, State.DAMP, reason="servo_silent:elbow")
    assert bridge._report.news.settled == "DAMP"


def test_the_first_epoch_that_a_bridge_hears_is_no_reset_of_its_hardware(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A monitor that has seen resets before this bridge was started; a reboot of servos would let an arm fall."""
    recovered: list[int] = []
    monkeypatch.setattr(bridge.hardware, "recover", lambda: recovered.append(bridge.guard.epoch))
    say(bridge, State.UNCONFIGURED, epoch=3)
    assert (recovered, bridge.guard.epoch) == ([], 3)
    say(bridge, State.FAULT, State.UNCONFIGURED, epoch=4)
    assert recovered == [3]


def test_a_bridge_that_is_ended_parks_a_robot_that_is_held_and_has_no_policy(bridge: Bridge) -> None:
    """After a reset, with the policy gone, the monitor stays in UNCONFIGURED."""
    say(bridge, State.STANDBY, *[State.ARMED] * 5, State.DAMP, State.FAULT)
    say(bridge, State.UNCONFIGURED, epoch=1)
    assert bridge.guard.powered
    bridge._park()
    assert not bridge.guard.powered


def test_what_cannot_be_published_keeps_the_guard_from_nothing(bridge: Bridge) -> None:
    class Broken:
        def publish(self, message: Any) -> None:
            raise rclpy_implementation.RCLError("cannot publish data")

    say(bridge, State.STANDBY, *[State.ARMED] * 5, State.ACTIVE)
    bridge._joint_states = bridge._commands = bridge._timings = Broken()
    say(bridge, *[State.ACTIVE] * 5)
    assert bridge.guard.fault is Reason.SILENT
    assert bridge._unsaid >= 5
