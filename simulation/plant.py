"""The plant: a simulated robot that is stepped by control periods.

Everything but the rigid-body physics is common to the engines and lives here: command latency, drive, effort limit,
gears, friction, cogging, pushes and measurement noise. An engine adds three methods: set the state, get it, advance it
by one physics step; with a floating base two more: get the base's state, push it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.observation import Base
from landbridge.robot import Robot
from landbridge.simulation.drive import FEW, Floats, GearedDrive, make_drive
from landbridge.simulation.scenario import Push, Scenario
from landbridge.simulation.transmission import require_bearable, transmissions

Array = NDArray[np.float64]
Engine = Literal["mujoco", "bullet"]

TIME_TOLERANCE = 1e-9  # s; a write that falls on a physics step belongs to it in spite of rounding


class DelayLine:
    """Commands on their way to the drive: what was written at t is in effect from t + latency on."""

    def __init__(self, latency: float, initial: Floats) -> None:
        self.latency = latency
        self._current: Floats | None = initial
        self._pending: deque[tuple[float, Floats | None]] = deque()

    def write(self, time: float, command: Floats | None) -> None:
        """Send `command` at `time` [s]; times never decrease."""
        self._pending.append((time + self.latency, command))

    def during(self, start: float, end: float) -> Floats | None:
        """The mean command in effect from `start` to `end` [s]; times never decrease.

        So what a command leads to is a continuous function of when it comes, as on a robot, and not of the grid of
        physics steps. Torque that goes off or comes on does so at the end: half of that would mean nothing.
        """
        pending = self._pending
        while pending and pending[0][0] <= start + TIME_TOLERANCE:
            self._current = pending.popleft()[1]
        if not pending or pending[0][0] >= end - TIME_TOLERANCE:
            return self._current
        spans, since = [], start
        while pending and (changes := pending[0][0]) < end - TIME_TOLERANCE:
            spans.append((self._current, changes - since))
            since, self._current = pending.popleft()
        commands, seconds = zip(*spans, (self._current, end - since), strict=True)
        if any(command is None for command in commands):
            return commands[0]
        mean = np.average(commands, axis=0, weights=seconds)
        return mean.tolist() if isinstance(commands[0], list) else mean


class Pushes:
    """When and how a floating base is pushed: every `interval_s` from a random start, in a random direction."""

    def __init__(self, push: Push, rng: np.random.Generator) -> None:
        self._push, self._rng = push, rng
        self._next = rng.uniform(0.0, push.interval_s)

    def due(self, time: float) -> tuple[float, float] | None:
        """The horizontal change of velocity [m/s] in the world that is due at `time` [s], if any."""
        if time + TIME_TOLERANCE < self._next:
            return None
        self._next += self._push.interval_s
        angle = self._rng.uniform(0.0, 2 * np.pi)
        return self._push.speed * float(np.cos(angle)), self._push.speed * float(np.sin(angle))


class Plant(ABC):
    """One robot in one engine under one scenario.

    J joints in `spec.joint_names` order, A commands in `spec.actuated` order; SI units.

    Attributes:
        time: Simulated time since reset [s].
        engine_version: Version of the engine, for the metadata of datasets.
    """

    engine_version: str

    def __init__(self, robot: Robot, scenario: Scenario, rng: np.random.Generator | None = None) -> None:
        _require_gains(robot)
        self.spec, self.scenario = robot.spec, scenario
        self.rng = np.random.default_rng(0) if rng is None else rng
        self.physics_dt = self.spec.physics_dt
        self.time = 0.0
        self._drive = make_drive(self.spec, scenario)
        self._few = len(self.spec.joints) <= FEW  # then plain floats are faster than arrays
        self._cogging = [(self.spec.joint_names.index(name), law) for name, law in scenario.cogging.items()]
        self._line = self._idle_line()
        self._pushes: Pushes | None = None

    def reset(self, joint_pos: Array, joint_vel: Array) -> None:
        """Place the joints (J,), (J,); time restarts and no command is on its way (zero effort or default position).

        A floating base starts level and at rest, `base_height` above the ground.
        """
        self.time = 0.0
        self._line = self._idle_line()
        self._pushes = None if self.scenario.push is None else Pushes(self.scenario.push, self.rng)
        self._drive.reset()
        self._set_state(np.asarray(joint_pos, np.float64), np.asarray(joint_vel, np.float64))

    def step(self, writes: Sequence[tuple[float, Array | None]]) -> None:
        """Advance one control period.

        Args:
            writes: (offset [s] after the period's start, command (A,) or None for torque off), in order of time. Each
                takes effect at its offset plus the scenario's latency, within a physics step in proportion; the last
                one stays in effect.
        """
        start = self.time
        for offset, command in writes:
            sent = None if command is None else np.array(command, np.float64)
            self._line.write(start + offset, sent.tolist() if self._few and sent is not None else sent)
        if self._pushes is not None and (velocity := self._pushes.due(start)) is not None:
            self._kick(*velocity)
        for i in range(self.spec.decimation):
            joint_pos, joint_vel = self.state()
            begins = start + i * self.physics_dt
            torque = self._drive(joint_pos, joint_vel, self._line.during(begins, begins + self.physics_dt))
            for index, law in self._cogging:
                torque[index] += law.torque(joint_pos[index])
            self._advance(torque)
        self.time = start + self.spec.control_dt

    def measure(self) -> tuple[Array, Array]:
        """Measured joint positions (J,) and velocities (J,), with the scenario's noise."""
        joint_pos, joint_vel = (np.array(values) for values in self.state())
        if self.scenario.joint_pos_noise or self.scenario.joint_vel_noise:
            joint_pos += self.scenario.joint_pos_noise * self.rng.standard_normal(len(joint_pos))
            joint_vel += self.scenario.joint_vel_noise * self.rng.standard_normal(len(joint_vel))
        return joint_pos, joint_vel

    @abstractmethod
    def state(self) -> tuple[Floats, Floats]:
        """True joint positions (J,) and velocities (J,)."""

    def place(self, joint_pos: Array, joint_vel: Array) -> None:
        """Put the joints (J,), (J,) there at once, as by force, rotors with them; time and commands go on."""
        if isinstance(self._drive, GearedDrive):
            position, velocity = self.state()
            self._drive.carry(np.subtract(joint_pos, position), np.subtract(joint_vel, velocity))
        self._set_state(np.asarray(joint_pos, np.float64), np.asarray(joint_vel, np.float64))

    def measure_base(self) -> Base | None:
        """State of a floating base, arrays of one row; None for a fixed one."""
        if self.spec.base == "fixed":
            return None
        quat, ang_vel, lin_vel = (np.array([values]) for values in self._base())
        return Base(quat, ang_vel, lin_vel)

    def _require_bearable(self, where: str) -> None:
        """Raise InputError if a gear is too stiff for the physics steps; for engines, once they stand."""
        gears = transmissions(self.spec, self.scenario)
        require_bearable(self.spec, gears, self.inertias(list(gears)), where)

    def inertias(self, joints: Sequence[str]) -> dict[str, float]:
        """What a torque on each of these joints turns [kg m^2], at rest in the default pose; leaves the robot there."""
        rest, still = np.array([joint.default_joint_pos for joint in self.spec.joints]), np.zeros(len(self.spec.joints))

        def speeds(torque: Array) -> Array:
            self._set_state(rest, still)
            self._advance(torque)
            return np.array(self.state()[1])

        free = speeds(still) if joints else still
        units = {name: (np.array(self.spec.joint_names) == name).astype(np.float64) for name in joints}
        gained = {name: float(unit @ (speeds(unit) - free)) for name, unit in units.items()}
        return {name: self.physics_dt / speed for name, speed in gained.items()}

    @abstractmethod
    def close(self) -> None:
        """Release the engine."""

    def _idle_line(self) -> DelayLine:
        positions = self.spec.action.kind == "position"
        idle = [j.default_joint_pos if positions else 0.0 for j in self.spec.driven]
        return DelayLine(self.scenario.latency_ms / 1000, idle if self._few else np.array(idle))

    @abstractmethod
    def _set_state(self, joint_pos: Array, joint_vel: Array) -> None: ...

    def _base(self) -> tuple[Sequence[float], Sequence[float], Sequence[float]]:
        """Orientation w, x, y, z and, in the body frame, angular and linear velocity of a floating base."""
        raise NotImplementedError(f"{type(self).__name__} has no floating base")

    def _kick(self, x: float, y: float) -> None:
        """Add (x, y) [m/s] in the world to the velocity of a floating base."""
        raise NotImplementedError(f"{type(self).__name__} has no floating base")

    @abstractmethod
    def _advance(self, torque: Floats) -> None:
        """One physics step with joint torques (J,)."""


def _require_gains(robot: Robot) -> None:
    gain = {"position": "stiffness", "velocity": "damping"}.get(robot.spec.action.kind)
    if gain and (idle := [joint.name for joint in robot.spec.driven if not getattr(joint, gain)]):
        problem = f"joints {idle} are commanded in {robot.spec.action.kind} and their {gain} is 0"
        raise InputError(robot.folder / "robot.yaml", problem, f"give the {gain} with which their drives follow")


def into_body(quat: Sequence[float], vector: Sequence[float]) -> list[float]:
    """`vector` of the world in the frame with orientation `quat` (w, x, y, z): v + 2 w (v x u) + 2 u x (u x v)."""
    w, x, y, z = quat
    a, b, c = vector
    tx, ty, tz = 2 * (y * c - z * b), 2 * (z * a - x * c), 2 * (x * b - y * a)  # t = 2 u x v
    return [a - w * tx + y * tz - z * ty, b - w * ty + z * tx - x * tz, c - w * tz + x * ty - y * tx]


def make_plant(robot: Robot, engine: Engine, scenario: Scenario, rng: np.random.Generator | None = None) -> Plant:
    """A plant in `engine`, which is imported only here: the twin on a robot's computer has no MuJoCo."""
    if engine == "mujoco":
        from landbridge.simulation.mujoco_plant import MujocoPlant

        return MujocoPlant(robot, scenario, rng)
    from landbridge.simulation.bullet_plant import BulletPlant

    return BulletPlant(robot, scenario, rng)


@contextmanager
def opened(
    robot: Robot, engine: Engine, scenarios: Iterable[Scenario], rngs: Iterable[np.random.Generator]
) -> Iterator[list[Plant]]:
    """A plant for each scenario and its generator, all of them closed in the end."""
    with ExitStack() as stack:
        each = zip(scenarios, rngs, strict=True)
        yield [stack.enter_context(closing(make_plant(robot, engine, *of))) for of in each]
