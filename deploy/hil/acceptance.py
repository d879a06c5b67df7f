"""The acceptance run: stages in their order, the robot safe and without torque after each, a signed-off account."""

from __future__ import annotations

import getpass
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from landbridge import __version__
from landbridge.deploy.hardware import Hardware
from landbridge.deploy.hil.loop import Failed, Loop, Skipped, reduced
from landbridge.deploy.hil.stages import STAGES, Plan, Result
from landbridge.errors import InputError
from landbridge.provenance import commit, now
from landbridge.robot import Robot
from landbridge.spec import require_at_least

SHARE = 0.2  # of effort and velocity limits


@dataclass(frozen=True)
class Account:
    """An acceptance run, as it is signed off.

    Attributes:
        signed: Who, when, what device and robot, and which versions, by name.
        plan: What was asked for.
        latency_budget_ms: Of the robot.
        joints: Of the robot, in the order of positions in the traces.
        results: One for each stage.
    """

    signed: dict[str, str]
    plan: Plan
    latency_budget_ms: float
    joints: list[str]
    results: list[Result]

    @property
    def failure(self) -> Result | None:
        """The stage that failed, if one did."""
        return next((result for result in self.results if result.verdict == "fail"), None)


def plan_for(robot: Robot, joints: Sequence[str], soak_s: float, latency_s: float) -> Plan:
    """The plan for some of the robot's joints, all actuated ones if none is named.

    Raises:
        InputError: A joint that is not there or not actuated, or times that are not positive.
    """
    actuated = robot.spec.actuated
    if unknown := [name for name in joints if name not in actuated]:
        raise InputError(
            "--joints", f"{unknown} are no actuated joints of {robot.spec.name}", f"name some of {actuated}"
        )
    for flag, seconds in (("--soak-s", soak_s), ("--latency-s", latency_s)):
        require_at_least(flag, seconds, 1)
    return Plan(tuple(joints) or tuple(actuated), soak_s, latency_s)


def accept(
    robot: Robot, hardware: Hardware, plan: Plan, operator: str, tell: Callable[[Result], None] = lambda _: None
) -> Account:
    """Every stage until one fails; the rest is `not run`. Leaves torque off, if it can be taken off.

    Args:
        hardware: Open; nothing else may use it.
        tell: Called with the result of each stage as it ends.
    """
    loop = Loop(reduced(robot.spec, SHARE), hardware)
    results = [Result(stage) for stage in STAGES]
    for result in results:
        _run(loop, plan, result)
        tell(result)
        if result.verdict == "fail":
            break
    signed = signatures(robot, operator) | {key: str(value) for key, value in results[0].figures.items()}
    return Account(signed, plan, robot.spec.latency_budget_ms, robot.spec.joint_names, results)


def signatures(robot: Robot, operator: str) -> dict[str, str]:
    """Who, when, what robot and which versions, by name."""
    return {
        "operator": operator or getpass.getuser(),
        "host": platform.node(),
        "time": now(),
        "robot": robot.spec.name,
        "digest of robot.yaml": robot.spec.digest(),
        "landbridge": f"{__version__}, commit {commit()}",
        "python": f"{platform.python_version()}, {platform.platform()}",
    }


def _run(loop: Loop, plan: Plan, result: Result) -> None:
    """One stage; afterwards the robot is parked without torque, or stopped without torque and the stage failed."""
    started = time.monotonic()
    try:
        try:
            STAGES[result.stage](loop, plan, result)
            result.verdict = "pass"
        except Skipped as skipped:
            result.verdict, result.reason = "skipped", str(skipped)
        loop.park()
    except (Failed, KeyboardInterrupt) as stopped:
        result.verdict, result.reason = "fail", str(stopped) or "interrupted"
        try:
            loop.end()
        except Failed as failed:
            result.reason += f"; and {failed}"
        except KeyboardInterrupt:
            result.reason += "; and again while stopping: torque off was asked for, and not checked"
    except BaseException:  # the program itself is wrong
        loop.end()
        raise
    result.seconds = time.monotonic() - started
