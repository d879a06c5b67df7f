"""What the observation tells of a robot's state, and the simulator's state that it stands for.

The joints' positions and velocities; of a floating base besides its height, tilt and velocities. Where it stands and
where it heads is not observed and does not matter. Nor is its height; but some foot of a walking robot stands, so the
trunk is as high above its lowest foot as the joints and the tilt say.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.observation import AXES, Observer
from landbridge.robot import BASE_KINDS, Robot, RobotSpec
from landbridge.simulation.mujoco_plant import compile_model
from landbridge.simulation.scenario import Scenario

Array = NDArray[np.float64]

MEASURED = {"projected_gravity": "", "base_ang_vel": "rad/s", "base_lin_vel": "m/s"}  # of a base, and their units
BASE = {"height": "m"} | {f"{kind}.{axis}": unit for kind, unit in MEASURED.items() for axis in AXES}


def columns(spec: RobotSpec) -> list[str]:
    """Names of the S measured states: positions, velocities, and those of a floating base."""
    joints = [f"{kind}.{joint}" for kind in ("joint_pos", "joint_vel") for joint in spec.joint_names]
    return [*joints, *(BASE if spec.base == "floating" else ())]


def base_state(robot: Robot, observer: Observer, obs: NDArray[np.floating], joint_pos: Array) -> Array:
    """Height, gravity, angular and linear velocity (T, 10) of a floating base, by joint positions (T, J).

    Raises:
        InputError: One of these is not in the observation.
    """
    seen = {term.kind for term in robot.spec.observation}
    if missing := sorted(BASE_KINDS - seen):
        problem = f"observation lacks {missing}, without which a floating base cannot be calibrated"
        raise InputError(robot.folder / "robot.yaml", problem, "add them, then collect and record again")
    measured = np.stack([observer.column(obs, name) for name in BASE if name != "height"], -1)
    model = compile_model(robot, Scenario())
    data = mujoco.MjData(model)
    bodies = [i for i in range(model.ngeom) if model.geom_conaffinity[i] == 0]
    height = np.empty(len(obs))
    for i, (quat, position) in enumerate(zip(upright(measured[:, :3]), joint_pos, strict=True)):
        data.qpos[:] = [0, 0, 0, *quat, *position]
        mujoco.mj_kinematics(model, data)
        height[i] = -min(_lowest(model, data, geom) for geom in bodies)
    return np.column_stack([height, measured])


def _lowest(model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> float:
    """Height of the lowest point of a geom: of a sphere, or of the box about another."""
    height = float(data.geom_xpos[geom, 2])
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_SPHERE:
        return height - float(model.geom_size[geom, 0])
    up = data.geom_xmat[geom, 6:]
    return height + float(up @ model.geom_aabb[geom, :3] - np.abs(up) @ model.geom_aabb[geom, 3:])


def to_physics(spec: RobotSpec, states: Array) -> Array:
    """MuJoCo's positions and velocities (W, nq + nv) of measured states (W, S); a floating base heads along x."""
    joints = len(spec.joints)
    if spec.base == "fixed":
        return states
    pos, vel, base = np.split(states, [joints, 2 * joints], axis=1)
    quat = upright(base[:, 1:4])
    place = np.column_stack([np.zeros((len(states), 2)), base[:, :1]])
    return np.concatenate([place, quat, pos, turned(quat, base[:, 7:10]), base[:, 4:7], vel], 1)


def from_physics(spec: RobotSpec, physics: Array) -> Array:
    """Measured states (W, S) of MuJoCo's positions and velocities (W, nq + nv)."""
    if spec.base == "fixed":
        return physics
    joints = len(spec.joints)
    place, quat, pos, lin, ang, vel = np.split(physics, np.cumsum([3, 4, joints, 3, 3]), axis=1)
    back = quat * [1, -1, -1, -1]
    down = turned(back, np.tile([0.0, 0.0, -1.0], (len(physics), 1)))
    return np.concatenate([pos, vel, place[:, 2:], down, ang, turned(back, lin)], 1)


def upright(gravity: Array) -> Array:
    """Quaternion (T, 4) of the least turn that takes gravity (T, 3) in the body frame straight down."""
    x, y, z = gravity.T
    quat = np.stack([1 - z, -y, x, np.zeros_like(x)], -1)
    unit: Array = quat / np.linalg.norm(quat, axis=1, keepdims=True)
    return unit


def turned(quat: Array, vectors: Array) -> Array:
    """Vectors (T, 3) turned by quaternions (T, 4)."""
    w, u = quat[:, :1], quat[:, 1:]
    twice = 2 * np.cross(u, vectors)
    moved: Array = vectors + w * twice + np.cross(u, twice)
    return moved
