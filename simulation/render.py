"""Pictures of the twin, drawn by Bullet's software renderer: no display and no GPU needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landbridge.robot import Robot
from landbridge.simulation.bullet_plant import BulletPlant, pybullet
from landbridge.simulation.scenario import Scenario

FIELD_OF_VIEW = 40.0  # degrees
NEAR, FAR = 0.05, 10.0  # m
MARGIN = 2.6  # camera distance over the robot's extent, which is measured between link centres


def render(
    robot: Robot, scenario: Scenario, joint_pos: NDArray[np.float64], width: int = 240, height: int = 240
) -> NDArray[np.uint8]:
    """Draw the robot at each of the joint positions (T, J), seen from the front and slightly above.

    Returns:
        RGB images (T, height, width, 3).
    """
    plant = BulletPlant(robot, scenario)
    try:
        low, high = _bounds(plant, joint_pos)
        centre, reach = (low + high) / 2, float(np.linalg.norm(high - low))
        view = pybullet.computeViewMatrixFromYawPitchRoll(centre.tolist(), MARGIN * reach, 35, -15, 0, 2)
        projection = pybullet.computeProjectionMatrixFOV(FIELD_OF_VIEW, width / height, NEAR, FAR)
        images = np.empty((len(joint_pos), height, width, 3), np.uint8)
        for image, positions in zip(images, joint_pos, strict=True):
            plant.reset(positions, np.zeros_like(positions))
            _, _, rgba, _, _ = pybullet.getCameraImage(
                width, height, view, projection, renderer=pybullet.ER_TINY_RENDERER, physicsClientId=plant.client
            )
            image[:] = np.reshape(rgba, (height, width, 4))[..., :3]
        return images
    finally:
        plant.close()


def _bounds(plant: BulletPlant, joint_pos: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners of the box around the centres of all links in all poses."""
    links = list(range(pybullet.getNumJoints(plant.body, plant.client)))
    centres = [(0.0, 0.0, 0.0)]
    for positions in joint_pos:
        plant.reset(positions, np.zeros_like(positions))
        centres += [pybullet.getLinkState(plant.body, link, physicsClientId=plant.client)[0] for link in links]
    return np.min(centres, 0), np.max(centres, 0)
