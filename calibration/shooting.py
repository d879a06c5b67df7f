"""Multiple shooting: windows simulated from their own start states under the logged commands (Bock, 1983).

The start state of each window is estimated with the parameters, because the measured one carries sensor noise, which
an unstable robot amplifies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

EDGE = 1e-9  # of a physics step: a measurement at its end belongs to it in spite of rounding


@dataclass(frozen=True)
class Case:
    """What is simulated: a scenario, from start states (W, S), under the commands of W windows."""

    scenario: Scenario
    windows: Windows
    starts: Array


def simulate(robot: Robot, scenario: Scenario, windows: Windows, starts: Array) -> Array:
    """States (W, H + 1, S) that follow from start states (W, S) under the logged commands."""
    found: Array = simulate_all(robot, [Case(scenario, windows, starts)])[0]
    return found


def simulate_all(robot: Robot, cases: Sequence[Case]) -> Array:
    """As `simulate`, of K cases with as many windows of the same length, (K, W, H + 1, S).

    As the plant does it, in MuJoCo, all at once, and each state when it was measured. Where the rotors of geared joints
    are at a window's start follows from the measured motion just before it.
    """
    spec, lead = robot.spec, lags(robot)
    in_effect = np.stack([_in_effect(robot, case.scenario.latency_ms, case.windows) for case in cases], 1)
    ahead, inside = np.split(in_effect, [lead * spec.decimation])
    starts, before = (np.stack(parts) for parts in zip(*((c.starts, c.windows.before) for c in cases), strict=True))
    step, share = _moments(robot, np.stack([case.windows.taken for case in cases]), len(inside))
    states = np.empty((*share.shape, starts.shape[2]))
    with Rollout(nthread=0) as engine:
        plants = _Plants(robot, [case.scenario for case in cases], engine)
        if plants.geared:
            # The rotors begin at the side that the command pushes to; each crossing since makes up for a wrong one.
            # From one measurement to the next the joints move by the model too: a curve through the measured states
            # would press on the shafts wherever a joint knocks between two of them.
            periods = ahead.reshape(lead, spec.decimation, *ahead.shape[1:])
            for measured, commands in zip(np.moveaxis(before, 2, 0), periods, strict=True):
                plants.place(measured)
                for command in commands:
                    plants.advance(command)
        plants.place(starts)
        for i, command in enumerate(inside):
            began = plants.physics
            plants.advance(command)
            case, window, _ = there = np.nonzero(step == i)
            here, since = began[case, window], share[there][:, None]
            states[there] = from_physics(spec, here + since * (plants.physics[case, window] - here))
    states[:, :, 0] = starts
    return states


def _moments(robot: Robot, taken: Array, steps: int) -> tuple[NDArray[np.intp], Array]:
    """The physics step in which each state was measured, and the share of it that had passed, both of `taken`'s shape.

    What was measured after the last of `steps` is extrapolated from it.
    """
    spec = robot.spec
    at = (np.arange(taken.shape[-1]) + taken * spec.control_rate_hz) * spec.decimation
    step = np.clip(np.ceil(at - EDGE) - 1, 0, steps - 1).astype(np.intp)
    return step, at - step


class _Plants:
    """W plants under each of K scenarios, side by side."""

    def __init__(self, robot: Robot, scenarios: Sequence[Scenario], engine: Rollout) -> None:
        self._spec, self._engine = robot.spec, engine
        self._models = [compile_model(robot, scenario) for scenario in scenarios]
        self._drive = array_drive(robot.spec, *scenarios)
        model, joints = self._models[0], len(robot.spec.joints)
        self._data, self._dofs = [mujoco.MjData(model)], model.nv
        self._position = slice(1 + model.nq - joints, 1 + model.nq)
        self._velocity = slice(1 + model.nq + model.nv - joints, None)
        self._current: Array | None = None  # (K, W, time + nq + nv)

    @property
    def geared(self) -> bool:
        """Whether the drive has a memory."""
        return isinstance(self._drive, GearedDrive)

    @property
    def physics(self) -> Array:
        """(K, W, nq + nv)."""
        assert self._current is not None
        return self._current[..., 1:]

    def place(self, states: Array) -> None:
        """Put the plants into states (K, W, S); rotors go along with their joints."""
        physics = to_physics(self._spec, states.reshape(-1, states.shape[-1]))
        there = np.concatenate([np.zeros((len(physics), 1)), physics], 1).reshape(*states.shape[:2], -1)
        if self._current is not None and isinstance(self._drive, GearedDrive):
            moved = there - self._current
            self._drive.carry(moved[..., self._position], moved[..., self._velocity])
        self._current = there

    def advance(self, command: Array) -> None:
        """One physics step under the command (K, W, A) in effect."""
        assert self._current is not None
        applied, (cases, windows, size) = int(mujoco.mjtState.mjSTATE_QFRC_APPLIED), self._current.shape
        models = [model for model in self._models for _ in range(windows)]
        force = np.zeros((cases * windows, 1, self._dofs))
        joints = force.reshape(cases, windows, -1)[..., -len(self._spec.joints) :]
        joints[:] = self._drive(self._current[..., self._position], self._current[..., self._velocity], command)
        # What Rollout checks of its arguments, and how it repeats them, would take a third of the time.
        ahead = np.empty((len(models), 1, size))
        self._engine.rollout(
            models,
            self._data,
            self._current.reshape(-1, size),
            force,
            control_spec=applied,
            skip_checks=True,
            nstep=1,
            state=ahead,
            sensordata=np.empty((len(models), 1, 0)),
        )
        self._current = ahead.reshape(self._current.shape)


def _in_effect(robot: Robot, latency_ms: float, windows: Windows) -> Array:
    """The mean command in effect ((L + H) * decimation, W, A) during each physics step before and in the windows.

    What was sent before the first logged command is not known: the first one stands for it.
    """
    rate, decimation, commands = robot.spec.control_rate_hz, robot.spec.decimation, windows.commands
    periods = commands.shape[1]
    # Time in control periods from the first measurement. The integral of the commands over it is linear between the
    # times from which they are in effect.
    since = np.maximum.accumulate(np.arange(periods) + (latency_ms / 1000 + windows.late) * rate, axis=1)
    since[:, 0] = 0.0
    integral = np.zeros_like(commands)
    integral[:, 1:] = np.cumsum(commands[:, :-1] * np.diff(since)[:, :, None], axis=1)
    edges = np.arange(periods * decimation + 1) / decimation
    newest = (since[:, :, None] <= edges).sum(1) - 1
    rows = np.arange(len(commands))[:, None]
    there = integral[rows, newest] + commands[rows, newest] * (edges - since[rows, newest])[:, :, None]
    return np.moveaxis(np.diff(there, axis=1) * decimation, 1, 0)
