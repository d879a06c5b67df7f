"""A robot in Bullet in real time behind a pty, and the orders that break what lies between."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import termios
import time
import tty
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO

import numpy as np

from landbridge.deploy.hil.wire import DELIMITED, FAULTS, Framing, Wire
from landbridge.errors import InputError
from landbridge.robot import Robot
from landbridge.simulation.plant import make_plant
from landbridge.simulation.scenario import load_scenario
from landbridge.task import load_task

POLL_SECONDS = 0.0005
STEPS = 4  # of physics at most between two looks at the line: bytes wait no longer than these take
LOST_SECONDS = 0.1  # of real time, not caught up with after a pause of this process
FOR_EVER = 2**62


class Bench(ABC):
    """What every emulated board or bus shares: plant, pty, wires and orders.

    Attributes:
        to_board: The wire from the host.
        to_host: The wire to it.

    Args:
        link: Symbolic link to the pty, for a name that stays when the port is plugged in again.
        baud: What the board speaks; a host at another rate reads and writes garbage.
        framing: Of the protocol.

    Raises:
        InputError: An unknown scenario, or a link whose name is taken.
    """

    words: tuple[str, ...] = ("plug", "unplug", "reset", "reboot")  # orders that are methods without arguments

    def __init__(
        self,
        robot: Robot,
        scenario: str,
        seed: int,
        link: Path | None,
        baud: int,
        framing: Framing = DELIMITED,
    ) -> None:
        if link is not None and link.exists():  # a link into nothing is of a board that was killed
            problem = f"is taken: it is {link.resolve()}"
            raise InputError(link, problem, "choose another name, or end the board that has it, or remove it")
        if link is not None and not link.absolute().parent.is_dir():
            raise InputError(link, "no such folder", "make it, or choose another name")
        if baud == 0 or not hasattr(termios, f"B{baud}"):  # B0 hangs up
            raise InputError("--baud", f"a pty has no rate {baud}", "name a usual one, such as 1000000 or 115200")
        self._link, self._rate = link, baud
        self._rng = np.random.default_rng(seed)
        self._task = load_task(robot)
        physics_rate = robot.spec.control_rate_hz * robot.spec.decimation
        self._spec = robot.spec.model_copy(update={"control_rate_hz": physics_rate, "decimation": 1})
        self._plant = make_plant(Robot(self._spec, robot.folder), "bullet", load_scenario(robot, scenario), self._rng)
        self._dt = self._spec.control_dt
        self._ends: tuple[int, int] | None = None
        self.to_board, self.to_host = Wire(self._rng, framing), Wire(self._rng, framing)
        self.reset()

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
        self._stepped_at, self._behind = time.monotonic(), False
        self._measured = self._plant.measure()

    @abstractmethod
    def reboot(self) -> None:
        """Interrupt the power for a moment."""

    def close(self) -> None:
        """Take everything down."""
        self.unplug()
        self._plant.close()

    def run(self, orders: int, answers: IO[str]) -> None:
        """Be a board until the descriptor `orders` ends; each line of it is for `obey`, its answer one of `answers`."""
        rest = b""
        while True:
            ends = [] if self._ends is None else [self._ends[0]]
            due = min(self.to_board.due, self.to_host.due) - time.monotonic()
            wait = 0.0 if self._behind else min(max(due, 0.0), POLL_SECONDS)
            readable, _, _ = select.select([*ends, orders], [], [], wait)
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
        try:
            return self._obey(line.split())
        except (ValueError, OverflowError) as error:
            return f"not done: {error}"

    def _obey(self, words: list[str]) -> str:
        match words:
            case ["status"]:
                return json.dumps(self.status())
            case [word] if word in self.words:
                getattr(self, word)()
            case ["clear"]:
                self.clear()
            case ["latency", ms]:
                self.to_board.latency = self.to_host.latency = number(ms) / 1000
            case [fault, ("to_board" | "to_host") as direction, *frames] if fault in FAULTS:
                getattr(self, direction).inject(fault, int(frames[0]) if frames else FOR_EVER)
            case _:
                return self._order(words)
        return "done"

    def clear(self) -> None:
        """Make good what orders have broken, but for the plug."""
        self.to_board.clear()
        self.to_host.clear()

    def _order(self, words: list[str]) -> str:
        """An order of the board's own; the answer to one that nobody knows lists them."""
        faults = f"{'|'.join(FAULTS)} to_board|to_host [FRAMES]"
        return f"no such order; known: status, {', '.join(self.words)}, clear, latency MS, {faults}"

    @abstractmethod
    def status(self) -> dict[str, object]:
        """What a bystander sees: the robot and its power, not what the board says of them."""

    def poll(self) -> None:
        """Carry the bytes, let the robot move up to now, and let the board do its work once."""
        now = time.monotonic()
        data = self._carry_in(now)
        if now - self._stepped_at > LOST_SECONDS:
            self._stepped_at = now
        due = int((now - self._stepped_at) / self._dt)
        for _ in range(min(due, STEPS)):
            self._move()
            self._stepped_at += self._dt
        self._behind = due > STEPS
        if due:
            self._measured = self._plant.measure()
        self._serve(data, now)
        self._carry_out(now)

    @abstractmethod
    def _move(self) -> None:
        """Let the plant move by one physics step under what is in effect."""

    @abstractmethod
    def _serve(self, data: bytes, now: float) -> None:
        """Take `data` from the host, and answer into `to_host`."""

    def _carry_in(self, now: float) -> bytes:
        if self._ends is not None:
            try:
                data = os.read(self._ends[0], 4096)
            except BlockingIOError:
                data = b""
            self.to_board.push(self._as_heard(data), now)
        return self.to_board.pop(now)

    def _carry_out(self, now: float) -> None:
        data = self.to_host.pop(now)
        if self._ends is None or not data:
            return
        with contextlib.suppress(BlockingIOError):  # nobody listens: the bytes are lost, as on a UART
            os.write(self._ends[0], self._as_heard(data))

    def _as_heard(self, data: bytes) -> bytes:
        """`data` at the other end of the line, where another baud rate makes noise of it."""
        assert self._ends is not None
        if data and termios.tcgetattr(self._ends[1])[5] != getattr(termios, f"B{self._rate}"):
            return self._rng.bytes(len(data))
        return data


def number(text: str) -> float:
    """The number that a word of an order is; raises ValueError unless it is finite."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number to do anything by")
    return value
