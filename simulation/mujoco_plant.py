"""The plant in MuJoCo: the source of simulator logs."""

from __future__ import annotations

import mujoco
import numpy as np

from landbridge.errors import InputError
from landbridge.robot import Robot
from landbridge.simulation.drive import Floats
from landbridge.simulation.plant import Array, Plant, into_body
from landbridge.simulation.scenario import Scenario, apply


def compile_model(robot: Robot, scenario: Scenario) -> mujoco.MjModel:
    """The robot under `scenario` as a compiled model: semi-implicit Euler, no damping, friction or limit of its own.

    A floating robot stands on a plane; its links touch the ground and never each other, as in Bullet.
    """
    try:
        model = model_spec(robot, scenario).compile()
    except ValueError as error:
        problem = f"MuJoCo refuses it: {' '.join(str(error).split())}"
        raise InputError(robot.urdf, problem, "correct what it names") from error
    model.dof_damping[:] = 0
    model.dof_frictionloss[:] = 0
    model.jnt_limited[:] = 0  # the engines' stops differ; a task ends the episode at a limit instead
    for joint in robot.spec.joints:
        model.dof_armature[model.joint(joint.name).dofadr] = joint.armature
    return model


def model_spec(robot: Robot, scenario: Scenario) -> mujoco.MjSpec:
    """Its bodies and time step, to be compiled."""
    spec = mujoco.MjSpec.from_string(apply(robot.urdf_text(), scenario, str(robot.urdf)))
    spec.compiler.fusestatic = False  # keep the base a body of its own, with its mass
    spec.option.timestep = robot.spec.physics_dt
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER
    for geom in spec.geoms:
        geom.contype = geom.conaffinity = 0  # links never touch each other, as in Bullet
    if robot.spec.base == "floating":
        _release(spec, scenario)
    return spec


def _release(spec: mujoco.MjSpec, scenario: Scenario) -> None:
    """Free the root, which the URDF import welds to the world, and lay the ground under it."""
    spec.worldbody.first_body().add_freejoint()
    spec.option.cone = (
        mujoco.mjtCone.mjCONE_ELLIPTIC
    )  # with the cheaper pyramid a trot is a fifth faster than in Bullet
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_EULERDAMP  # nothing is damped implicitly: spares a solve
    for geom in spec.geoms:
        geom.contype = 1
    ground = spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1], contype=0, conaffinity=1)
    for geom in spec.geoms:  # the greater friction of a pair counts
        geom.condim, geom.friction = 3, [scenario.ground_friction, 0, 0]
        geom.solref = [2 * spec.option.timestep, 1]  # as hard as the time step permits: Bullet's contacts are rigid
    ground.name = "ground"


class MujocoPlant(Plant):
    """A robot of hinge joints in MuJoCo, with a fixed or a floating base."""

    engine_version = mujoco.__version__

    def __init__(self, robot: Robot, scenario: Scenario, rng: np.random.Generator | None = None) -> None:
        super().__init__(robot, scenario, rng)
        self.model = compile_model(robot, scenario)
        self.data = mujoco.MjData(self.model)
        free = 6 if self.spec.base == "floating" else 0  # degrees of freedom before the first joint
        self._qpos, self._qvel = self.data.qpos[free + (free > 0) :], self.data.qvel[free:]
        self._applied = self.data.qfrc_applied[free:]
        order = [self.model.joint(i).name for i in range(free > 0, self.model.njnt)]
        if order != self.spec.joint_names:
            problem = f"joints are {self.spec.joint_names}, in the order of the URDF's tree they are {order}"
            raise InputError(robot.folder / "robot.yaml", problem, "sort them likewise")
        self._require_bearable(str(robot.folder))

    def _set_state(self, joint_pos: Array, joint_vel: Array) -> None:
        mujoco.mj_resetData(self.model, self.data)
        self._qpos[:], self._qvel[:] = joint_pos, joint_vel
        if self.spec.base_height is not None:
            self.data.qpos[:7] = [0, 0, self.spec.base_height, 1, 0, 0, 0]

    def state(self) -> tuple[Floats, Floats]:
        """See `Plant`."""
        return (self._qpos.tolist(), self._qvel.tolist()) if self._few else (self._qpos, self._qvel)

    def _base(self) -> tuple[list[float], list[float], list[float]]:
        quat, velocity = self.data.qpos[3:7].tolist(), self.data.qvel[:6].tolist()
        return quat, velocity[3:], into_body(quat, velocity[:3])  # a free joint turns in its own frame

    def _kick(self, x: float, y: float) -> None:
        self.data.qvel[:2] += (x, y)

    def _advance(self, torque: Floats) -> None:
        self._applied[:] = torque
        mujoco.mj_step(self.model, self.data)

    def close(self) -> None:
        """Nothing to release: MuJoCo's data live in this object."""
