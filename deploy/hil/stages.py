"""The stages of an acceptance run: each moves the robot a little, or not at all, and says what it has seen.

A stage finds the robot in STANDBY without torque and arms it itself. It raises `Failed` when something is wrong, and
`Skipped` for what the hardware does not offer; whoever runs it parks the robot afterwards.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from landbridge.deploy.clock import uptime
from landbridge.deploy.hardware import Reporting
from landbridge.deploy.hil.loop import REPORT_SECONDS, Failed, Loop, Skipped, Tick
from landbridge.deploy.hil.nudge import nudge
from landbridge.verdict import Reason

IDENTITY_SECONDS = 0.5
BEYOND = 0.05  # rad beyond a position limit at which a joint may be found
HUGE = 10.0  # times a limit
ROUNDING = 1e-9
HAIR = 0.005  # rad, three steps of a servo's encoder
MISSED_SHARE = 0.01  # of the control periods, late ones that are borne


class Trace(NamedTuple):
    """A stretch of control periods worth a plot."""

    title: str
    joint: str
    ticks: list[Tick]


@dataclass
class Result:
    """What has become of a stage.

    Attributes:
        verdict: pass, fail, skipped or not run.
        reason: Why it is not a pass.
        figures: What was measured, by name; units as suffixes.
        rows: The same, one for each joint or trial.
        traces: Moves.
        latency_ms: From the write of each command to the report that shows it in effect.
    """

    stage: str
    verdict: str = "not run"
    reason: str = ""
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        joints: The actuated joints that may move.
        soak_s: How long the robot works on at the end [s].
        latency_s: How long latency and jitter are measured [s].
    """

    joints: tuple[str, ...]
    soak_s: float
    latency_s: float


Stage = Callable[[Loop, Plan, Result], None]


def identity(loop: Loop, plan: Plan, result: Result) -> None:
    """Who answers, and whether every joint is where it may be. Nothing moves."""
    hardware = loop.hardware
    reported = dict(hardware.identity) if isinstance(hardware, Reporting) else {}
    result.figures |= {"driver": type(hardware).__name__} | reported
    for _ in range(round(IDENTITY_SECONDS * loop.spec.control_rate_hz)):
        tick = loop.tick()
        if loop.fault or not all(map(math.isfinite, (*tick.position, *tick.velocity))):
            raise Failed(f"cannot be read: {loop.fault or 'not finite'}")
    for joint, position in zip(loop.spec.joints, loop.last.position, strict=True):
        lower, upper = joint.position_range
        span = f"{lower:g} .. {upper:g}" if joint.position_limit else "none"
        moves = "yes" if joint.name in plan.joints else "no" if joint.actuated else "passive"
        result.rows.append(
            {
                "joint": joint.name,
                "to move": moves,
                "position_rad": position,
                "limits": span,
            }
        )
        if not lower - BEYOND <= position <= upper + BEYOND:
            remedy = "move it, set encoder.offset, or its encoder is that of another joint"
            raise Failed(f"{joint.name} is at {position:.3f} rad, outside {span}: {remedy}")


def wiring(loop: Loop, plan: Plan, result: Result) -> None:
    """Each joint alone, a little and slowly, both ways: it moves, as commanded, and the others stay."""
    loop.arm()
    for joint in plan.joints:
        for sign in (1, -1):
            move = nudge(loop, joint, sign)
            result.rows.append(move.row())
            result.traces.append(Trace(f"{joint} {'+' if sign > 0 else '-'}", joint, move.ticks))
            if problem := move.problem():
                raise Failed(problem)
            loop.rest()
    loop.trusted = True


def limits(loop: Loop, plan: Plan, result: Result) -> None:
    """The guard refuses what is invalid and limits what is large; nothing outside the limits is written."""
    loop.arm()
    names, bounds = loop.spec.actuated, _bounds(loop)
    zeros, rogue = [0.0] * len(names), ["no_such_joint", *names[1:]]
    for what, shift, sent, values, expected in (
        ("NaN", 0, names, [math.nan] * len(names), Reason.NOT_FINITE),
        ("infinity", 0, names, [math.inf] * len(names), Reason.NOT_FINITE),
        ("an unknown joint", 0, rogue, zeros, Reason.WRONG_NAMES),
        ("an answer to no measurement", 1000, names, zeros, Reason.UNKNOWN_STAMP),
        ("a second answer to one measurement", -1, names, zeros, Reason.DUPLICATE),
        ("an answer to an old measurement", -2, names, zeros, Reason.STALE),
    ):
        _judge(loop, result, bounds, what, shift, sent, values, expected)
    for sign in (1, -1):
        huge = [
            sign * HUGE * bound if name in plan.joints else idle
            for name, bound, idle in zip(names, bounds, loop.idle(), strict=True)
        ]
        _judge(loop, result, bounds, f"{sign * HUGE:+g} times the limit", 0, names, huge, Reason.LIMITED)
    loop.rest()


def _judge(
    loop: Loop,
    result: Result,
    bounds: list[float],
    what: str,
    shift: int,
    names: list[str],
    values: list[float],
    expected: Reason,
) -> None:
    """Send one command that answers the measurement `shift` after the newest; raises Failed at another verdict."""
    loop.step(loop.idle())
    while not loop.tick().news:  # nothing new comes for max_command_age_ms at most, then there is a fault
        pass
    verdict, _ = loop.send(loop.stamp + shift, names, values)
    largest = max(abs(value) / bound for value, bound in zip(verdict.command, bounds, strict=True))
    if not verdict.write:
        loop.send(loop.stamp, loop.spec.actuated, loop.idle())  # that measurement is not left unanswered
    row = {"asked": what, "verdict": verdict.reason.value, "written": verdict.write, "largest_of_limit": largest}
    result.rows.append(row)
    if verdict.reason is not expected or verdict.write != (expected is Reason.LIMITED) or largest > 1 + ROUNDING:
        raise Failed(f"{what} was judged {verdict.reason.value}, {largest:.2f} of the limit, not {expected.value}")


def latency(loop: Loop, plan: Plan, result: Result) -> None:
    """From the write of a command to the report that shows it in effect; how even the control periods are."""
    loop.arm()
    loop.clear()
    hardware = loop.hardware
    wanted = _swaying(loop, plan)
    for _ in range(round(plan.latency_s * loop.spec.control_rate_hz)):
        written = loop.step(next(wanted)).written_at
        if written is None or not isinstance(hardware, Reporting):
            continue
        if loop.listen(partial(hardware.in_effect, written), loop.due - uptime()):
            result.latency_ms.append(1000 * (uptime() - written))
    ticks = loop.ticks[1:]
    result.figures |= _regularity(loop, ticks)
    if not isinstance(hardware, Reporting):
        result.figures["latency"] = "not reported by this driver"
    elif len(ticks) - len(result.latency_ms) > _borne(len(ticks)):
        raise Failed(f"{len(result.latency_ms)} of {len(ticks)} commands were in effect before the next one")
    else:
        p50, p99, top = np.percentile(result.latency_ms, [50, 99, 100]).tolist()
        budget = loop.spec.latency_budget_ms
        result.figures |= {"latency_p50_ms": p50, "latency_p99_ms": p99, "latency_max_ms": top, "budget_ms": budget}
        if p99 > budget:
            raise Failed(f"p99 of {p99:.1f} ms is above the robot's latency_budget_ms {budget:g}")
    _require_regular(result)


def watchdog(loop: Loop, plan: Plan, result: Result) -> None:
    """In motion, the host falls silent: the device stops by itself in the time that it was told."""
    hardware = loop.hardware
    if not isinstance(hardware, Reporting):
        raise Skipped("this driver knows of no watchdog")
    if math.isinf(hardware.watchdog):
        raise Skipped("this hardware has none: if the host dies, it goes on to its last command, and holds it")
    allowed = hardware.watchdog + loop.spec.control_dt
    loop.arm()
    before = _moved(loop, plan.joints[0])
    silent_since = before.written_at or before.time
    ends = silent_since + allowed
    if not hardware.streams:  # to ask is to speak: it is asked when it must have stopped
        time.sleep(max(0.0, ends - uptime()))
        ends += REPORT_SECONDS
    loop.listen(lambda: bool(hardware.stopped), ends - uptime())
    after_ms = 1000 * (uptime() - silent_since)
    result.figures |= {"stated_ms": 1000 * hardware.watchdog, "fault": hardware.fault}
    silence = f"in {1000 * allowed:.0f} ms of silence"
    if not hardware.stopped:  # by what the device reports: one late answer is a fault of another name
        raise Failed(f"{silence}: {hardware.fault or 'no fault'}, its watchdog is dead")
    if dead := [name for name in loop.spec.actuated if name not in hardware.stopped]:
        raise Failed(f"{silence}: {hardware.fault}, but the watchdog of {', '.join(dead)} is dead")
    if hardware.streams:
        result.figures["noticed_after_ms"] = after_ms
    else:
        result.figures["stopped_within_ms"] = 1000 * allowed
    loop.reset()
    at = loop.spec.joint_names.index(plan.joints[0])
    result.figures["moved_rad"] = abs(loop.last.position[at] - before.position[at])
    loop.arm()
    loop.rest()


def stop_distance(loop: Loop, plan: Plan, result: Result) -> None:
    """In slow motion the controller is lost: how far each joint goes in HOLD or DAMP."""
    for joint in plan.joints:
        loop.arm()
        start, ticks = _moved(loop, joint), loop.stop()
        at = loop.spec.joint_names.index(joint)
        if loop.fault:
            raise Failed(f"{joint}: {loop.fault} while stopping")
        way = max(abs(tick.position[at] - start.position[at]) for tick in ticks)
        row = {"joint": joint, "from_rad_s": start.velocity[at], "distance_rad": way}
        result.rows.append(row | {"time_ms": 1000 * (ticks[-1].time - start.time)})
        result.traces.append(Trace(f"{joint} stops", joint, [start, *ticks]))
        loop.reset()


def soak(loop: Loop, plan: Plan, result: Result) -> None:
    """The named joints to and fro until the time is up, without a fault."""
    loop.arm()
    loop.clear()
    started, counted, moves = uptime(), dict(loop.hardware.counters), 0
    while uptime() - started < plan.soak_s:
        _moved(loop, plan.joints[moves % len(plan.joints)])
        loop.rest()
        moves += 1
    events = {name: count - counted.get(name, 0) for name, count in loop.hardware.counters.items()}
    result.figures |= {"moves": moves, **_regularity(loop, loop.ticks[1:]), **{k: n for k, n in events.items() if n}}
    _require_regular(result)


STAGES: dict[str, Stage] = {
    "identity": identity,
    "wiring": wiring,
    "limits": limits,
    "latency": latency,
    "watchdog": watchdog,
    "stop": stop_distance,
    "soak": soak,
}


def _moved(loop: Loop, joint: str) -> Tick:
    """Nudge a joint inwards: the control period in which it has got there; raises Failed if it has not."""
    move = nudge(loop, joint, loop.inwards(joint))
    if problem := move.problem():
        raise Failed(problem)
    return move.ticks[-1]


def _swaying(loop: Loop, plan: Plan) -> Iterator[Sequence[float]]:
    """Commands that keep the robot where it is, each different from the last: a driver may tell them by their values.

    Positions of the plan's joints go HAIR inwards and back.
    """
    here = loop.idle()
    inwards = [HAIR * loop.inwards(name) if name in plan.joints else 0.0 for name in loop.spec.actuated]
    for period in itertools.count(1):
        if loop.spec.action.kind == "position":
            yield [at + period % 2 * way for at, way in zip(here, inwards, strict=True)]
        else:
            yield loop.idle()


def _bounds(loop: Loop) -> list[float]:
    """The largest command of each actuated joint, by magnitude."""
    joints = loop.spec.driven
    if loop.spec.action.kind == "position":
        return [max(map(abs, joint.position_limit or (-math.pi, math.pi))) for joint in joints]
    return [joint.effort_limit if loop.spec.action.kind == "effort" else joint.velocity_limit for joint in joints]


def _regularity(loop: Loop, ticks: list[Tick]) -> dict[str, Any]:
    """Rate and jitter of control periods, those missed, and commands that the guard refused."""
    steps = np.diff([tick.time for tick in ticks])
    off = 1000 * np.abs(steps - loop.spec.control_dt)
    return {
        "periods": len(ticks),
        "rate_hz": float(1 / steps.mean()),
        "jitter_p99_ms": float(np.percentile(off, 99)),
        "jitter_max_ms": float(off.max()),
        "missed": sum(tick.late for tick in ticks),
        "refused": sum(tick.verdict is not None and not tick.verdict.write for tick in ticks),
    }


def _borne(periods: int) -> float:
    """How many late periods are borne: one in any run, however short."""
    return max(1.0, MISSED_SHARE * periods)


def _require_regular(result: Result) -> None:
    missed, periods = result.figures["missed"], result.figures["periods"]
    if missed > _borne(periods):
        raise Failed(f"{missed} of {periods} control periods were missed: give the loop a core of its own")
