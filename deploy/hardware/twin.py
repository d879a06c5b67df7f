"""The twin: the robot in Bullet, stepped in real time by the bridge's own control timer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from landbridge.observation import Base
from landbridge.robot import Robot
from landbridge.simulation.plant import make_plant
from landbridge.simulation.scenario import load_scenario
from landbridge.task import load_task


class Twin:
    """A simulated robot under one scenario, behind the interface of a real one.

    Each read advances the plant by one control period with the writes of that period at the offsets at which they came,
    so what a late command costs on a robot it costs here. From a reset to `let_go` it is held, as by a hand: however
    long arming takes, an episode begins in a start state of the task, as simulated ones do. With a fixed base and
    commanded in position it has mechanical stops at its position limits, as arms of servos have, and rests on them.

    Attributes:
        fault, warning: Always "": what can go wrong with a twin is part of its scenario.
        counters: Empty.

    Args:
        scenario: Rung of `scenarios.yaml`.
        seed: Of start states and measurement noise.
        clock: Monotonic seconds.

    Raises:
        InputError: The robot has no such scenario.
    """

    def __init__(self, robot: Robot, scenario: str, seed: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.fault = self.warning = ""
        self.counters = Counter[str]()
        self._rng = np.random.default_rng(seed)
        self._task = load_task(robot)
        self._plant = make_plant(robot, "bullet", load_scenario(robot, scenario), self._rng)
        self._dt = robot.spec.control_dt
        self._has_stops = robot.spec.action.kind == "position" and robot.spec.base == "fixed"
        self._stops = np.transpose([joint.position_range for joint in robot.spec.joints])
        self._clock = clock
        self._writes: list[tuple[float, np.ndarray | None]] = []
        self.reset()

    def reset(self) -> None:
        """Place the joints at the next start state of the task and hold them there."""
        joint_pos, joint_vel = self._task.initial_state(self._rng, 1)
        self._plant.reset(joint_pos[0], joint_vel[0])
        self._writes.clear()
        self._read_at = self._clock()
        self._held = self._at_start = True

    def let_go(self) -> None:
        """The next read shows the start state itself, unless a command comes first: that already moves it."""
        if self._held:
            self._writes.clear()  # stops, which moved nothing
        self._held = False

    def read(self) -> tuple[Sequence[float], Sequence[float]]:
        """Positions and velocities one control period after the last read, or of the start state."""
        if not self._held and (self._writes or not self._at_start):
            self._plant.step(self._writes)
            if self._has_stops:
                self._rest_on_stops()
        self._at_start = self._held
        self._writes.clear()
        self._read_at = self._clock()
        joint_pos, joint_vel = self._plant.measure()
        return joint_pos.tolist(), joint_vel.tolist()

    def _rest_on_stops(self) -> None:
        position, velocity = self._plant.state()
        held = np.clip(position, *self._stops)
        if (moved := held != position).any():
            self._plant.place(held, np.where(moved, 0.0, velocity))

    def base(self) -> Base:
        """See `BaseSensing`; only of a robot whose base floats."""
        base = self._plant.measure_base()
        assert base is not None
        return base

    def write(self, command: Sequence[float]) -> None:
        """Take effect from now on, after the scenario's latency."""
        self._send(np.asarray(command, np.float64))

    def disable(self) -> None:
        """Take torque off, after the scenario's latency."""
        self._send(None)

    def _send(self, command: np.ndarray | None) -> None:
        offset = min(max(self._clock() - self._read_at, 0.0), self._dt)
        self._writes.append((offset, command))

    def recover(self) -> None:
        """Nothing to clear."""

    def close(self) -> None:
        """Release the engine."""
        self._plant.close()
