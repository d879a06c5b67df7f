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

from landbridge.robot import Joint, Robot
from landbridge.simulation.friction import JointFriction
from landbridge.simulation.scenario import Scenario

Array = NDArray[np.float64]
Engine = Literal["mujoco", "bullet"]

TIME_TOLERANCE = 1e-9  # s; a write that falls on a physics step belongs to it in spite of rounding


class DelayLine:
    """Commands on their way to the drive: what was written at t is in effect from t + latency on."""

    def __init__(self, latency: float, initial: Sequence[float]) -> None:
        self.latency, self._current = latency, initial
        self._pending: deque[tuple[float, Sequence[float]]] = deque()

    def write(self, time: float, command: Sequence[float]) -> None:
        """Send `command` at `time` [s]; times never decrease."""
        self._pending.append((time + self.latency, command))

    def at(self, time: float) -> Sequence[float]:
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
        self._drives = [(self.spec.joint_names.index(name), self.spec.joint(name)) for name in self.spec.actuated]
        self._friction = [JointFriction(scenario.friction.get(j.name, j.friction)) for j in self.spec.joints]
        self._line = self._idle_line()

    def reset(self, joint_pos: Array, joint_vel: Array) -> None:
        """Place the joints (J,), (J,); time restarts and no command is on its way (zero effort or default position)."""
        self.time = 0.0
        self._line = self._idle_line()
        self._set_state(np.asarray(joint_pos, np.float64), np.asarray(joint_vel, np.float64))

    def step(self, writes: Sequence[tuple[float, Array]]) -> None:
        """Advance one control period.

        Args:
            writes: (offset [s] after the period's start, command (A,)), in order of time. Each takes effect at its
                offset plus the scenario's latency, on the grid of physics steps; the last one stays in effect.
        """
        start = self.time
        for offset, command in writes:
            self._line.write(start + offset, np.asarray(command, np.float64).tolist())
        for i in range(self.spec.decimation):
            joint_pos, joint_vel = self._state()
            torque = [friction(velocity) for friction, velocity in zip(self._friction, joint_vel, strict=True)]
            commands = self._line.at(start + i * self.physics_dt)
            for (index, joint), target in zip(self._drives, commands, strict=True):
                torque[index] += self._effort(joint, target, joint_pos[index], joint_vel[index])
            self._advance(torque)
        self.time = start + self.spec.control_dt

    def measure(self) -> tuple[Array, Array]:
        """Measured joint positions (J,) and velocities (J,), with the scenario's noise."""
        joint_pos, joint_vel = (np.array(values) for values in self._state())
        if self.scenario.joint_pos_noise or self.scenario.joint_vel_noise:
            joint_pos += self.scenario.joint_pos_noise * self.rng.standard_normal(len(joint_pos))
            joint_vel += self.scenario.joint_vel_noise * self.rng.standard_normal(len(joint_vel))
        return joint_pos, joint_vel

    @abstractmethod
    def close(self) -> None:
        """Release the engine."""

    def _idle_line(self) -> DelayLine:
        positions = self.spec.action.kind == "position"
        idle = [joint.default_joint_pos if positions else 0.0 for _, joint in self._drives]
        return DelayLine(self.scenario.latency_ms / 1000, idle)

    def _effort(self, joint: Joint, command: float, position: float, velocity: float) -> float:
        if self.spec.action.kind == "effort":
            effort = command
        elif self.spec.action.kind == "velocity":
            effort = joint.damping * (command - velocity)
        else:
            effort = joint.stiffness * (command - position) - joint.damping * velocity
        return max(-joint.effort_limit, min(joint.effort_limit, self.scenario.actuator_gain * effort))

    @abstractmethod
    def _set_state(self, joint_pos: Array, joint_vel: Array) -> None: ...

    @abstractmethod
    def _state(self) -> tuple[Sequence[float], Sequence[float]]:
        """True positions (J,) and velocities (J,)."""

    @abstractmethod
    def _advance(self, torque: Sequence[float]) -> None:
        """One physics step with joint torques (J,)."""


def make_plant(robot: Robot, engine: Engine, scenario: Scenario, rng: np.random.Generator | None = None) -> Plant:
    """A plant in `engine`, which is imported only here: the twin on a robot's computer has no MuJoCo."""
    if engine == "mujoco":
        from landbridge.simulation.mujoco_plant import MujocoPlant

        return MujocoPlant(robot, scenario, rng)
    from landbridge.simulation.bullet_plant import BulletPlant

    return BulletPlant(robot, scenario, rng)
