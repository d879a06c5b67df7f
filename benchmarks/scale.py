"""Training on more transitions than memory holds: the rate beside that from memory, and the memory it takes.

    python benchmarks/scale.py --work /data/scratch --rows 100000000

Makes a source of synthetic transitions in the robot's shapes (kept in --work), then a trainer with its rows on the
disk (`landbridge train --scratch`) and, after the resident maximum has been read, one with the same rows in memory.
They take turns, a slice each per round; before each slice the page cache forgets the rows, so all are read from the
disk. The naive mix, compiled, has the fastest update, beside which reading weighs most. A faster machine is bounded by
`pool_ms`, the time to read a block's rows that nobody has asked the disk for before. Writes `results/scale.json`.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console

from landbridge.episode import DatasetMetadata, Episode, write_dataset
from landbridge.errors import InputError
from landbridge.provenance import commit
from landbridge.robot import Robot, load_robot
from landbridge.task import load_task
from landbridge.training.alignments.base import BLOCK
from landbridge.training.assembly import build
from landbridge.training.config import TrainConfig
from landbridge.training.dataset import open_domains
from landbridge.training.loop import block
from landbridge.training.statistics import bootstrap, median
from landbridge.training.stream import read_domains
from landbridge.training.stretches import Stretches
from landbridge.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results" / "scale.json"
TARGET_ROWS = 3_000


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        work: Folder on a disk, for the datasets and the rows.
        rows: Source transitions.
        episode_steps: Of an episode; HDF5 has a group for each, so shorter ones take longer to make and to read.
        robot: Whose shapes the transitions have.
        rounds: Slices of each.
        slice_blocks: Blocks of 256 steps in a slice.
    """

    work: Path
    rows: int = 100_000_000
    episode_steps: int = 10_000
    robot: str = "furuta"
    rounds: int = 6
    slice_blocks: int = 2


def main(options: Options) -> None:
    """Make the data, measure, print and record."""
    if not options.work.is_dir():
        raise InputError("--work", f"{options.work} is not a folder", "name an existing one, on a disk")
    torch.set_num_threads(1)
    robot = load_robot(options.robot)
    laps = [time.monotonic()]
    source = _make(robot, options, "source", options.rows)
    target = _make(robot, options, "target", TARGET_ROWS)
    laps.append(time.monotonic())
    domains, stream = read_domains(robot, open_domains(robot, {"source": source, "target": target}), streamed=True)
    assert stream is not None
    laps.append(time.monotonic())
    normaliser = stream.normaliser(domains, load_task(robot).observer.names)
    config = TrainConfig(alignment="none", compile=True, steps=1_000_000)
    disk = build(options.work, domains, normaliser, load_task(robot), robot, config, None, stream, options.work)
    laps.append(time.monotonic())
    for _ in range(options.slice_blocks):  # the first one compiles
        _block(disk)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert disk.stretches is not None
    rates = _race(disk, disk.stretches, options)
    ratios = rates["disk"] / rates["memory"]
    low, high = bootstrap(ratios[:, None], median)
    figures = {
        "source_rows": len(stream),
        "resident_gib": resident / 2**30,
        "steps_per_s": {name: float(np.median(values)) for name, values in rates.items()},
        "disk_to_memory": float(np.median(ratios)),
        "disk_to_memory_low": low,
        "disk_to_memory_high": high,
        "pool_ms": 1000 * _cold_read(disk.stretches),
        "seconds": dict(zip(("make", "read", "pack"), np.diff(laps).round(1).tolist(), strict=True)),
    }
    Console().print_json(data=figures)
    settings = {name: value for name, value in vars(options).items() if name != "work"}
    facts = {"commit": commit(), "torch": torch.__version__, "settings": settings}
    RESULTS.write_text(json.dumps(facts | figures, indent=2) + "\n")


def _make(robot: Robot, options: Options, domain: str, rows: int) -> Path:
    """A dataset of random numbers, unless it is there."""
    path = options.work / f"{domain}_{options.robot}_{rows}_{options.episode_steps}"
    if path.exists():
        return path
    task = load_task(robot)
    metadata = DatasetMetadata.of(
        robot.spec,
        task=task.name,
        task_hash=task.digest(),
        domain=domain,
        engine="synthetic",
        engine_version="",
        scenario="none",
        controllers={"synthetic": rows},
        measured_rate_hz=robot.spec.control_rate_hz,
        seed=0,
    )
    sizes = task.observer.size, task.observer.num_actions
    write_dataset(path, _episodes(rows, options.episode_steps, *sizes, robot.spec.control_dt), metadata)
    return path


def _episodes(rows: int, length: int, obs: int, action: int, control_dt: float) -> Iterator[Episode]:
    rng = np.random.default_rng(0)
    for first in range(0, rows, length):
        steps = min(length, rows - first)
        yield Episode(
            obs=rng.standard_normal((steps + 1, obs), np.float32),
            actions=rng.random((steps, action), np.float32) * 2 - 1,
            rewards=rng.random(steps, np.float32),
            terminated=np.zeros(steps, bool),
            truncated=np.arange(steps) == steps - 1,
            stamps=np.arange(steps + 1) * control_dt,
            written=np.zeros(steps),
        )


def _race(disk: Trainer, stretches: Stretches, options: Options) -> dict[str, NDArray[np.float64]]:
    """Steps per second (rounds,) of the trainer, and of one that has the same rows in memory, by turns."""
    assert disk.source is not None
    rows = np.empty((len(stretches), disk.source.shape[1]), np.float32)
    stretches.file.seek(0)
    stretches.file.readinto(rows.data)
    os.fsync(stretches.file.fileno())  # the page cache forgets only what is written
    memory = Trainer(disk.config, disk.agent, disk.alignment, torch.from_numpy(rows), disk.target, options.work)
    _block(memory)  # compiles
    rates: dict[str, list[float]] = {"disk": [], "memory": []}
    for _ in range(options.rounds):
        for name, trainer in (("disk", disk), ("memory", memory)):
            _forget(stretches)
            began = time.monotonic()
            for _ in range(options.slice_blocks):
                _block(trainer)
            rates[name].append(options.slice_blocks * BLOCK / (time.monotonic() - began))
    return {name: np.array(values) for name, values in rates.items()}


def _block(trainer: Trainer) -> None:
    block([trainer], trainer.step + BLOCK, lambda trainer, metrics: None)


def _forget(stretches: Stretches) -> None:
    os.posix_fadvise(stretches.file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _cold_read(stretches: Stretches) -> float:
    """Median seconds of 20 blocks' reading from the disk."""
    seconds = []
    for number in range(20):
        _forget(stretches)
        began = time.monotonic()
        stretches.pool(number)
        seconds.append(time.monotonic() - began)
    return float(np.median(seconds))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
