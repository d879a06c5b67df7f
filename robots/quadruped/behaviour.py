"""Behaviours of the quadruped: a scripted trot with foot placement, noisy, random, and with a partly trained residual.

Sideways feet are placed after Raibert, "Legged Robots That Balance" (MIT Press, 1986), ch. 2: where the trunk falls to.
The policy's action is absolute: the trot lives here, not in the action.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landbridge.observation import Observer, command_to_action
from landbridge.simulation.behaviour import Actor, Behaviour, Policy, perturbed

HERE = Path(__file__).parent
SOURCE_MIX = {"random": 0.05, "tuned": 0.15, "noisy": 0.6, "ppo_partial": 0.2}  # shares of a source dataset

SPEED = 0.5  # m/s, the task's
# Legs in the action's order. Where their feet stand below the trunk [m], and how far in the gait they are ahead [rad]:
# diagonal pairs step together.
FEET_X = np.array([0.18, 0.18, -0.18, -0.18])
FEET_Y = np.array([-0.13, 0.13, -0.13, 0.13])
AHEAD = np.array([0.0, np.pi, np.pi, 0.0])
SEGMENT = 0.2  # m, thigh and calf
HEIGHT = 0.28  # m of a hip above its foot on the ground, near the default pose
REACH = 0.39  # m; a leg never stretches quite out
RESIDUAL = 0.4  # share of the action box that the trained residual may move the trot

Floats = NDArray[np.float64]


class Trot:
    """Each foot follows a half-ellipse: on the ground from +d to -d of its neutral point, then back through the air.

    d = (stride (v + chase (v - vx)) + steer wz y, place (vy + wz x)): ahead, the legs drive the trunk to its speed and
    against its turning; sideways, feet go where the trunk falls. A leg gets longer by level (g . r) where the trunk at
    its hip hangs low. All parameters are positive.
    """

    def __init__(self, observer: Observer, parameters: dict[str, float]) -> None:
        self.observer, self.p = observer, parameters

    def __call__(self, obs: NDArray[np.float32], gain: Floats | float = 1.0) -> Floats:
        """Action (B, 12) for obs (B, n); `gain` (B, 1) scales the stride and the feedback."""
        p = self.p
        phase = np.arctan2(self._read(obs, "gait_phase.sin"), self._read(obs, "gait_phase.cos")) + AHEAD + p["lead"]
        swing = np.maximum(np.sin(phase), 0)  # in the air during the first half of its period
        sweep = -np.cos(phase)  # from -1 (behind) to 1 (ahead) in the air, back on the ground
        vx, vy = self._read(obs, "base_lin_vel.x"), self._read(obs, "base_lin_vel.y")
        turn = self._read(obs, "base_ang_vel.z")
        forward = p["stride"] * (SPEED + p["chase"] * (SPEED - vx)) + p["steer"] * turn * FEET_Y
        sideways = p["place"] * (vy + turn * FEET_X)
        low = self._read(obs, "projected_gravity.x") * FEET_X + self._read(obs, "projected_gravity.y") * FEET_Y
        height = HEIGHT - p["lift"] * swing + gain * p["level"] * low
        return self._action(gain * sweep * forward, gain * sweep * sideways, height)

    def _read(self, obs: NDArray[np.float32], name: str) -> Floats:
        return self.observer.column(obs, name)[:, None]

    def _action(self, x: Floats, y: Floats, height: Floats) -> Floats:
        """Joint targets for feet at (x, y, -height) of their neutral points (B, 4), as actions (B, 12)."""
        reach = np.minimum(np.hypot(x, height), REACH)
        calf = -np.arccos(np.square(reach) / (2 * SEGMENT**2) - 1)
        thigh = np.arctan2(-x, height) - calf / 2
        targets = np.stack([np.arctan2(y, height), thigh, calf], -1)
        return np.clip(command_to_action(self.observer.spec, targets.reshape(len(x), -1)), -1, 1)


def make_behaviours(observer: Observer, parameters: dict[str, dict[str, float]]) -> dict[str, Behaviour]:
    """Called by `landbridge.simulation.behaviour.load_behaviours`."""
    trot = Trot(observer, parameters["tuned"])

    def random(batch: int, rng: np.random.Generator) -> Policy:
        size = rng.uniform(0.1, 1.0, (batch, 1))
        return lambda obs: np.clip(size * rng.standard_normal((batch, observer.num_actions)), -1, 1)

    def ppo_partial(batch: int, rng: np.random.Generator) -> Policy:
        residual = Actor(HERE / "ppo_partial.npz")
        return perturbed(
            lambda obs, gain: trot(obs, gain) + RESIDUAL * residual(obs), batch, rng, noise=0.1, spread=0.0
        )

    return {
        "random": random,
        "tuned": lambda batch, rng: trot,
        "noisy": lambda batch, rng: perturbed(trot, batch, rng, noise=0.2, spread=0.3),
        "excite": lambda batch, rng: perturbed(trot, batch, rng, noise=0.1, spread=0.15),
        "ppo_partial": ppo_partial,
    }
