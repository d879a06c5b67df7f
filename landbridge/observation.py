"""The observation and the action, built in exactly one place.

Pure numpy, vectorised over a batch: simulators, ingest, runtime and nodes call these functions and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landbridge.robot import RobotSpec

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """One scalar of the observation: its name (`joint_pos.arm`, `action_history.arm.0`) and what it came from."""

    name: str
    kind: str
    source: int  # index into the joints, or into the flattened (history, actuated) actions
    scale: float
    clip: float


class Observer:
    """Builds observations of one robot and reads them back.

    Shapes: joint_pos, joint_vel (B, J) in `spec.joint_names` order; actions (B, H, A), newest first, in
    `spec.actuated` order with H = `history`; obs (B, `size`), float32.

    Attributes:
        columns: One per scalar of the observation, in order.
        history: Number of past actions an observation needs (0 if none).
        num_actions: A.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        self.num_actions = len(spec.actuated)
        self.history = max((t.history for t in spec.observation if t.kind == "action_history"), default=0)
        self.columns: list[Column] = []
        for term in spec.observation:
            clip = np.inf if term.clip is None else term.clip
            if term.kind == "action_history":
                names = [f"{joint}.{age}" for age in range(term.history) for joint in spec.actuated]
                sources = list(range(term.history * self.num_actions))
            else:
                names = list(term.joints)
                sources = [spec.joint_names.index(joint) for joint in term.joints]
            self.columns += [
                Column(f"{term.kind}.{name}", term.kind, source, term.scale, clip)
                for name, source in zip(names, sources, strict=True)
            ]
        self._index = {column.name: i for i, column in enumerate(self.columns)}
        self._kinds = {kind: self._of_kind(kind) for kind in {c.kind for c in self.columns}}
        self._scale = np.array([c.scale for c in self.columns])
        self._clip = np.array([c.clip for c in self.columns])

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

    def __call__(self, joint_pos: Array, joint_vel: Array, actions: Array) -> NDArray[np.float32]:
        """The observation (B, size) of a measured state and the actions already sent (newest first)."""
        raw = np.empty((len(joint_pos), self.size))
        for kind, (at, source) in self._kinds.items():
            if kind == "joint_pos":
                raw[:, at] = joint_pos[:, source]
            elif kind == "joint_sin":
                raw[:, at] = np.sin(joint_pos[:, source])
            elif kind == "joint_cos":
                raw[:, at] = np.cos(joint_pos[:, source])
            elif kind == "joint_vel":
                raw[:, at] = joint_vel[:, source]
            else:
                raw[:, at] = actions.reshape(len(raw), -1)[:, source]
        return np.clip(raw * self._scale, -self._clip, self._clip).astype(np.float32)

    def column(self, obs: NDArray[np.floating], name: str) -> Array:
        """The unscaled value (...,) of one column of obs (..., size); raises KeyError with the known names."""
        if name not in self._index:
            raise KeyError(f"{name!r} is not in the observation; known: {self.names}")
        at = self._index[name]
        return np.asarray(obs[..., at], np.float64) / self._scale[at]

    def angle(self, obs: NDArray[np.floating], joint: str) -> Array:
        """Angle of `joint` [rad] in (-pi, pi], from its sine and cosine columns."""
        return np.arctan2(self.column(obs, f"joint_sin.{joint}"), self.column(obs, f"joint_cos.{joint}"))

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Mask (size,) of the columns that the plant decides; the rest is the action history, known beforehand."""
        return np.array([c.kind != "action_history" for c in self.columns])

    def advance_history(self, obs: NDArray[np.floating], action: NDArray[np.floating]) -> NDArray[np.float32]:
        """`obs` with its action-history columns moved one step on by `action` (B, A); measured columns unchanged."""
        following = np.array(obs, np.float32)
        if self.history:
            at, source = self._kinds["action_history"]
            for column, index in zip(at, source, strict=True):
                if index < self.num_actions:
                    value = np.asarray(action)[..., index] * self._scale[column]
                    following[..., column] = np.clip(value, -self._clip[column], self._clip[column])
                else:
                    following[..., column] = obs[..., at[source == index - self.num_actions][0]]
        return following

    def initial_history(self, batch: int) -> Array:
        """Zero actions (B, H, A): nothing has been sent yet."""
        return np.zeros((batch, self.history, self.num_actions))


def push_action(actions: Array, action: NDArray[np.floating]) -> Array:
    """History (B, H, A) after sending `action` (B, A): newest first, oldest dropped."""
    if actions.shape[1] == 0:
        return actions
    return np.concatenate([np.asarray(action, np.float64)[:, None], actions[:, :-1]], axis=1)


def action_to_command(spec: RobotSpec, action: NDArray[np.floating]) -> Array:
    """Joint command (..., A) in SI units for a policy action (..., A); the action is clipped to [-1, 1]."""
    scale, origin = _action_affine(spec)
    return origin + scale * np.clip(np.asarray(action, np.float64), -1.0, 1.0)


def command_to_action(spec: RobotSpec, command: NDArray[np.floating]) -> Array:
    """The action (..., A) that would have produced `command`: the inverse of `action_to_command`."""
    scale, origin = _action_affine(spec)
    return (np.asarray(command, np.float64) - origin) / scale


def _action_affine(spec: RobotSpec) -> tuple[Array, Array]:
    scale = np.array([spec.action.scale[name] for name in spec.actuated])
    relative = spec.action.kind == "position" and spec.action.relative
    origin = np.array([spec.joint(name).default_joint_pos if relative else 0.0 for name in spec.actuated])
    return scale, origin


def by_name(names: list[str], values: Mapping[str, float]) -> Array:
    """Values (len(names),) picked from a mapping by joint name; raises KeyError naming what is missing."""
    missing = [name for name in names if name not in values]
    if missing:
        raise KeyError(f"no value for joints {missing}; got {sorted(values)}")
    return np.array([values[name] for name in names])
