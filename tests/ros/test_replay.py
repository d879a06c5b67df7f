"""The committed log (`make_replay_log.py`) against the committed bundle, and what a change would look like."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from landbridge.bundle import read_bundle, write_bundle
from landbridge.cli import main
from landbridge.deploy.runtime import load_policy
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.training.bag import BagReader
from landbridge_nodes.replay import Log, read_log, replay, replay_guard, replay_policy

DATA = Path(__file__).parent / "data"
BUNDLE, LOG = DATA / "replay.zip", DATA / "replay.mcap"
SPEC = load_robot("furuta").spec


@pytest.fixture
def log() -> Log:
    return read_log(BagReader(LOG), read_bundle(BUNDLE).robot)


def test_yesterdays_log_gives_todays_actions(capsys: pytest.CaptureFixture[str]) -> None:
    """Bit for bit where this processor computes the golden vectors bit for bit, else within their tolerance."""
    policy = load_policy(read_bundle(BUNDLE))
    tolerance = 0.0 if policy.golden_error == 0 else read_bundle(BUNDLE).manifest.golden_tolerance
    assert main(["replay", str(LOG), str(BUNDLE), "--tolerance", str(tolerance), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["bundle"].endswith("the recorded one")
    assert (figures["provider"], figures["precision"]) == ("CPUExecutionProvider", "fp32")
    assert figures["bit_for_bit"] == (policy.golden_error == 0)
    compared = {row["stage"]: row["compared"] for row in figures["stages"]}
    assert all(compared[stage] > 80 for stage in ("observation", "action", "command", "guard"))


def test_the_log_holds_admissions_limits_and_a_fault(log: Log) -> None:
    reasons = {reason for judged in log.verdict.values() for reason, _ in judged}
    assert {"ok", "limited", "position_limit", "not_active"} <= reasons


def test_another_policy_is_listed_tick_by_tick(tmp_path: Path, linear_bundle: type[Path]) -> None:
    other = linear_bundle(tmp_path / "b", np.zeros((8, 1), np.float32))
    figures = replay(LOG, other, show=3)
    stages = {row["stage"]: row for row in figures["stages"]}
    assert "not the recorded one" in figures["bundle"]
    assert not figures["bit_for_bit"]
    assert stages["observation"]["bit for bit"] == stages["observation"]["compared"]
    assert stages["action"]["bit for bit"] == 0
    assert len(figures["differences"]) == 3
    assert {row["now"] for row in figures["differences"] if row["stage"] == "action"} == {"0.0"}
    with pytest.raises(InputError, match=r"values differ by more than 1e-05, first the action at stamp \d+: recorded"):
        replay(LOG, other, tolerance=1e-5)


def test_a_measurement_off_by_one_bit_is_found(log: Log) -> None:
    policy, stamp = load_policy(read_bundle(BUNDLE)), sorted(log.obs)[5]
    arm, pendulum = log.measured[stamp][0]
    log.measured[stamp] = [arm, float(np.float32(pendulum) + np.float32(1e-6))], log.measured[stamp][1]
    differing = [c for c in replay_policy(log, SPEC, policy) if c.recorded != c.replayed and c.stage == "observation"]
    assert [c.stamp for c in differing] == [stamp]
    assert 0 < differing[0].difference < 2e-6


def test_a_guard_that_judges_otherwise_is_found(log: Log) -> None:
    """With twice the rate limit, ticks that were limited are not; the reason alone makes the difference infinite."""
    arm = SPEC.joint("arm").model_copy(update={"effort_limit": 0.01})
    spec = SPEC.model_copy(update={"joints": (arm, SPEC.joint("pendulum"))})
    assert all(c.recorded == c.replayed for c in replay_guard(log, SPEC))
    differing = [c for c in replay_guard(log, spec) if c.recorded != c.replayed]
    assert {c.recorded[0] for c in differing} >= {"ok"}
    assert {c.replayed[0] for c in differing} >= {"limited"}
    assert all(abs(c.replayed[1]) <= 0.01 for c in differing)
    assert any(np.isinf(c.difference) for c in differing)


def test_a_lost_verdict_is_found(log: Log) -> None:
    stamp = next(c.stamp for c in replay_guard(log, SPEC))
    log.verdict[stamp].pop()
    assert [c.recorded for c in replay_guard(log, SPEC) if c.recorded != c.replayed] == [("nothing",)]


def test_what_cannot_be_replayed_is_refused(tmp_path: Path) -> None:
    bundle = read_bundle(BUNDLE)
    robot = bundle.robot.model_copy(update={"control_rate_hz": 51.0})
    manifest = bundle.manifest.model_copy(update={"control_rate_hz": 51.0, "robot_hash": robot.digest()})
    files = {name: bundle.files[name] for name in ("policy.onnx", "golden.npz", "envelope.npz")}
    write_bundle(tmp_path / "faster", manifest, robot, files)
    with pytest.raises(InputError, match="furuta has changed since the recording"):
        replay(LOG, tmp_path / "faster")
    with pytest.raises(InputError, match=r"holds 0 \.mcap files"):
        replay(tmp_path, BUNDLE)
    with pytest.raises(InputError, match="asked for NoSuchProvider"):
        replay(LOG, BUNDLE, provider="NoSuchProvider")
    with pytest.raises(InputError, match="precision: is int8 on CPUExecutionProvider"):
        replay(LOG, BUNDLE, precision="int8")
