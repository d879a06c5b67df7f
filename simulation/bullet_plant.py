"""The plant in Bullet: the twin that stands in for a robot. Imports neither MuJoCo nor torch."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from landbridge.errors import InputError
from landbridge.robot import Robot
from landbridge.simulation.drive import Floats
from landbridge.simulation.plant import Array, Plant, into_body
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
    """A robot of hinge joints in a Bullet world of its own, with a fixed base or a floating one above a plane."""

    engine_version = str(pybullet.getAPIVersion())

    def __init__(self, robot: Robot, scenario: Scenario, rng: np.random.Generator | None = None) -> None:
        super().__init__(robot, scenario, rng)
        if geared := [j.name for j in self.spec.joints if j.armature > 0]:
            problem, remedy = f"joints {geared} have armature, Bullet has none", "add it to the inertia of their links"
            raise InputError(robot.folder / "robot.yaml", problem, remedy)
        with _redirected(1, to=2):  # warnings about the URDF; standard output belongs to the program that uses us
            self.client = pybullet.connect(pybullet.DIRECT)
            try:
                self.body = self._load(apply(robot.urdf_text(), scenario, str(robot.urdf)))
            except pybullet.error as error:
                raise InputError(robot.urdf, f"Bullet refuses it: {error}", "correct what it printed above") from error
        every = [pybullet.getJointInfo(self.body, i, self.client) for i in range(self._count())]
        by_name = {info[1].decode(): info[0] for info in every}
        self.joints = [by_name[name] for name in self.spec.joint_names]
        self._configure()
        self._require_bearable(str(robot.folder))

    def _load(self, urdf: str) -> int:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "robot.urdf"
            path.write_text(urdf)
            return int(
                pybullet.loadURDF(
                    str(path),
                    useFixedBase=self.spec.base == "fixed",
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
        # Bullet clamps all joint speeds of a body alike (100 rad/s by default) and holds each with a velocity motor.
        fastest = 10 * max(joint.velocity_limit for joint in self.spec.joints)
        for joint in self.joints:
            pybullet.changeDynamics(self.body, joint, maxJointVelocity=fastest, **client)
            pybullet.changeDynamics(self.body, joint, jointLowerLimit=-1e9, jointUpperLimit=1e9, **client)
            pybullet.setJointMotorControl2(self.body, joint, pybullet.VELOCITY_CONTROL, force=0, **client)
        if self.spec.base == "floating":
            self._lay_ground()

    def _lay_ground(self) -> None:
        client = {"physicsClientId": self.client}
        ground = pybullet.createMultiBody(0, pybullet.createCollisionShape(pybullet.GEOM_PLANE, **client), **client)
        # The product of a pair's frictions counts; 1 on the robot leaves that of the ground.
        pybullet.changeDynamics(ground, -1, lateralFriction=self.scenario.ground_friction, **client)
        for link in range(-1, self._count()):
            pybullet.changeDynamics(self.body, link, lateralFriction=1.0, restitution=0.0, **client)
        # Bullet speaks of the base's centre of mass, we of the link's frame: where the one is in the other.
        _, _, _, *offset = pybullet.getDynamicsInfo(self.body, -1, self.client)[:5]
        self._frame_in_centre = pybullet.invertTransform(*offset)
        self._fresh = pybullet.saveState(self.client)

    def _set_state(self, joint_pos: Array, joint_vel: Array) -> None:
        if self.spec.base_height is not None:
            pybullet.restoreState(self._fresh, physicsClientId=self.client)  # forgets the contacts of the last episode
            centre = pybullet.invertTransform(*self._frame_in_centre)
            place = pybullet.multiplyTransforms((0, 0, self.spec.base_height), (0, 0, 0, 1), *centre)
            pybullet.resetBasePositionAndOrientation(self.body, *place, self.client)
            pybullet.resetBaseVelocity(self.body, (0, 0, 0), (0, 0, 0), self.client)
        for joint, position, velocity in zip(self.joints, joint_pos, joint_vel, strict=True):
            pybullet.resetJointState(self.body, joint, position, velocity, self.client)

    def state(self) -> tuple[list[float], list[float]]:
        """See `Plant`."""
        states = pybullet.getJointStates(self.body, self.joints, self.client)
        return [s[0] for s in states], [s[1] for s in states]

    def _base(self) -> tuple[list[float], list[float], list[float]]:
        centre, orientation = pybullet.getBasePositionAndOrientation(self.body, self.client)
        velocity, (a, b, c) = pybullet.getBaseVelocity(self.body, self.client)
        frame, (x, y, z, w) = pybullet.multiplyTransforms(centre, orientation, *self._frame_in_centre)
        dx, dy, dz = (of_frame - of_centre for of_frame, of_centre in zip(frame, centre, strict=True))
        turning = b * dz - c * dy, c * dx - a * dz, a * dy - b * dx
        quat = [w, x, y, z]
        lin_vel = [of_centre + more for of_centre, more in zip(velocity, turning, strict=True)]
        return quat, into_body(quat, (a, b, c)), into_body(quat, lin_vel)

    def _kick(self, x: float, y: float) -> None:
        (vx, vy, vz), ang_vel = pybullet.getBaseVelocity(self.body, self.client)
        pybullet.resetBaseVelocity(self.body, (vx + x, vy + y, vz), ang_vel, self.client)

    def _advance(self, torque: Floats) -> None:
        pybullet.setJointMotorControlArray(
            self.body, self.joints, pybullet.TORQUE_CONTROL, forces=torque, physicsClientId=self.client
        )
        pybullet.stepSimulation(self.client)

    def close(self) -> None:
        """Disconnect from this plant's world."""
        if pybullet.isConnected(self.client):
            pybullet.disconnect(self.client)
