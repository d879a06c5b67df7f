"""What the guard costs per control period: one measurement, one tick, one command.

    python benchmarks/guard_cost.py

The furuta (2 joints, effort), the arm (6 joints, position) and the quadruped (12 joints, position), each admitting a
changing command; and the quadruped parking, where the guard computes the trajectory itself.
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

from landbridge.deploy.guard import Guard
from landbridge.deploy.supervisor import State
from landbridge.robot import load_robot

RESULT = Path(__file__).parent / "results" / "guard_cost.json"
PERIODS = 20_000


def cost_us(robot: str, state: State) -> list[float]:
    """Microseconds of each of `PERIODS` control periods in `state`."""
    spec = load_robot(robot).spec
    guard, names, took = Guard(spec), spec.actuated, []
    rest = [joint.default_joint_pos for joint in spec.joints]
    base = [spec.joint(name).default_joint_pos for name in names]
    guard.measure(0, 0.0, rest, [0.0] * len(rest))
    guard.supervise(State.ARMED, 0, 0.0)
    guard.tick(0.0)
    for i in range(1, PERIODS + 1):
        at, sway = i * spec.control_dt, 0.001 * (i % 3)
        guard.supervise(state, 0, at)
        at_rest = guard.written if state is State.PARK else rest
        position, velocity = [p + sway for p in at_rest], [0.05] * len(rest)
        command = [p + sway for p in base]
        start = time.perf_counter()
        guard.measure(i, at, position, velocity)
        guard.tick(at)
        guard.admit(i, names, command, at + 0.001)
        took.append(1e6 * (time.perf_counter() - start))
        if state is State.PARK and not guard.powered:  # once more
            guard.supervise(State.ARMED, 0, at)
            guard.tick(at)
    assert guard.fault is None, guard.fault
    return took


def main() -> None:
    """Measure, print, and write `benchmarks/results/guard_cost.json`."""
    load = os.getloadavg()[0]
    gc.collect()
    gc.freeze()  # as the bridge's process does
    robots = {}
    active = [(robot, State.ACTIVE) for robot in ("furuta", "arm", "quadruped")]
    for robot, state in (*active, ("quadruped", State.PARK)):
        took = cost_us(robot, state)
        p50, p99 = np.percentile(took, [50, 99])
        label = robot if state is State.ACTIVE else f"{robot} in {state.value}"
        robots[label] = {"joints": len(load_robot(robot).spec.joints), "median_us": float(p50), "p99_us": float(p99)}
    print_json(data=robots)
    record.write(RESULT, load, periods=PERIODS, robots=robots)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
