"""A controller of a floating robot as a node, the parts of its measurements by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from numpy.typing import NDArray

from landbridge.observation import Base
from landbridge_nodes import topics
from landbridge_nodes.controller import PENDING, Controller
from landbridge_nodes.parameters import ROBOT
from landbridge_nodes.topics import IMU, JOINT_STATES, ODOM, Topic

pytestmark = pytest.mark.ros
LEVEL = Base(np.array([[1.0, 0, 0, 0]]), np.zeros((1, 3)), np.zeros((1, 3)))


class Still(Controller):
    """Asks for the default pose.

    Attributes:
        answered: Stamps of its commands.
    """

    def __init__(self) -> None:
        super().__init__("still", (ROBOT,))
        self.answered: list[int] = []
        self._command = self

    def act(self, obs: NDArray[np.float32]) -> NDArray[np.floating]:
        return np.zeros(self.observer.num_actions)

    def publish(self, message: Any) -> None:
        self.answered.append(topics.to_ns(message.header.stamp))

    def take(self, stamp: int, *parts: Topic) -> None:
        names = self.spec.joint_names
        joints = topics.joint_message(stamp, names, "position", [0.0] * len(names), topics.MEASURED)
        joints.velocity = joints.position
        imu, odometry = topics.base_messages(stamp, LEVEL)
        for part in parts:
            self._on_part(part, {JOINT_STATES: joints, IMU: imu, ODOM: odometry}[part])


@pytest.fixture
def controller(ros_domain: None) -> Iterator[Still]:
    rclpy.init(args=["--ros-args", "-p", "robot:=quadruped"])
    node = Still()
    node.trigger_configure()
    node.trigger_activate()
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


@pytest.mark.parametrize("silent", [IMU, ODOM, JOINT_STATES], ids=["imu", "odom", "joint_states"])
def test_what_stays_incomplete_is_dropped_and_what_is_whole_again_is_answered(controller: Still, silent: Topic) -> None:
    for stamp in range(20):
        controller.take(stamp, *{IMU, ODOM, JOINT_STATES} - {silent})
        assert len(controller._arriving) <= PENDING
    assert controller.answered == []
    for stamp in (20, 21):
        controller.take(stamp, IMU, ODOM, JOINT_STATES)
    assert (controller.answered, controller.fault) == ([20, 21], "")


def test_measurements_whose_parts_overtake_each_other_are_all_answered(controller: Still) -> None:
    for part in (ODOM, JOINT_STATES, IMU):
        for stamp in range(1, PENDING + 1):
            controller.take(stamp, part)
    assert controller.answered == list(range(1, PENDING + 1))
