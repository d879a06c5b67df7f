"""Behaviours of the furuta: energy swing-up with a state-feedback catch, random, noisy, and a partly trained actor.

The classical controller follows Åström and Furuta, "Swinging up a pendulum by energy control", Automatica 36 (2000):
pump the pendulum's energy towards that of the upright rest, then hand over to linear state feedback near it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landbridge.observation import Observer
from landbridge.simulation.behaviour import Actor, Behaviour, OrnsteinUhlenbeck, Policy, perturbed

HERE = Path(__file__).parent
SOURCE_MIX = {"random": 0.1, "tuned": 0.2, "noisy": 0.5, "sac_partial": 0.2}  # shares of a source dataset
# rad/s: small oscillations of the hanging pendulum, sqrt(m g l / J) of the URDF's rod, l = 0.15 m, J = m (0.3 m)^2 / 3
NATURAL_FREQUENCY = np.sqrt(9.81 * 0.15 / 0.03)

RETREAT = 2.2  # rad; a recording turns the arm back when it would be there
RETREAT_LEAD = 0.2  # s: an arm of 8 rad/s needs 0.16 s to stop at the torque of `severe`, and commands are late

Floats = NDArray[np.float64]


class SwingUpAndCatch:
    """u = tanh(pump (1 + margin - E) w cos(a)) - centre t - brake t' far from upright, state feedback within `catch`.

    E = (w / w0)^2 / 2 + cos(a) is the pendulum's energy over m g l, 1 at upright rest; all parameters are positive.
    The gain of each row may be scaled, so that no two recorded episodes are alike.
    """

    def __init__(self, observer: Observer, parameters: dict[str, float]) -> None:
        self.observer, self.p = observer, parameters

    def __call__(self, obs: NDArray[np.float32], gain: Floats | float = 1.0) -> Floats:
        """Action (B, 1) for obs (B, n); `gain` (B, 1) scales both laws."""
        p, read = self.p, self.observer.column
        arm, arm_vel = read(obs, "joint_pos.arm"), read(obs, "joint_vel.arm")
        angle, vel = self.observer.angle(obs, "pendulum"), read(obs, "joint_vel.pendulum")
        energy = 0.5 * (vel / NATURAL_FREQUENCY) ** 2 + np.cos(angle)
        pump = np.tanh(p["pump"] * (1 + p["margin"] - energy) * vel * np.cos(angle))
        swing = pump - p["centre"] * arm - p["brake"] * arm_vel
        catch = p["arm"] * arm + p["arm_vel"] * arm_vel - p["pendulum"] * angle - p["pendulum_vel"] * vel
        near = np.abs(angle) + p["catch_lead"] * np.abs(vel) < p["catch"]
        return np.clip(gain * np.where(near, catch, swing)[:, None], -1, 1)


def make_behaviours(observer: Observer, parameters: dict[str, dict[str, float]]) -> dict[str, Behaviour]:
    """Called by `landbridge.simulation.behaviour.load_behaviours`."""
    tuned = SwingUpAndCatch(observer, parameters["tuned"])
    excite = SwingUpAndCatch(observer, parameters["excite"])

    def random(batch: int, rng: np.random.Generator) -> Policy:
        noise = OrnsteinUhlenbeck((batch, 1), tau_steps=5, rng=rng)
        size = rng.uniform(0.1, 0.8, (batch, 1))
        pull = parameters["random"]["centre"]
        return lambda obs: np.clip(size * noise() - pull * observer.column(obs, "joint_pos.arm")[:, None], -1, 1)

    def sac_partial(batch: int, rng: np.random.Generator) -> Policy:
        return Actor(HERE / "sac_partial.npz")

    return {
        "random": random,
        "tuned": lambda batch, rng: tuned,
        "noisy": lambda batch, rng: perturbed(tuned, batch, rng, noise=0.8, spread=0.3),
        "excite": lambda batch, rng: _kept_inside(observer, perturbed(excite, batch, rng, noise=0.3, spread=0.15)),
        "sac_partial": sac_partial,
    }


def _kept_inside(observer: Observer, policy: Policy) -> Policy:
    """`policy`, except that the arm is driven back at full torque when it is about to pass `RETREAT`."""

    def inside(obs: NDArray[np.float32]) -> NDArray[np.floating]:
        ahead = observer.column(obs, "joint_pos.arm") + RETREAT_LEAD * observer.column(obs, "joint_vel.arm")
        return np.where(np.abs(ahead) > RETREAT, -np.sign(ahead), policy(obs)[:, 0])[:, None]

    return inside
