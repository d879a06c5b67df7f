"""Multiple shooting: windows simulated from their own start states under the logged commands (Bock, 1983).

The start state of each window is estimated with the parameters, because the measured one carries sensor noise, which
an unstable robot amplifies.
"""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco.rollout import Rollout
from numpy.typing import NDArray

from landbridge.calibration.state import from_physics, to_physics
from landbridge.calibration.windows import Windows, lags
from landbridge.robot import Robot, RobotSpec
from landbridge.simulation.drive import GearedDrive, array_drive
from landbridge.simulation.mujoco_plant import compile_model
from landbridge.simulation.scenario import Scenario

Array = NDArray[np.float64]

EDGE = 1e-9  # of a control period; a command that falls on a physics step belongs to it in spite of rounding


def simulate(robot: Robot, scenario: Scenario, windows: Windows, starts: Array) -> Array:
    """States (W, H + 1, S) that follow from start states (W, S) under the logged commands.

    As the plant does it, in MuJoCo, all windows at once; but a command that takes effect within a physics step acts in
    proportion, so that the outcome is a continuous function of the latency. Where the rotors of geared joints are at a
    window's start follows from the measured motion just before it.
    """
    spec, joints = robot.spec, len(robot.spec.joints)
    model, drive = compile_model(robot, scenario), array_drive(spec, scenario)
    commands = _in_effect(robot, scenario.latency_ms, windows.commands)
    lead = lags(robot) * spec.decimation
    if isinstance(drive, GearedDrive):
        _lead_in(drive, spec, windows, starts, commands[:lead])
    periods = windows.states.shape[1] - 1
    states = np.empty((len(starts), periods + 1, starts.shape[1]))
    states[:, 0] = starts
    current = np.concatenate([np.zeros((len(starts), 1)), to_physics(spec, starts)], 1)  # (W, time + nq + nv)
    position, velocity = slice(1 + model.nq - joints, 1 + model.nq), slice(1 + model.nq + model.nv - joints, None)
    applied, force = int(mujoco.mjtState.mjSTATE_QFRC_APPLIED), np.zeros((len(starts), 1, model.nv))
    with Rollout(nthread=0) as engine:
        data = [mujoco.MjData(model)]
        for i, command in enumerate(commands[lead:]):
            force[:, 0, model.nv - joints :] = drive(current[:, position], current[:, velocity], command)
            current = engine.rollout(model, data, current, force, control_spec=applied, nstep=1)[0][:, 0]
            if (i + 1) % spec.decimation == 0:
                states[:, (i + 1) // spec.decimation] = from_physics(spec, current[:, 1:])
    return states


def _lead_in(drive: GearedDrive, spec: RobotSpec, windows: Windows, starts: Array, commands: Array) -> None:
    """Move the rotors to where they are at start states (W, S), by the motion and the commands (L * decimation, W, A).

    They begin a whole `before` earlier at the side that the command pushes to; each crossing since makes up for a wrong
    one. How they stand to their joints is as in the measured motion, whatever the start states are.
    """
    measured = np.concatenate([windows.before, windows.states[:, :1]], 1)
    joints, share = len(spec.joints), np.arange(spec.decimation)[:, None, None] / spec.decimation
    dt = spec.control_dt
    for i, effect in enumerate(commands.reshape(-1, spec.decimation, *commands.shape[1:])):
        (p, v), (q, w) = (np.split(measured[:, i + late, : 2 * joints], 2, axis=-1) for late in (0, 1))
        # The cubic through positions and velocities at both ends (Hermite).
        a, b = dt * (v + w) - 2 * (q - p), 3 * (q - p) - dt * (2 * v + w)
        position = p + share * (dt * v + share * (b + share * a))
        velocity = v + share * (2 * b + share * 3 * a) / dt
        for step in zip(position, velocity, effect, strict=True):
            drive(*step)
    drive.carry(*np.split(starts[:, : 2 * joints] - measured[:, -1, : 2 * joints], 2, axis=-1))


def _in_effect(robot: Robot, latency_ms: float, commands: Array) -> Array:
    """The mean command in effect ((L + H) * decimation, W, A) during each physics step before and in the windows.

    What was sent before the first logged command is not known: the first one stands for it.
    """
    before, decimation = lags(robot), robot.spec.decimation
    steps = np.arange(-before * decimation, (commands.shape[1] - before) * decimation)
    # Control periods from the first logged command to the write of what acts at the step's beginning.
    sent = before + steps / decimation - latency_ms / 1000 * robot.spec.control_rate_hz
    index = np.floor(np.maximum(sent, 0) + EDGE).astype(int)
    share = np.clip((index + 1 - sent) * decimation, 0.0, 1.0)[:, None, None]
    series = np.moveaxis(commands, 1, 0)
    return share * series[index] + (1 - share) * series[np.minimum(index + 1, len(series) - 1)]
