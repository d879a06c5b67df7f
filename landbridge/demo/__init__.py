"""`landbridge demo`: the whole way, once, on real input; only the robot is a twin."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landbridge.demo.report import ARMS, FRAMES_PER_SECOND, write_report
from landbridge.demo.stages import Stages, console
from landbridge.episode import commit
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.simulation.render import render
from landbridge.simulation.scenario import load_scenario
from landbridge.training.bag import Bag, read_bag
from landbridge.training.statistics import bootstrap


def demo(
    out: Path = Path("demo"),
    robot: str = "furuta",
    scenario: str = "severe",
    source_steps: int = 100_000,
    target_seconds: float = 60.0,
    train_steps: int = 12_000,
    episodes: int = 20,
    seed: int = 0,
) -> dict[str, Any]:
    """Simulator logs to a policy running on the (twin) robot over ROS 2, with a report.

    Collects source data in MuJoCo, records the twin over ROS 2, ingests the bag, trains with and without alignment,
    exports a bundle, runs it in closed loop over ROS 2 and writes report.html. About ten minutes on two cores.

    Example: landbridge demo --out demo

    Args:
        out: New folder for everything the demo makes.
        robot: Name of a robot, or a folder with robot.yaml.
        scenario: Rung of the severity ladder that the twin stands on.
        source_steps: Simulator transitions.
        target_seconds: Robot time to record [s].
        train_steps: Gradient steps of each of the four arms.
        episodes: Closed-loop episodes over ROS 2.
        seed: Of everything random.
    """
    if out.exists():
        raise InputError(out, "already exists", "choose another --out or remove it")
    machine = load_robot(robot)
    rung = load_scenario(machine, scenario)
    began = time.monotonic()
    out.mkdir(parents=True)
    stages, which, seeded = Stages(out), ("--robot", robot), ("--seed", str(seed))
    source, target, bag = out / "data/source", out / "data/target", out / "bags/record"
    bundle, flown = out / "policy.bundle", out / "bags/deploy"

    collected = stages.run(
        "collect", "data/source", "collect", "--out", str(source), "--steps", str(source_steps), *which, *seeded
    )
    stages.run(
        "record", "bags/record", "record", "--out", str(bag), "--scenario", scenario,
        "--seconds", str(target_seconds), *which, *seeded,
    )  # fmt: skip
    ingested = stages.run("ingest", "data/target", "ingest", str(bag), "--out", str(target), *which)
    calibrated = stages.run("calibrate", "data/target", "calibrate", str(target), *which)
    training = stages.train("train", _training(out, source, target, scenario, train_steps, which, seeded), train_steps)
    exported = stages.run("export", bundle.name, "export", "--run", str(out / "runs/tabb"), "--out", str(bundle))
    policies = [str(out / "runs" / arm) for arm in ARMS]
    evaluated = stages.run("evaluate", "", "evaluate", "--policies", *policies, "--scenario", scenario, *which, *seeded)
    deployed = stages.run(
        "deploy", "bags/deploy", "up", "deploy", "--bundle", str(bundle), "--scenario", scenario,
        "--episodes", str(episodes), "--record", str(flown), *which, *seeded,
    )  # fmt: skip
    results: dict[str, Any] = {
        "facts": {
            "robot": machine.spec.name,
            "scenario": scenario,
            "seed": seed,
            "source_transitions": collected["steps"],
            "target_seconds": target_seconds,
            "latency_budget_ms": machine.spec.latency_budget_ms,
            "minutes": (time.monotonic() - began) / 60,
            "commit": commit(),
        },
        "collect": collected,
        "ingest": ingested,
        "calibrate": calibrated,
        "train": training,
        "export": exported,
        "evaluate": evaluated,
        "deploy": deployed | _interval(deployed["success"]),
        "stages": stages.rows,
    }
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    recording = read_bag(flown, machine.spec)
    frames = render(machine, rung, _motion(recording), width=400, height=320)
    report = write_report(out, results, recording.latency_ms, frames)
    console.rule("[bold]summary", align="left")
    return {"report": str(report), "minutes": results["facts"]["minutes"], **_summary(results)}


def _training(
    out: Path, source: Path, target: Path, scenario: str, steps: int, which: tuple[str, ...], seeded: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """The command of each arm: the same budget and agent, another use of the data."""
    data = ("--source", str(source), "--target", str(target), "--steps", str(steps), "--score", scenario, "--compile")
    return {
        arm: ("train", "--out", str(out / "runs" / arm), "--alignment", arm, *data, *which, *seeded) for arm in ARMS
    }


def _interval(success: list[bool]) -> dict[str, float]:
    scores = np.array([success], np.float64)
    low, high = bootstrap(scores)
    return {"success": float(scores.mean()), "success_low": low, "success_high": high}


def _summary(results: dict[str, Any]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [
        {
            "policy": ARMS[row["policy"]][0],
            "where": "Bullet",
            "success": f"{row['success']:.2f}",
            "95 %": f"{row['success_low']:.2f} .. {row['success_high']:.2f}",
            "episodes": results["evaluate"]["episodes"],
        }
        for row in results["evaluate"]["policies"]
    ]
    flown = results["deploy"]
    rows.append(
        {
            "policy": ARMS["tabb"][0],
            "where": "ROS 2 closed loop",
            "success": f"{flown['success']:.2f}",
            "95 %": f"{flown['success_low']:.2f} .. {flown['success_high']:.2f}",
            "episodes": flown["episodes"],
        }
    )
    return {"stages": results["stages"], "policies": rows}


def _motion(bag: Bag) -> NDArray[np.float64]:
    """Joint positions (T, J) of the longest episode of a bag, thinned to the report's frame rate."""
    longest = max(bag.segments, key=lambda segment: len(segment.stamps))
    step = max(1, round(bag.rate_hz / FRAMES_PER_SECOND))
    return longest.joint_pos[::step]
