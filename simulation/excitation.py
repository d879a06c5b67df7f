"""`excitation.yaml`: a designed motion of the actuated joints, and the behaviour that follows it.

Each joint follows a finite Fourier series about the middle of its range (Swevers et al., IEEE Trans. Robotics and
Automation 13(5), 1997), so its band is known and its limits are kept by scaling. Robots that are commanded in effort
or velocity follow it by feedback: open loop, they would drift to a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field

from landbridge.errors import InputError
from landbridge.files import write_atomic
from landbridge.observation import Observer, command_to_action, nearest_turn
from landbridge.robot import Robot
from landbridge.simulation.behaviour import Behaviour, Policy
from landbridge.spec import Finite, NonNegative, Positive, Spec, read_model

FADE_SECONDS = 0.5  # from standstill into the series
EFFORT_ERROR = 0.4  # rad behind the reference at which an effort-commanded joint gets its whole action
LEAD_SECONDS = 0.1  # of the speed error that counts as position error; damps for what the drives are late
EDGE = 0.85  # of the range: a joint that is about to pass it is driven back at full action
EDGE_SECONDS = 0.25  # how far ahead that is seen

Array = NDArray[np.float64]
Share = Annotated[float, Field(ge=0)]  # of a limit; infinite if nobody knows how far beyond


class Series(Spec):
    """One joint's way: centre + sum_k sine_k sin(2 pi f_k t) + cosine_k cos(2 pi f_k t) [rad]."""

    centre: Finite
    sine: tuple[Finite, ...]
    cosine: tuple[Finite, ...]


class Preview(Spec):
    """What the twin did under one scenario: the largest share of each limit that it came to.

    Attributes:
        position: Of half the position range, actuated joints.
        velocity: Of the velocity limit, all joints.
        effort: Of the action box.
        tracking: Of max_tracking_error, where positions are commanded.
    """

    scenario: str
    position: Share
    velocity: Share
    effort: Share
    tracking: Share = 0.0

    @property
    def kept(self) -> bool:
        """Whether it stayed inside the limits of which the guard makes faults."""
        return max(self.position, self.velocity, self.tracking) < 1


class Excitation(Spec):
    """The file.

    Attributes:
        robot_hash: `RobotSpec.digest()` of the robot that it was designed and previewed for.
        frequencies_hz: Of the series, f_k.
        joints: Series of each actuated joint.
        previews: Limits are kept in all of them, or the file would not be.
        expected_sd: Standard deviation of each parameter's estimate from one episode, in prior standard deviations.
    """

    schema_version: Literal[1] = 1
    robot: str
    robot_hash: str
    frequencies_hz: tuple[Positive, ...]
    joints: dict[str, Series]
    previews: tuple[Preview, ...]
    expected_sd: dict[str, NonNegative]
    commit: str
    created: str

    def write(self, path: Path) -> None:
        """Write the file; folders are made."""
        write_atomic(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120))


def read_excitation(path: Path, robot: Robot) -> Excitation:
    """Read an `excitation.yaml`.

    Raises:
        InputError: Missing, malformed, designed for another robot, or not of its joints.
    """
    if not path.is_file():
        raise InputError(path, "no such file", "make one with `landbridge calibrate excite`")
    found = read_model(Excitation, path)
    if found.robot_hash != robot.spec.digest():
        raise InputError(path, f"was designed for another {found.robot!r}", "design it again for this robot.yaml")
    sizes = {len(terms) for series in found.joints.values() for terms in (series.sine, series.cosine)}
    if set(found.joints) != set(robot.spec.actuated) or sizes != {len(found.frequencies_hz)}:
        problem = f"its joints are not {robot.spec.actuated}, or have more or fewer terms than there are frequencies"
        raise InputError(path, problem, "design it again: it has been changed since it was previewed")
    return found


def behaviour_of(robot: Robot, excitation: Excitation) -> Behaviour:
    """The behaviour that follows an excitation; every row of a batch does the same."""
    joints = [excitation.joints[name] for name in robot.spec.actuated]
    centre = np.array([joint.centre for joint in joints])
    sine, cosine = np.array([joint.sine for joint in joints]), np.array([joint.cosine for joint in joints])

    def start(batch: int, rng: np.random.Generator) -> Policy:
        return Following(robot, excitation.frequencies_hz, centre, sine[None], cosine[None])

    return start


class Following:
    """The policy: B rows, each along its own series (B, A, K) of K frequencies, from the first call on."""

    def __init__(self, robot: Robot, frequencies: Sequence[float], centre: Array, sine: Array, cosine: Array) -> None:
        self._spec, self._observer = robot.spec, Observer(robot.spec)
        self._omega = 2 * np.pi * np.array(frequencies)
        self._centre, self._sine, self._cosine = centre, sine, cosine
        self._own = robot.spec.driven_at
        ranges = [joint.position_range for joint in robot.spec.driven]
        self._low, self._high = EDGE * np.array(ranges).T + (1 - EDGE) * centre
        self._tick = 0

    def reference(self, time: float) -> tuple[Array, Array]:
        """Position and velocity (B, A) at `time` [s]."""
        phase = self._omega * time
        position = self._sine @ np.sin(phase) + self._cosine @ np.cos(phase)
        velocity = self._sine @ (self._omega * np.cos(phase)) - self._cosine @ (self._omega * np.sin(phase))
        if time < FADE_SECONDS:
            position, velocity = position * time / FADE_SECONDS, (velocity * time + position) / FADE_SECONDS
        return self._centre + position, velocity

    def __call__(self, obs: NDArray[np.float32]) -> NDArray[np.floating]:
        """Actions (B, A) for obs (B, n)."""
        wanted, speed = self.reference(self._tick * self._spec.control_dt)
        self._tick += 1
        if self._spec.action.kind == "position":
            return np.clip(command_to_action(self._spec, np.broadcast_to(wanted, (len(obs), wanted.shape[1]))), -1, 1)
        position, velocity = (values[:, self._own] for values in self._observer.joint_state(obs))
        behind = nearest_turn(self._observer, self._spec.actuated, wanted - position)
        if self._spec.action.kind == "velocity":
            action = command_to_action(self._spec, speed + behind / LEAD_SECONDS)
        else:
            action = (behind + LEAD_SECONDS * (speed - velocity)) / EFFORT_ERROR
        ahead = position + EDGE_SECONDS * velocity
        return np.where(ahead > self._high, -1.0, np.where(ahead < self._low, 1.0, np.clip(action, -1, 1)))
