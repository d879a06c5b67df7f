"""The observation and the action, built in exactly one place.

Pure numpy, vectorised over a batch: simulators, ingest, runtime and nodes call these functions and no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from landbridge.robot import BASE_KINDS, RobotSpec

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """One scalar of the observation: its name (`joint_pos.arm`, `action_history.arm.0`) and what it came from."""

    name: str
    kind: str
    source: int  # index into the joints, the flattened (history, actuated) actions, x y z, or sine and cosine
    scale: float
    clip: float


class Base(NamedTuple):
    """State of a floating base, one row per robot. Body frame: x forward, y left, z up (REP 103).

    Attributes:
        quat: (B, 4) orientation of the body in the world as w, x, y, z; of an IMU.
        ang_vel: (B, 3) angular velocity in the body frame [rad/s]; of an IMU.
        lin_vel: (B, 3) velocity of the body frame's origin, in the body frame [m/s]. No sensor measures it: on a real
            robot a state estimator (leg odometry and IMU) must provide it.
    """

    quat: Array
    ang_vel: Array
    lin_vel: Array

    def projected_gravity(self) -> Array:
        """Direction of gravity (B, 3) in the body frame, of unit length: (0, 0, -1) when level."""
        w, x, y, z = self.quat.T
        return np.stack([2 * (w * y - x * z), -2 * (y * z + w * x), 2 * (x * x + y * y) - 1], -1)

    def tilt(self) -> Array:
        """Angle (B,) between the body's z axis and the vertical [rad]."""
        return np.arccos(np.clip(-self.projected_gravity()[:, 2], -1, 1))


AXES = ("x", "y", "z")
COPIED = {"joint_pos", "joint_vel", "action_history"}  # kinds that are what was measured or sent, but for the scale
KNOWN = {"action_history", "gait_phase"}  # kinds whose next value is known before the plant has moved


class Observer:
    """Builds observations of one robot and reads them back.

    Shapes: joint_pos, joint_vel (B, J) in `spec.joint_names` order; actions (B, H, A), newest first, in
    `spec.actuated` order with H = `history`; obs (B, `size`), float32.

    `gait_phase` is (sin, cos) of 2 pi t / `period_s`, t the time by control ticks since the episode began; the other
    kinds are named after what they hold of the joints, of the actions sent, or of the `Base`.

    Attributes:
        columns: One per scalar of the observation, in order.
        history: Number of past actions an observation needs (0 if none).
        num_actions: A.
        gait_step: Advance of the gait clock in one control tick [rad]; 0 without one.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        self.num_actions = len(spec.actuated)
        self.history = max((t.history for t in spec.observation if t.kind == "action_history"), default=0)
        periods = [t.period_s for t in spec.observation if t.period_s is not None]
        self.gait_step = 2 * np.pi * spec.control_dt / periods[0] if periods else 0.0
        self.columns: list[Column] = []
        self._computed: list[tuple[str, slice]] = []  # columns of each term that is not copied
        for term in spec.observation:
            clip = np.inf if term.clip is None else term.clip
            if term.kind == "action_history":
                names = [f"{joint}.{age}" for age in range(term.history) for joint in spec.actuated]
                sources = list(range(term.history * self.num_actions))
            elif term.kind in BASE_KINDS:
                names, sources = list(AXES), [0, 1, 2]
            elif term.kind == "gait_phase":
                names, sources = ["sin", "cos"], [0, 1]
            else:
                names = list(term.joints)
                sources = [spec.joint_names.index(joint) for joint in term.joints]
            self.columns += [
                Column(f"{term.kind}.{name}", term.kind, source, term.scale, clip)
                for name, source in zip(names, sources, strict=True)
            ]
            if term.kind not in COPIED:
                self._computed.append((term.kind, slice(len(self.columns) - len(names), len(self.columns))))
        self._index = {column.name: i for i, column in enumerate(self.columns)}
        self._kinds = {kind: self._of_kind(kind) for kind in {c.kind for c in self.columns}}
        joints = len(spec.joints)
        starts = {"joint_pos": 0, "joint_sin": 0, "joint_cos": 0, "joint_vel": joints, "action_history": 2 * joints}
        self._gather = np.array([starts[c.kind] + c.source if c.kind in starts else 0 for c in self.columns], np.intp)
        self._scale = np.array([c.scale for c in self.columns])
        self._clip = np.array([c.clip for c in self.columns])
        self._low = -self._clip

    @property
    def size(self) -> int:
        """Length of one observation."""
        return len(self.columns)

    @property
    def names(self) -> list[str]:
        """Column names in order."""
        return [column.name for column in self.columns]

    def _of_kind(self, kind: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        at = [i for i, c in enumerate(self.columns) if c.kind == kind]
        return np.array(at, np.intp), np.array([self.columns[i].source for i in at], np.intp)

    def __call__(
        self, joint_pos: Array, joint_vel: Array, actions: Array, base: Base | None = None, tick: int = 0
    ) -> NDArray[np.float32]:
        """The observation (B, size) of a measured state and the actions already sent (newest first).

        Args:
            joint_pos: Measured positions.
            joint_vel: Measured velocities.
            actions: Those sent so far.
            base: State of the base; only a floating one has it, and must give it.
            tick: Control ticks since the episode began, for the gait clock.
        """
        # A robot pays for every call of numpy once in a control tick, several times as much after a rest: hence one
        # indexing, and the rest in place.
        state = np.concatenate((joint_pos, joint_vel, actions.reshape(len(joint_pos), -1)), axis=1)
        raw = state.take(self._gather, axis=1)
        for kind, columns in self._computed:
            values = raw[:, columns]
            if kind == "joint_sin":
                np.sin(values, out=values)
            elif kind == "joint_cos":
                np.cos(values, out=values)
            elif kind == "gait_phase":
                values[:] = np.sin(tick * self.gait_step), np.cos(tick * self.gait_step)
            else:
                values[:] = self._of_base(kind, base)
        raw *= self._scale
        np.maximum(raw, self._low, out=raw)
        np.minimum(raw, self._clip, out=raw)
        return raw.astype(np.float32)

    def _of_base(self, kind: str, base: Base | None) -> Array:
        if base is None:
            raise ValueError(f"{self.spec.name} observes {kind} and was given no base state")
        return base.projected_gravity() if kind == "projected_gravity" else getattr(base, kind.removeprefix("base_"))

    def column(self, obs: NDArray[np.floating], name: str) -> Array:
        """The unscaled value (...,) of one column of obs (..., size); raises KeyError with the known names."""
        if name not in self._index:
            raise KeyError(f"{name!r} is not in the observation; known: {self.names}")
        at = self._index[name]
        return np.asarray(obs[..., at], np.float64) / self._scale[at]

    def angle(self, obs: NDArray[np.floating], joint: str) -> Array:
        """Angle of `joint` [rad] in (-pi, pi], from its sine and cosine columns."""
        return np.arctan2(self.column(obs, f"joint_sin.{joint}"), self.column(obs, f"joint_cos.{joint}"))

    def joint_state(self, obs: NDArray[np.floating]) -> tuple[Array, Array]:
        """Measured positions and velocities (..., J) of all joints, in `spec.joint_names` order, from obs (..., size).

        The inverse of the observation up to clipping and noise; a position seen by sine and cosine is in (-pi, pi].

        Raises:
            KeyError: A joint's position or velocity is not observed.
        """
        joints, seen = self.spec.joint_names, set(self.names)
        positions = [
            self.column(obs, f"joint_pos.{joint}") if f"joint_pos.{joint}" in seen else self.angle(obs, joint)
            for joint in joints
        ]
        velocities = [self.column(obs, f"joint_vel.{joint}") for joint in joints]
        return np.stack(positions, axis=-1), np.stack(velocities, axis=-1)

    def sent(self, obs: NDArray[np.floating]) -> Array:
        """The actions (B, H, A) that obs (B, size) says were sent, newest first."""
        ages, joints = range(self.history), self.spec.actuated
        columns = [self.column(obs, f"action_history.{joint}.{age}") for age in ages for joint in joints]
        sent = np.stack(columns, axis=-1) if columns else np.zeros((len(obs), 0))
        return sent.reshape(len(obs), self.history, self.num_actions)

    def with_sent(self, obs: NDArray[np.floating], actions: Array) -> NDArray[np.float32]:
        """`obs` (B, size) as if `actions` (B, H, A), newest first, had been sent: the inverse of `sent`."""
        seen = np.array(obs, np.float32)
        if self.history:
            at, source = self._kinds["action_history"]
            values = actions.reshape(len(seen), -1)[:, source] * self._scale[at]
            seen[:, at] = np.clip(values, self._low[at], self._clip[at])
        return seen

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Mask (size,) of the columns that the plant decides; past actions and the clock are known beforehand."""
        return np.array([c.kind not in KNOWN for c in self.columns])

    def advance_history(self, obs: NDArray[np.floating], action: NDArray[np.floating]) -> NDArray[np.float32]:
        """`obs` with past actions and the clock moved one step on by `action` (B, A); measured columns unchanged."""
        following = np.array(obs, np.float32)
        if self.history:
            at, source = self._kinds["action_history"]
            for column, index in zip(at, source, strict=True):
                if index < self.num_actions:
                    value = np.asarray(action)[..., index] * self._scale[column]
                    following[..., column] = np.clip(value, -self._clip[column], self._clip[column])
                else:
                    following[..., column] = obs[..., at[source == index - self.num_actions][0]]
        if self.gait_step:
            (sine, cosine), _ = self._kinds["gait_phase"]
            turn, sin, cos = self.gait_step, np.asarray(obs[..., sine], np.float64), obs[..., cosine]
            following[..., sine] = sin * np.cos(turn) + cos * np.sin(turn)
            following[..., cosine] = cos * np.cos(turn) - sin * np.sin(turn)
        return following

    def initial_history(self, batch: int) -> Array:
        """Zero actions (B, H, A): nothing has been sent yet."""
        return np.zeros((batch, self.history, self.num_actions))


def nearest_turn(observer: Observer, joints: Sequence[str], way: Array) -> Array:
    """Ways (..., len(joints)) [rad], in (-pi, pi] for joints seen by sine and cosine: nobody knows their turn."""
    turning = [f"joint_pos.{joint}" not in observer.names for joint in joints]
    return np.where(turning, np.pi - (np.pi - way) % (2 * np.pi), way)


def push_action(actions: Array, action: NDArray[np.floating]) -> Array:
    """History (B, H, A) after sending `action` (B, A): newest first, oldest dropped."""
    if actions.shape[1] == 0:
        return actions
    return np.concatenate([np.asarray(action, np.float64)[:, None], actions[:, :-1]], axis=1)


def action_to_command(
    spec: RobotSpec, action: NDArray[np.floating], affine: tuple[Array, Array] | None = None
) -> Array:
    """Joint command (..., A) in SI units for a policy action (..., A); the action is clipped to [-1, 1].

    Args:
        affine: What `action_affine(spec)` gave, from a control loop that does not want to compute it in every tick.
    """
    scale, origin = action_affine(spec) if affine is None else affine
    bounded = np.minimum(np.maximum(np.asarray(action, np.float64), -1.0), 1.0)  # np.clip takes twice as long
    return origin + scale * bounded


def command_to_action(spec: RobotSpec, command: NDArray[np.floating]) -> Array:
    """The action (..., A) that would have produced `command`: the inverse of `action_to_command`."""
    scale, origin = action_affine(spec)
    return (np.asarray(command, np.float64) - origin) / scale


def action_affine(spec: RobotSpec) -> tuple[Array, Array]:
    """Scale and origin (A,): a command is `origin + scale * action`."""
    scale = np.array([spec.action.scale[name] for name in spec.actuated])
    relative = spec.action.kind == "position" and spec.action.relative
    origin = np.array([joint.default_joint_pos if relative else 0.0 for joint in spec.driven])
    return scale, origin


def by_name(names: list[str], values: Mapping[str, float]) -> Array:
    """Values (len(names),) picked from a mapping by joint name; raises KeyError naming what is missing."""
    missing = [name for name in names if name not in values]
    if missing:
        raise KeyError(f"no value for joints {missing}; got {sorted(values)}")
    return np.array([values[name] for name in names])
