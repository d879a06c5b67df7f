"""A microcontroller on a pty: its real firmware, with the robot in Bullet behind its pins."""

from __future__ import annotations

import json
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from landbridge.deploy.hardware import protocol
from landbridge.deploy.hil.bench import Bench, number
from landbridge.deploy.hil.board import Board, compile_library
from landbridge.errors import InputError
from landbridge.robot import Robot

KEPT = 4096  # newest changes of the output, for `outputs`


class Emulator(Bench):
    """The pins of a board (see `hil.board.Pins`).

    Args:
        link, baud: See `Bench`.
        version: Protocol version of the firmware.

    Raises:
        InputError: A robot whose drives or sensors are not emulated, an unknown scenario, a link that is something
            else, or no C compiler.
    """

    def __init__(
        self,
        robot: Robot,
        scenario: str,
        seed: int = 0,
        link: Path | None = None,
        baud: int = 1_000_000,
        version: int = protocol.VERSION,
    ) -> None:
        if robot.spec.action.kind != "effort" or robot.spec.base != "fixed":
            problem = f"is {robot.spec.action.kind}-commanded with a {robot.spec.base} base"
            remedy = (
                "a board is emulated for fixed robots commanded in effort, servos with --hardware dynamixel or feetech"
            )
            raise InputError(robot.folder / "robot.yaml", problem, remedy)
        self._names = robot.spec.joint_names
        self._straight()
        self.torque, self.command = False, [0.0] * len(robot.spec.actuated)
        super().__init__(robot, scenario, seed, link, baud)
        self._arrived = b""
        self._outputs: deque[tuple[float, bool, list[float]]] = deque(maxlen=KEPT)
        self._folder = tempfile.TemporaryDirectory(prefix="landbridge-hil-")
        self._board = Board(robot, self, compile_library(robot, Path(self._folder.name), version))
        self.plug()

    def reset(self) -> None:
        """See `Bench`. The hand holds it until torque comes on: however long arming takes, it starts from there."""
        super().reset()
        self._written = [(self._stepped_at, self.command)]  # by their time, what no physics step has had yet
        self._held, self._acceleration = True, np.zeros(len(self._names))

    def reboot(self) -> None:
        """Interrupt the board's power for a moment."""
        self._board.restart()

    def close(self) -> None:
        """Take everything down."""
        super().close()
        self._folder.cleanup()

    def clear(self) -> None:
        """Make good what orders have broken, but for the plug."""
        super().clear()
        self._straight()

    def status(self) -> dict[str, object]:
        """See `Bench`."""
        position, velocity = (list(map(float, values)) for values in self._measured)
        return {
            "port": self.port,
            "torque": self.torque,
            "command": list(self.command),
            "position": position,
            "velocity": velocity,
        }

    def _order(self, words: list[str]) -> str:
        match words:
            case ["outputs"]:
                return json.dumps(list(self._outputs))
            case ["reverse", joint] if joint in self._names:
                self._signs[self._names.index(joint)] *= -1
            case ["speed", joint, factor] if joint in self._names:
                self._speed[self._names.index(joint)] = number(factor)
            case ["swap", *pair] if len(pair) == 2 and set(pair) <= set(self._names):
                a, b = (self._names.index(joint) for joint in pair)
                self._channels[a], self._channels[b] = self._channels[b], self._channels[a]
            case _:
                return f"{super()._order(words)}, outputs, reverse JOINT, speed JOINT FACTOR, swap JOINT JOINT"
        return "done"

    def _move(self) -> None:
        self._held = self._held and not self.torque
        if self._held:
            return
        end = self._stepped_at + self._dt
        due = [(max(at - self._stepped_at, 0.0), np.array(command)) for at, command in self._written if at < end]
        self._written = self._written[len(due) :]
        before = np.array(self._plant.state()[1])
        self._plant.step(due)
        self._acceleration = (np.array(self._plant.state()[1]) - before) / self._dt

    def _serve(self, data: bytes, now: float) -> None:
        self._arrived += data
        self._board.poll()

    def time_us(self) -> int:
        """See `Pins`."""
        return int(1e6 * time.monotonic())

    def receive(self, size: int) -> bytes:
        """See `Pins`."""
        data, self._arrived = self._arrived[:size], self._arrived[size:]
        return data

    def send(self, data: bytes) -> None:
        """See `Pins`."""
        self.to_host.push(data, time.monotonic())

    def measure(self) -> tuple[Sequence[float], Sequence[float]]:
        """See `Pins`. Between two physics steps the joints go on as in the last one."""
        since = min(max(time.monotonic() - self._stepped_at, 0.0), self._dt)
        position, velocity = self._measured
        now = position + since * velocity, velocity + since * self._acceleration
        position, velocity = (self._signs * values[self._channels] for values in now)
        return position.tolist(), (self._speed * velocity).tolist()

    def _straight(self) -> None:
        """Every encoder on its own channel, counting in its joint's direction, its speed in rad/s."""
        self._channels, self._signs = list(range(len(self._names))), np.ones(len(self._names))
        self._speed = np.ones(len(self._names))

    def actuate(self, torque: bool, command: Sequence[float]) -> None:
        """See `Pins`; without torque the command is zero."""
        if (torque, list(command)) != (self.torque, self.command):
            now = time.monotonic()
            self._outputs.append((now, torque, list(command)))
            self._written.append((now, list(command)))
        self.torque, self.command = torque, list(command)
