"""The committed log (`make_replay_log.py`) against the committed bundle, and what a change would look like."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Container, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import Writer

from landbridge.bag import BagReader
from landbridge.bundle import read_bundle, write_bundle
from landbridge.cli import main
from landbridge.deploy.runtime import load_policy
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge.simulation.calibrated import Calibration, digest_of
from landbridge_nodes.log import _TAKE, Log, read_log, timeline
from landbridge_nodes.replay import replay, replay_guard, replay_policy

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


def test_what_no_sensor_measured_is_the_same_again(log: Log) -> None:
    """NaN is NaN, bit for bit; a number in its place is another value."""
    policy, stamp = load_policy(read_bundle(BUNDLE)), sorted(log.obs)[5]
    at = Observer(SPEC).names.index("joint_vel.arm")
    log.measured[stamp] = log.measured[stamp][0], [float("nan"), log.measured[stamp][1][1]]
    as_seen = log.obs[stamp]
    log.obs[stamp] = (*as_seen[:at], float("nan"), *as_seen[at + 1 :])
    seen = next(c for c in replay_policy(log, SPEC, policy) if (c.stamp, c.stage) == (stamp, "observation"))
    assert seen.difference == 0
    log.obs[stamp] = as_seen
    seen = next(c for c in replay_policy(log, SPEC, policy) if (c.stamp, c.stage) == (stamp, "observation"))
    assert seen.difference == np.inf


def test_a_command_that_is_none_is_judged_again(log: Log) -> None:
    """A stranger's, in another field or of other joints: the guard refuses it, then as now."""
    stamp = sorted(log.command)[5]
    wanted, heard = log.command[stamp], len(log.commands)
    for names, fields in ((["arm"], {"position": [0.1]}), (["tail"], {"effort": [0.1]})):
        message = SimpleNamespace(
            header=SimpleNamespace(stamp=SimpleNamespace(sec=stamp // 10**9, nanosec=stamp % 10**9)),
            name=names,
            **{kind: np.array(fields.get(kind, ())) for kind in ("position", "velocity", "effort")},
        )
        _TAKE["/policy/command"](log, 0, message)
    assert log.command[stamp] == wanted
    assert [one.carried[1:] for one in log.commands[heard:]] == [(["arm"], []), (["tail"], [0.1])]
    assert len([*replay_guard(log, SPEC)]) > 80


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


def test_what_is_limited_from_the_beginning_on_is_not_compared(log: Log) -> None:
    """How far a rate limit let the command come by then depends on a time that no log has."""
    stamps = [c.stamp for c in replay_guard(log, SPEC)]
    before = [stamp for stamp in log.verdict if stamp < stamps[0]][-2:]
    for stamp in (*before, *stamps[:3]):
        log.verdict[stamp] = [("limited", (0.0123,))]
    assert [c.stamp for c in replay_guard(log, SPEC)] == stamps[3:]
    log.verdict[stamps[9]] = [("limited", (0.0123,))]
    assert [c.stamp for c in replay_guard(log, SPEC) if c.difference] == [stamps[9]]


def test_a_lost_verdict_is_found(log: Log) -> None:
    stamp = next(c.stamp for c in replay_guard(log, SPEC))
    log.verdict[stamp].pop()
    assert [c.recorded for c in replay_guard(log, SPEC) if c.recorded != c.replayed] == [("nothing",)]


class Stepped(BagReader):
    """The log, had the wall clock been set by `step` ns right after the measurement `since` was taken.

    `told` adds what a bridge of this version says: when it took the measurement on its monotonic clock.
    """

    def __init__(self, since: int, step: int, told: bool) -> None:
        super().__init__(LOG)
        self.since, self.step, self.told = since, step, told

    def messages(self, topics: Container[str]) -> Iterator[tuple[str, int, Any]]:
        for topic, at, message in super().messages(topics):
            if topic == "/guard/timing" and self.told:
                stamp = int(message.data[0]) * 10**9 + int(message.data[1])
                message.layout.dim[0].label += ",measured_ms"
                message.data = np.append(message.data, (stamp - self.since) / 1e6 + 1e7)
            if hasattr(message, "header"):
                stamp = message.header.stamp
                stamp.sec, stamp.nanosec = divmod(self.shown(stamp.sec * 10**9 + stamp.nanosec), 10**9)
            elif hasattr(message, "data"):
                sec, nanosec = message.data[:2].astype(int).tolist()
                message.data = np.append(divmod(self.shown(sec * 10**9 + nanosec), 10**9), message.data[2:])
            yield topic, self.shown(at), message

    def shown(self, wall: int) -> int:
        return wall + self.step if wall > self.since else wall


@pytest.mark.parametrize(
    ("seconds", "told"), [(-3600, False), (3600, False), (-3600, True), (3600, True), (-0.3, True), (0.3, True)]
)
def test_a_wall_clock_that_was_set_changes_nothing(log: Log, seconds: float, told: bool) -> None:
    """Of a log that does not tell the bridge's monotonic clock, a step of less than a second is not to be known."""
    step, since = round(seconds * 1e9), list(log.obs)[len(log.obs) // 2]
    set_later = read_log(Stepped(since, step, told), SPEC)
    assert any(b - a not in range(10**9) for a, b in pairwise(set_later.measured)) or abs(seconds) < 1
    policy = load_policy(read_bundle(BUNDLE))
    for of in (lambda log: replay_policy(log, SPEC, policy), lambda log: replay_guard(log, SPEC)):
        before, after = ([(c.stage, c.recorded, c.replayed) for c in of(one)] for one in (log, set_later))
        assert before == after
        assert len(after) > 80
    assert [i.time for i in timeline(set_later)] == pytest.approx([i.time for i in timeline(log)], abs=2e7)


def rewrite(out: Path, without: Collection[str] = (), since: int = 0, **about: str) -> Path:
    """The log but for some topics and all that was recorded before `since` [ns], with other notes."""
    with LOG.open("rb") as stream, out.open("wb") as file:
        reader, writer = make_reader(stream), Writer(file)
        writer.start(profile="ros2")
        for note in reader.iter_metadata():
            writer.add_metadata(note.name, {**note.metadata, **about})
        channels = {}
        for schema, channel, message in reader.iter_messages():
            if channel.topic in without or message.log_time < since:
                continue
            if channel.id not in channels:
                known = writer.register_schema(schema.name, schema.encoding, schema.data)
                channels[channel.id] = writer.register_channel(channel.topic, channel.message_encoding, known)
            writer.add_message(channels[channel.id], message.log_time, message.data, message.publish_time)
        writer.finish()
    return out


def test_a_log_that_lacks_what_is_compared_says_what(tmp_path: Path) -> None:
    """Not that nothing differs."""
    assert replay(rewrite(tmp_path / "whole.mcap"), BUNDLE, tolerance=0)["bit_for_bit"]
    with pytest.raises(InputError, match=r"is of the controller 'excite': no policy ran\. record one with"):
        replay(rewrite(tmp_path / "excited.mcap", controller="excite"), BUNDLE)
    for lost in (["/guard/command"], ["/joint_states", "/safety/state"], ["/policy/action", "/policy/command"]):
        with pytest.raises(InputError, match=f"holds no message of {', '.join(lost)}. record it with"):
            replay(rewrite(tmp_path / "partial.mcap", lost), BUNDLE)


def test_what_no_monitor_said_is_skipped_as_the_nodes_did(log: Log) -> None:
    known = len(log.states)
    for name, values in (("OK", [("epoch", "0")]), ("ARMED", []), ("ARMED", [("epoch", "many")])):
        pairs = [SimpleNamespace(key=key, value=value) for key, value in values]
        _TAKE["/safety/state"](log, 0, SimpleNamespace(name=name, values=pairs))
    assert len(log.states) == known


def test_a_guard_whose_arming_is_not_in_the_log_is_said_not_to_be_compared(log: Log, tmp_path: Path) -> None:
    """As in a black box's bag, which reaches back some seconds only."""
    active = next(heard for heard in reversed(log.states) if heard.carried[0].value == "ARMED")
    late = rewrite(tmp_path / "late.mcap", since=log.recorded[active.after] + active.later + 10**8)
    figures = replay(late, BUNDLE)
    stages = {row["stage"]: row["compared"] for row in figures["stages"]}
    assert stages["action"] > 5
    assert stages["guard"] == 0
    assert figures["guard"].startswith("not compared: the bag reaches back to no ARMED")


def test_a_compensated_log_needs_the_calibration_that_it_names(
    tmp_path: Path, calibration: Callable[..., Calibration]
) -> None:
    """The commands of this log are bare: one that claims otherwise differs in them and in nothing else."""
    file, strong = tmp_path / "calibration.yaml", calibration(actuator_gain=0.9)
    strong.write(file)
    told = rewrite(tmp_path / "told.mcap", compensation=digest_of(file))
    with pytest.raises(InputError, match=rf"compensated by the calibration {digest_of(file)[:12]}\. name that file"):
        replay(told, BUNDLE)
    figures = replay(told, BUNDLE, compensate=file)
    stages = {row["stage"]: row for row in figures["stages"]}
    assert figures["compensation"].endswith("calibration.yaml, the recorded one")
    assert stages["command"]["bit for bit"] < stages["command"]["compared"] / 2
    assert stages["action"]["bit for bit"] == replay(LOG, BUNDLE)["stages"][1]["bit for bit"]
    assert replay(LOG, BUNDLE, compensate=file)["compensation"].endswith("not the recorded one (none)")
    (strong.model_copy(update={"commit": "another"})).write(file)
    assert "not the recorded one (" in replay(told, BUNDLE, compensate=file)["compensation"]
    with pytest.raises(InputError, match="bundle is for robot 'furuta', this is 'arm'"):
        replay(told, BUNDLE, compensate=file, robot="arm")


def test_a_log_that_was_cut_off_says_so(tmp_path: Path) -> None:
    (tmp_path / "cut.mcap").write_bytes(LOG.read_bytes()[:-100])
    assert replay(tmp_path / "cut.mcap", BUNDLE)["repaired"].startswith("cut off: ")
    assert "repaired" not in replay(LOG, BUNDLE)


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
    with pytest.raises(InputError, match=r"arm.mcap: is of robot 'arm', .* of 'furuta'\. name a bundle of that robot"):
        replay(rewrite(tmp_path / "arm.mcap", robot="arm"), BUNDLE)
    with pytest.raises(InputError, match="provider: there is no 'NoSuchProvider'"):
        replay(LOG, BUNDLE, provider="NoSuchProvider")
    with pytest.raises(InputError, match="precision: is int8 on CPUExecutionProvider"):
        replay(LOG, BUNDLE, precision="int8")
    with pytest.raises(InputError, match=r"--show: is -1\. give 0 or more"):
        replay(LOG, BUNDLE, show=-1)
    with pytest.raises(InputError, match=r"--tolerance: is nan\. give 0 or more"):
        replay(LOG, BUNDLE, tolerance=float("nan"))
