"""Random and adversarial sequences against the guard, judged by an oracle that shares no code with it.

    python benchmarks/guard_fuzz.py [--steps 1000000] [--seed 0]

A step is one control period: perhaps a heartbeat, a measurement, a tick, and none to three commands. Values are healthy
ones, floats on and next to every limit, and the worst that floats have; the supervisor mostly walks its own model, and
sometimes leaps. `tests/deploy/test_guard_fuzz.py` runs a shorter one in every test run.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import tyro

from landbridge.deploy.guard import Guard
from landbridge.deploy.supervisor import STOPS, State, transitions
from landbridge.provenance import commit, now
from landbridge.robot import RobotSpec
from landbridge.verdict import ADMITTED, Reason, Verdict

RESULT = Path(__file__).parent / "results" / "guard_fuzz.json"
DT, AGE, HEARTBEAT = 1 / 64, 1 / 32, 1 / 4  # s, exact in binary so that boundaries can be hit
KINDS = ("effort", "velocity", "position")
NAMES = ("a", "free", "b")
RATE = {"a": 20.0, "b": 5.0}
SPEED = {"a": 8.0, "free": 16.0, "b": 4.0}
BOUNDS = {
    "effort": {"a": (-0.5, 0.5), "b": (-2.0, 2.0)},
    "velocity": {"a": (-8.0, 8.0), "b": (-4.0, 4.0)},
    "position": {"a": (-2.0, 1.0), "b": (-math.inf, math.inf)},
}
MAX_TILT = 1.0  # rad
TILTS = (MAX_TILT, math.nextafter(MAX_TILT, 2), math.pi, math.nan, math.inf)
WILD = (math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -5e-324, 0.0, -0.0)
EDGES = tuple(
    near
    for limit in (
        0.5,
        2.0,
        8.0,
        4.0,
        16.0,
        1.0,
        1.05,
        2.05,
        0.16,
        0.08,
        SPEED["a"] * DT,
        RATE["a"] * DT,
        RATE["b"] * DT,
    )
    for sign in (-1, 1)
    for near in (sign * limit, math.nextafter(sign * limit, 0), math.nextafter(sign * limit, sign * math.inf))
)
TABLE = tuple(dict.fromkeys(entry for stop in (State.HOLD, State.DAMP) for entry in transitions(stop).items()))
ONWARDS = {State.UNCONFIGURED: State.STANDBY, State.STANDBY: State.ARMED, State.ARMED: State.ACTIVE}
LEAVE = dict.fromkeys(State, 0.3) | {State.ARMED: 0.1, State.ACTIVE: 0.02, State.PARK: 0.03}
REFUSALS = set(Reason).difference(ADMITTED)


def spec(kind: str) -> RobotSpec:
    """Two actuated joints, one of them limited in position, and a free one; commanded in position, the base floats."""
    common = {"acceleration_limit": 50, "jerk_limit": 2000, "damping": 0.1}
    joints: list[dict[str, Any]] = [
        {"name": "a", "position_limit": [-2, 1], "velocity_limit": 8, "effort_limit": 0.5, "rate_limit": 20, **common},
        {"name": "free", "actuated": False, "velocity_limit": 16},
        {"name": "b", "velocity_limit": 4, "effort_limit": 2, "rate_limit": 5, "default_joint_pos": 0.25, **common},
    ]
    safety: dict[str, Any] = {"max_command_age_ms": 1000 * AGE, "heartbeat_timeout_ms": 1000 * HEARTBEAT}
    if kind == "position":
        safety |= {"max_tracking_error": 1.0, "parking_pose": {"a": 0.5}, "parking_speed": 4.0, "max_tilt": MAX_TILT}
    return RobotSpec.model_validate(
        {
            "schema_version": 1,
            "name": "fuzz",
            "urdf": "fuzz.urdf",
            "control_rate_hz": 1 / DT,
            "decimation": 1,
            "latency_budget_ms": 10,
            "joints": joints,
            "observation": [{"kind": "joint_pos", "joints": ["a"]}],
            "action": {"kind": kind, "scale": {"a": 1.0, "b": 1.0}},
            "safety": safety,
            **({"base": "floating", "base_height": 0.3} if kind == "position" else {}),
        }
    )


class Fuzz:
    """One guard under fire.

    Attributes:
        counts: written, refused, released, stops; and what must stay zero: outside, exceptions, broken (promises).
        broken: The first few broken promises in words.
        reasons: How often each verdict was given.
    """

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.guard, self.rng = kind, Guard(spec(kind)), random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.broken: list[str] = []
        self.now, self.stamp, self.epoch = 1.0, 0, 0
        self.state = State.UNCONFIGURED
        self.position, self.velocity = [0.0, 0.0, 0.25], [0.0, 0.0, 0.0]
        self.last: tuple[float, ...] | None = None
        self.here = (0.0, 0.25)  # where the joints were last believed to be, within their limits
        self.speed = (0.0, 0.0)  # as last believed
        self.anew = False  # a reset, and no good measurement since
        self.stopped = False  # the supervisor has stopped the robot, and no reset since
        self.armed = False  # ARMED was heard after the last fault, and ACTIVE directly after it
        self.taken: dict[int, tuple[int, float]] = {}  # sane measurements: stamp -> (number, time)
        self.answered = 0
        self.mute = self.frozen = 0  # control periods for which the monitor is silent, and the encoders are frozen

    def step(self) -> None:
        """One control period."""
        rng = self.rng
        self.now += rng.choice((DT, DT, DT, DT, DT, 0.0, DT / 4, 2 * DT, 10 * DT)) if rng.random() < 0.2 else DT
        try:
            self.mute = 20 if rng.random() < 0.001 else self.mute - 1
            if self.mute <= 0 and rng.random() < 0.9:
                self._supervise()
            self._measure()
            self._emitted(self.guard.tick(self.now), None)
            for _ in range(rng.choice((1, 1, 1, 1, 1, 1, 1, 0, 2, 3))):
                self._command()
        except Exception as error:
            self._note("exceptions", repr(error))

    def _note(self, what: str, words: str) -> None:
        self.counts[what] += 1
        if len(self.broken) < 5:
            self.broken.append(f"{what}: {words}")

    def _supervise(self) -> None:
        rng, before = self.rng, self.state
        if rng.random() < 0.003:
            self.state = rng.choice(list(State))
        elif rng.random() < LEAVE[self.state] or (self.state is State.ACTIVE and self.guard.fault is not None):
            followers = [to for (state, _), to in TABLE if state is self.state and to is not State.ESTOP]
            onwards = ONWARDS.get(self.state)
            self.state = (
                onwards if onwards is not None and rng.random() < 0.8 else rng.choice([*followers, State.ESTOP])
            )
        if before in (State.FAULT, State.ESTOP) and self.state is State.UNCONFIGURED:
            self.epoch += 1
        if rng.random() < 0.002:
            self.epoch = max(0, self.epoch + rng.randint(-2, 2))
        reset = self.epoch > self.guard.epoch
        self.guard.supervise(self.state, self.epoch, self.now)
        if self.state is State.ARMED:
            self.armed = self.guard.fault is None
        elif self.state is not State.ACTIVE or reset or self.guard.fault is not None:
            self.armed = False
        self.anew = self.anew or reset
        self.stopped = self.state in STOPS or (self.stopped and not reset)

    def _measure(self) -> None:
        rng = self.rng
        self.frozen = 5 if rng.random() < 0.002 else self.frozen - 1
        for i, name in enumerate(NAMES):
            if self.frozen > 0:
                self.velocity[i] = 0.1 * SPEED[name]
                continue
            self.velocity[i] = max(
                -0.4 * SPEED[name], min(0.4 * SPEED[name], 0.95 * self.velocity[i] + rng.gauss(0, 0.3))
            )
            if rng.random() < (0.9 if self.state is State.PARK else 0.2):
                self.velocity[i] = 0.0
            self.position[i] += DT * self.velocity[i]
            if abs(self.position[i]) > 1.02 or (self.kind == "position" and rng.random() < 0.2 and name != "free"):
                target = self.guard.written[0 if name == "a" else 1] if self.kind == "position" else 0.0
                self.position[i] += max(-0.005, min(0.005, target - self.position[i]))
        position, velocity = list(self.position), list(self.velocity)
        if rng.random() < 0.005:
            self._spoil(rng.choice((position, velocity)))
        if rng.random() < 0.0005:
            rng.choice((position, velocity)).pop()
        self.stamp += rng.choice((1, 1, 1, 1, 1, 1, 1, 0, -5, 10**9)) if rng.random() < 0.1 else 1
        before = self.guard._number
        tilt = rng.choice(TILTS) if self.kind == "position" and rng.random() < 0.002 else 0.0
        self.guard.measure(self.stamp, self.now, position, velocity, tilt)
        if len(position) == len(velocity) == 3 and all(map(math.isfinite, (*position, *velocity, tilt))):
            if self.guard._number > before:
                self.taken[self.stamp] = (self.guard._number, self.now)
                low, high = BOUNDS["position"]["a"]
                self.here = min(max(position[0], low), high), position[2]
                self.speed = velocity[0], velocity[2]
                if self.anew and self.last is not None and self.kind == "position":
                    self.last = self.here
                self.anew = False
        elif self.guard._number > before:
            self._note("broken", "a measurement that is no good was taken")
        while len(self.taken) > 64:
            del self.taken[next(iter(self.taken))]

    def _spoil(self, values: list[float]) -> None:
        values[self.rng.randrange(len(values))] = self.rng.choice(WILD if self.rng.random() < 0.5 else EDGES)

    def _command(self) -> None:
        rng = self.rng
        names, values = ["a", "b"], [rng.gauss(0.0, 0.05) + self.guard.written[k] for k in range(2)]
        if rng.random() < 0.15:
            self._spoil(values)
        if rng.random() < 0.3:
            names, values = names[::-1], values[::-1]
        if rng.random() < 0.02:
            names = rng.choice((["a"], ["a", "a"], ["a", "b", "free"], [], ["a", "c"], ["a", "b", "b"]))
        if rng.random() < 0.02:
            values = values[: rng.randrange(2)]
        stamp = self.stamp if rng.random() < 0.9 else self.stamp - rng.choice((1, 2, 3, 10**6, -1, 300))
        at = self.now + (rng.choice((0.0, DT / 2, AGE, math.nextafter(AGE, 1), 1.0)) if rng.random() < 0.1 else DT / 4)
        written = self.guard.written
        verdict = self.guard.admit(stamp, names, values, at)
        self.reasons[verdict.reason.value] += 1
        if not verdict.write:
            self.counts["refused"] += 1
            if verdict.reason not in REFUSALS:
                self._note("broken", f"refused as {verdict.reason}")
            if self.guard.written != written:
                self._note("broken", "a refused command had an effect")
            return
        self.counts["written"] += 1
        if wrong := self._inadmissible(stamp, names, values, at):
            self._note("broken", wrong)
        self.answered = self.taken.get(stamp, (0, 0.0))[0]
        self._emitted(verdict, dict(zip(names, values, strict=False)))

    def _inadmissible(self, stamp: int, names: list[str], values: list[float], at: float) -> str:
        """What an admitted command should have been refused for."""
        number, taken_at = self.taken.get(stamp, (0, -math.inf))
        wrong = {
            "not finite": not all(map(math.isfinite, values)),
            "names": sorted(names) != ["a", "b"] or len(values) != 2,
            "stamp": number <= self.answered or at - taken_at > AGE,
            "state": self.state is not State.ACTIVE or not self.armed,
            "fault": self.guard.fault is not None,
            "stopped": self.stopped,
        }
        return ", ".join(name for name, is_so in wrong.items() if is_so)

    def _emitted(self, verdict: Verdict | None, wanted: dict[str, float] | None) -> None:
        """Judge what goes to the motors."""
        if verdict is None:
            return
        if verdict.release:
            self.counts["released"] += 1
            if self.state is not State.PARK or self.guard.fault is not None or self.stopped:
                self._note("broken", f"torque off in {self.state}")
            self.last = None
            return
        self.counts["stops"] += wanted is None
        if self.anew and self.kind == "position":
            self._note("broken", "something written after a reset before a measurement")
        stopped = self.stopped or self.guard.fault is not None
        if self.last is None and (stopped or self.state not in (State.ARMED, State.ACTIVE)):
            self._note("broken", f"torque on in {self.state} with {self.guard.fault}")
        for k, name in enumerate(("a", "b")):
            value, (low, high) = verdict.command[k], BOUNDS[self.kind][name]
            if not (math.isfinite(value) and low <= value <= high):
                self._note("outside", f"{name} {value!r}")
            rate = min(RATE[name], SPEED[name]) if self.kind == "position" else RATE[name]
            step = rate * DT + 4 * math.ulp(max(abs(value), 1.0))
            stops = stopped or self.state not in (State.ARMED, State.ACTIVE, State.PARK)
            at_once = {  # where it is, or still, or against its motion
                "position": abs(value - self.here[k]) <= step,
                "velocity": value == 0,
                "effort": value * self.speed[k] <= 0,
            }
            begins = stops and at_once[self.kind]
            if self.last is not None and abs(value - self.last[k]) > step and not begins:
                self._note("outside", f"{name} jumps from {self.last[k]!r} to {value!r}")
            if wanted is not None and verdict.reason is Reason.OK and value != wanted[name]:
                self._note("broken", f"{name} changed and called ok")
        self.last = verdict.command


def fuzz(kind: str, steps: int, seed: int) -> Fuzz:
    """Run `steps` control periods against one guard."""
    run = Fuzz(kind, seed)
    for _ in range(steps):
        run.step()
    return run


def main(steps: int = 1_000_000, seed: int = 0) -> None:
    """Fuzz the guard of each kind of robot with a third of `steps` and write `benchmarks/results/guard_fuzz.json`."""
    runs = [fuzz(kind, -(-steps // len(KINDS)), seed) for kind in KINDS]
    counts = sum((run.counts for run in runs), Counter[str]())
    reasons = sum((run.reasons for run in runs), Counter[str]())
    faults = sum(
        (Counter({k: v for k, v in run.guard.counters.items() if k.startswith("fault.")}) for run in runs), Counter()
    )
    keys = ("written", "refused", "stops", "released", "outside", "broken", "exceptions")
    result = {
        "made": now(),
        "commit": commit(),
        "seed": seed,
        "steps": len(KINDS) * -(-steps // len(KINDS)),
        **{key: counts[key] for key in keys},
        "reasons": dict(sorted(reasons.items())),
        "faults": dict(sorted(faults.items())),
    }
    print(json.dumps(result, indent=2), *(words for run in runs for words in run.broken), sep="\n")
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
