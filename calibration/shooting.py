"""Multiple shooting: windows simulated from their own start states under the logged commands (Bock, 1983).

The start state of each window is estimated with the parameters, because the measured one carries sensor noise, which
an unstable robot amplifies.
"""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco.rollout import Rollout
from numpy.typing import NDArray

from landbridge.calibration.windows import Windows, lags
from landbridge.robot import Robot
from landbridge.simulation.drive import ArrayDrive
from landbridge.simulation.mujoco_plant import compile_model
from landbridge.simulation.scenario import Scenario

Array = NDArray[np.float64]

EDGE = 1e-9  # of a control period; a command that falls on a physics step belongs to it in spite of rounding


def simulate(robot: Robot, scenario: Scenario, windows: Windows, starts: Array) -> Array:
    """States (W, H + 1, 2 J) that follow from start states (W, 2 J) under the logged commands.

    As the plant does it, in MuJoCo, all windows at once; but a command that takes effect within a physics step acts in
    proportion, so that the outcome is a continuous function of the latency.
    """
    spec, joints = robot.spec, len(robot.spec.joints)
    model, drive = compile_model(robot, scenario), ArrayDrive(spec, scenario)
    periods = windows.states.shape[1] - 1
    states = np.empty((len(starts), periods + 1, 2 * joints))
    states[:, 0] = starts
    current = np.concatenate([np.zeros((len(starts), 1)), starts], 1)[:, None]  # (W, 1, time + 2 J)
    applied = int(mujoco.mjtState.mjSTATE_QFRC_APPLIED)
    with Rollout(nthread=0) as engine:
        data = [mujoco.MjData(model)]
        for i, command in enumerate(_in_effect(robot, scenario.latency_ms, windows.commands)):
            position, velocity = current[:, 0, 1 : 1 + joints], current[:, 0, 1 + joints :]
            torque = drive(position, velocity, command)
            current, _ = engine.rollout(model, data, current[:, 0], torque[:, None], control_spec=applied, nstep=1)
            if (i + 1) % spec.decimation == 0:
                states[:, (i + 1) // spec.decimation] = current[:, 0, 1:]
    return states


def _in_effect(robot: Robot, latency_ms: float, commands: Array) -> Array:
    """The mean command in effect (H * decimation, W, A) during each physics step of the windows."""
    before, decimation = lags(robot), robot.spec.decimation
    steps = (commands.shape[1] - before) * decimation
    # Control periods from the first logged command to the write of what acts at the step's beginning.
    sent = before + np.arange(steps) / decimation - latency_ms / 1000 * robot.spec.control_rate_hz
    index = np.floor(sent + EDGE).astype(int)
    share = np.clip((index + 1 - sent) * decimation, 0.0, 1.0)[:, None, None]
    series = np.moveaxis(commands, 1, 0)
    return share * series[index] + (1 - share) * series[np.minimum(index + 1, len(series) - 1)]
