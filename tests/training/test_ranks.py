"""Two ranks of `torchrun` against one process with the same global batch."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from landbridge.cli import main
from landbridge.errors import InputError
from landbridge.training.config import TrainConfig
from landbridge.training.train import train
from landbridge.training.trainer import read_checkpoint

from .conftest import Data

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "landbridge"]
PREDICTOR = "--dynamics.predictor.hidden 16 --dynamics.predictor.source-steps 0 --dynamics.predictor.steps 50"
# CQL draws noise for every row, `dynamics` weighs every row: each rank must take its own of both
SMALL = f"--agent cql --alignment dynamics --cql.hidden 16 --rows 32 --steps 60 --seed 3 {PREDICTOR}".split()


def test_two_ranks_train_what_one_process_trains(tmp_path: Path, data: Data) -> None:
    arguments = ["train", "--source", str(data.source), "--target", str(data.target), *SMALL, "--out"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, *arguments, str(tmp_path / "two"), "--json"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["step"] == 60  # one rank speaks
    assert main([*arguments, str(tmp_path / "one")]) == 0
    one, two = (read_checkpoint(tmp_path / name) for name in ("one", "two"))
    assert one["step"] == two["step"] == 60
    assert torch.equal(one["noise"], two["noise"])
    for name, value in one["agent"].items():
        torch.testing.assert_close(two["agent"][name], value, rtol=1e-4, atol=1e-4, msg=name)
    rows = [list(csv.DictReader((tmp_path / name / "metrics.csv").open())) for name in ("one", "two")]
    assert len(rows[1]) == 1
    torch.testing.assert_close(*(torch.tensor([float(v) for v in r[0].values()]) for r in rows), rtol=1e-3, atol=1e-4)


def test_rows_that_the_ranks_cannot_share_are_refused(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("landbridge.training.ranks.count", lambda: 2)
    with pytest.raises(InputError, match="--rows: 33 do not divide by 2 ranks"):
        train(tmp_path / "run", data.source, config=TrainConfig(alignment="source_only", rows=33))
    assert not (tmp_path / "run").exists()
