"""`landbridge calibrate identify`: the physical parameters of a robot from its rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landbridge.calibration.fit import FLOOR, settle
from landbridge.calibration.friction import Model, choose, overlooked, term_rows
from landbridge.calibration.posterior import (
    WEAK,
    covariance,
    doubts,
    estimates,
    inflation,
    resample,
    stride_inflation,
    undetermined,
)
from landbridge.calibration.shooting import simulate
from landbridge.calibration.state import BASE, columns
from landbridge.calibration.windows import Windows, digest, open_windows, require_fixed_base, split
from landbridge.errors import InputError
from landbridge.files import require_new, write_atomic
from landbridge.provenance import commit, now
from landbridge.robot import Robot, load_robot
from landbridge.simulation.calibrated import Calibration, Error
from landbridge.simulation.mjcf import to_mjcf
from landbridge.simulation.parameters import Parameter, at, free_parameters, friction_groups, parameters, to_scenario
from landbridge.simulation.scenario import Scenario
from landbridge.spec import require_seed

Array = NDArray[np.float64]


def identify(
    data: Path,
    /,
    out: Path = Path("calibration.yaml"),
    robot: str = "furuta",
    known: tuple[str, ...] = (),
    friction: Model = "auto",
    horizon: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Identify gain, masses, lengths, friction, play and latency from rollouts, into calibration.yaml and an MJCF.

    Scaling torques, masses and frictions together leaves the motion unchanged, so one of them must be known for the
    others to be found: weigh a link. A simulator with all of them estimated moves just the same. A joint gets a
    Stribeck curve, or friction that grows with its drive's effort, only where the data support it (`landbridge
    calibrate friction`); elsewhere the intervals allow for one that was not found. From 20 s or less, a curve's speed
    may end in a wrong minimum, which its interval does not show. Both simulators have friction by load; the MJCF and
    `--compensate` leave it out.

    A gear's gap and rotor are found for joints with a transmission in robot.yaml, whose stiffness and damping are taken
    as they are. With the encoder on the joint, a rotor shows only in the time to cross the gap and beside the other
    masses, so it widens the intervals of gap, gain and masses. Where its maker's figure is known, say so, for example
    by `--known rotor_inertia_scale.arm`. With several loose servos in a row, the fit may end in a wrong minimum;
    `doubts` then says so.

    For a walking robot, ground friction, a payload on the trunk and one friction for joints that are alike take the
    place of masses and lengths. Its feet strike the ground differently than in MuJoCo, in every stride alike. So its
    intervals are as wide as if it had made one stride, and a longer recording hardly narrows them.

    Example: landbridge calibrate identify data/target --known link_mass_scale.arm_link

    Args:
        data: A dataset folder: 30 to 60 s of a robot, excited in all joints or walking; pushes and falls are left out.
        out: File to write; must not exist. Beside it, `<robot>.calibrated.xml` is the calibrated robot for any program
            that uses MuJoCo.
        robot: Name of a robot, or a folder with robot.yaml.
        known: Parameters that are as robot.yaml and the URDF say.
        friction: `coulomb`: neither a Stribeck curve nor friction by load in any joint; `stribeck`: a curve in every
            joint; `auto`: both, where the data support them.
        horizon: Length of the windows that are simulated [s]; by default 0.5, or 0.2 with a floating base.
        seed: Of the bootstrap.

    Returns:
        Parameters with 95 % intervals, what the data leave undetermined, errors on held-out rollouts, and why none of
        it should be relied on, where something says so.
    """
    require_seed(seed)
    machine = load_robot(robot)
    if friction == "stribeck":
        require_fixed_base(machine, "a Stribeck curve")
    free = free_parameters(machine, known)
    model = out.parent / f"{machine.spec.name}.calibrated.xml"
    if out == model:
        raise InputError("--out", f"{out} is the name of the model that is written beside it", "name another file")
    for file in (out, model):
        require_new(file)
    dataset, windows = open_windows(data, machine, horizon)
    found = calibration(machine, free, windows, np.random.default_rng(seed), str(data), digest(dataset), friction)
    mjcf = to_mjcf(machine, found.scenario(machine))
    found.write(out)
    write_atomic(model, mjcf)
    return {"calibration": str(out), "mjcf": str(model), **figures(found)}


def calibration(
    robot: Robot,
    free: list[Parameter],
    windows: Windows,
    rng: np.random.Generator,
    name: str,
    checksum: str,
    friction: Model = "auto",
) -> Calibration:
    """Fit all but the last windows and judge the fit on those.

    Raises:
        InputError: A joint whose friction the data say nothing about.
    """
    fitted, held = split(windows)
    joints = len(robot.spec.joints)
    chosen = choose(robot, free, fitted, friction)
    problem, here = chosen.problem, chosen.here
    scenario = to_scenario(robot, at(problem.free, here.z), problem.base)
    told = chosen.noise > FLOOR  # what a fit leaves of the others is rounding, and tells nothing
    ratio = settle(problem, here.z, held).power(told) / here.power(told) if told.any() else 1.0
    widening = inflation(here.error.reshape(fitted.states.shape)[..., told], ratio)
    before, after = (summary(robot, prediction_error(robot, each, held)) for each in (Scenario(), scenario))
    doubtful = doubts(robot.spec.base, widening, before.joint_pos, after.joint_pos)
    # Not widened: that a model does not fit is doubted above, and no fault of the recording.
    _require_excitation(robot, problem.free, here.z, resample(here, chosen.linear, 1.0, rng.spawn(1)[0]), name)
    samples = resample(here, chosen.linear, widening, rng)
    if robot.spec.base == "floating":
        widening *= stride_inflation(robot, fitted)
        samples = resample(here, chosen.linear, widening, rng, worth=widening**-2)
    # Terms that may hide shift all to one side: they widen the intervals, and are no spread about the estimate.
    hidden = overlooked(chosen, free, widening, len(samples), rng) if friction == "auto" else np.zeros_like(samples)
    return Calibration(
        robot=robot.spec.name,
        robot_hash=robot.spec.digest(),
        urdf_hash=robot.urdf_digest(),
        dataset=name,
        dataset_hash=checksum,
        friction=chosen.terms,
        known=tuple(p.name for p in parameters(robot) if p not in free),
        estimates=estimates(problem.free, here.z, samples + hidden),
        covariance=tuple(map(tuple, covariance(samples).tolist())),
        overlooked=tuple(map(tuple, (hidden.T @ hidden / len(hidden)).tolist())),
        undetermined=tuple(undetermined(problem.free, samples)),
        inflation=widening,
        joint_pos_noise=float(np.median(chosen.noise[:joints])),
        joint_vel_noise=float(np.median(chosen.noise[joints : 2 * joints])),
        windows=len(fitted),
        horizon_s=(windows.states.shape[1] - 1) * robot.spec.control_dt,
        nominal_error=before,
        calibrated_error=after,
        doubts=tuple(doubtful),
        commit=commit(),
        created=now(),
    )


def figures(found: Calibration) -> dict[str, Any]:
    """What the command line prints of a calibration."""
    return {
        "doubts": list(found.doubts),
        "windows": found.windows,
        "inflation": found.inflation,
        "joint_pos_noise": found.joint_pos_noise,
        "joint_vel_noise": found.joint_vel_noise,
        "undetermined": [" with ".join(direction) for direction in found.undetermined],
        "friction": term_rows(found.friction),
        "parameters": [{"parameter": name} | estimate.model_dump() for name, estimate in found.estimates.items()],
        "held_out": error_rows(found.nominal_error, found.calibrated_error),
        **(
            {"held_out_base": base_rows(found.nominal_error, found.calibrated_error)}
            if found.nominal_error.base
            else {}
        ),
    }


def error_rows(before: Error, after: Error) -> list[dict[str, Any]]:
    """Errors of the nominal and of the calibrated simulator, one row a joint."""
    return [
        {
            "joint": joint,
            "nominal_rad": before.joint_pos[joint],
            "calibrated_rad": after.joint_pos[joint],
            "nominal_rad_s": before.joint_vel[joint],
            "calibrated_rad_s": after.joint_vel[joint],
        }
        for joint in after.joint_pos
    ]


def base_rows(before: Error, after: Error) -> list[dict[str, Any]]:
    """As `error_rows`, of a floating base, one row a column of the observation."""
    return [
        {"base": name, "nominal": before.base[name], "calibrated": error, "unit": BASE[name]}
        for name, error in after.base.items()
    ]


def prediction_error(robot: Robot, scenario: Scenario, windows: Windows) -> Array:
    """Predicted minus measured states (W, H + 1, S) from the measured start states, in SI units."""
    return simulate(robot, scenario, windows, windows.states[:, 0]) - windows.states


def summary(robot: Robot, error: Array) -> Error:
    """Root mean squares at the end of windows of errors (W, H + 1, S), see `Error`."""
    rms, joints = np.sqrt(np.square(error[:, -1]).mean(0)), len(robot.spec.joints)
    pos, vel = (
        dict(zip(robot.spec.joint_names, row.tolist(), strict=True)) for row in rms[: 2 * joints].reshape(2, -1)
    )
    return Error(
        joint_pos=pos,
        joint_vel=vel,
        base=dict(zip(columns(robot.spec)[2 * joints :], rms[2 * joints :].tolist(), strict=True)),
    )


def _require_excitation(robot: Robot, free: Sequence[Parameter], z: Array, samples: Array, name: str) -> None:
    places = {p.name: i for i, p in enumerate(free)}
    relative = samples / [p.grain(float(own)) for p, own in zip(free, z, strict=True)]
    for joint in friction_groups(robot):
        own = [i for field in ("frictionloss", "viscous") if (i := places.get(f"friction.{joint}.{field}")) is not None]
        if own and np.linalg.eigvalsh(np.cov(relative[:, own].T).reshape(len(own), -1)).min() > WEAK**2:
            raise InputError(name, f"joint {joint} moves too little to tell its friction", "excite it more")
