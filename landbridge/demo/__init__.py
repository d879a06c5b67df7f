"""`landbridge demo`: the whole way, once, on real input; only the robot is a twin."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landbridge.bag import Bag, read_bag
from landbridge.demo.report import ARMS, FRAMES_PER_SECOND, write_report
from landbridge.demo.stages import Stages, console
from landbridge.files import require_new, write_atomic
from landbridge.provenance import commit
from landbridge.robot import Robot, load_robot
from landbridge.simulation.render import render
from landbridge.simulation.scenario import load_scenario
from landbridge.spec import require_positive, require_seed
from landbridge.training.statistics import success_interval

# What the stages write, below the demo's folder.
SOURCE, TARGET, RECOLLECTED = "data/source", "data/target", "data/calibrated"
CALIBRATION = "calibration/calibration.yaml"
RECORDED, FLOWN = "bags/record", "bags/deploy"
RUNS, BUNDLE = "runs", "policy.bundle"
RETUNED = "20"  # generations of CMA-ES
CALIBRATED = "calibrated_"  # begins the names of arms with data of the calibrated simulator


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

    Collects source data in MuJoCo, records the twin over ROS 2, ingests the bag, calibrates the simulator and collects
    in it again, trains with and without alignment and on the calibrated logs, exports these as a bundle, runs it in
    closed loop over ROS 2 and writes report.html. About a quarter of an hour on two cores.

    Example: landbridge demo --out demo

    Args:
        out: New folder for everything the demo makes.
        robot: Name of a robot, or a folder with robot.yaml.
        scenario: Rung of the severity ladder that the twin stands on.
        source_steps: Simulator transitions.
        target_seconds: Robot time to record [s].
        train_steps: Gradient steps of each of the five trainings.
        episodes: Closed-loop episodes over ROS 2.
        seed: Seed of everything random.
    """
    sizes = {"--source-steps": source_steps, "--target-seconds": target_seconds, "--train-steps": train_steps}
    for flag, value in (sizes | {"--episodes": episodes}).items():
        require_positive(flag, value)
    require_seed(seed)
    require_new(out)
    machine = load_robot(robot)
    rung = load_scenario(machine, scenario)
    began = time.monotonic()
    out.mkdir(parents=True)
    way = Way(Stages(out), machine, robot, scenario, source_steps, target_seconds, train_steps, episodes, seed)
    results = way.go()
    results["facts"] = {
        "deployed": way.arms[-1],
        "robot": machine.spec.name,
        "scenario": scenario,
        "seed": seed,
        "source_transitions": source_steps,
        "target_seconds": target_seconds,
        "latency_budget_ms": machine.spec.latency_budget_ms,
        "minutes": (time.monotonic() - began) / 60,
        "commit": commit(),
    }
    write_atomic(out / "results.json", json.dumps(results, indent=2) + "\n")
    flown = read_bag(out / FLOWN, machine.spec)
    frames = render(machine, rung, _motion(flown), width=400, height=320)
    latency_ms = 1000 * np.concatenate([segment.written for segment in flown.segments])
    report = write_report(out, results, latency_ms[np.isfinite(latency_ms)].tolist(), frames)
    console.rule("[bold]summary", align="left")
    minutes = results["facts"]["minutes"]
    return {"report": str(report), "minutes": minutes, "stages": way.stages.rows, "policies": _summary(results)}


@dataclass(frozen=True)
class Way:
    """From logs to flight, stage by stage; the attributes are the arguments of `demo`."""

    stages: Stages
    machine: Robot
    robot: str
    scenario: str
    source_steps: int
    target_seconds: float
    train_steps: int
    episodes: int
    seed: int

    @property
    def arms(self) -> list[str]:
        """Ways to a policy; the last one is deployed."""
        return list(ARMS)

    def go(self) -> dict[str, Any]:
        """Every stage in turn; its figures by name, and `stages`."""
        figures = self._record() | self._calibrate()
        figures |= {"train": self.stages.train("train", self._trainings(), self.train_steps)} | self._fly(figures)
        return figures | {"stages": self.stages.rows}

    def _record(self) -> dict[str, Any]:
        out, bag = self._at(SOURCE), self._at(RECORDED)
        twin = ("--seconds", str(self.target_seconds), "--hardware", "twin", *self._place, *self._seeded)
        return {
            "collect": self.stages.run("collect", SOURCE, "collect", "--out", out, *self._size, *self._seeded),
            "record": self.stages.run("record", RECORDED, "record", "--out", bag, *twin),
            "ingest": self.stages.run("ingest", TARGET, "ingest", bag, "--out", self._at(TARGET), *self._which),
        }

    def _calibrate(self) -> dict[str, Any]:
        file, again = self._at(CALIBRATION), self._at(RECOLLECTED)
        robot = ("calibrate", "identify", self._at(TARGET), "--out", file)
        simulator = ("collect", "--out", again, "--calibration", file, "--retune", RETUNED, *self._size)
        return {
            "calibrate": self.stages.run("calibrate", CALIBRATION, *robot, *self._seeded),
            "collect again": self.stages.run("collect again", RECOLLECTED, *simulator, *self._seeded),
        }

    def _trainings(self) -> dict[str, tuple[str, ...]]:
        shared = ("--target", self._at(TARGET), "--steps", str(self.train_steps), "--score", self.scenario, "--compile")

        def command(arm: str) -> tuple[str, ...]:
            source = self._at(RECOLLECTED if arm.startswith(CALIBRATED) else SOURCE)
            kind = ("--alignment", arm.removeprefix(CALIBRATED), "--source", source)
            return "train", "--out", self._at(f"{RUNS}/{arm}"), *kind, *shared, *self._seeded

        return {arm: command(arm) for arm in self.arms}

    def _fly(self, figures: dict[str, Any]) -> dict[str, Any]:
        policies, bundle = [self._at(f"{RUNS}/{arm}") for arm in self.arms], self._at(BUNDLE)
        late = ("--write-ms", str(figures["ingest"]["latency_p50_ms"]))  # as late as the robot's computer wrote
        flight = ("--episodes", str(self.episodes), "--record", self._at(FLOWN), "--hardware", "twin")
        there = (*self._place, *self._seeded)
        found = {
            "export": self.stages.run("export", BUNDLE, "export", "--run", policies[-1], "--out", bundle),
            "evaluate": self.stages.run("evaluate", "", "evaluate", "--policies", *policies, *late, *there),
            "deploy": self.stages.run("deploy", FLOWN, "up", "deploy", "--bundle", bundle, *flight, *there),
        }
        found["deploy"] |= _interval(found["deploy"]["success"])
        return found

    def _at(self, path: str) -> str:
        return str(self.stages.folder / path)

    @property
    def _which(self) -> tuple[str, ...]:
        return ("--robot", self.robot)

    @property
    def _seeded(self) -> tuple[str, ...]:
        return (*self._which, "--seed", str(self.seed))

    @property
    def _place(self) -> tuple[str, ...]:
        return ("--scenario", self.scenario)

    @property
    def _size(self) -> tuple[str, ...]:
        return ("--steps", str(self.source_steps))


def _interval(success: list[bool]) -> dict[str, float]:
    scores = np.array([success], np.float64)
    low, high = success_interval(scores)
    return {"success": float(scores.mean()), "success_low": low, "success_high": high}


def _summary(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per policy and place."""
    scored = [
        (row["policy"], "Bullet", results["evaluate"]["episodes"], row) for row in results["evaluate"]["policies"]
    ]
    flown, deployed = results["deploy"], results["facts"]["deployed"]
    return [
        {
            "policy": ARMS[arm][0],
            "where": where,
            "success": f"{row['success']:.2f}",
            "95 %": f"{row['success_low']:.2f} .. {row['success_high']:.2f}",
            "episodes": episodes,
        }
        for arm, where, episodes, row in [
            *scored,
            (deployed, "ROS 2 closed loop", flown["episodes"], flown),
        ]
    ]


def _motion(bag: Bag) -> NDArray[np.float64]:
    """Joint positions (T, J) of the longest episode of a bag, thinned to the report's frame rate."""
    longest = max(bag.segments, key=lambda segment: len(segment.stamps))
    step = max(1, round(bag.rate_hz / FRAMES_PER_SECOND))
    return longest.joint_pos[::step]
