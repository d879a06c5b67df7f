"""A bag that was cut off, made whole: what official readers open, with every message before the cut."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader

from landbridge.bag import BagReader
from landbridge.errors import InputError
from landbridge_nodes.bag import BagWriter
from landbridge_nodes.repair import TOPICS, repair

LOG = Path(__file__).parent / "data" / "replay.mcap"
Recorded = list[tuple[str, str, int, bytes]]


def recorded(path: Path) -> Recorded:
    return [(c.topic, s.name, m.log_time, m.data) for s, c, m in BagReader(path).raw()]


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """The committed log as a recorder leaves it that is killed: flushed now and then, its last chunk in part."""
    bag = BagWriter(tmp_path / "cut", BagReader(LOG).about, [*TOPICS.values()])
    for number, (topic, _, at, data) in enumerate(recorded(LOG)):
        bag.write(topic, data, at)
        if number % 100 == 99:
            bag.flush()
    os.truncate(bag.file, bag.file.stat().st_size - 10)
    return bag.path


def test_what_was_cut_off_opens_in_the_official_readers(cut: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="metadata"), Reader(cut):
        pass
    before = recorded(cut)
    assert 0 < len(before) < len(recorded(LOG))
    told = repair(cut, tmp_path / "whole")
    assert told["messages"] == len(before)
    assert told["lost"].startswith("cut off: ")
    with Reader(tmp_path / "whole") as reader:
        found = [(c.topic, c.msgtype, time, bytes(data)) for c, time, data in reader.messages()]
    assert sorted(found) == sorted(before)
    with (tmp_path / "whole" / "whole_0.mcap").open("rb") as stream:
        summary = make_reader(stream, validate_crcs=True).get_summary()
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count == len(before)
    whole = BagReader(tmp_path / "whole")
    assert (whole.about, whole.repaired) == (BagReader(LOG).about, None)
    assert recorded(tmp_path / "whole") == before == recorded(cut)


def test_a_bag_that_lacks_its_metadata_alone_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    shutil.copy(LOG, tmp_path / "bag" / "bag_0.mcap")
    assert repair(tmp_path / "bag", tmp_path / "whole")["lost"] == "metadata.yaml alone"
    assert recorded(tmp_path / "whole") == recorded(LOG)
    with pytest.raises(InputError, match="whole: is whole"):
        repair(tmp_path / "whole", tmp_path / "again")
    with pytest.raises(InputError, match=r"replay\.mcap: is whole"):
        repair(LOG, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_nothing_is_overwritten_and_nothing_made_of_nothing(cut: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="already exists"):
        repair(cut, cut)
    os.truncate(cut / "cut_0.mcap", 2_000)  # in its first chunk
    with pytest.raises(InputError, match=r"holds no message \(cut off: "):
        repair(cut, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_a_bag_with_a_damaged_chunk_is_not_whole(tmp_path: Path) -> None:
    file = tmp_path / "damaged.mcap"
    shutil.copy(LOG, file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8] = bytes(255 - byte for byte in data[len(data) // 2 : len(data) // 2 + 8])
    file.write_bytes(data)
    with pytest.raises(InputError, match="is damaged before byte"):
        repair(file, tmp_path / "out")
