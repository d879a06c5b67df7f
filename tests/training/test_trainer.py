from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from landbridge.errors import InputError
from landbridge.training.agents.iql import IQLConfig
from landbridge.training.config import TrainConfig
from landbridge.training.run import read_run
from landbridge.training.train import train
from landbridge.training.trainer import CHECKPOINT, Block, Trainer, read_checkpoint
from landbridge.training.update import Rows, Update

from .conftest import BLOCK

pytestmark = pytest.mark.usefixtures("short_blocks")
CONFIG = TrainConfig(steps=2 * BLOCK + 11, rows=16, alignment="none", iql=IQLConfig(hidden=(8,)))


def poison_rewards(monkeypatch: pytest.MonkeyPatch, at_step: int) -> None:
    """Every source reward is NaN from the block that begins at `at_step`."""
    block = Trainer.block

    def poisoned(self: Trainer, until: int) -> Block:
        if self.step == at_step and self.source is not None:
            self.source[:, self._width - 2] = float("nan")
        return block(self, until)

    monkeypatch.setattr(Trainer, "block", poisoned)


@pytest.mark.parametrize("at_step", [0, BLOCK])
def test_nan_rewards_leave_a_good_checkpoint(
    tmp_path: Path, data: Any, monkeypatch: pytest.MonkeyPatch, at_step: int
) -> None:
    monkeypatch.setattr("landbridge.training.loop.CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patched:
        poison_rewards(patched, at_step)
        with pytest.raises(InputError, match=f"NaN or Inf at step {at_step}"):
            train(tmp_path / "run", data.source, data.target, config=CONFIG)
    state = read_checkpoint(tmp_path / "run")
    assert state["step"] == at_step
    assert all(bool(value.isfinite().all()) for value in state["agent"].values())
    with np.load(tmp_path / "run/nan_batch.npz") as saved:
        assert saved["rows"].shape == (18, 19)  # 16 of the source, 2 of the target; 8 + 1 + 8 + reward + not_terminated
        assert np.isnan(saved["rows"]).any(1).tolist() == [True] * 16 + [False] * 2
        assert saved["weights"].tolist() == [1.0] * 18
    train(tmp_path / "whole", data.source, data.target, config=CONFIG)
    train(tmp_path / "run", resume=True)
    resumed, whole = read_checkpoint(tmp_path / "run"), read_checkpoint(tmp_path / "whole")
    assert all(torch.equal(value, whole["agent"][name]) for name, value in resumed["agent"].items())


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, data: Any) -> None:
    train(tmp_path / "run", data.source, data.target, config=dataclasses.replace(CONFIG, steps=10))
    (tmp_path / "run" / CHECKPOINT).write_bytes(b"cut off")
    with pytest.raises(InputError, match=r"checkpoint.pt: not a readable checkpoint"):
        train(tmp_path / "run", resume=True)


def test_changed_datasets_are_refused_on_resume(tmp_path: Path, data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "run", data.source, data.target, config=dataclasses.replace(CONFIG, steps=10))
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()
    monkeypatch.setattr("landbridge.training.dataset.Transitions.digest", lambda self: "another")
    with pytest.raises(InputError, match="datasets have changed"):
        train(tmp_path / "run", resume=True)
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before


def test_a_run_goes_on_where_its_datasets_have_moved_to(tmp_path: Path, data: Any) -> None:
    was, moved = tmp_path / "was", tmp_path / "moved"
    shutil.copytree(data.target, was)
    train(tmp_path / "run", data.source, was, config=dataclasses.replace(CONFIG, steps=10))
    was.rename(moved)
    with pytest.raises(InputError, match=r"was: no such target dataset\. say where it is with --target"):
        train(tmp_path / "run", resume=True)
    assert train(tmp_path / "run", target=moved, resume=True)["step"] == 10
    with pytest.raises(InputError, match="is a source dataset, given as --target"):
        train(tmp_path / "run", target=data.source, resume=True)


def test_a_checkpoint_of_an_older_optimiser_is_refused(tmp_path: Path, data: Any) -> None:
    train(tmp_path / "run", data.source, data.target, config=dataclasses.replace(CONFIG, steps=10))
    state = read_checkpoint(tmp_path / "run")
    state["optimiser"] = {"state": {}, "param_groups": []}  # torch.optim's, as it was
    torch.save(state, tmp_path / "run" / CHECKPOINT)
    message = r"checkpoint.pt: of another version of landbridge: state, param_groups in place of"
    with pytest.raises(InputError, match=message):
        train(tmp_path / "run", resume=True)


@pytest.mark.parametrize(("alignment", "rows"), [("none", 16 + 4), ("source_only", 16), ("target_only", 16)])
def test_the_share_of_the_target_in_a_step(
    tmp_path: Path, data: Any, monkeypatch: pytest.MonkeyPatch, alignment: str, rows: int
) -> None:
    seen: list[int] = []
    take = Update.__call__

    def watched(self: Update, batches: Sequence[Rows], step: int) -> list[torch.Tensor]:
        seen.append(len(batches[0][0]))
        return take(self, batches, step)

    monkeypatch.setattr(Update, "__call__", watched)
    config = dataclasses.replace(CONFIG, steps=3, alignment=alignment, target_share=0.25)
    train(tmp_path / "run", data.source, data.target, config=config)
    assert seen == [rows] * 3


def test_a_run_from_before_the_share_goes_on_with_all_target_rows(tmp_path: Path, data: Any) -> None:
    config = dataclasses.replace(CONFIG, steps=10, target_share=1.0)
    train(tmp_path / "run", data.source, data.target, config=config)
    path = tmp_path / "run" / "config.json"
    run = json.loads(path.read_text())
    assert run["train"].pop("target_share") == 1.0
    path.write_text(json.dumps(run))
    assert TrainConfig.from_json(read_run(tmp_path / "run")["train"]) == config
