"""The board: an emulated microcontroller on a pty as a process of a bring-up, in place of one on a cable."""

from __future__ import annotations

import sys
from pathlib import Path

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from landbridge.deploy.hil.command import PRIORITY
from landbridge.deploy.hil.emulator import Emulator
from landbridge.robot import load_robot
from landbridge_nodes.process import run

POLL_SECONDS = 0.001  # of the firmware's main loop, at most


class BoardNode(Node):  # type: ignore[misc]
    """Node `board`. Parameters: robot; scenario and seed of the plant behind it; link, where its port is found."""

    def __init__(self) -> None:
        super().__init__("board")
        defaults = {"robot": "furuta", "scenario": "none", "seed": 0, "link": "/tmp/landbridge-board"}
        read = {name: self.declare_parameter(name, default).value for name, default in defaults.items()}
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
