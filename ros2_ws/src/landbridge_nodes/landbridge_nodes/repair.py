"""`landbridge repair`: a bag that was cut off becomes one that ROS 2's own tools open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from landbridge.bag import BagReader
from landbridge.errors import InputError
from landbridge.files import require_new
from landbridge_nodes import topics
from landbridge_nodes.bag import METADATA, BagWriter

TOPICS = {topic.name: topic for topic in vars(topics).values() if isinstance(topic, topics.Topic)}


def repair(bag: Path, /, out: Path) -> dict[str, Any]:
    """Write a whole copy of a bag that a kill, a full disk or a power loss has cut off, with index and `metadata.yaml`.

    Every message before the cut is kept, byte for byte; the truncated bag itself is not changed. Only `ros2 bag` and
    the like need this: landbridge's own commands read a truncated bag as it is.

    Example: landbridge repair bags/cut --out bags/whole

    Args:
        bag: Bag folder, or one .mcap file.
        out: Bag folder to write; must not exist.
    """
    require_new(out)
    reader = BagReader(bag)
    recorded = {channel.topic for _, channel, _ in reader.raw()}  # reads every chunk: one may be damaged
    if reader.repaired is None and (not bag.is_dir() or (bag / METADATA).is_file()):
        raise InputError(bag, "is whole", "use it as it is")
    if not recorded:
        raise InputError(bag, f"holds no message ({reader.repaired})", "record again")
    if unknown := sorted(recorded - TOPICS.keys()):
        raise InputError(bag, f"has topics that landbridge does not record: {unknown}", "use `ros2 bag reindex`")
    whole = BagWriter(out, reader.about, [topic for name, topic in TOPICS.items() if name in recorded])
    for _, channel, message in reader.raw():
        whole.write(channel.topic, message.data, message.log_time)
    whole.close()
    if whole.fault:
        raise InputError(out, f"cannot be written: {whole.fault}", "free space, or choose another --out")
    return {"path": str(out), "messages": sum(whole.counts.values()), "lost": reader.repaired or "metadata.yaml alone"}
