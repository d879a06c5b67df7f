"""What feed-forward from a calibration adds to a policy's control tick.

    python benchmarks/compensation_cost.py

The furuta (1 driven joint, effort), the arm (6, position) and the quadruped (12, position). Writes
`results/compensation_cost.json`.
"""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import numpy as np
import record
import tyro
from rich import print_json

from landbridge.robot import load_robot
from landbridge.simulation.calibrated import Calibration, Estimate
from landbridge.simulation.compensation import Compensation

RESULT = Path(__file__).parent / "results" / "compensation_cost.json"
TICKS = 20_000
WEAK = Estimate(value=0.8, low=0.8, high=0.8, identifiable=True)  # a gain: what it changes costs nothing more


def cost_us(robot: str) -> list[float]:
    """Microseconds of each of `TICKS` commands."""
    spec, took = load_robot(robot).spec, []
    known = Calibration.model_construct(estimates={"actuator_gain": WEAK}, covariance=((0.0,),))
    compensation = Compensation(load_robot(robot), known)
    command, joints = np.zeros(len(spec.actuated)), len(spec.joints)
    for i in range(TICKS):
        velocity = np.full(joints, 0.05 * (i % 3))
        start = time.perf_counter()
        compensation(command, velocity)
        took.append(1e6 * (time.perf_counter() - start))
    return took


def main() -> None:
    """Measure, print, and write the results."""
    load = os.getloadavg()[0]
    gc.collect()
    gc.freeze()  # as a node's process does
    robots = {}
    for robot in ("furuta", "arm", "quadruped"):
        p50, p99 = np.percentile(cost_us(robot), [50, 99])
        joints = len(load_robot(robot).spec.actuated)
        robots[robot] = {"driven_joints": joints, "median_us": float(p50), "p99_us": float(p99)}
    print_json(data=robots)
    record.write(RESULT, load, ticks=TICKS, robots=robots)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
