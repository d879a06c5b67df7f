"""`landbridge calibrate identify`: the physical parameters of a robot from its rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landbridge.calibration.fit import Problem, fit, linearise, settle
from landbridge.calibration.posterior import WEAK, estimates, inflation, resample, undetermined
from landbridge.calibration.shooting import simulate
from landbridge.calibration.windows import Windows, cut, digest, open_rollouts
from landbridge.episode import commit, now
from landbridge.errors import InputError
from landbridge.robot import Robot, load_robot
from landbridge.simulation.calibrated import Calibration, Error
from landbridge.simulation.parameters import Parameter, at, parameters, to_scenario
from landbridge.simulation.scenario import Scenario

Array = NDArray[np.float64]

HELD_OUT = 0.2  # of the windows, the last ones
FEWEST = 20  # windows
MIN_PERIODS = 5  # of a window: it must tell more than its own start state
POS_NOISE, VEL_NOISE = 0.003, 0.05  # rad, rad/s: a first guess


def identify(
    data: Path,
    /,
    out: Path = Path("calibration.yaml"),
    robot: str = "furuta",
    known: tuple[str, ...] = (),
    horizon: float = 0.5,
    seed: int = 0,
) -> dict[str, Any]:
    """Identify gain, masses, lengths, friction and latency from rollouts, into calibration.yaml.

    Torques, masses and frictions that grow together move a robot alike, so one of them must be known for the others to
    be: weigh a link. A simulator with all of them estimated is as good, since it moves alike. From 20 s or less the
    Stribeck speed may end in a wrong minimum, which its interval does not show.

    Example: landbridge calibrate identify data/target --known link_mass_scale.arm_link

    Args:
        data: A dataset folder: 30 to 60 s of a robot with a fixed base, excited in all joints.
        out: File to write.
        robot: Name of a robot, or a folder with robot.yaml.
        known: Parameters that are as robot.yaml and the URDF say.
        horizon: Length of the windows that are simulated [s].
        seed: Of the bootstrap.

    Returns:
        Parameters with 95 % intervals, what the data leave undetermined, and errors on held-out rollouts.
    """
    machine = load_robot(robot)
    dataset = open_rollouts(data, machine)
    free = free_parameters(machine, known)
    windows = cut(dataset, machine, max(MIN_PERIODS, round(horizon * machine.spec.control_rate_hz)), data)
    found = calibration(machine, free, windows, np.random.default_rng(seed), str(data), digest(dataset))
    found.write(out)
    return {"calibration": str(out), **figures(found)}


def free_parameters(robot: Robot, known: tuple[str, ...]) -> list[Parameter]:
    """The parameters to estimate: all but the known."""
    every = parameters(robot)
    if unknown := sorted(set(known) - {p.name for p in every}):
        raise InputError("--known", f"{unknown} are no parameters", f"name some of {[p.name for p in every]}")
    return [p for p in every if p.name not in known]


def calibration(
    robot: Robot, free: list[Parameter], windows: Windows, rng: np.random.Generator, name: str, checksum: str
) -> Calibration:
    """Fit all but the last windows and judge the fit on those.

    Raises:
        InputError: Too few windows, or a joint whose friction the data say nothing about.
    """
    if len(windows) < FEWEST:
        raise InputError(name, f"has {len(windows)} usable windows", f"record at least {FEWEST}, or shorten --horizon")
    fitted, held = split(windows)
    joints = len(robot.spec.joints)
    problem, here = fit(Problem(robot, free, fitted, np.repeat([POS_NOISE, VEL_NOISE], joints)))
    scenario = to_scenario(robot, at(free, here.z))
    ratio = settle(problem, here.z, held).power / here.power
    widening = inflation(here.error.reshape(fitted.states.shape), ratio)
    samples = resample(here, linearise(problem, here), widening, rng)
    _require_excitation(robot, free, samples, name)
    return Calibration(
        robot=robot.spec.name,
        robot_hash=robot.spec.digest(),
        dataset=name,
        dataset_hash=checksum,
        known=tuple(p.name for p in parameters(robot) if p not in free),
        estimates=estimates(free, here.z, samples),
        covariance=tuple(map(tuple, np.cov(samples.T).tolist())),
        undetermined=tuple(undetermined(free, samples)),
        inflation=widening,
        joint_pos_noise=float(np.median(problem.noise[:joints])),
        joint_vel_noise=float(np.median(problem.noise[joints:])),
        windows=len(fitted),
        horizon_s=(windows.states.shape[1] - 1) * robot.spec.control_dt,
        nominal_error=_summary(robot, prediction_error(robot, Scenario(), held)),
        calibrated_error=_summary(robot, prediction_error(robot, scenario, held)),
        commit=commit(),
        created=now(),
    )


def figures(found: Calibration) -> dict[str, Any]:
    """What the command line prints of a calibration."""
    before, after = found.nominal_error, found.calibrated_error
    return {
        "windows": found.windows,
        "inflation": found.inflation,
        "joint_pos_noise": found.joint_pos_noise,
        "joint_vel_noise": found.joint_vel_noise,
        "undetermined": [" with ".join(direction) for direction in found.undetermined],
        "parameters": [{"parameter": name} | estimate.model_dump() for name, estimate in found.estimates.items()],
        "held_out": [
            {
                "joint": joint,
                "nominal_rad": before.joint_pos[joint],
                "calibrated_rad": after.joint_pos[joint],
                "nominal_rad_s": before.joint_vel[joint],
                "calibrated_rad_s": after.joint_vel[joint],
            }
            for joint in after.joint_pos
        ],
    }


def split(windows: Windows) -> tuple[Windows, Windows]:
    """The windows to fit, and the last ones, held out to judge the fit."""
    last = np.arange(len(windows)) >= (1 - HELD_OUT) * len(windows)
    return windows.where(~last), windows.where(last)


def prediction_error(robot: Robot, scenario: Scenario, windows: Windows) -> Array:
    """Predicted minus measured states (W, H + 1, 2 J) from the measured start states, in SI units."""
    return simulate(robot, scenario, windows, windows.states[:, 0]) - windows.states


def _summary(robot: Robot, error: Array) -> Error:
    rms = np.sqrt(np.square(error[:, -1]).mean(0)).reshape(2, -1)
    pos, vel = (dict(zip(robot.spec.joint_names, row.tolist(), strict=True)) for row in rms)
    return Error(joint_pos=pos, joint_vel=vel)


def _require_excitation(robot: Robot, free: list[Parameter], samples: Array, name: str) -> None:
    wide = {p.name for p, spread in zip(free, samples.std(0), strict=True) if spread > WEAK}
    for joint in robot.spec.joint_names:
        friction = {f"friction.{joint}.{field}" for field in ("frictionloss", "viscous")}
        if friction <= wide:
            raise InputError(name, f"joint {joint} moves too little to tell its friction", "excite it more")
