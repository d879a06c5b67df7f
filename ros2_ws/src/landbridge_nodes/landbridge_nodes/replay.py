"""`landbridge replay`: yesterday's log through today's bundle and guard, tick by tick.

Every tick of a bag holds its measurement, what the policy saw, what it asked for and how the guard judged it, all under
the measurement's stamp. Here each is computed again from what came before it and compared bit for bit. Needs no ROS 2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from landbridge.bag import BagReader, require_robot
from landbridge.bundle import Bundle, read_bundle
from landbridge.deploy.engine import Precision
from landbridge.deploy.guard import Guard
from landbridge.deploy.runtime import Policy, load_policy
from landbridge.deploy.supervisor import State
from landbridge.errors import InputError
from landbridge.observation import Observer, action_to_command
from landbridge.onnx_session import CPU
from landbridge.robot import RobotSpec, load_robot
from landbridge.simulation.compensation import Compensation, load_compensation
from landbridge.spec import require_at_least
from landbridge.verdict import Reason
from landbridge_nodes.log import Judged, Log, measured_at, read_log, timeline

END = 2  # last measurements of a bag, whose answers may not have been recorded any more


@dataclass(frozen=True)
class Comparison:
    """One quantity of one tick, recorded and computed again.

    Attributes:
        stamp: Of the measurement [ns].
        stage: observation, action, command or guard.
        recorded, replayed: The values, as numbers or text.
        difference: Largest |difference| of the values, NaN being equal to NaN; infinite if they cannot be compared.
    """

    stamp: int
    stage: str
    recorded: Sequence[Any]
    replayed: Sequence[Any]
    difference: float


def replay(
    bag: Path,
    bundle: Path,
    /,
    provider: str = CPU,
    precision: Precision = "fp32",
    tolerance: float | None = None,
    show: int = 20,
    compensate: Path | None = None,
    robot: str | None = None,
) -> dict[str, Any]:
    """Re-run a recorded log through bundle and guard and list every tick that comes out differently.

    Equality is bit for bit if provider and processor are those of the recording. The guard's clock is known from the
    log to a microsecond, which shows only where a rate limit binds within a control period.

    Example: landbridge replay bags/deploy policy.bundle --tolerance 0

    Args:
        bag: Bag folder or .mcap file of `landbridge up deploy --record`.
        bundle: Folder or zip written by `landbridge export`; another one than was recorded shows what it would change.
        provider: onnxruntime execution provider, or `tensorrt`.
        precision: What it computes in: that of the recording, if its engine is here.
        tolerance: Fail, instead of only reporting, if any value differs by more than this, or if any reason differs.
        show: How many differing ticks to list.
        compensate: calibration.yaml by which the recorded run was compensated, if it was. Another file, or one for a
            run without compensation, shows what it would change.
        robot: Robot of that calibration: one that ships with landbridge, or a robot folder; by default the bundle's, by
            its name.
    """
    require_at_least("--show", show, 0)
    if tolerance is not None:
        require_at_least("--tolerance", tolerance, 0)
    read, reader = read_bundle(bundle), BagReader(bag)
    if (other := reader.about["robot"]) != read.robot.name:
        raise InputError(bag, f"is of robot {other!r}, {bundle} of {read.robot.name!r}", "name a bundle of that robot")
    require_robot(bag, reader.about, read.robot)
    if (controller := reader.about["controller"]) != "policy":
        problem = f"is of the controller {controller!r}: no policy ran"
        raise InputError(bag, problem, "record one with `landbridge up deploy --record`")
    compensation = _compensation(reader, read, compensate, robot)
    policy = load_policy(read, (provider,), strict=True, precision=precision)
    log = read_log(reader, read.robot)
    if policy.recurrent and -1 in log.tick.values():
        raise InputError(bag, "does not say at which tick a policy's state began", "record it with this version")
    compared = [*replay_policy(log, read.robot, policy, compensation), *replay_guard(log, read.robot)]
    if not any(c.stage == "action" for c in compared):
        raise InputError(bag, "holds no answer of a policy", "record it with `landbridge up deploy --record`")
    times = measured_at(log)
    differing = sorted((c for c in compared if c.difference), key=lambda c: times.get(c.stamp, np.inf))
    if tolerance is not None and (failed := [c for c in differing if c.difference > tolerance]):
        first = failed[0]
        raise InputError(
            bag,
            f"{len(failed)} of {len(compared)} values differ by more than {tolerance:g}, first the {first.stage} at "
            f"stamp {first.stamp}: recorded {first.recorded}, now {first.replayed}",
            "leave out --tolerance to list them all",
        )
    judged, compensated = any(c.stage == "guard" for c in compared), reader.about.get("compensation", "none")
    return {
        "bag": str(bag),
        **({} if reader.repaired is None else {"repaired": reader.repaired}),
        "bundle": f"{bundle}, {_same(reader.about.get('bundle'), read.digest)}",
        **(
            {} if compensation is None else {"compensation": f"{compensate}, {_same(compensated, compensation.digest)}"}
        ),
        "provider": policy.provider,
        "precision": policy.precision,
        "bit_for_bit": not differing,
        "stages": [_summary(stage, compared) for stage in ("observation", "action", "command", "guard")],
        **({} if judged else {"guard": "not compared: the bag reaches back to no ARMED that an ACTIVE followed"}),
        **({"differences": [_row(c, times) for c in differing[:show]]} if differing else {}),
    }


def _compensation(reader: BagReader, bundle: Bundle, path: Path | None, robot: str | None) -> Compensation | None:
    """What commands are to be compensated by; raises InputError if the recording was, and nothing is given."""
    if path is not None:
        machine = load_robot(robot or bundle.robot.name)
        bundle.require_robot(machine.spec)
        return load_compensation(path, machine)
    if digest := reader.about.get("compensation"):
        problem = f"its commands were compensated by the calibration {digest[:12]}"
        raise InputError(reader.path, problem, "name that file with --compensate")
    return None


def replay_policy(
    log: Log, spec: RobotSpec, policy: Policy, compensation: Compensation | None = None
) -> Iterator[Comparison]:
    """Observation from measurement (the columns that it decides), action from observation, command from action.

    A compensated command is compared where the log holds the measurement that it answers.

    Of a recurrent policy the log must hold every tick since the episode began; actions after a gap are left out.
    """
    observer = Observer(spec)
    measured, history, expected = observer.measured, observer.initial_history(1), -1
    for stamp in (stamp for stamp in log.action if stamp in log.obs):
        base = log.base(stamp)
        if stamp in log.measured and (base is not None or spec.base == "fixed"):
            position, velocity = (np.array([values]) for values in log.measured[stamp])
            seen = observer(position, velocity, history, base)[0]
            yield _compare(stamp, "observation", np.array(log.obs[stamp])[measured], seen[measured])
        tick = log.tick[stamp]
        if tick == 0:
            policy.reset()
        elif policy.recurrent and tick != expected:
            expected = -1  # until the next episode begins
            continue
        expected = tick + 1
        action = np.array(policy(np.array(log.obs[stamp], np.float32)), np.float64)
        yield _compare(stamp, "action", log.action[stamp], action)
        if stamp in log.command and (compensation is None or stamp in log.measured):
            command = action_to_command(spec, action)
            if compensation is not None:
                command = compensation(command, np.array(log.measured[stamp][1]))
            yield _compare(stamp, "command", log.command[stamp], command)


def replay_guard(log: Log, spec: RobotSpec) -> Iterator[Comparison]:
    """The guard's answers during ACTIVE, each stretch by a guard of its own, from ARMED on.

    A stretch whose ARMED the log does not reach back to is left out: what the guard had in mind then is unknown.
    When the bridge heard of a change of state is not in the log to less than some milliseconds, so in the ticks beside
    one only a fault that the measurement itself raised is compared. Nothing is before the first command that the guard
    let through as it was: how far it had come with those that it limited depends on when it began.
    """
    answers, stretches, times, faults = _judge(log, spec)
    period = spec.control_dt * 1e9
    for start, end in stretches:
        begun = False
        for stamp, time in times.items():
            if not start < time < end:
                continue
            pairs = list(zip_longest(log.verdict[stamp], answers[stamp], fillvalue=("nothing", ())))
            begun = begun or any(reason == Reason.OK.value for reason, _ in log.verdict[stamp])
            if not (begun and start + period < time < end - period):
                pairs = pairs[:1] if stamp in faults else []
            for (reason, recorded), (again, replayed) in pairs:
                difference = _compare(stamp, "", recorded, replayed).difference if reason == again else np.inf
                yield Comparison(stamp, "guard", (reason, *recorded), (again, *replayed), difference)


class _Judgement(NamedTuple):
    """What the guard says now; times are those of the timeline [ns].

    Attributes:
        answers: By stamp.
        stretches: Of ACTIVE.
        times: By stamp: when it was measured or, if the log does not say, first answered.
        faults: Stamps of new ones.
    """

    answers: dict[int, list[Judged]]
    stretches: list[tuple[int, int]]
    times: dict[int, int]
    faults: set[int]


def _judge(log: Log, spec: RobotSpec) -> _Judgement:
    """The timeline through a guard, as the bridge feeds it."""
    guard, state, stamp = Guard(spec), State.UNCONFIGURED, 0
    answers, faults, changes = defaultdict[int, list[Judged]](list), set[int](), list[tuple[int, State]]()
    times: dict[int, int] = {}
    for at, kind, carried in timeline(log):
        now, stop = at * 1e-9, None
        if kind == "measurement":
            stamp, times[carried] = carried, at
            base = log.base(stamp)
            guard.measure(stamp, now, *log.measured[stamp], 0.0 if base is None else float(base.tilt()[0]))
            stop = guard.tick(now)
            if stop is not None and state is State.ACTIVE:
                faults.add(stamp)
        elif kind == "state":
            before, (state, epoch) = state, carried
            if state is not before:
                changes.append((at, state))
                guard = Guard(spec) if state is State.ARMED else guard
            guard.supervise(state, epoch, now)
            if before is State.ACTIVE and state is not State.ACTIVE:
                stop = guard.tick(now)
        else:
            answered, names, values = carried
            times.setdefault(answered, at)
            verdict = guard.admit(answered, names, values, now)
            answers[answered].append((verdict.reason.value, verdict.command))
        if stop is not None:
            answers[stamp].append((stop.reason.value, stop.command))
    changes.append((times[list(log.measured)[-END:][0]], State.UNCONFIGURED))
    stretches = [
        (at, end)
        for (_, left), (at, entered), (end, _) in zip(changes, changes[1:], changes[2:], strict=False)
        if left is State.ARMED and entered is State.ACTIVE
    ]
    return _Judgement(answers, stretches, times, faults)


def _compare(stamp: int, stage: str, recorded: Any, replayed: Any) -> Comparison:
    a, b = np.asarray(recorded, np.float64), np.asarray(replayed, np.float64)
    if a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any():
        difference = np.inf
    else:
        difference = float(np.abs(a - b)[(a != b) & ~np.isnan(a)].max(initial=0.0))
    return Comparison(stamp, stage, tuple(a.tolist()), tuple(b.tolist()), difference)


def _summary(stage: str, compared: list[Comparison]) -> dict[str, Any]:
    rows = [c for c in compared if c.stage == stage]
    return {
        "stage": stage,
        "compared": len(rows),
        "bit for bit": sum(not c.difference for c in rows),
        "largest difference": max((c.difference for c in rows), default=0.0),
    }


def _row(c: Comparison, times: dict[int, int]) -> dict[str, Any]:
    return {
        "t [s]": round(times[c.stamp] * 1e-9, 3) if c.stamp in times else "not measured",
        "stage": c.stage,
        "recorded": " ".join(map(str, c.recorded)),
        "now": " ".join(map(str, c.replayed)),
        "difference": c.difference,
    }


def _same(recorded: str | None, digest: str) -> str:
    if recorded is None:
        return "the log does not say which one was recorded"
    return "the recorded one" if recorded == digest else f"not the recorded one ({recorded[:12]})"
