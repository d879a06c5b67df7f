"""Trot forward at a commanded speed while being pushed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landbridge.observation import Observer
from landbridge.task import Floats, Task

# The URDF's numbers, m: where the hips are, the thigh's sideways offset, length of thigh and calf, radius of a foot.
LEGS = {"FR": (0.18, -0.05), "FL": (0.18, 0.05), "RR": (-0.18, -0.05), "RL": (-0.18, 0.05)}
SIDE, SEGMENT, FOOT = 0.08, 0.2, 0.02


class TrackVelocity(Task):
    """Success: no fall in 6 s, and during the last 3 s a mean velocity within 0.2 m/s of 0.5 m/s straight ahead."""

    name = "track_velocity"
    episode_seconds = 6.0

    # In the class, so that they count in the task's digest.
    speed = 0.5  # m/s forward, a comfortable trot for legs of 0.4 m
    tracking = 0.2  # m/s; three times what the scripted trot strays on the nominal robot
    tracked_seconds = 3.0
    tilt = 0.6  # cosine of the tilt at which it counts as fallen, 53 deg: no leg gets under the trunk again
    low = 0.16  # m; half the standing height

    def reward(self, obs: Floats, action: Floats, next_obs: Floats) -> NDArray[np.float64]:
        """Tracking of velocity (weight 1) and of zero yaw rate (0.3), level trunk (0.2), less jerkiness; up to 1.5."""
        error, turn = self._velocity_error(next_obs), self.observer.column(next_obs, "base_ang_vel.z")
        level = -self.observer.column(next_obs, "projected_gravity.z")
        before = np.stack([self.observer.column(obs, f"action_history.{j}.0") for j in self.observer.spec.actuated], -1)
        change = np.square(np.asarray(action, np.float64) - before).mean(-1)
        tracking = np.exp(-np.square(error).sum(-1) / 0.1) + 0.3 * np.exp(-np.square(turn) / 0.5)
        return tracking + 0.2 * level - 0.05 * change

    def terminated(self, obs: Floats, action: Floats, next_obs: Floats) -> NDArray[np.bool_]:
        """Fallen: tilted too far, or the trunk too low above the lowest foot."""
        tilted = -self.observer.column(next_obs, "projected_gravity.z") < self.tilt
        return tilted | (self.height(next_obs) < self.low)

    def success(self, obs: Floats) -> bool:
        """See the class."""
        if len(obs) < self.episode_steps + 1 or self.terminated(obs[-2:-1], obs[:0], obs[-1:]).any():
            return False
        last = obs[-round(self.tracked_seconds * self.observer.spec.control_rate_hz) :]
        return bool(np.linalg.norm(self._velocity_error(last).mean(0)) < self.tracking)

    def height(self, obs: Floats) -> NDArray[np.float64]:
        """Height [m] of the trunk's centre above the lowest foot (...,), by leg kinematics and projected gravity."""
        down = np.stack([self.observer.column(obs, f"projected_gravity.{axis}") for axis in "xyz"], -1)
        return np.max([(self._foot(obs, leg) * down).sum(-1) for leg in LEGS], axis=0) + FOOT

    def _foot(self, obs: Floats, leg: str) -> NDArray[np.float64]:
        """Centre of a foot (..., 3) in the trunk's frame [m]."""
        parts = ("hip", "thigh", "calf")
        hip, thigh, calf = (self.observer.column(obs, f"joint_pos.{leg}_{part}_joint") for part in parts)
        x, y = LEGS[leg]
        along = -SEGMENT * (np.sin(thigh) + np.sin(thigh + calf))
        below = -SEGMENT * (np.cos(thigh) + np.cos(thigh + calf))
        side = np.copysign(SIDE, y)
        across, up = side * np.cos(hip) - below * np.sin(hip), side * np.sin(hip) + below * np.cos(hip)
        return np.stack([x + along, y + across, up], -1)

    def _velocity_error(self, obs: Floats) -> NDArray[np.float64]:
        forward, left = (self.observer.column(obs, f"base_lin_vel.{axis}") for axis in "xy")
        return np.stack([forward - self.speed, left], -1)

    def initial_state(self, rng: np.random.Generator, batch: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Standing, every joint within +-0.05 rad of its default and at rest; the base is placed by the plant."""
        default = np.array([joint.default_joint_pos for joint in self.observer.spec.joints])
        joint_pos = default + rng.uniform(-0.05, 0.05, (batch, len(default)))
        return joint_pos, np.zeros_like(joint_pos)


def make_task(observer: Observer) -> Task:
    """Called by `landbridge.task.load_task`."""
    return TrackVelocity(observer)
