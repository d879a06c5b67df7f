"""The plant in MuJoCo: the source of simulator logs."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from landbridge.errors import InputError
from landbridge.robot import Robot
from landbridge.simulation.plant import Array, Plant
from landbridge.simulation.scenario import Scenario, apply


def compile_model(robot: Robot, scenario: Scenario) -> mujoco.MjModel:
    """The robot under `scenario` as a compiled model: semi-implicit Euler, no damping, friction or limit of its own."""
    spec = mujoco.MjSpec.from_string(apply(robot.urdf.read_text(), scenario, str(robot.urdf)))
    spec.compiler.fusestatic = False  # keep the base a body of its own, with its mass
    spec.option.timestep = robot.spec.control_dt / robot.spec.decimation
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER
    model = spec.compile()
    model.dof_damping[:] = 0
    model.dof_frictionloss[:] = 0
    model.jnt_limited[:] = 0  # the engines' stops differ; a task ends the episode at a limit instead
    for joint in robot.spec.joints:
        model.dof_armature[model.joint(joint.name).dofadr] = joint.armature
    return model


class MujocoPlant(Plant):
    """A fixed-base robot of hinge joints in MuJoCo."""

    engine_version = mujoco.__version__

    def __init__(self, robot: Robot, scenario: Scenario, rng: np.random.Generator | None = None) -> None:
        super().__init__(robot, scenario, rng)
        self.model = compile_model(robot, scenario)
        self.data = mujoco.MjData(self.model)
        self._qpos, self._qvel, self._applied = self.data.qpos, self.data.qvel, self.data.qfrc_applied
        order = [int(self.model.joint(name).dofadr[0]) for name in self.spec.joint_names]
        if order != list(range(self.model.nv)):
            raise InputError(robot.urdf, f"joints are not in the order {self.spec.joint_names}", "sort them")

    def _set_state(self, joint_pos: Array, joint_vel: Array) -> None:
        mujoco.mj_resetData(self.model, self.data)
        self._qpos[:], self._qvel[:] = joint_pos, joint_vel

    def _state(self) -> tuple[list[float], list[float]]:
        return self._qpos.tolist(), self._qvel.tolist()

    def _advance(self, torque: Sequence[float]) -> None:
        self._applied[:] = torque
        mujoco.mj_step(self.model, self.data)

    def close(self) -> None:
        """Nothing to release: MuJoCo's data live in this object."""
