"""The plant in Bullet: the twin that stands in for a robot. Imports neither MuJoCo nor torch."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from landbridge.errors import InputError
from landbridge.robot import Robot
from landbridge.simulation.plant import Array, Plant
from landbridge.simulation.scenario import Scenario, apply


@contextmanager
def _redirected(descriptor: int, to: int) -> Iterator[None]:
    """Send what C code prints on one file descriptor to another."""
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    libc.fflush(None)
    saved = os.dup(descriptor)
    os.dup2(to, descriptor)
    try:
        yield
    finally:
        libc.fflush(None)
        os.dup2(saved, descriptor)
        os.close(saved)


with open(os.devnull, "w") as nowhere, _redirected(2, to=nowhere.fileno()):  # a banner at import
    import pybullet

__all__ = ["BulletPlant", "pybullet"]

GRAVITY = 9.81  # m/s^2, MuJoCo's default


class BulletPlant(Plant):
    """A fixed-base robot of hinge joints in a Bullet world of its own."""

    engine_version = str(pybullet.getAPIVersion())

    def __init__(self, robot: Robot, scenario: Scenario, rng: np.random.Generator | None = None) -> None:
        super().__init__(robot, scenario, rng)
        if geared := [j.name for j in self.spec.joints if j.armature > 0]:
            raise InputError(
                robot.folder / "robot.yaml", f"joints {geared} have armature, Bullet has none", "use MuJoCo"
            )
        with _redirected(1, to=2):  # warnings about the URDF; standard output belongs to the program that uses us
            self.client = pybullet.connect(pybullet.DIRECT)
            self.body = self._load(apply(robot.urdf.read_text(), scenario, str(robot.urdf)))
        every = [pybullet.getJointInfo(self.body, i, self.client) for i in range(self._count())]
        by_name = {info[1].decode(): info[0] for info in every}
        self.joints = [by_name[name] for name in self.spec.joint_names]
        self._configure()

    def _load(self, urdf: str) -> int:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "robot.urdf"
            path.write_text(urdf)
            return int(
                pybullet.loadURDF(
                    str(path),
                    useFixedBase=True,
                    flags=pybullet.URDF_USE_INERTIA_FROM_FILE,
                    physicsClientId=self.client,
                )
            )

    def _count(self) -> int:
        return int(pybullet.getNumJoints(self.body, self.client))

    def _configure(self) -> None:
        client = {"physicsClientId": self.client}
        pybullet.setGravity(0, 0, -GRAVITY, **client)
        pybullet.setPhysicsEngineParameter(fixedTimeStep=self.physics_dt, numSubSteps=1, **client)
        for link in range(-1, self._count()):
            pybullet.changeDynamics(self.body, link, linearDamping=0, angularDamping=0, jointDamping=0, **client)
        for joint, limits in zip(self.joints, self.spec.joints, strict=True):
            # Bullet clamps joint speeds (100 rad/s by default) and holds every joint with a velocity motor.
            pybullet.changeDynamics(self.body, joint, maxJointVelocity=10 * limits.velocity_limit, **client)
            pybullet.changeDynamics(self.body, joint, jointLowerLimit=-1e9, jointUpperLimit=1e9, **client)
            pybullet.setJointMotorControl2(self.body, joint, pybullet.VELOCITY_CONTROL, force=0, **client)

    def _set_state(self, joint_pos: Array, joint_vel: Array) -> None:
        for joint, position, velocity in zip(self.joints, joint_pos, joint_vel, strict=True):
            pybullet.resetJointState(self.body, joint, position, velocity, self.client)

    def _state(self) -> tuple[list[float], list[float]]:
        states = pybullet.getJointStates(self.body, self.joints, self.client)
        return [s[0] for s in states], [s[1] for s in states]

    def _advance(self, torque: Sequence[float]) -> None:
        pybullet.setJointMotorControlArray(
            self.body, self.joints, pybullet.TORQUE_CONTROL, forces=torque, physicsClientId=self.client
        )
        pybullet.stepSimulation(self.client)

    def close(self) -> None:
        """Disconnect from this plant's world."""
        if pybullet.isConnected(self.client):
            pybullet.disconnect(self.client)
