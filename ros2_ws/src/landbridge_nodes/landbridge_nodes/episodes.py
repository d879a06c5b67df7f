"""Running episodes on a bring-up, and their figures. Imports rclpy: it is the operator's process."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from landbridge.deploy.supervisor import State
from landbridge.errors import InputError
from landbridge.robot import Robot
from landbridge_nodes.asking import ask_a_person
from landbridge_nodes.bringup import NodeSpec
from landbridge_nodes.operator import EStopError, Operator, Outcome
from landbridge_nodes.processes import Processes

FRUITLESS = 3  # episodes in a row in which the robot was never ACTIVE: time to fill would never be filled
SLACK_TICKS = 3  # between the operator's decision to end an episode and the end of ACTIVE


def run_episodes(
    robot: Robot, specs: list[NodeSpec], episodes: int = 0, seconds: float = 0.0, by_hand: bool = False
) -> dict[str, Any]:
    """Run `episodes` whole episodes, or as many as fill `seconds` of ACTIVE time, the last one cut short.

    An episode is one stretch of ACTIVE; one that a fault ended counts as failed, and the next begins after a reset.
    `by_hand` asks a person on the terminal, before each, to put the robot into a start state; else bridge or emulated
    board does it. An e-stop ends them: the figures are those of the episodes until then, and `failed` is among them.
    So is `left_in` if the last one leaves the robot in another state than STANDBY.

    Raises:
        InputError: A process ended, the graph did not come up, a service refused, what was armed is stopped again and
            again before it begins, there is no hardware, or a bag that is the purpose cannot be written.
    """
    recorders = [spec for spec in specs if spec.executable == "recorder"]
    placer: Literal["bridge", "board"] = "board" if any(spec.executable == "board" for spec in specs) else "bridge"
    outcomes: list[Outcome] = []
    failed = ""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with (
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress,
        Processes(specs) as processes,
        Operator(robot, processes.check, partial(_ask_without_bar, progress) if by_hand else None, placer) as operator,
    ):
        bar = progress.add_task("starting", total=episodes or seconds)
        operator.wait_ready(recorded=bool(recorders))
        operator.require_hardware()
        whole = operator.task.episode_steps + 1
        while not episodes or len(outcomes) < episodes:
            left = whole if episodes else _ticks_left(robot, seconds, outcomes)
            if left <= 1:
                break
            try:
                outcomes.append(operator.episode(min(whole, left)))
            except EStopError as stop:
                if not outcomes:
                    raise
                failed = str(stop)
                break
            done = len(outcomes) if episodes else sum(o.seconds for o in outcomes)
            description = f"{sum(o.success for o in outcomes)} of {len(outcomes)} successful"
            progress.update(bar, completed=done, description=description)
            newest = outcomes[-FRUITLESS:]
            if not episodes and len(newest) == FRUITLESS and not any(outcome.seconds for outcome in newest):
                problem = f"{FRUITLESS} episodes in a row were stopped before they began: {outcomes[-1].cut}"
                raise InputError("ROS graph", problem, "see the nodes' messages")
            if operator.unrecorded and any(spec.essential for spec in recorders):
                raise InputError("recorder", f"has stopped: {operator.unrecorded}", "free space, and record again")
        operator.refresh_diagnostics()
    return _figures(outcomes, operator) | ({"failed": failed} if failed else {})


def _ask_without_bar(progress: Progress, words: str) -> None:
    """Ask a person, with the progress bar paused."""
    progress.stop()
    ask_a_person(words)
    progress.start()


def _ticks_left(robot: Robot, seconds: float, outcomes: list[Outcome]) -> int:
    return math.floor((seconds - sum(o.seconds for o in outcomes)) * robot.spec.control_rate_hz) - SLACK_TICKS


def _figures(outcomes: list[Outcome], operator: Operator) -> dict[str, Any]:
    p50, p99, top = (round(float(p), 3) for p in np.percentile(operator.latency_ms or [math.nan], [50, 99, 100]))
    stayed = [f"{o.ended}: {o.reason}" for o in outcomes[-1:] if o.ended != State.STANDBY.value]
    guard = {key[6:]: int(count) for key, count in operator.diagnostics.items() if key.startswith("guard.")}
    return {
        "episodes": len(outcomes),
        "successes": sum(o.success for o in outcomes),
        "success": [o.success for o in outcomes],
        "ended": [o.cut for o in outcomes],
        **({"after_that": [o.reason for o in outcomes]} if any(o.reason != o.cut for o in outcomes) else {}),
        **({"left_in": stayed[0]} if stayed else {}),
        "ticks": sum(o.ticks for o in outcomes),
        "active_seconds": round(sum(o.seconds for o in outcomes), 3),
        "latency_p50_ms": p50,
        "latency_p99_ms": p99,
        "latency_max_ms": top,
        "bridge_ticks": int(operator.diagnostics["ticks"]),
        "missed_ticks": int(operator.diagnostics["missed_ticks"]),
        "guard": guard,
        **({"unrecorded": operator.unrecorded} if operator.unrecorded else {}),
    }
