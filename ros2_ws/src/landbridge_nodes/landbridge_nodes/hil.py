"""`landbridge hil run`: the acceptance run of `deploy/hil`, and with a bundle the ROS graph in closed loop after it."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape

from landbridge.bundle import read_bundle
from landbridge.deploy.hardware import choose_hardware, open_hardware
from landbridge.deploy.hil.acceptance import SHARE, Account, accept, plan_for
from landbridge.deploy.hil.nudge import DISTANCE
from landbridge.deploy.hil.report import write_junit, write_report
from landbridge.deploy.hil.stages import Plan, Result
from landbridge.deploy.supervisor import State
from landbridge.errors import InputError
from landbridge.files import require_new
from landbridge.real_time import BRIDGE_PRIORITY, take_priority
from landbridge.robot import Robot, load_robot
from landbridge_nodes import bringup
from landbridge_nodes.asking import ask_a_person
from landbridge_nodes.bringup import NodeSpec
from landbridge_nodes.process import require_one_ros
from landbridge_nodes.processes import Processes
from landbridge_nodes.transport import stay_on_this_machine

COLOURS = {"pass": "green", "fail": "red", "skipped": "yellow", "not run": "bright_black"}

console = Console(stderr=True, highlight=False)


def run(
    port: str = "",
    hardware: str = "",
    robot: str = "furuta",
    joints: tuple[str, ...] = (),
    soak_s: float = 600.0,
    latency_s: float = 10.0,
    bundle: Path | None = None,
    out: Path = Path("hil"),
    operator: str = "",
    yes: bool = False,
) -> dict[str, Any]:
    """Accept a robot's hardware, stage by stage, before any policy drives it.

    Identity; wiring and direction of each joint; limits; latency and jitter; watchdog; stop distance; a soak; with a
    bundle, an episode of its policy over ROS 2. Everything moves slowly, behind the guard, with a fifth of the joints'
    speed and effort (the policy: with all of it). Where positions are commanded only speed is reduced: each drive has
    all its force. After every stage the robot is parked and torque is off: an arm falls from its parking pose, and the
    next stage waits until it rests. The first failure stops the robot and takes torque off, wherever it is: support
    what would fall. Exit code 2 then.

    Example: landbridge hil run --port /dev/serial/by-id/usb-... --joints arm --out hil

    Args:
        port: Serial port, in place of the robot's own; one alone asks for mcu.
        hardware: Back end, in place of the robot's own line.
        robot: Robot that ships with landbridge, or folder of one.
        joints: Actuated joints to try, one after the other; all if none is named. On a robot commanded in position
            every joint, named or not, also goes to its default position and to the parking pose.
        soak_s: How long the joints go to and fro at the end [s].
        latency_s: How long latency and jitter are measured [s].
        bundle: Bundle to run in closed loop at the end.
        out: Folder to write report.html and junit.xml into; must not exist.
        operator: Who signs; the user's name if empty.
        yes: Do not ask before the robot moves.

    Returns:
        Verdict, time and reason of each stage.
    """
    loaded = load_robot(robot)
    plan = plan_for(loaded, joints, soak_s, latency_s)
    settings = choose_hardware(loaded.spec, hardware, port)
    require_new(out)
    if bundle is not None:
        require_one_ros()
        read_bundle(bundle).require_robot(loaded.spec)
    if not yes:
        _ask(loaded, plan)  # with the port closed: nobody would read it meanwhile
    with closing(open_hardware(loaded, settings, "none", 0)) as opened, _in_real_time():
        account = accept(loaded, opened, plan, operator, _tell)
    if bundle is not None:
        result = Result("closed loop")
        if account.failure is None:
            which = str(loaded.folder.resolve()), "none", 0, str(bundle.resolve())
            specs = bringup.deploy(*which, hardware=hardware, port=port)
            close_the_loop(loaded, specs, result, by_hand=settings.kind != "twin", ask=not yes)
            _tell(result)
        account.results.append(result)
    return _written(account, out)


def close_the_loop(robot: Robot, specs: list[NodeSpec], result: Result, by_hand: bool, ask: bool) -> None:
    """One episode of the policy over ROS 2, with all of the robot's limits: it ends on time and without a fault.

    A robot that is placed `by_hand` starts from where it is if nobody is asked.
    """
    from landbridge_nodes.neighbours import Neighbours
    from landbridge_nodes.operator import Operator

    person = (ask_a_person if ask else (lambda words: None)) if by_hand else None
    started = time.monotonic()
    try:
        stay_on_this_machine()
        with Neighbours() as neighbours:
            neighbours.require_none()
        with Processes(specs) as processes, Operator(robot, processes.check, person) as graph:
            graph.wait_ready(recorded=False)
            ticks = graph.task.episode_steps + 1
            outcome = graph.episode(ticks)
            graph.refresh_diagnostics()
    except InputError as error:
        result.verdict, result.reason = "fail", str(error)
        return
    finally:
        result.seconds = time.monotonic() - started
    p50, p99, top = np.percentile(graph.latency_ms or [math.nan], [50, 99, 100]).tolist()
    result.figures |= {"ticks": outcome.ticks, "success": outcome.success}
    result.figures |= {"missed": int(graph.diagnostics["missed_ticks"])}
    result.figures |= {"latency_p50_ms": p50, "latency_p99_ms": p99, "latency_max_ms": top}
    ended = outcome.ticks == ticks and outcome.ended == State.STANDBY.value
    result.verdict = "pass" if ended else "fail"
    result.reason = "" if ended else f"{outcome.ended} after {outcome.ticks} of {ticks} ticks: {outcome.reason}"


def _ask(robot: Robot, plan: Plan) -> None:
    kind, safety = robot.spec.action.kind, robot.spec.safety
    led = (
        "every joint, named or not, first goes to its default position, and after each stage to the parking pose, at "
        f"up to {safety.parking_speed:g} rad/s; "
        if kind == "position"
        else ""
    )
    limited = "speed, and all the force that its drives have" if kind == "position" else "effort and speed"
    console.print(
        f"[bold]{robot.spec.name}[/]: {led}{', '.join(plan.joints)} will move by about {DISTANCE:g} rad to and fro for "
        f"{plan.soak_s + plan.latency_s:.0f} s and more, commanded in {kind}, with {SHARE:.0%} of its {limited}. "
        "Torque goes off after each stage and after a failure: support what would fall, and let it come to rest. Keep "
        "the emergency stop in your hand."
    )
    try:
        ask_a_person("step back, then press Enter (Ctrl-C: not now)")
    except EOFError:
        raise InputError("hil run", "asks before it moves, and nobody answers", "give --yes") from None


def _tell(result: Result) -> None:
    colour = COLOURS[result.verdict]
    console.print(
        f"{result.stage:12} [{colour}]{result.verdict}[/]  {result.seconds:5.1f} s  {escape(result.reason)}",
        soft_wrap=True,
    )


@contextmanager
def _in_real_time() -> Iterator[None]:
    """Scheduled as the bridge is, where that is allowed."""
    if not take_priority(BRIDGE_PRIORITY):
        console.print("no right to real-time priority: a busy machine will delay control")
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        take_priority(0)


def _written(account: Account, out: Path) -> dict[str, Any]:
    """Report and junit.xml; raises InputError if a stage failed."""
    out.mkdir(parents=True)
    page, junit = write_report(out / "report.html", account), write_junit(out / "junit.xml", account)
    if (failed := account.failure) is not None:
        raise InputError(failed.stage, failed.reason, f"see {page}")
    rows = [{"stage": r.stage, "verdict": r.verdict, "seconds": r.seconds, "reason": r.reason} for r in account.results]
    return {"report": str(page), "junit": str(junit), "stages": rows}
