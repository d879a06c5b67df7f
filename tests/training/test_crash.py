"""What a crash, a full disk or a kill leaves behind."""

from __future__ import annotations

import csv
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from landbridge.cli import main
from landbridge.errors import InputError
from landbridge.files import write_atomic
from landbridge.training.agents.iql import IQLConfig
from landbridge.training.agents.td3bc import TD3BCConfig
from landbridge.training.config import TrainConfig
from landbridge.training.log import Log
from landbridge.training.run import RESUMED
from landbridge.training.train import train
from landbridge.training.trainer import CHECKPOINT, Block, Trainer, read_checkpoint

from .conftest import BLOCK, QUICK, Data, kill_when

STEPS = 10 * BLOCK
EACH_BLOCK = (
    "import sys, landbridge.training.trainer as t, landbridge.training.loop as l, landbridge.cli as c; "
    f"t.BLOCK = {BLOCK}; l.CHECKPOINT_SECONDS = 0; sys.exit(c.main())"
)


@pytest.mark.usefixtures("short_blocks")
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, data: Data) -> None:
    options = ["--alignment", "none", "--rows", "16", "--iql.hidden", "16", "--steps", str(STEPS)]
    command = ["train", "--source", str(data.source), "--target", str(data.target), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    run = tmp_path / "cut"
    process = subprocess.Popen([sys.executable, "-c", EACH_BLOCK, *command, "--out", str(run)], env=environment)
    log = run / "metrics.csv"
    kill_when(process, lambda: log.is_file() and log.read_text().count("\n") >= 3)
    assert read_checkpoint(run)["step"] < STEPS
    train(run, resume=True)
    whole, cut = (read_checkpoint(folder)["agent"] for folder in (tmp_path / "whole", run))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    steps = [int(row["step"]) for row in csv.DictReader(log.open())]
    assert steps == list(range(BLOCK, STEPS + 1, BLOCK))


def die_at_step(count: int) -> None:
    """SIGKILL to this process at the `count`-th step of its optimisers: the predictor's, then also the agent's."""
    steps = itertools.count(1)

    def step(*_: object) -> None:
        if next(steps) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_pre_hook(step)


def die_at_checkpoint(count: int) -> None:
    """The same when the `count`-th checkpoint is half written."""
    checkpoints, write = itertools.count(1), Path.write_bytes

    def write_half(path: Path, content: bytes) -> int:
        if path.name.startswith(CHECKPOINT) and next(checkpoints) == count:
            write(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, content)

    Path.write_bytes = write_half  # type: ignore[method-assign, assignment]  # it will not see a second test


@pytest.mark.usefixtures("short_blocks")
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_weights(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the fit of its predictor, between any two steps, and with a checkpoint half written. The agent draws noise."""
    monkeypatch.setattr("landbridge.training.loop.CHECKPOINT_SECONDS", 0)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    config = TrainConfig(steps=4 * BLOCK, rows=16, agent="td3bc", td3bc=TD3BCConfig(hidden=(16,)), tabb=QUICK)
    train(whole, *data, config=config)
    fit, rng = QUICK.predictor.source_steps + QUICK.predictor.steps, np.random.default_rng(0)
    in_fit, in_training, resumed = (int(rng.integers(*ends)) for ends in ((2, fit), (fit, fit + 2 * BLOCK), (2, BLOCK)))
    deaths = [
        (die_at_step, in_fit),
        (die_at_checkpoint, 1),
        (die_at_step, in_training),
        (die_at_checkpoint, 2),
        (die_at_step, resumed),
    ]

    def live(die: Callable[[int], None], count: int) -> None:
        die(count)
        train(cut, *data, config=config, resume=cut.exists())

    for death in deaths:
        life = multiprocessing.get_context("fork").Process(target=live, args=death)
        life.start()
        life.join()
        assert life.exitcode == -signal.SIGKILL, death
    assert 0 < read_checkpoint(cut)["step"] < config.steps
    train(cut, resume=True)
    ended, expected = (read_checkpoint(run)["agent"] for run in (cut, whole))
    assert all(torch.equal(value, ended[name]) for name, value in expected.items())


def test_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "checkpoint.pt"
    write_atomic(path, b"good")
    with full_disk(), pytest.raises(InputError, match=r"checkpoint.pt: cannot be written: File too large.*--resume"):
        write_atomic(path, bytes(2000), RESUMED)
    assert path.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_full_from_the_first_checkpoint_on_costs_nothing_but_time(
    tmp_path: Path, data: Data, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    run, config = tmp_path / "run", TrainConfig(steps=2, rows=16, alignment="none", iql=IQLConfig(hidden=(16,)))
    save = Trainer.save

    def save_on_a_full_disk(self: Trainer) -> None:
        with full_disk():
            save(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "save", save_on_a_full_disk)
        with pytest.raises(InputError, match=r"checkpoint.pt: .* with --resume"):
            train(run, *data, config=config)
    assert train(run, resume=True)["step"] == 2


def test_an_interrupted_run_says_that_it_can_be_gone_on_with(
    tmp_path: Path, data: Data, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--alignment", "none", "--rows", "16", "--iql.hidden", "16", "--steps", "1000"]
    command = ["train", "--out", str(tmp_path / "run"), "--source", str(data.source), "--target", str(data.target)]
    block = Trainer.block

    def interrupted(self: Trainer, until: int) -> Block:
        signal.raise_signal(signal.SIGINT)
        return block(self, until)

    monkeypatch.setattr(Trainer, "block", interrupted)
    assert main([*command, *options]) == 130
    assert "run has stopped at step 256 of 1000; the same command with --resume goes on" in capsys.readouterr().err
    monkeypatch.setattr(Trainer, "block", block)
    assert main([*command, *options, "--resume"]) == 0


@pytest.mark.usefixtures("short_blocks")
def test_a_seed_that_is_added_to_finished_ones_leaves_their_diagnostics_and_may_be_interrupted(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, block = tmp_path / "runs", Trainer.block
    config = TrainConfig(steps=4 * BLOCK, rows=16, iql=IQLConfig(hidden=(16,)), tabb=QUICK)
    train(out, *data, config=config, seeds=(0,))
    kept = [(out / "seed0" / name).read_bytes() for name in ("diagnostics.npz", "checkpoint.pt")]

    def interrupted(self: Trainer, until: int) -> Block:
        signal.raise_signal(signal.SIGINT)
        return block(self, until)

    monkeypatch.setattr(Trainer, "block", interrupted)
    command = ["train", "--out", str(out), "--source", str(data.source), "--target", str(data.target)]
    options = f"--steps {4 * BLOCK} --rows 16 --iql.hidden 16 --tabb.predictor.hidden 16".split()
    options += ["--tabb.predictor.source-steps", "20", "--tabb.predictor.steps", "50", "--seeds", "0", "1", "--resume"]
    assert main([*command, *options]) == 130
    assert read_checkpoint(out / "seed1")["step"] == BLOCK
    monkeypatch.setattr(Trainer, "block", block)
    assert main([*command, *options]) == 0
    assert read_checkpoint(out / "seed1")["step"] == 4 * BLOCK
    assert [(out / "seed0" / name).read_bytes() for name in ("diagnostics.npz", "checkpoint.pt")] == kept


def test_a_full_disk_is_named_by_the_log(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").symlink_to("/dev/full")
    with (
        pytest.raises(InputError, match=r"metrics.csv: cannot be written: No space left on device.*--resume"),
        Log(tmp_path, 0) as log,
    ):
        log.write(256, {"loss": 1.0})


def test_the_log_drops_what_came_after_the_checkpoint_and_a_half_written_row(tmp_path: Path) -> None:
    with Log(tmp_path, 0) as log:
        for step in (256, 512, 768):
            log.write(step, {"loss": step / 2, "success": ""})
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "10")
    with Log(tmp_path, 512) as log:
        log.write(768, {"loss": 1.0, "success": 0.5})
    assert path.read_text().split() == ["step,loss,success", "256,128.0,", "512,256.0,", "768,1.0,0.5"]
