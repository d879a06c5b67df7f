"""The board: an emulated microcontroller on a pty as a process of a bring-up, in place of one on a cable.

The service `~/reset_plant` (std_srvs/Trigger) is the hand that puts the robot into a start state. The firmware knows
nothing of it, nor does the bridge: what comes over the wire is what a real board would say.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_srvs.srv import Trigger

from landbridge.deploy.hil.emulator import Emulator
from landbridge.real_time import BOARD_PRIORITY
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
        link = Path(read["link"]) if read["link"] else None
        self._emulator = Emulator(load_robot(read["robot"]), read["scenario"], read["seed"], link)
        self.create_service(Trigger, "~/reset_plant", self._on_reset_plant)
        self.create_timer(POLL_SECONDS, self._emulator.poll, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.get_logger().info(f"on {link or self._emulator.port}")

    def _on_reset_plant(self, request: Any, response: Any) -> Any:
        self._emulator.reset()
        response.success, response.message = True, "held at the next start state until torque comes on"
        return response

    def close(self) -> None:
        """Pull the plug."""
        self._emulator.close()


def main() -> None:
    """Entry point of the executable `board`."""
    sys.exit(run(BoardNode, BOARD_PRIORITY))


if __name__ == "__main__":
    main()
