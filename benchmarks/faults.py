"""The faults that guard and supervisor must survive, injected in virtual time.

Each row is injected into an ACTIVE robot at four phases of heartbeat and control period, on each robot it concerns; the
worst case counts. `tests/deploy/test_faults.py` holds every row to what it names; `safety_page.py` writes the table.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from virtual_rig import BEAT, LAME, ROBOTS, STEP, TICK, Command, Numbers, Rig

from landbridge.deploy.guard import Guard
from landbridge.deploy.supervisor import RECOVERY_TIMEOUT, Event, State, Supervisor

HOUR = 3_600_000_000_000  # ns
OVERFLOW = 2**16 * 2 * math.pi / 4096  # rad by which a 16 bit counter of 4096 ticks a turn wraps
BEFORE, AFTER = 0.5, 2.0  # s of good work before a fault, s of watching after it; a PARK is watched to its end
STOP = "HOLD or DAMP"  # where the supervisor waits for a robot whose rest cannot be seen

Inject = Callable[[Rig], None]


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        notice: The named fault that stops the robot; for one that does not, the guard's reason, or "" for none.
        state: Where it leads within AFTER seconds.
        periods: Control periods from injection to the stop, at most.
    """

    group: str
    name: str
    inject: Inject
    notice: str
    state: str = "FAULT"
    periods: float = 4.0
    robots: tuple[str, ...] = ROBOTS


class Outcome(NamedTuple):
    """What one injection led to; times in control periods after it, None where there was nothing.

    Attributes:
        last: The last command of the policy that reached the motors.
        back: What it took to be ACTIVE again.
    """

    notice: str
    state: str
    stopped: float | None
    last: float | None
    back: tuple[str, ...]
    outside: int
    after_stop: int


def measure(fault: Fault, robot: str, phase: int) -> Outcome:
    """Inject `fault` into an ACTIVE robot, `phase` steps after a heartbeat; then heal it and lead it back to ACTIVE."""
    rig = Rig(robot)
    rig.run(BEFORE)
    rig.activate()
    rig.run(BEFORE)
    while rig.step % BEAT != phase:
        rig.run(0.01)
    struck, before = rig.step, rig.guard.counters.copy()
    fault.inject(rig)
    rig.run(AFTER)
    while rig.supervisor.state is State.PARK:
        rig.run(0.1)
    written = [(step - struck, verdict, asked) for step, verdict, asked in rig.writes if step > struck]
    stops = [step for step, _, asked in written if not asked]
    asked = [step for step, _, asked in written if asked]
    moving = rig.supervisor.state is State.ACTIVE and rig.guard.fault is None
    refused = set(rig.guard.counters - before) - {"ok"}
    notice = ",".join(sorted(refused)) if moving else _named(rig)
    state = STOP if rig.supervisor.state in (State.HOLD, State.DAMP) else rig.supervisor.state.value
    return Outcome(
        notice,
        state,
        None if moving or not stops else stops[0] / TICK,
        None if moving or not asked else asked[-1] / TICK,
        () if moving else _way_back(rig),
        rig.outside,
        sum(step > stops[0] for step in asked) if stops and not moving else 0,
    )


def _named(rig: Rig) -> str:
    return rig.supervisor.reason if rig.monitor_runs or rig.guard.fault is None else rig.guard.fault.value


def _way_back(rig: Rig) -> tuple[str, ...]:
    """Tries to arm first, which must not help where a fault is latched."""
    started = [name for name in ("monitor", "bridge") if not getattr(rig, f"{name}_runs")]
    if "monitor" in started:
        rig.supervisor = Supervisor(rig.spec)
    if "bridge" in started:
        rig.guard = Guard(rig.spec)
    rig.heal()
    rig.run(0.5)
    while rig.supervisor.state in (State.HOLD, State.DAMP):
        rig.run(0.1)
    steps = [f"start the {name}" for name in started]
    if rig.operate(Event.ARM, 0.5):
        return (*steps, "arm")
    while not rig.operate(Event.RESET, 0.5):  # until a healthy encoder is believed again, and the robot known to rest
        assert rig.step * STEP < RECOVERY_TIMEOUT, rig.supervisor.reason
    assert rig.supervisor.state is State.STANDBY, rig.supervisor.state
    rig.activate()
    return (*steps, "reset", "arm")


def commands(change: Callable[[Rig, Command], Iterable[Command]]) -> Inject:
    """A policy whose every healthy command is replaced by others."""

    def inject(rig: Rig) -> None:
        rig.policy = lambda stamp, position: [
            c for healthy in rig.answer(stamp, position) for c in change(rig, healthy)
        ]

    return inject


def edited(change: Callable[[Rig, Command], dict[str, object]]) -> Inject:
    """Some fields of every command replaced."""
    return commands(lambda rig, command: [command._replace(**change(rig, command))])


def values(bad: float, everywhere: bool) -> Inject:
    """`bad` in the first, or in every value of the commands."""
    return edited(lambda rig, c: {"values": [bad] * len(c.values) if everywhere else [bad, *c.values[1:]]})


def sensed(change: Callable[[Numbers, Numbers], tuple[Numbers, Numbers]]) -> Inject:
    """Encoders that report something else."""

    def inject(rig: Rig) -> None:
        rig.sense = change

    return inject


def measured(bad: float) -> Inject:
    """`bad` in place of the first joint's position."""
    return sensed(lambda position, velocity: ([bad, *position[1:]], velocity))


def setting(**attributes: object) -> Inject:
    """Attributes of the rig set to other values."""

    def inject(rig: Rig) -> None:
        for name, value in attributes.items():
            setattr(rig, name, value)

    return inject


def every(n: int, keep: Callable[[int], bool], copies: int = 1) -> Inject:
    """Only those commands whose number modulo `n` is to be kept."""

    def inject(rig: Rig) -> None:
        count = iter(range(10**9))
        rig.policy = lambda stamp, position: rig.answer(stamp, position) * copies if keep(next(count) % n) else []

    return inject


def bursty(rig: Rig) -> None:
    """Four answers at once, every fourth measurement."""
    held: list[Command] = []

    def policy(stamp: int, position: Numbers) -> list[Command]:
        held.extend(rig.answer(stamp, position))
        sent = held[:] if len(held) == 4 else []
        del held[: len(sent)]
        return sent

    rig.policy = policy


def jittered(rig: Rig) -> None:
    """Answers up to one step later than usual, at random."""
    rng = random.Random(0)
    rig.policy = lambda stamp, position: [c._replace(delay=rng.randint(0, 1)) for c in rig.answer(stamp, position)]


def frozen(rig: Rig) -> None:
    """The first encoder repeats its position; the speed, measured by other means, is right."""
    at = rig.position[0]
    rig.sense = lambda position, velocity: ([at, *position[1:]], velocity)


def stuck(rig: Rig) -> None:
    """A joint that cannot move, while the policy wants it 1.2 rad away."""
    rig.stuck = True
    rig.policy = lambda stamp, position: [
        c._replace(values=[v + 1.2 if i == LAME else v for i, v in enumerate(c.values)])
        for c in rig.answer(stamp, position)
    ]


def loaded(gain: float) -> Inject:
    """A load on a motor that gives `gain` of its torque; under the whole of it the joint would sag by 0.08 rad.

    At the lift of `arm` that is 1.1 N m, four fifths of what the stretched arm itself weighs there.
    """

    def inject(rig: Rig) -> None:
        rig.gain, rig.load = gain, 0.08 * rig.spec.joints[LAME].stiffness

    return inject


def operator(*events: Event) -> Inject:
    """Events one after another."""

    def inject(rig: Rig) -> None:
        for event in events:
            rig.operate(event, 0.0)

    return inject


def bridge_dies(rig: Rig) -> None:
    """Nothing is written any more; the bus watchdog of the drives takes torque off."""
    rig.bridge_runs = rig.torque = False


def monitor_restarts(rig: Rig) -> None:
    """So fast that the bridge has not missed it."""
    rig.supervisor = Supervisor(rig.spec)


def bridge_restarts(rig: Rig) -> None:
    """So fast that the monitor has not missed it; opening the bus leaves the drives without torque."""
    rig.guard, rig.torque = Guard(rig.spec), False


def shifted(by: float) -> Inject:
    """The first encoder reads `by` [rad] more."""
    return sensed(lambda position, velocity: ([position[0] + by, *position[1:]], velocity))


def _again(rig: Rig, command: Command) -> list[Command]:
    return [command, command._replace(values=[v * 0.5 for v in command.values])]


EFFORT, QUADRUPED, ARM = ("furuta",), ("quadruped",), ("arm",)
POSITION = QUADRUPED + ARM
NUMBERS, SHAPE = "numbers", "shape and names"
BADS = (("NaN", math.nan), ("+Inf", math.inf), ("-Inf", -math.inf))
FAULTS = (
    *(Fault(NUMBERS, f"{n} in one joint of the action", values(b, False), "not_finite") for n, b in BADS),
    *(Fault(NUMBERS, f"{n} in every joint of the action", values(b, True), "not_finite") for n, b in BADS),
    Fault(NUMBERS, "subnormal in one joint of the action", values(5e-324, False), "", "ACTIVE"),
    Fault(
        NUMBERS, "1e308 in every joint of the action", values(1e308, True), "position_limit", periods=20, robots=EFFORT
    ),
    Fault(NUMBERS, "1e308 in every joint of the action", values(1e308, True), "velocity_limit", robots=QUADRUPED),
    Fault(NUMBERS, "1e308 in every joint of the action", values(1e308, True), "limited", "ACTIVE", robots=ARM),
    *(Fault(NUMBERS, f"{n} in a measured position", measured(b), "measurement_not_finite", STOP) for n, b in BADS),
    Fault(NUMBERS, "1e308 in a measured position", measured(1e308), "position_jump", STOP),
    Fault(NUMBERS, "integer overflow in raw ticks", shifted(OVERFLOW), "position_jump", STOP),
    Fault(SHAPE, "missing joint", edited(lambda r, c: {"names": c.names[1:], "values": c.values[1:]}), "wrong_names"),
    Fault(
        SHAPE,
        "extra joint",
        edited(lambda r, c: {"names": [*c.names, "tail"], "values": [*c.values, 0.0]}),
        "wrong_names",
    ),
    Fault(
        SHAPE,
        "duplicated joint",
        edited(lambda r, c: {"names": [*c.names, c.names[0]], "values": [*c.values, 0.0]}),
        "wrong_names",
    ),
    Fault(
        SHAPE, "permuted order", edited(lambda r, c: {"names": c.names[::-1], "values": c.values[::-1]}), "", "ACTIVE"
    ),
    Fault(SHAPE, "empty message", edited(lambda r, c: {"names": [], "values": []}), "wrong_names"),
    Fault(SHAPE, "fewer values than names", edited(lambda r, c: {"values": c.values[1:]}), "wrong_names"),
    Fault(
        SHAPE, "missing joint in the measurement", sensed(lambda p, v: (p[1:], v[1:])), "measurement_incomplete", STOP
    ),
    Fault("time", "stale: answers 40 ms late", edited(lambda r, c: {"delay": 3}), "stale"),
    Fault("time", "duplicated commands", every(1, lambda n: True, 2), "duplicate", "ACTIVE"),
    Fault("time", "backward stamps", edited(lambda r, c: {"stamp": r.stamp(r.step - 5 * TICK)}), "stale"),
    Fault("time", "future stamps", edited(lambda r, c: {"stamp": c.stamp + HOUR}), "unknown_stamp"),
    Fault("time", "wall clock steps by +1 h", setting(stamp=lambda step: step * 10_000_000 + HOUR), "", "ACTIVE"),
    Fault("time", "wall clock steps by -1 h", setting(stamp=lambda step: step * 10_000_000 - HOUR), "", "ACTIVE"),
    Fault("time", "wall clock stands still", setting(stamp=lambda step: 1), "", "ACTIVE"),
    Fault("time", "3x slow publisher", every(3, lambda n: n == 2), "silent"),
    Fault("time", "10x fast publisher", every(1, lambda n: True, 10), "duplicate", "ACTIVE"),
    Fault("time", "jittered publisher", jittered, "", "ACTIVE"),
    Fault("time", "bursty publisher", bursty, "silent"),
    Fault("time", "1 in 3 dropped", every(3, lambda n: n < 2), "", "ACTIVE"),
    Fault("processes", "policy silent", setting(policy_runs=False), "silent"),
    Fault("processes", "monitor silent", setting(monitor_runs=False), "monitor_lost", "ACTIVE", periods=13),
    Fault("processes", "bridge silent", bridge_dies, "bridge_lost"),
    Fault("processes", "monitor replaced at once", monitor_restarts, "monitor_replaced"),
    Fault("processes", "bridge replaced at once", bridge_restarts, "not_armed"),
    Fault("processes", "the computer was suspended for an hour", setting(suspended=3600.0), "monitor_lost"),
    Fault("processes", "two policies at once, seen by the guard", commands(_again), "duplicate", "ACTIVE"),
    Fault(
        "processes", "two policies at once, seen by the monitor", operator(Event.FOREIGN_PUBLISHER), "foreign_publisher"
    ),
    Fault("compute", "inference raises: the policy ends", setting(policy_runs=False), "silent"),
    Fault("compute", "inference 5x over budget", edited(lambda r, c: {"delay": 5 * TICK}), "silent"),
    Fault("sensors", "frozen encoder", frozen, "frozen_encoder", periods=15),
    Fault("sensors", "encoder jumps by a quarter turn", shifted(math.pi / 2), "position_jump"),
    Fault("sensors", "encoder wraps by a turn", shifted(-2 * math.pi), "position_jump"),
    Fault("sensors", "speed over the limit", sensed(lambda p, v: (p, [31.0, *v[1:]])), "velocity_limit", STOP),
    Fault("sensors", "tilted by 60 degrees", setting(tilt=math.pi / 3), "tilt", robots=QUADRUPED),
    Fault("sensors", "IMU gives NaN", setting(tilt=math.nan), "measurement_not_finite", STOP, robots=QUADRUPED),
    Fault(
        "actuation",
        "one servo drops off the bus",
        sensed(lambda p, v: (p[:-1], v[:-1])),
        "measurement_incomplete",
        STOP,
    ),
    Fault("actuation", "torque lost under load", loaded(0.0), "tracking_error", STOP, periods=7, robots=QUADRUPED),
    # 1.1 N m on 0.042 kg m^2: 0.8 rad after 0.25 s, and the target may sway along
    Fault("actuation", "torque lost under load", loaded(0.0), "tracking_error", STOP, periods=17, robots=ARM),
    Fault("actuation", "stuck joint, commanded far", stuck, "tracking_error", periods=6, robots=QUADRUPED),
    Fault("actuation", "stuck joint, commanded far", stuck, "tracking_error", periods=10, robots=ARM),
    Fault("actuation", "gain halved", setting(gain=0.5), "", "ACTIVE", robots=POSITION),
    Fault("actuation", "payload added", loaded(1.0), "", "ACTIVE", robots=POSITION),
    Fault("operator", "e-stop", operator(Event.ESTOP), "estop", "ESTOP"),
    Fault("operator", "e-stop twice", operator(Event.ESTOP, Event.ESTOP), "estop", "ESTOP"),
    Fault("operator", "disarm, or Ctrl-C of the monitor", operator(Event.DISARM), "disarm", "STANDBY"),
)


@cache
def worst(fault: Fault) -> Outcome:
    """Of all phases and robots; they must agree in everything but the times.

    Raises:
        ValueError: They do not.
    """
    outcomes = [measure(fault, robot, phase) for robot in fault.robots for phase in range(BEAT)]
    kinds = {(o.notice, o.state, o.back) for o in outcomes}
    if len(kinds) != 1:
        raise ValueError(f"{fault.name}: {sorted(map(str, kinds))}")
    stopped = [o.stopped for o in outcomes if o.stopped is not None]
    last = [o.last for o in outcomes if o.last is not None]
    return outcomes[0]._replace(
        stopped=max(stopped, default=None),
        last=max(last, default=None),
        outside=sum(o.outside for o in outcomes),
        after_stop=sum(o.after_stop for o in outcomes),
    )


def table() -> str:
    """The rows as Markdown."""
    lines = [
        "| group | fault | noticed as | leads to | stop after | last policy command | way back |",
        "|---|---|---|---|---|---|---|",
    ]
    for fault in FAULTS:
        o = worst(fault)
        name = fault.name + ("" if fault.robots == ROBOTS else f" ({', '.join(fault.robots)})")
        times = ["goes on" if not o.back else _periods(t) for t in (o.stopped, o.last)]
        cells = (fault.group, name, f"`{o.notice}`" if o.notice else "harmless", o.state, *times, ", ".join(o.back))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _periods(time: float | None) -> str:
    return "none" if time is None else f"{time:g}"
