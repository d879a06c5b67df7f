"""Follow a fast reference in joint space, with whatever the hand carries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landbridge.observation import Observer
from landbridge.task import Floats, Task


class TrackReference(Task):
    """Success: a root mean square error below 0.12 rad, over all joints and the last 3 s of a 6 s episode."""

    name = "track_reference"
    episode_seconds = 6.0

    # In the class, so that they count in the task's digest. The reference is default + amplitude sin(harmonic * phase),
    # joint by joint, with the phase of the observation's clock: once around in 3 s, up to 2.1 rad/s (wrist_flex).
    amplitude = (0.9, 0.5, -0.6, 0.5, 0.9, 0.3)  # rad
    harmonic = (1, 1, 1, 2, 1, 2)
    tracking = 0.12  # rad; the scripted behaviour has 0.02 on `none`, 0.10 on `severe`
    tracked_seconds = 3.0
    lost = 1.2  # rad of error in one joint, at which the episode ends

    def reference(self, phase: NDArray[np.float64]) -> NDArray[np.float64]:
        """Joint positions (..., 6) asked for at a phase (...,) of the clock [rad]."""
        default = np.array([joint.default_joint_pos for joint in self.observer.spec.joints])
        return default + np.array(self.amplitude) * np.sin(phase[..., None] * self.harmonic)

    def phase(self, obs: Floats) -> NDArray[np.float64]:
        """Phase (...,) of the observation's clock [rad]."""
        return np.arctan2(self.observer.column(obs, "gait_phase.sin"), self.observer.column(obs, "gait_phase.cos"))

    def error(self, obs: Floats) -> NDArray[np.float64]:
        """Reference less measured position (..., 6) [rad]."""
        return self.reference(self.phase(obs)) - self.observer.joint_state(obs)[0]

    def reward(self, obs: Floats, action: Floats, next_obs: Floats) -> NDArray[np.float64]:
        """Closeness of every joint (mean of exp(-(e / 0.2 rad)^2)) less jerkiness; up to 1."""
        before = np.stack([self.observer.column(obs, f"action_history.{j}.0") for j in self.observer.spec.actuated], -1)
        change = np.square(np.asarray(action, np.float64) - before).mean(-1)
        return np.exp(-np.square(self.error(next_obs) / 0.2)).mean(-1) - 0.05 * change

    def terminated(self, obs: Floats, action: Floats, next_obs: Floats) -> NDArray[np.bool_]:
        """A joint has lost its reference."""
        return np.abs(self.error(next_obs)).max(-1) > self.lost

    def success(self, obs: Floats) -> bool:
        """See the class."""
        if len(obs) < self.episode_steps + 1:
            return False
        last = obs[-round(self.tracked_seconds * self.observer.spec.control_rate_hz) :]
        return bool(np.sqrt(np.square(self.error(last)).mean()) < self.tracking)

    def initial_state(self, rng: np.random.Generator, batch: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """At rest within +-0.05 rad of the default pose."""
        default = np.array([joint.default_joint_pos for joint in self.observer.spec.joints])
        joint_pos = default + rng.uniform(-0.05, 0.05, (batch, len(default)))
        return joint_pos, np.zeros_like(joint_pos)


def make_task(observer: Observer) -> Task:
    """Called by `landbridge.task.load_task`."""
    return TrackReference(observer)
