"""The board: an emulated microcontroller on a pty as a process of a bring-up, in place of one on a cable."""

from __future__ import annotations

import sys
from pathlib import Path

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from landbridge.deploy.hil.command import PRIORITY
from landbridge.deploy.hil.emulator import Emulator
from landbridge.robot import load_robot
from landbridge_nodes.parameters import LINK, ROBOT, SCENARIO, SEED, declare
from landbridge_nodes.process import run

PARAMETERS = (ROBOT, SCENARIO, SEED, LINK)
POLL_SECONDS = 0.001  # of the firmware's main loop, at most


class BoardNode(Node):  # type: ignore[misc]
    """Node `board`."""

    def __init__(self) -> None:
        super().__init__("board")
        read = declare(self, PARAMETERS)
        self._emulator = Emulator(load_robot(read["robot"]), read["scenario"], read["seed"], Path(read["link"]))
        self.create_timer(POLL_SECONDS, self._emulator.poll, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.get_logger().info(f"on {read['link']}")

    def close(self) -> None:
        """Pull the plug."""
        self._emulator.close()


def main() -> None:
    """Entry point of the executable `board`."""
    sys.exit(run(BoardNode, PRIORITY))


if __name__ == "__main__":
    main()
