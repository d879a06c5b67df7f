"""A floating base as the messages of its sensors tell it; needs no ROS 2, so that logs are read by it too."""

from __future__ import annotations

from typing import Any

import numpy as np

from landbridge.observation import Base


def read_base(imu: Any, odometry: Any) -> Base:
    """The inverse of `topics.base_messages`: one row."""
    q, turning, velocity = imu.orientation, imu.angular_velocity, odometry.twist.twist.linear
    rows = (q.w, q.x, q.y, q.z), (turning.x, turning.y, turning.z), (velocity.x, velocity.y, velocity.z)
    return Base(*(np.array([row]) for row in rows))
