"""A source that is not held in memory: what is on the disk, how it is drawn from, what a kill leaves."""

from __future__ import annotations

import dataclasses
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from landbridge.cli import main
from landbridge.episode import Episode, open_dataset, write_dataset
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.task import load_task
from landbridge.training import stream, stretches
from landbridge.training.agents.iql import IQLConfig
from landbridge.training.alignments import ALIGNMENTS
from landbridge.training.assembly import build
from landbridge.training.config import TrainConfig
from landbridge.training.dataset import Normaliser, load_domains, open_domain, open_domains
from landbridge.training.export import export
from landbridge.training.stream import Stream, read_domains
from landbridge.training.stretches import Stretches
from landbridge.training.train import train
from landbridge.training.trainer import CHECKPOINT, read_checkpoint

from .conftest import BLOCK, Data, kill_when
from .test_alignments import SMALL

ROBOT = load_robot("furuta")
NAMES = [f"column {i}" for i in range(8)]
STEPS = 10 * BLOCK
CLI = (
    "import sys, landbridge.training.trainer as t, landbridge.training.loop as l, landbridge.training.stream as s; "
    "import landbridge.cli as c; "
    f"t.BLOCK = {BLOCK}; l.CHECKPOINT_SECONDS = 0; s.TRANSITIONS = 400; sys.exit(c.main())"
)


def rows_of(disk: Stretches) -> NDArray[np.float32]:
    """The whole file, in order."""
    disk.file.seek(0)
    width = disk._pool.shape[2]
    whole: NDArray[np.float32] = np.frombuffer(disk.file.read(), np.float32).reshape(-1, width)
    return whole


def in_order(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows[np.lexsort(rows.T)]


def made(data: Data, folder: Path, name: str, scratch: Path | None) -> Any:
    """A trainer, its source in memory or on disk."""
    paths = {key: getattr(data, key) for key in ALIGNMENTS[name].domains}
    domains, whole = read_domains(ROBOT, open_domains(ROBOT, paths), streamed=scratch is not None)
    normaliser = whole.normaliser(domains, NAMES) if whole else Normaliser.of(list(domains.values()), NAMES)
    config = dataclasses.replace(SMALL, alignment=name)  # type: ignore[arg-type]
    return build(folder, domains, normaliser, load_task(ROBOT), ROBOT, config, None, whole, scratch)


SPLIT = [name for name, a in ALIGNMENTS.items() if "source" in a.domains and not a.whole_source]


@pytest.mark.parametrize("name", SPLIT)
def test_the_rows_on_disk_are_those_in_memory(tmp_path: Path, data: Data, name: str) -> None:
    memory = made(data, tmp_path, name, None).source.numpy()
    disk = made(data, tmp_path, name, tmp_path).stretches
    assert len(disk) == len(memory)
    rows = rows_of(disk)
    np.testing.assert_array_equal(rows[len(memory) :], rows[: min(stretches.STRETCH, len(memory))])
    np.testing.assert_allclose(in_order(rows[: len(memory)]), in_order(memory), atol=2e-4)


def test_chunks_change_neither_the_digest_of_rows_nor_the_normaliser(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "TRANSITIONS", 400)  # of 1500 rows; episodes are longer
    domains = load_domains(ROBOT, {"source": data.source, "target": data.target})
    whole = Stream(ROBOT, open_domain(ROBOT, "source", data.source))
    plain, pooled = Normaliser.of(list(domains.values()), NAMES), whole.normaliser(domains, NAMES)
    np.testing.assert_allclose(pooled.mean, plain.mean, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(pooled.std, plain.std, rtol=1e-12)
    chunks = list(whole.shuffled(0))
    assert [len(chunk) for chunk in chunks] == [400, 400, 400, 300]
    assert [len(whole.sample), len(np.unique(whole.sample.episode))] == [401, len(open_dataset(data.source))]
    obs = np.concatenate([chunk.obs for chunk in chunks])
    np.testing.assert_array_equal(in_order(obs), in_order(domains["source"].obs))
    assert whole.digest == Stream(ROBOT, open_domain(ROBOT, "source", data.source)).digest

    def touch(episode: Episode) -> Episode:
        return dataclasses.replace(episode, rewards=episode.rewards + np.float32(1e-3))

    source = open_dataset(data.source)
    made_up = source.metadata.model_copy(update={"engine": "synthetic"})
    write_dataset(tmp_path / "other", (touch(e) for e in source), made_up)
    assert Stream(ROBOT, open_domain(ROBOT, "source", tmp_path / "other")).digest != whole.digest


def test_a_nan_in_a_later_chunk_is_named_by_its_row(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "TRANSITIONS", 400)
    source = open_dataset(data.source)
    episodes = list(source)
    episodes[-1].rewards[-1] = np.nan
    write_dataset(tmp_path / "nan", episodes, source.metadata)
    with pytest.raises(InputError, match="1 transitions have NaN or Inf, first at rows 1499"):
        Stream(ROBOT, open_domain(ROBOT, "source", tmp_path / "nan"))


def test_every_row_is_drawn_as_often_as_every_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretches, "STRETCH", 16)
    rows, blocks = 1000, 2000
    disk = Stretches(tmp_path, [torch.arange(rows, dtype=torch.float32)[:, None]], (rows, 1), seed=0)
    drawn = torch.cat([disk.pool(block).flatten().long() for block in range(blocks)])
    counts = np.bincount(drawn.numpy(), minlength=rows)
    expected = blocks * stretches.POOL * 16 / rows  # 4096; each count is a binomial with a deviation of its root
    assert np.abs(counts - expected).max() < 5 * expected**0.5
    again = Stretches(tmp_path, [torch.arange(rows, dtype=torch.float32)[:, None]], (rows, 1), seed=0)
    assert torch.equal(again.pool(7), disk.pool(7))


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows of 2 columns among rows of 3"):
        Stretches(tmp_path, [torch.zeros(5, 3), torch.zeros(5, 2)], (10, 3), seed=0)
    with pytest.raises(ValueError, match="9 rows, announced as 10"):
        Stretches(tmp_path, [torch.zeros(5, 3), torch.zeros(4, 3)], (10, 3), seed=0)


def test_a_block_sees_the_whole_dataset_whatever_its_order(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Episodes in the order of what is measured of them, the worst case: neighbours are alike, and constant."""
    monkeypatch.setattr(stream, "TRANSITIONS", 2500)
    monkeypatch.setattr(stretches, "STRETCH", 64)
    monkeypatch.setattr(stretches, "POOL", 32)
    steps, values = 100, np.sort(np.random.default_rng(0).normal(size=100))

    def episode(value: float) -> Episode:
        obs = np.full((steps + 1, 8), value, np.float32)
        plain = np.zeros(steps, bool)
        return Episode(
            obs=obs,
            actions=np.zeros((steps, 1), np.float32),
            rewards=np.zeros(steps, np.float32),
            terminated=plain,
            truncated=plain,
            stamps=np.arange(steps + 1.0),
            written=np.zeros(steps),
        )

    made_up = open_dataset(data.source).metadata.model_copy(update={"engine": "synthetic"})
    write_dataset(tmp_path / "sorted", map(episode, values), made_up)
    whole = Stream(ROBOT, open_domain(ROBOT, "source", tmp_path / "sorted"))
    parts = (torch.from_numpy(chunk.obs[:, :1]) for chunk in whole.shuffled(0))
    disk = Stretches(tmp_path, parts, (len(whole), 1), seed=0)
    means = np.array([disk.pool(block).mean().item() for block in range(200)])
    independent = values.var() / (64 * 32)  # variance of the mean of as many independent rows
    # A chunk has 25 of the 100 episodes, so its mean varies by 3/4 of 1/25 of the variance, and 32 chunks are drawn:
    # 0.03 / 32 beside 1 / 2048 is 2.9 times the independent variance. Stretches not shuffled would have 64 times.
    assert means.var() / independent < 4
    assert abs(means.mean() - values.mean()) < 4 * (4 * independent / len(means)) ** 0.5


@pytest.mark.usefixtures("short_blocks")
def test_a_killed_run_leaves_nothing_and_goes_on_to_the_same_weights(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    options = ["--alignment", "dynamics", "--rows", "16", "--iql.hidden", "16", "--steps", str(STEPS)]
    options += ["--dynamics.predictor.source-steps", "50", "--dynamics.predictor.steps", "50"]
    command = ["train", "--source", str(data.source), "--target", str(data.target), "--scratch", str(scratch), *options]
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", CLI, *command, "--out", str(cut)], env=environment)
    kill_when(process, lambda: (cut / CHECKPOINT).is_file() and read_checkpoint(cut)["step"] > 0)
    assert 0 < read_checkpoint(cut)["step"] < STEPS
    assert list(scratch.iterdir()) == []
    monkeypatch.setattr(stream, "TRANSITIONS", 400)
    scratch.rmdir()
    with pytest.raises(InputError, match=r"--scratch: .*scratch is not a folder"):
        train(cut, resume=True)
    (elsewhere := tmp_path / "elsewhere").mkdir()
    train(cut, scratch=elsewhere, resume=True)
    scratch.mkdir()
    assert main([*command, "--out", str(whole)]) == 0
    agents = [read_checkpoint(folder)["agent"] for folder in (whole, cut)]
    assert all(torch.equal(value, agents[1][name]) for name, value in agents[0].items())
    assert export(cut, tmp_path / "bundle")["golden_rows"] > 128


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, data: Data) -> None:
    config = TrainConfig(steps=10, alignment="otdf")
    with pytest.raises(InputError, match=r"--scratch: .*absent is not a folder"):
        train(tmp_path / "run", data.source, data.target, config=config, scratch=tmp_path / "absent")
    with pytest.raises(InputError, match="--scratch: alignment 'otdf' weighs every source row against all others"):
        train(tmp_path / "run", data.source, data.target, config=config, scratch=tmp_path)
    small = TrainConfig(steps=10, alignment="source_only", iql=IQLConfig(hidden=(8,)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the kernel refuses to make any file longer
    try:
        with pytest.raises(InputError, match="cannot take 1500 rows: File too large"):
            train(tmp_path / "run", data.source, config=small, scratch=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
