"""`landbridge calibrate all`: the steps in their order, into one folder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from landbridge.calibration.delay import delays
from landbridge.calibration.identify import identify
from landbridge.calibration.report import report
from landbridge.calibration.zero import zero
from landbridge.errors import InputError
from landbridge.files import require_new
from landbridge.robot import load_robot
from landbridge.simulation.calibrated import Doubt
from landbridge.spec import require_seed

LEFT_OUT = ["delay, for which see latency_ms", "zero: check the encoders on a stand, with a fixed base"]


def everything(
    data: Path, /, out: Path, robot: str = "furuta", known: tuple[str, ...] = (), seed: int = 0
) -> dict[str, Any]:
    """Run delay, zero, identify (which chooses the friction terms) and report, in that order.

    A wrong encoder ends the run, since whatever is identified through it would be wrong too. For a robot with a
    floating base only the parameters are identified, from its walking and with its latency; what was left out is named.

    Example: landbridge calibrate all data/target --out calibrations/first --known link_mass_scale.arm_link

    Args:
        data: A dataset folder.
        out: Folder to write calibration.yaml, <robot>.calibrated.xml and calibration.html into; must not exist.
        robot: Name of a robot, or a folder with robot.yaml.
        known: Parameters that are as robot.yaml and the URDF say.
        seed: Of the bootstraps.
    """
    require_new(out)
    require_seed(seed)
    if load_robot(robot).spec.base == "floating":
        return _found(data, out, robot, known, seed) | {"left_out": LEFT_OUT}
    delay = delays(data, robot=robot, seed=seed)["delays"]
    encoders = zero(data, robot=robot, known=known, seed=seed)
    if wrong := encoders["robot.yaml"]:
        raise InputError(data, f"shows encoders that robot.yaml has wrong, {wrong}", "correct them and record again")
    seen = {"untold": encoders["untold"], "encoders": encoders["encoders"]}
    return _found(data, out, robot, known, seed) | {"delays": delay, **seen}


def _found(data: Path, out: Path, robot: str, known: tuple[str, ...], seed: int) -> dict[str, Any]:
    """The parameters, and the page."""
    found = identify(data, out / "calibration.yaml", robot, known, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Doubt)  # which are in `found`
        page = report(data, out / "calibration.yaml", out / "calibration.html", robot)
    return found | {"report": page["report"]}
