"""The plant: a simulated robot that is stepped by control periods.

Everything but the rigid-body physics is common to the engines and lives here: command latency, drive, effort limit,
friction and measurement noise. An engine adds three methods: set the state, get it, advance it by one physics step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from landbridge.robot import Robot
from landbridge.simulation.friction import JointFriction
from landbridge.simulation.scenario import Scenario

Array = NDArray[np.float64]
Engine = Literal["mujoco", "bullet"]

TIME_TOLERANCE = 1e-9  # s; a write that falls on a physics step belongs to it in spite of rounding


class DelayLine:
    """Commands on their way to the drive: what was written at t is in effect from t + latency on."""

    def __init__(self, latency: float, initial: Array) -> None:
        self.latency, self._current = latency, initial
        self._pending: deque[tuple[float, Array]] = deque()

    def write(self, time: float, command: Array) -> None:
        """Send `command` at `time` [s]; times never decrease."""
        self._pending.append((time + self.latency, command))

    def at(self, time: float) -> Array:
        """The command in effect at `time` [s]; times never decrease."""
        while self._pending and self._pending[0][0] <= time + TIME_TOLERANCE:
            self._current = self._pending.popleft()[1]
        return self._current


class Plant(ABC):
    """One robot in one engine under one scenario.

    J joints in `spec.joint_names` order, A commands in `spec.actuated` order; SI units.

    Attributes:
        time: Simulated time since reset [s].
        engine_version: Version of the engine, for the metadata of datasets.
    """

    engine_version: str

    def __init__(self, robot: Robot, scenario: Scenario, rng: np.random.Generator | None = None) -> None:
        self.spec, self.scenario = robot.spec, scenario
        self.rng = np.random.default_rng(0) if rng is None else rng
        self.physics_dt = self.spec.control_dt / self.spec.decimation
        self.time = 0.0
        drives = [self.spec.joint(name) for name in self.spec.actuated]
        self._actuated = np.array([self.spec.joint_names.index(joint.name) for joint in drives], np.intp)
        self._effort_limit = np.array([joint.effort_limit for joint in drives])
        self._stiffness = np.array([joint.stiffness for joint in drives])
        self._damping = np.array([joint.damping for joint in drives])
        relaxed = self.spec.action.kind == "position"
        self._initial = np.array([joint.default_joint_pos if relaxed else 0.0 for joint in drives])
        self._friction = JointFriction([scenario.friction.get(j.name, j.friction) for j in self.spec.joints])
        self._noise = (scenario.joint_pos_noise, scenario.joint_vel_noise)
        self._line = DelayLine(scenario.latency_ms / 1000, self._initial)

    def reset(self, joint_pos: Array, joint_vel: Array) -> None:
        """Place the joints (J,), (J,); time restarts and no command is on its way (zero effort or default position)."""
        self.time = 0.0
        self._line = DelayLine(self._line.latency, self._initial)
        self._set_state(np.asarray(joint_pos, np.float64), np.asarray(joint_vel, np.float64))

    def step(self, writes: Sequence[tuple[float, Array]]) -> None:
        """Advance one control period.

        Args:
            writes: (offset [s] after the period's start, command (A,)), in order of time. Each takes effect at its offset
                plus the scenario's latency, on the grid of physics steps; the last one stays in effect.
        """
        start = self.time
        for offset, command in writes:
            self._line.write(start + offset, np.asarray(command, np.float64))
        for i in range(self.spec.decimation):
            joint_pos, joint_vel = self._state()
            command = self._line.at(start + i * self.physics_dt)
            torque = self._friction(joint_vel)
            torque[self._actuated] += self._effort(command, joint_pos, joint_vel)
            self._advance(torque)
        self.time = start + self.spec.control_dt

    def measure(self) -> tuple[Array, Array]:
        """Measured joint positions (J,) and velocities (J,), with the scenario's noise."""
        joint_pos, joint_vel = (value.copy() for value in self._state())
        if any(self._noise):
            joint_pos += self._noise[0] * self.rng.standard_normal(joint_pos.shape)
            joint_vel += self._noise[1] * self.rng.standard_normal(joint_vel.shape)
        return joint_pos, joint_vel

    def close(self) -> None:
        """Release the engine."""

    def _effort(self, command: Array, joint_pos: Array, joint_vel: Array) -> Array:
        if self.spec.action.kind == "effort":
            effort = command
        elif self.spec.action.kind == "velocity":
            effort = self._damping * (command - joint_vel[self._actuated])
        else:
            effort = self._stiffness * (command - joint_pos[self._actuated]) - self._damping * joint_vel[self._actuated]
        return np.minimum(np.maximum(self.scenario.actuator_gain * effort, -self._effort_limit), self._effort_limit)

    @abstractmethod
    def _set_state(self, joint_pos: Array, joint_vel: Array) -> None: ...

    @abstractmethod
    def _state(self) -> tuple[Array, Array]:
        """True positions (J,) and velocities (J,); may be views that the next step changes."""

    @abstractmethod
    def _advance(self, torque: Array) -> None:
        """One physics step with joint torques (J,)."""


def make_plant(robot: Robot, engine: Engine, scenario: Scenario, rng: np.random.Generator | None = None) -> Plant:
    """A plant in `engine`, which is imported only here: the twin on a robot's computer has no MuJoCo."""
    if engine == "mujoco":
        from landbridge.simulation.mujoco_plant import MujocoPlant

        return MujocoPlant(robot, scenario, rng)
    from landbridge.simulation.bullet_plant import BulletPlant

    return BulletPlant(robot, scenario, rng)
