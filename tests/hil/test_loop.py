"""The control loop of `landbridge hil run` on hardware that senses a floating base."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from landbridge.deploy.hil.loop import Failed, Loop
from landbridge.observation import Base
from landbridge.robot import load_robot
from landbridge.verdict import Reason

from .rig import real_time

QUADRUPED = load_robot("quadruped").spec
MAX_TILT = QUADRUPED.safety.max_tilt or 0.0


class Held:
    """A quadruped in a stand: its joints are where they are told to be, its trunk has rolled by `roll` [rad]."""

    def __init__(self) -> None:
        self.fault = self.warning = ""
        self.counters = Counter[str]()
        self.roll = 0.0
        self._position = [joint.default_joint_pos for joint in QUADRUPED.joints]

    def read(self) -> tuple[Sequence[float], Sequence[float]]:
        return self._position, [0.0] * len(self._position)

    def base(self) -> Base:
        orientation = [[math.cos(self.roll / 2), math.sin(self.roll / 2), 0.0, 0.0]]
        return Base(np.array(orientation), np.zeros((1, 3)), np.zeros((1, 3)))

    def write(self, command: Sequence[float]) -> None:
        self._position = list(command)

    def disable(self) -> None:
        pass

    def recover(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_base_that_tilts_too_far_stops_the_robot() -> None:
    hardware = Held()
    loop = Loop(QUADRUPED, hardware)
    with real_time():
        loop.tick()
        loop.arm()
        hardware.roll = 0.99 * MAX_TILT
        loop.step(loop.idle())
        hardware.roll = 1.01 * MAX_TILT
        with pytest.raises(Failed, match=f"stopped by {Reason.TILT.value}"):
            loop.wait(0.2)
