"""The black box: what a fault leaves behind, from the real processes and, for its edges, on a clock of its own."""

from __future__ import annotations

import errno
import io
import itertools
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from mcap.exceptions import EndOfFile
from mcap.records import Message
from mcap.stream_reader import StreamReader
from rosbags.rosbag2 import Reader

from landbridge.bag import BagReader
from landbridge.errors import InputError
from landbridge.training.ingest import ingest
from landbridge_nodes import black_box, topics
from landbridge_nodes.black_box import AFTER_SECONDS, BlackBox
from landbridge_nodes.replay import replay

from .rig import DT_MS, SILENCE, Rig

ABOUT = {"robot": "furuta", "robot_hash": "0", "scenario": "none", "controller": "policy"}
TOPIC = "/joint_states"


@pytest.mark.ros
def test_every_fault_leaves_a_bag_that_replay_and_ingest_read(rig: Rig, tmp_path: Path) -> None:
    rig.activate()
    struck = rig.strike("policy", signal.SIGKILL)
    rig.await_fault("silent")
    rig.operator.call("/monitor/estop")
    rig.operator.wait(lambda: len(list(rig.black_box.iterdir())) == 2, 5)
    rig.strike("recorder", signal.SIGTERM)
    rig.operator.wait(lambda: len(list(rig.black_box.glob("*/metadata.yaml"))) == 2, 5)
    silent, estop = sorted(rig.black_box.iterdir())
    assert (silent.name.split("_", 1)[1], estop.name.split("_", 1)[1]) == ("silent", "estop")
    reader = BagReader(silent)
    assert (reader.about["fault"], BagReader(estop).about["fault"]) == ("silent", "estop")
    messages = list(reader.messages(("/safety/state", "/guard/command")))
    stops = [at for topic, at, m in messages if topic == "/guard/command" and m.header.frame_id == "silent"]
    assert 0 < (stops[0] - struck) / 1e6 < 2 * SILENCE * DT_MS  # it ends after its fault, and holds the ticks before
    states = [(m.name, m.message) for topic, _, m in messages if topic == "/safety/state"]
    assert ("ACTIVE", "admissible") in states
    assert ("DAMP", "silent") in states
    with Reader(silent) as official:
        assert {c.topic for c in official.connections if c.msgcount} >= {TOPIC, "/policy/action", "/bridge/fault"}
    assert ingest((silent,), out=tmp_path / "data")["transitions"] > 20
    stages = {row["stage"]: row for row in replay(silent, rig.bundle)["stages"]}
    for stage in ("observation", "action", "command"):
        assert stages[stage]["bit for bit"] == stages[stage]["compared"] > 20
    assert stages["guard"]["compared"] > 20


class Clock:
    """Seconds, and the stamps that go with them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[Path] = []

    def __call__(self) -> float:
        return self.now

    def feed(self, box: BlackBox, seconds: float, rate: float = 10.0) -> None:
        for _ in range(round(seconds * rate)):
            self.now += 1 / rate
            box.write(TOPIC, b"x" * 40, round(self.now * 1e9))
            box.flush()


def times(bag: Path) -> list[float]:
    with Reader(bag) as reader:
        return [at / 1e9 for _, at, _ in reader.messages()]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def box(tmp_path: Path, clock: Clock) -> BlackBox:
    return BlackBox(tmp_path / "box", 3.0, ABOUT, topics.TOPICS, clock.told.append, clock)


def bags(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "box").iterdir())


def test_a_bag_reaches_back_as_asked_and_ends_after_its_fault(tmp_path: Path, clock: Clock, box: BlackBox) -> None:
    clock.feed(box, 10)
    box.hear("bridge", "silent")
    box.hear("monitor", "silent")  # the same, seen by another
    at = clock.now
    clock.feed(box, AFTER_SECONDS + 2)
    (bag,) = bags(tmp_path)
    found = times(bag)
    assert found == sorted(found)
    assert at - found[0] == pytest.approx(3.0, abs=0.11)
    assert found[-1] - at == pytest.approx(AFTER_SECONDS, abs=0.11)
    assert all(b - a == pytest.approx(0.1) for a, b in itertools.pairwise(found))


def test_the_disk_has_the_past_before_the_bag_is_told_of(
    tmp_path: Path, clock: Clock, box: BlackBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And all of it at the end: what fsync was asked for is what a loss of power leaves."""
    synced: list[tuple[str, int]] = []
    sync = os.fsync

    def fsync(opened: int) -> None:
        sync(opened)
        path = Path(os.readlink(f"/proc/self/fd/{opened}"))
        synced.append((path.name, path.stat().st_size if path.is_file() else len(list(path.iterdir()))))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(black_box, "FLUSHED", 12)
    clock.feed(box, 5)
    box.hear("bridge", "silent")
    box.flush()
    assert (clock.told, synced) == ([], [])  # 12 of 30 messages
    clock.feed(box, 0.1)
    (bag,) = bags(tmp_path)
    assert clock.told == [bag]
    assert [name for name, _ in synced] == [f"{bag.name}_0.mcap", bag.name, "box"]
    left = io.BytesIO((bag / f"{bag.name}_0.mcap").read_bytes()[: synced[0][1]])
    found = 0
    with suppress(EndOfFile):  # that it ends
        for record in StreamReader(left).records:
            found += isinstance(record, Message)
    assert found == 31 + 1  # of three seconds, and one since
    clock.feed(box, AFTER_SECONDS)
    assert [name for name, _ in synced[3:]] == [f"{bag.name}_0.mcap", "metadata.yaml.partial", bag.name, "box"]
    assert synced[3][1] == (bag / f"{bag.name}_0.mcap").stat().st_size
    assert clock.told == [bag]


def test_each_fault_has_a_bag_and_so_has_one_that_comes_again(tmp_path: Path, clock: Clock, box: BlackBox) -> None:
    clock.feed(box, 2)
    box.hear("monitor", "controller_lost")
    clock.feed(box, 1)
    box.hear("monitor", "estop")
    clock.feed(box, 1)
    box.hear("monitor", "")
    clock.feed(box, 10)
    box.hear("monitor", "estop")
    box.close()
    assert [path.name.split("_", 1)[1] for path in bags(tmp_path)] == ["controller_lost", "estop", "estop"]
    assert [len(times(path)) for path in bags(tmp_path)] == [20 + 51, 30 + 51, 31]


def test_two_bridges_that_contradict_each_other_do_not_fill_the_disk(
    tmp_path: Path, clock: Clock, box: BlackBox
) -> None:
    for _ in range(20):
        box.hear("bridge", "servo_silent:elbow")
        clock.feed(box, 0.5)
        box.hear("bridge", "")
        clock.feed(box, 0.5)
    assert len(bags(tmp_path)) == 2  # in 20 s, of 15 each


def test_a_fault_that_comes_again_at_once_is_in_the_bag_of_the_first(
    tmp_path: Path, clock: Clock, box: BlackBox
) -> None:
    clock.feed(box, 5)
    box.hear("bridge", "silent")
    clock.feed(box, 2)
    box.hear("bridge", "")
    clock.feed(box, 2)
    box.hear("bridge", "silent")
    at = clock.now
    clock.feed(box, AFTER_SECONDS + 2)
    (bag,) = bags(tmp_path)
    assert times(bag)[-1] - at == pytest.approx(AFTER_SECONDS, abs=0.11)


def test_a_bag_that_was_lost_is_told_of_at_once_and_not_forgotten_for_the_next(
    tmp_path: Path, clock: Clock, box: BlackBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.feed(box, 2)
    box.hear("bridge", "silent")
    lost = box._dumps[0].bag
    lost._give_up(OSError(errno.ENOSPC, "No space left on device"))
    clock.feed(box, 0.1)
    assert box.fault == f"{lost.file}: No space left on device"
    box.hear("monitor", "estop")
    clock.feed(box, 2 * AFTER_SECONDS)
    assert box.fault == f"{lost.file}: No space left on device"
    assert [path.name.split("_", 1)[1] for path in clock.told] == ["estop"]


def test_memory_is_bounded(tmp_path: Path, clock: Clock, box: BlackBox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(black_box, "MAX_BYTES", 400)
    clock.feed(box, 2.5)
    box.hear("monitor", "estop")
    box.close()
    assert len(times(bags(tmp_path)[0])) == 10


def test_a_sentence_for_a_fault_becomes_a_name(tmp_path: Path, clock: Clock, box: BlackBox) -> None:
    clock.feed(box, 1)
    box.hear("bridge", "/dev/ttyUSB0: is missing. Plug it in.")
    box.close()
    assert bags(tmp_path)[0].name.endswith("Z_dev_ttyusb0_is_missing_plug_it_in")
    assert BagReader(bags(tmp_path)[0]).about["fault"] == "/dev/ttyUSB0: is missing. Plug it in."


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made: Not a directory"):
        BlackBox(tmp_path / "file" / "box", 3.0, ABOUT, topics.TOPICS, print)
    with pytest.raises(InputError, match="are 0"):
        BlackBox(tmp_path, 0, ABOUT, topics.TOPICS, print)
