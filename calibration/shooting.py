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
from landbridge.robot import Robot
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
    spec, lead = robot.spec, lags(robot)
    in_effect = _in_effect(robot, scenario.latency_ms, windows.commands)
    periods = in_effect.reshape(-1, spec.decimation, *in_effect.shape[1:])
    states = np.empty((len(starts), len(periods) - lead + 1, starts.shape[1]))
    states[:, 0] = starts
    with Rollout(nthread=0) as engine:
        plants = _Plants(robot, scenario, engine)
        if plants.geared:
            # The rotors begin at the side that the command pushes to; each crossing since makes up for a wrong one.
            # From one measurement to the next the joints move by the model too: a curve through the measured states
            # would press on the shafts wherever a joint knocks between two of them.
            for measured, commands in zip(np.moveaxis(windows.before, 1, 0), periods[:lead], strict=True):
                plants.place(measured)
                plants.run(commands)
        plants.place(starts)
        for i, commands in enumerate(periods[lead:]):
            plants.run(commands)
            states[:, i + 1] = plants.states
    return states


class _Plants:
    """W plants side by side."""

    def __init__(self, robot: Robot, scenario: Scenario, engine: Rollout) -> None:
        self._spec, self._engine = robot.spec, engine
        self._model, self._drive = compile_model(robot, scenario), array_drive(robot.spec, scenario)
        self._data = [mujoco.MjData(self._model)]
        joints, nq, nv = len(robot.spec.joints), self._model.nq, self._model.nv
        self._position, self._velocity = slice(1 + nq - joints, 1 + nq), slice(1 + nq + nv - joints, None)
        self._current: Array | None = None  # (W, time + nq + nv)

    @property
    def geared(self) -> bool:
        """Whether the drive has a memory."""
        return isinstance(self._drive, GearedDrive)

    @property
    def states(self) -> Array:
        """(W, S)."""
        assert self._current is not None
        return from_physics(self._spec, self._current[:, 1:])

    def place(self, states: Array) -> None:
        """Put the plants into states (W, S); rotors go along with their joints."""
        there = np.concatenate([np.zeros((len(states), 1)), to_physics(self._spec, states)], 1)
        if self._current is not None and isinstance(self._drive, GearedDrive):
            moved = there - self._current
            self._drive.carry(moved[:, self._position], moved[:, self._velocity])
        self._current = there

    def run(self, commands: Array) -> None:
        """One control period under the commands (decimation, W, A) in effect."""
        assert self._current is not None
        applied = int(mujoco.mjtState.mjSTATE_QFRC_APPLIED)
        force = np.zeros((len(self._current), 1, self._model.nv))
        joints = force[:, 0, -len(self._spec.joints) :]
        for command in commands:
            joints[:] = self._drive(self._current[:, self._position], self._current[:, self._velocity], command)
            rollout = self._engine.rollout
            ahead = rollout(self._model, self._data, self._current, force, control_spec=applied, nstep=1)[0]
            self._current = ahead[:, 0]


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
