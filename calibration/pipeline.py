"""`landbridge calibrate all`: the steps in their order, into one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from landbridge.calibration.delay import delays
from landbridge.calibration.identify import identify
from landbridge.calibration.report import report
from landbridge.errors import InputError


def everything(
    data: Path, /, out: Path, robot: str = "furuta", known: tuple[str, ...] = (), seed: int = 0
) -> dict[str, Any]:
    """Estimate the delay, identify the parameters and write the page.

    Example: landbridge calibrate all data/target --out calibration --known link_mass_scale.arm_link

    Args:
        data: A dataset folder.
        out: Folder to write calibration.yaml and calibration.html into; must not exist.
        robot: Name of a robot, or a folder with robot.yaml.
        known: Parameters that are as robot.yaml and the URDF say.
        seed: Of the bootstraps.
    """
    if out.exists():
        raise InputError(out, "already exists", "choose another --out or remove it")
    delay = delays(data, robot=robot, seed=seed)
    found = identify(data, out / "calibration.yaml", robot, known, seed=seed)
    page = report(data, out / "calibration.yaml", out / "calibration.html", robot)
    return found | {"report": page["report"], "delays": delay["delays"]}
