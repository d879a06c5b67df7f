"""`landbridge up` and `landbridge record`: the bring-ups of `launch/` for machines without `ros2 launch`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from landbridge.bundle import read_bundle
from landbridge.errors import InputError
from landbridge.robot import Robot, load_robot
from landbridge_nodes import bringup
from landbridge_nodes.bringup import NodeSpec
from landbridge_nodes.process import require_one_ros
from landbridge_nodes.processes import Processes

if TYPE_CHECKING:
    from landbridge_nodes.operator import Outcome

SLACK_TICKS = 3  # between the operator's decision to end an episode and the end of ACTIVE
LOCAL = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}  # twin and operator share a machine

console = Console(stderr=True, highlight=False)


def record(
    out: Path, robot: str = "furuta", scenario: str = "severe", seconds: float = 60.0, seed: int = 0
) -> dict[str, Any]:
    """Record target rollouts of the twin over ROS 2 into an MCAP bag (rosbag2 layout).

    Example: landbridge record --out bags/severe --scenario severe --seconds 60

    Args:
        out: Bag folder to write; must not exist.
        robot: Robot that ships with landbridge, or folder of one.
        scenario: Rung of the robot's scenarios.yaml.
        seconds: Robot time at most: the sum of all episodes; the last one is cut short if need be.
        seed: Of start states, noise and behaviour.
    """
    loaded = _check(robot, scenario)
    _require_new(out)
    specs = bringup.record(_name(robot), scenario, seed, str(out.resolve()))
    figures = _episodes(loaded, specs, seconds=seconds)
    return {"bag": str(out), "scenario": scenario, **figures}


def up(
    mode: Literal["deploy", "twin"],
    bundle: Path | None = None,
    robot: str = "furuta",
    scenario: str = "severe",
    episodes: int = 0,
    record: Path | None = None,
    seed: int = 0,
) -> dict[str, Any] | None:
    """Start the ROS 2 nodes of a bring-up; run episodes and report, or stay up until Ctrl-C.

    Example: landbridge up --mode deploy --bundle runs/tabb/bundle --episodes 20

    Args:
        mode: `deploy` runs a bundle; `twin` is the robot's side alone, for a policy started elsewhere.
        bundle: Bundle to run (deploy).
        robot: Robot that ships with landbridge, or folder of one.
        scenario: Rung of the robot's scenarios.yaml.
        episodes: Number of episodes to run; 0 leaves arming to you (`/monitor/arm`) and stays up.
        record: Bag folder to write (deploy).
        seed: Of start states and noise.
    """
    loaded = _check(robot, scenario)
    if mode == "twin":
        if bundle is not None or record is not None or episodes:
            raise InputError("--mode twin", "takes no --bundle, --record or --episodes", "use --mode deploy")
        specs = bringup.twin(_name(robot), scenario, seed)
    else:
        if bundle is None:
            raise InputError("--bundle", "is missing", "name the output of `landbridge export`")
        read_bundle(bundle).require_robot(loaded.spec)
        if record is not None:
            _require_new(record)
        out = "" if record is None else str(record.resolve())
        specs = bringup.deploy(_name(robot), scenario, seed, str(bundle.resolve()), out)
    if not episodes:
        _stay(specs)
    return {"bundle": str(bundle), "scenario": scenario, **_episodes(loaded, specs, episodes=episodes)}


def _check(robot: str, scenario: str) -> Robot:
    """Everything that can be wrong before a process is started."""
    from landbridge.simulation.scenario import load_scenario

    require_one_ros()
    loaded = load_robot(robot)
    load_scenario(loaded, scenario)
    return loaded


def _name(robot: str) -> str:
    """A robot's folder as an absolute path, for processes that may run elsewhere; a shipped one keeps its name."""
    return str(Path(robot).resolve()) if Path(robot).is_dir() else robot


def _require_new(path: Path) -> None:
    if path.exists():
        raise InputError(path, "already exists", "choose another folder or remove it")


def _stay(specs: list[NodeSpec]) -> NoReturn:
    with Processes(specs) as processes:
        console.print("up; arm with the service /monitor/arm, end with Ctrl-C")
        while True:
            processes.check()
            time.sleep(0.2)


def _episodes(
    robot: Robot, specs: list[NodeSpec], episodes: int | None = None, seconds: float = float("inf")
) -> dict[str, Any]:
    """Run `episodes` whole episodes, or as many as fill `seconds` of ACTIVE time, the last one cut short."""
    from landbridge_nodes.operator import Operator

    os.environ.update(LOCAL)
    outcomes: list[Outcome] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with (
        Processes(specs) as processes,
        Operator(robot, processes.check) as operator,
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
    ):
        whole = operator.task.episode_steps + 1
        rate = robot.spec.control_rate_hz
        total = episodes or int(np.ceil(seconds * rate / whole))
        bar = progress.add_task("starting", total=total)
        operator.wait_ready(recorded=any(spec.executable == "recorder" for spec in specs))
        while len(outcomes) < total:
            left = seconds - sum(outcome.seconds for outcome in outcomes)
            ticks = min(whole, int(min(left, 1e6) * rate) - SLACK_TICKS)
            if ticks <= 1:
                break
            outcomes.append(operator.episode(ticks))
            progress.update(bar, advance=1, description=f"{sum(o.success for o in outcomes)} successful")
        diagnostics, latency = dict(operator.diagnostics), list(operator.latency_ms)
    p50, p99, top = np.percentile(latency, [50, 99, 100])
    return {
        "episodes": len(outcomes),
        "successes": sum(o.success for o in outcomes),
        "success": [o.success for o in outcomes],
        "ended": [o.ended if o.ended == "STANDBY" else o.reason for o in outcomes],
        "ticks": sum(o.ticks for o in outcomes),
        "active_seconds": round(sum(o.seconds for o in outcomes), 3),
        "latency_p50_ms": round(float(p50), 3),
        "latency_p99_ms": round(float(p99), 3),
        "latency_max_ms": round(float(top), 3),
        "missed_ticks": int(diagnostics.get("missed_ticks", 0)),
        "guard": {key[6:]: int(count) for key, count in diagnostics.items() if key.startswith("guard.")},
    }
