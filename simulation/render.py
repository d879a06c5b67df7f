"""Pictures of the twin, drawn by Bullet's software renderer: no display and no GPU needed."""

from __future__ import annotations

from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from landbridge.robot import Robot
from landbridge.simulation.bullet_plant import BulletPlant, pybullet
from landbridge.simulation.scenario import Scenario

FIELD_OF_VIEW = 40.0  # degrees
NEAR, FAR = 0.05, 10.0  # m


def render(
    robot: Robot, scenario: Scenario, joint_pos: NDArray[np.float64], width: int, height: int
) -> NDArray[np.uint8]:
    """Draw the robot at each of the joint positions (T, J), seen from the front and slightly above.

    Returns:
        RGB images (T, height, width, 3).
    """
    with closing(BulletPlant(robot, scenario)) as plant:
        low, high = _bounds(plant, joint_pos)
        centre, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
        distance = radius / np.tan(np.radians(FIELD_OF_VIEW / 2))
        view = pybullet.computeViewMatrixFromYawPitchRoll(centre.tolist(), distance, 35, -15, 0, 2)
        projection = pybullet.computeProjectionMatrixFOV(FIELD_OF_VIEW, width / height, NEAR, FAR)
        images = np.empty((len(joint_pos), height, width, 3), np.uint8)
        for image, positions in zip(images, joint_pos, strict=True):
            plant.reset(positions, np.zeros_like(positions))
            _, _, rgba, _, _ = pybullet.getCameraImage(
                width, height, view, projection, renderer=pybullet.ER_TINY_RENDERER, physicsClientId=plant.client
            )
            image[:] = np.reshape(rgba, (height, width, 4))[..., :3]
        return images


def _bounds(plant: BulletPlant, joint_pos: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners of the box around all links in all poses; a link's far end mirrors its joint at its centre of mass."""
    links = list(range(pybullet.getNumJoints(plant.body, plant.client)))
    ends = [(0.0, 0.0, 0.0)]
    for positions in joint_pos:
        plant.reset(positions, np.zeros_like(positions))
        for link in links:
            state = pybullet.getLinkState(plant.body, link, computeForwardKinematics=1, physicsClientId=plant.client)
            centre, joint = np.array(state[0]), np.array(state[4])
            ends += [tuple(joint), tuple(2 * centre - joint)]
    return np.min(ends, 0), np.max(ends, 0)
