"""Policies that fail or are slow, bundles that must not run, encoders that lie: against the real processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from landbridge.deploy.supervisor import State
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.verdict import ADMITTED
from landbridge_nodes import bringup, topics
from landbridge_nodes.operator import START_TIMEOUT
from landbridge_nodes.processes import Processes

from .rig import BUSY_MS, DT_MS, FURUTA, SILENCE, WEIGHT, Record, Rig, tell

pytestmark = pytest.mark.ros

BREAK_AT, SLOW_AT = 40, 110  # inferences
FAILING = f"""
import sys, time
from landbridge_nodes.policy import CONTROLLER_PRIORITY, PolicyNode, run

class Failing(PolicyNode):
    calls = 0
    def act(self, obs):
        self.calls += 1
        if self.calls == {BREAK_AT}:
            raise MemoryError("injected")
        if self.calls > {SLOW_AT}:
            time.sleep(5 * self.spec.latency_budget_ms / 1000)
        return super().act(obs)

sys.exit(run(Failing, CONTROLLER_PRIORITY))
"""


def test_inference_that_raises_and_inference_that_is_slow(rig: Rig, record_property: Record) -> None:
    """One exception is a fault, and the past after reset and arm; so is five times the latency budget, each time."""
    rig.renew(policy=FAILING)
    said: list[tuple[bytes, str]] = []

    def hear(message: Any) -> None:
        said.extend((status.level, status.message) for status in message.status if status.name == "policy")

    topics.subscribe(rig.operator.node, topics.DIAGNOSTICS, hear)
    rig.activate()
    _, periods = rig.await_silence()
    tell(record_property, "inference raises", periods, "periods")
    assert periods <= SILENCE + BUSY_MS / DT_MS
    rig.operator.wait(lambda: (b"\x02", "no answer: MemoryError('injected')") in said, 5)
    assert rig.operator.episode(20).ended == "STANDBY"
    rig.activate()
    rig.operator.wait(lambda: rig.operator.state is State.FAULT, 10)
    assert rig.operator.reason in {"stale", "silent"}


ALTERNATING = """
import itertools, math, sys
from landbridge_nodes.policy import CONTROLLER_PRIORITY, PolicyNode, run

class Alternating(PolicyNode):
    factors = itertools.cycle((1.0, math.nan))
    def act(self, obs):
        return super().act(obs) * next(self.factors)

sys.exit(run(Alternating, CONTROLLER_PRIORITY))
"""


def test_a_policy_every_other_command_of_which_is_no_good_never_becomes_active(rig: Rig) -> None:
    rig.renew(policy=ALTERNATING)
    rig.verdicts.clear()
    rig.operator.call("/monitor/arm")
    judged = {"armed": 10, "not_finite": 10}
    rig.operator.wait(lambda: all(sum(v.reason == k for v in rig.verdicts) >= n for k, n in judged.items()), 5)
    assert rig.operator.state is State.ARMED


CROOKED = """
import collections, itertools, math, pathlib, sys
from landbridge_nodes.policy import CONTROLLER_PRIORITY, PolicyNode, run

told = pathlib.Path(__file__).with_name("told")

class Crooked:
    def __init__(self, publisher):
        self.publisher, self.stamps = publisher, collections.deque(maxlen=4)
        self.signs = itertools.cycle((1, -1))

    def publish(self, message):
        kind, stamp = told.read_text(), message.header.stamp
        self.stamps.append((stamp.sec, stamp.nanosec))
        message.name = ["leg"] if kind == "another joint" else ["arm"]
        if kind == "two values":
            message.effort = [0.1, 0.1]
        elif kind == "not a number":
            message.effort = [math.nan]
        elif kind == "huge":
            message.effort = [1e308 * next(self.signs)]
        elif kind in ("a second ago", "in a second"):
            stamp.sec += 1 if kind == "in a second" else -1
        elif kind == "of three measurements ago":
            stamp.sec, stamp.nanosec = self.stamps[0]
        for _ in range(100 if kind == "a hundred times" else 1):
            self.publisher.publish(message)

    def __getattr__(self, name):
        return getattr(self.publisher, name)

class CrookedNode(PolicyNode):
    def __init__(self):
        super().__init__()
        self._command = Crooked(self._command)

sys.exit(run(CrookedNode, CONTROLLER_PRIORITY))
"""


def test_commands_that_are_crooked(rig: Rig) -> None:
    """What is invalid is named, stopped for and latched; what is huge or comes too often is bounded, and no fault."""
    told, limit = rig.replaced / "told", FURUTA.spec.joint("arm").effort_limit
    told.write_text("")
    rig.renew(policy=CROOKED)
    for kind, reason in {
        "another joint": "wrong_names",
        "two values": "wrong_names",
        "not a number": "not_finite",
        "a second ago": "unknown_stamp",
        "in a second": "unknown_stamp",
        "of three measurements ago": "stale",
    }.items():
        rig.activate()
        told.write_text(kind)
        struck = time.time_ns()
        rig.await_fault(reason)
        told.write_text("")
        reasons = [v.reason for v in rig.verdicts if v.seen > struck]
        assert not {*ADMITTED} & {*reasons[reasons.index(reason) :]}  # refused from the first on, latched at the third
        rig.reset()
    for kind, reason in {"huge": "limited", "a hundred times": "duplicate"}.items():
        rig.activate()
        told.write_text(kind)
        rig.operator.wait(lambda reason=reason: sum(v.reason == reason for v in rig.verdicts) > 25, 5)  # type: ignore[misc]
        told.write_text("")
        assert rig.operator.state is State.ACTIVE
        assert all(abs(v.effort) <= limit for v in rig.verdicts)
        rig.operator.call("/monitor/disarm")
        rig.operator.wait(lambda: rig.operator.state is State.STANDBY, 20)


def test_bundles_that_must_not_run(
    tmp_path: Path, ros_domain: None, linear_bundle: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """Each policy process says why, and ends before anything has moved."""
    flipped, wrong = linear_bundle(tmp_path / "flipped", WEIGHT), linear_bundle(tmp_path / "wrong", WEIGHT)
    model = bytearray((flipped / "policy.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (flipped / "policy.onnx").write_bytes(model)
    mine = tmp_path / "furuta"
    mine.mkdir()
    for file in FURUTA.folder.iterdir():
        (mine / file.name).write_bytes(file.read_bytes())
    content = yaml.safe_load((mine / "robot.yaml").read_text())
    content["joints"][0]["effort_limit"] *= 2
    (mine / "robot.yaml").write_text(yaml.safe_dump(content))
    assert load_robot(mine).spec.digest() != FURUTA.spec.digest()
    golden = linear_bundle(tmp_path / "golden", WEIGHT, golden_shift=0.01)
    expected = {
        (flipped, "furuta"): "does not match SHA256SUMS",
        (wrong, str(mine)): "export again with the present robot.yaml",
        (golden, "furuta"): "actions differ by 0.01",
    }
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(Processes([bringup.deploy(robot, "none", 0, str(bundle))[1]]))
            for bundle, robot in expected
        ]
        for processes in started:
            assert ended(processes).endswith("ended with code 2")
    said = capfd.readouterr().err
    for text in expected.values():
        assert text in said


def ended(processes: Processes) -> str:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        try:
            processes.check()
        except InputError as error:
            return f"{error.where}: {error.problem}"
        time.sleep(0.02)
    raise AssertionError("the process has not ended")


LYING = """
import pathlib
from landbridge.deploy.hardware.twin import Twin

lie, real, held = pathlib.Path(__file__).with_name("lie"), Twin.read, []

def read(self):
    position, velocity = real(self)
    kind = lie.read_text() if lie.exists() else ""
    if kind == "measurement_not_finite":
        position[0] = float("nan")
    elif kind == "position_jump":
        position[0] += 1.0
    elif kind == "measurement_incomplete":
        position.pop()
    elif kind == "frozen_encoder":
        position, velocity = list(held), [0.0, 5.0]
    else:
        held[:] = position
    return position, velocity

Twin.read = read
from landbridge_nodes.bridge import main
main()
"""


def test_encoders_that_lie(rig: Rig, record_property: Record) -> None:
    """Each is named, stopped for, latched, and after a reset the robot works as before."""
    rig.renew(bridge=LYING)
    lie = rig.replaced / "lie"
    for fault in ("measurement_not_finite", "position_jump", "measurement_incomplete", "frozen_encoder"):
        lie.write_text("")
        rig.operator.episode(5)
        rig.activate()
        lie.write_text(fault)
        struck = time.time_ns()
        stopped, _ = rig.stop_after(struck, fault)
        tell(record_property, fault, stopped)
        lie.write_text("")
        rig.await_fault(fault)
        limit = 5 if fault == "frozen_encoder" else 2  # measurements that show it, and the one under way
        assert stopped <= limit * DT_MS + BUSY_MS
        assert np.isfinite([v.effort for v in rig.verdicts]).all()
        assert not any(v.reason in ADMITTED for v in rig.verdicts if v.seen > struck + stopped * 1e6)
