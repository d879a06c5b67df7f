"""A board on a pty: its real firmware, the robot in Bullet behind its pins in real time, a bad wire if asked for."""

from __future__ import annotations

import contextlib
import json
import os
import select
import tempfile
import termios
import time
import tty
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from landbridge.deploy.hardware import protocol
from landbridge.deploy.hil.board import Board, compile_library
from landbridge.deploy.hil.wire import FAULTS, Wire
from landbridge.errors import InputError
from landbridge.robot import Robot
from landbridge.simulation.plant import make_plant
from landbridge.simulation.scenario import load_scenario
from landbridge.task import load_task

POLL_SECONDS = 0.0005
LOST_SECONDS = 0.1  # of real time, not caught up with after a pause of this process
FOR_EVER = 2**62
KEPT = 4096  # newest changes of the output, for `outputs`


class Emulator:
    """The pins of a board (see `hil.board.Pins`) and the loop of its main program.

    Args:
        link: Symbolic link to the pty, for a name that stays when the port is plugged in again.
        baud: What the board speaks; a host at another rate reads and writes garbage.
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
            raise InputError(robot.folder / "robot.yaml", problem, "only effort-commanded fixed robots are emulated")
        if link is not None and link.exists() and not link.is_symlink():
            raise InputError(link, "exists and is no link", "choose another name")
        self._link, self._baud = link, getattr(termios, f"B{baud}")
        self._rng = np.random.default_rng(seed)
        self._task = load_task(robot)
        physics_rate = robot.spec.control_rate_hz * robot.spec.decimation
        spec = robot.spec.model_copy(update={"control_rate_hz": physics_rate, "decimation": 1})
        self._plant = make_plant(Robot(spec, robot.folder), "bullet", load_scenario(robot, scenario), self._rng)
        self._dt = spec.control_dt
        self._ends: tuple[int, int] | None = None
        self.to_board, self.to_host = Wire(self._rng), Wire(self._rng)
        self._names = spec.joint_names
        self._straight()
        self._arrived = b""
        self.torque, self.command = False, [0.0] * len(spec.actuated)
        self._outputs: deque[tuple[float, bool, list[float]]] = deque(maxlen=KEPT)
        self._folder = tempfile.TemporaryDirectory(prefix="landbridge-hil-")
        self.reset()
        self._board = Board(robot, self, compile_library(robot, Path(self._folder.name), version))
        self.plug()

    @property
    def port(self) -> str:
        """Name of the serial port, "" while unplugged."""
        return "" if self._ends is None else os.ttyname(self._ends[1])

    def plug(self) -> None:
        """Put the USB plug in: a new pty, as if under another name."""
        if self._ends is not None:
            return
        self._ends = os.openpty()
        tty.setraw(self._ends[1])
        os.set_blocking(self._ends[0], False)
        if self._link is not None:
            self._link.unlink(missing_ok=True)
            self._link.symlink_to(self.port)

    def unplug(self) -> None:
        """Pull the USB plug; the board goes on with power of its own."""
        if self._ends is None:
            return
        for end in self._ends:
            os.close(end)
        self._ends = None
        if self._link is not None:
            self._link.unlink(missing_ok=True)

    def reset(self) -> None:
        """Put the robot into the next start state of its task, as a hand would."""
        joint_pos, joint_vel = self._task.initial_state(self._rng, 1)
        self._plant.reset(joint_pos[0], joint_vel[0])
        self._stepped_at = time.monotonic()
        self._measured = self._plant.measure()

    def reboot(self) -> None:
        """Interrupt the board's power for a moment."""
        self._board.restart()

    def close(self) -> None:
        """Take everything down."""
        self.unplug()
        self._plant.close()
        self._folder.cleanup()

    def run(self, orders: int, answers: IO[str]) -> None:
        """Be a board until the descriptor `orders` ends; each line of it is for `obey`, its answer one of `answers`."""
        rest = b""
        while True:
            ends = [] if self._ends is None else [self._ends[0]]
            readable, _, _ = select.select([*ends, orders], [], [], POLL_SECONDS)
            if orders in readable:
                data = os.read(orders, 4096)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    print(self.obey(line.decode(errors="replace")), file=answers, flush=True)
            self.poll()

    def obey(self, line: str) -> str:
        """Do one order: a fault of `wire.FAULTS` with direction and number of frames, or a word of its own."""
        match line.split():
            case ["status"]:
                return json.dumps(self.status())
            case ["outputs"]:
                return json.dumps(list(self._outputs))
            case ["plug" | "unplug" | "reset" | "reboot" as order]:
                getattr(self, order)()
            case ["clear"]:
                self.to_board.clear()
                self.to_host.clear()
                self._straight()
            case ["reverse", joint] if joint in self._names:
                self._signs[self._names.index(joint)] *= -1
            case ["swap", *pair] if len(pair) == 2 and set(pair) <= set(self._names):
                a, b = (self._names.index(joint) for joint in pair)
                self._channels[a], self._channels[b] = self._channels[b], self._channels[a]
            case ["latency", ms]:
                self.to_board.latency = self.to_host.latency = float(ms) / 1000
            case [fault, ("to_board" | "to_host") as direction, *frames] if fault in FAULTS:
                getattr(self, direction).inject(fault, int(frames[0]) if frames else FOR_EVER)
            case _:
                faults = f"{'|'.join(FAULTS)} to_board|to_host [FRAMES]"
                return (
                    "no such order; known: status, outputs, plug, unplug, reset, reboot, clear, latency MS, "
                    f"reverse JOINT, swap JOINT JOINT, {faults}"
                )
        return "done"

    def status(self) -> dict[str, object]:
        """What a bystander sees: the robot and its power, not what the board says of them."""
        position, velocity = (list(map(float, values)) for values in self._measured)
        return {
            "port": self.port,
            "torque": self.torque,
            "command": list(self.command),
            "position": position,
            "velocity": velocity,
        }

    def poll(self) -> None:
        """Carry the bytes, let the robot move up to now, and let the firmware run once."""
        now = time.monotonic()
        self._carry_in(now)
        if now - self._stepped_at > LOST_SECONDS:
            self._stepped_at = now
        while self._stepped_at + self._dt <= now:
            self._plant.step([(0.0, np.array(self.command))])
            self._stepped_at += self._dt
            self._measured = self._plant.measure()
        self._board.poll()
        self._carry_out(now)

    def _carry_in(self, now: float) -> None:
        if self._ends is not None:
            try:
                data = os.read(self._ends[0], 4096)
            except BlockingIOError:
                data = b""
            if data and termios.tcgetattr(self._ends[1])[5] != self._baud:
                data = self._rng.bytes(len(data))
            self.to_board.push(data, now)
        self._arrived += self.to_board.pop(now)

    def _carry_out(self, now: float) -> None:
        data = self.to_host.pop(now)
        if self._ends is None or not data:
            return
        if termios.tcgetattr(self._ends[1])[5] != self._baud:
            data = self._rng.bytes(len(data))
        with contextlib.suppress(BlockingIOError):  # nobody listens: the bytes are lost, as on a UART
            os.write(self._ends[0], data)

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
        """See `Pins`."""
        position, velocity = (self._signs * values[self._channels] for values in self._measured)
        return position.tolist(), velocity.tolist()

    def _straight(self) -> None:
        """Every encoder on its own channel, counting in its joint's direction."""
        self._channels, self._signs = list(range(len(self._names))), np.ones(len(self._names))

    def actuate(self, torque: bool, command: Sequence[float]) -> None:
        """See `Pins`; without torque the command is zero."""
        if (torque, list(command)) != (self.torque, self.command):
            self._outputs.append((time.monotonic(), torque, list(command)))
        self.torque, self.command = torque, list(command)
