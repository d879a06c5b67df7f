"""`landbridge demo`: the whole way, once, on real input; only the robot is a twin."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landbridge.demo.report import ARMS, DEPLOYED, FRAMES_PER_SECOND, write_report
from landbridge.demo.stages import Stages, console
from landbridge.episode import commit
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.simulation.render import render
from landbridge.simulation.scenario import load_scenario
from landbridge.training.bag import Bag, read_bag
from landbridge.training.statistics import bootstrap

# What the stages write, below the demo's folder.
SOURCE, TARGET = "data/source", "data/target"
RECORDED, FLOWN = "bags/record", "bags/deploy"
RUNS, BUNDLE = "runs", "policy.bundle"


def demo(
    out: Path = Path("demo"),
    robot: str = "furuta",
    scenario: str = "severe",
    source_steps: int = 100_000,
    target_seconds: float = 60.0,
    train_steps: int = 10_000,
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
        train_steps: Gradient steps of each of the five arms.
        episodes: Closed-loop episodes over ROS 2.
        seed: Of everything random.
    """
    if out.exists():
        raise InputError(out, "already exists", "choose another --out or remove it")
    machine = load_robot(robot)
    rung = load_scenario(machine, scenario)
    began = time.monotonic()
    out.mkdir(parents=True)
    stages = Stages(out)
    results = _run(stages, robot, scenario, (source_steps, train_steps, episodes), target_seconds, seed)
    results["facts"] = {
        "robot": machine.spec.name,
        "scenario": scenario,
        "seed": seed,
        "source_transitions": source_steps,
        "target_seconds": target_seconds,
        "latency_budget_ms": machine.spec.latency_budget_ms,
        "minutes": (time.monotonic() - began) / 60,
        "commit": commit(),
    }
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    flown = read_bag(out / FLOWN, machine.spec)
    frames = render(machine, rung, _motion(flown), width=400, height=320)
    report = write_report(out, results, flown.latency_ms, frames)
    console.rule("[bold]summary", align="left")
    minutes = results["facts"]["minutes"]
    return {"report": str(report), "minutes": minutes, "stages": stages.rows, "policies": _summary(results)}


def _run(
    stages: Stages, robot: str, scenario: str, sizes: tuple[int, int, int], target_seconds: float, seed: int
) -> dict[str, Any]:
    """Every stage in turn; its figures by name, and `stages`."""
    source_steps, train_steps, episodes = map(str, sizes)
    which, seeded, place = ("--robot", robot), ("--seed", str(seed)), ("--scenario", scenario)
    twin = ("--hardware", "twin")
    source, target, bag, runs, bundle, flown = (
        str(stages.folder / path) for path in (SOURCE, TARGET, RECORDED, RUNS, BUNDLE, FLOWN)
    )
    data = ("--source", source, "--target", target, "--steps", train_steps, "--score", scenario, "--compile")
    arms = {arm: ("train", "--out", f"{runs}/{arm}", "--alignment", arm, *data, *which, *seeded) for arm in ARMS}
    policies = [f"{runs}/{arm}" for arm in ARMS]
    flight = ("--bundle", bundle, "--episodes", episodes, "--record", flown)
    figures: dict[str, Any] = {
        "collect": stages.run("collect", SOURCE, "collect", "--out", source, "--steps", source_steps, *which, *seeded),
        "record": stages.run(
            "record", RECORDED, "record", "--out", bag, "--seconds", str(target_seconds), *place, *which, *seeded, *twin
        ),
    }
    figures["ingest"] = stages.run("ingest", TARGET, "ingest", bag, "--out", target, *which)
    # The simulator writes commands as late as the robot's computer did.
    scored = (*place, "--write-ms", str(figures["ingest"]["latency_p50_ms"]))
    if load_robot(robot).spec.action.kind == "effort":
        figures["calibrate"] = stages.run("calibrate", TARGET, "calibrate", "delay", target, *which)
    figures |= {
        "train": stages.train("train", arms, int(train_steps)),
        "export": stages.run("export", BUNDLE, "export", "--run", f"{runs}/{DEPLOYED}", "--out", bundle),
        "evaluate": stages.run("evaluate", "", "evaluate", "--policies", *policies, *scored, *which, *seeded),
        "deploy": stages.run("deploy", FLOWN, "up", "deploy", *flight, *place, *which, *seeded, *twin),
    }
    figures["deploy"] |= _interval(figures["deploy"]["success"])
    return figures | {"stages": stages.rows}


def _interval(success: list[bool]) -> dict[str, float]:
    scores = np.array([success], np.float64)
    low, high = bootstrap(scores)
    return {"success": float(scores.mean()), "success_low": low, "success_high": high}


def _summary(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per policy and place."""
    scored = [
        (row["policy"], "Bullet", results["evaluate"]["episodes"], row) for row in results["evaluate"]["policies"]
    ]
    flown = results["deploy"]
    return [
        {
            "policy": ARMS[arm][0],
            "where": where,
            "success": f"{row['success']:.2f}",
            "95 %": f"{row['success_low']:.2f} .. {row['success_high']:.2f}",
            "episodes": episodes,
        }
        for arm, where, episodes, row in [*scored, (DEPLOYED, "ROS 2 closed loop", flown["episodes"], flown)]
    ]


def _motion(bag: Bag) -> NDArray[np.float64]:
    """Joint positions (T, J) of the longest episode of a bag, thinned to the report's frame rate."""
    longest = max(bag.segments, key=lambda segment: len(segment.stamps))
    step = max(1, round(bag.rate_hz / FRAMES_PER_SECOND))
    return longest.joint_pos[::step]
