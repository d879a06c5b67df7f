from __future__ import annotations

import csv
import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from landbridge.cli import main
from landbridge.episode import Episode, open_dataset, write_dataset
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.training.agents.iql import IQL, IQLConfig
from landbridge.training.alignments.tabb import TabbConfig
from landbridge.training.config import TrainConfig
from landbridge.training.dataset import Normaliser, Transitions, load_domains, pack, unpack
from landbridge.training.policy import Actor
from landbridge.training.predictor import PredictorConfig
from landbridge.training.train import train
from landbridge.training.trainer import Block, Trainer, read_checkpoint

from .conftest import BLOCK, Data

pytestmark = pytest.mark.usefixtures("short_blocks")
SMALL = TrainConfig(
    alignment="tabb",
    steps=2 * BLOCK + 11,
    rows=16,
    iql=IQLConfig(hidden=(16,)),
    tabb=TabbConfig(predictor=PredictorConfig(members=2, hidden=16, source_steps=50, steps=100)),
)


def config(**changes: Any) -> TrainConfig:
    return dataclasses.replace(SMALL, **changes)


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = read_checkpoint(run)["agent"]
    return state


def equal(a: Path, b: Path) -> bool:
    return all(torch.equal(x, weights(b)[name]) for name, x in weights(a).items())


@pytest.mark.parametrize("alignment", ["none", "source_only", "target_only", "tabb"])
def test_every_alignment_trains_the_same_for_the_same_seed(tmp_path: Path, data: Data, alignment: Any) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        figures = train(tmp_path / name, data.source, data.target, config=config(alignment=alignment, seed=seed))
        assert figures["step"] == SMALL.steps
        assert figures["updates_per_s"] > 0
    assert equal(tmp_path / "a", tmp_path / "b")
    assert not equal(tmp_path / "a", tmp_path / "c")
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path / "a").values())


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "whole", data.source, data.target, config=config())
    block, seen = Trainer.block, []

    def until_killed(self: Trainer, until: int) -> Block:
        if len(seen) == 1:
            self.save()
            raise KeyboardInterrupt
        seen.append(until)
        return block(self, until)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "block", until_killed)
        patched.chdir(data.source.parent)  # it may be resumed from anywhere
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", Path(data.source.name), data.target, config=config())
    assert read_checkpoint(tmp_path / "cut")["step"] == BLOCK
    train(tmp_path / "cut", resume=True)
    assert equal(tmp_path / "whole", tmp_path / "cut")
    steps = [row["step"] for row in csv.DictReader((tmp_path / "cut/metrics.csv").open())]
    assert steps == [str(BLOCK), str(2 * BLOCK), str(SMALL.steps)]


def test_the_learning_curve_is_scored_and_decides_nothing(tmp_path: Path, data: Data) -> None:
    train(tmp_path / "plain", data.source, data.target, config=config(steps=BLOCK + 11))
    train(tmp_path / "scored", data.source, data.target, config=config(steps=BLOCK + 11), score="severe")
    rows = list(csv.DictReader((tmp_path / "scored/metrics.csv").open()))
    assert all(0 <= float(row["success"]) <= 1 for row in rows)
    assert equal(tmp_path / "plain", tmp_path / "scored")


def test_the_policy_that_is_scored_is_where_the_agent_trains() -> None:
    agent = IQL(3, 2, IQLConfig(hidden=(16,)), 1).to("meta")
    actor = Actor([agent], Normaliser(np.zeros(3), np.ones(3)))
    assert {tensor.device.type for tensor in (actor.mean, actor.std, *actor.parameters())} == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
def test_a_run_on_a_gpu_is_scored(tmp_path: Path, data: Data) -> None:
    train(tmp_path / "run", data.source, data.target, config=config(steps=BLOCK, device="cuda"), score="severe")
    (row,) = csv.DictReader((tmp_path / "run/metrics.csv").open())
    assert 0 <= float(row["success"]) <= 1


def test_seeds_are_one_batch_with_one_set_of_options(tmp_path: Path, data: Data) -> None:
    out = tmp_path / "runs"
    train(out, data.source, data.target, config=config(rows=8), seeds=(0,))
    with pytest.raises(InputError, match=r"seeds of different options as one batch\. repeat the options"):
        train(out, data.source, data.target, seeds=(0, 1), resume=True)  # without --rows 8
    assert [path.name for path in out.iterdir()] == ["seed0"]
    train(out, data.source, data.target, config=config(), seeds=(1,))
    with pytest.raises(InputError, match="seeds of different options as one batch"):
        train(out, resume=True)


def test_nan_stops_the_run_and_keeps_the_batch(tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    values, bad = Trainer._gather, BLOCK + 11

    def poisoned(self: Trainer, picks: Any, first: int) -> Any:
        rows, weights = values(self, picks, first)
        if self.step + first <= bad < self.step + first + len(rows):
            rows[bad - self.step - first] = float("nan")
        return rows, weights

    monkeypatch.setattr(Trainer, "_gather", poisoned)
    with pytest.raises(InputError, match=f"NaN or Inf at step {bad}"):
        train(tmp_path / "run", data.source, data.target, config=config())
    assert (tmp_path / "run/nan_batch.npz").is_file()


def test_ctrl_c_leaves_a_checkpoint_and_exit_code_130(tmp_path: Path, data: Data) -> None:
    run = tmp_path / "run"
    started = threading.Event()

    def interrupt() -> None:
        import os
        import signal

        log = run / "metrics.csv"
        while not log.is_file() or log.read_text().count("\n") < 2:  # the header, and the first block
            started.wait(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    arguments = ["--source", str(data.source), "--target", str(data.target), "--steps", "200000", "--rows", "16"]
    assert main(["train", "--out", str(run), *arguments, "--alignment", "none", "--iql.hidden", "16"]) == 130
    thread.join()
    assert 0 < read_checkpoint(run)["step"] < 200_000


def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path, data: Data) -> None:
    cases = [
        ({"source": data.target, "target": data.target}, "is a target dataset, given as --source"),
        ({"source": data.source}, "needs a target dataset"),
        ({"source": data.source, "target": tmp_path / "absent"}, "no such target dataset"),
        ({"source": data.source, "target": data.target, "score": "mountain"}, "no scenario 'mountain'"),
    ]
    for arguments, message in cases:
        with pytest.raises(InputError, match=message):
            train(tmp_path / "run", config=config(), **arguments)  # type: ignore[arg-type]
        assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="no such target dataset"):  # of no use to this alignment
        train(tmp_path / "run", data.source, tmp_path / "absent", config=config(alignment="source_only"))
    assert not (tmp_path / "run").exists()


def rewrite(path: Path, out: Path, change: Any, count: int | None = None, **metadata: Any) -> Path:
    dataset = open_dataset(path)
    episodes = [change(episode) for episode in dataset][:count]
    write_dataset(out, episodes, dataset.metadata.model_copy(update=metadata))
    return out


def test_damaged_and_foreign_datasets_are_refused(tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    def poison(episode: Episode) -> Episode:
        obs = episode.obs.copy()
        obs[7, 0] = np.nan
        return dataclasses.replace(episode, obs=obs)

    robot = load_robot("furuta")
    nan = rewrite(data.target, tmp_path / "nan", poison)
    with pytest.raises(InputError, match="NaN or Inf, first at rows 6, 7"):
        load_domains(robot, {"target": nan})
    other = rewrite(data.target, tmp_path / "other", lambda e: e, robot_hash="0" * 64)
    with pytest.raises(InputError, match="training is for 'furuta'"):
        load_domains(robot, {"target": other})
    easier = vars(robot.module("task"))
    with monkeypatch.context() as patched:  # a number beside the class: the digest does not tell
        patched.setitem(easier, "UPRIGHT", 2.0)
        with pytest.raises(
            InputError, match=r"transitions have a reward or an end that the robot's task does not give"
        ):
            load_domains(robot, {"target": data.target})
    stale = rewrite(data.target, tmp_path / "stale", lambda e: e, task_hash="0" * 64)
    with pytest.raises(InputError, match="the robot's task now is"):
        load_domains(robot, {"target": stale})

    sparse = rewrite(data.target, tmp_path / "sparse", lambda e: e.cut(10), count=1)
    with pytest.raises(InputError, match="only 10 target transitions, at least 64"):
        load_domains(robot, {"target": sparse})


def test_packing_round_trips_and_marks_terminals() -> None:
    rng = np.random.default_rng(0)
    rows = Transitions(
        obs=rng.normal(size=(5, 3)).astype(np.float32),
        action=rng.uniform(-1, 1, (5, 2)).astype(np.float32),
        reward=np.arange(5, dtype=np.float32),
        next_obs=rng.normal(size=(5, 3)).astype(np.float32),
        terminated=np.array([False, False, True, False, False]),
        episode=np.zeros(5, np.int64),
    )
    normaliser = Normaliser.of([rows], ["a", "b", "c"])
    batch = unpack(pack(rows, normaliser, np.ones((5, 4), np.float32), reward_scale=0.5), 3, 2)
    np.testing.assert_allclose(batch.obs.numpy() * normaliser.std + normaliser.mean, rows.obs, atol=1e-6)
    assert batch.obs.mean(0).abs().max() < 1e-6
    assert batch.reward.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert batch.not_terminated.tolist() == [1.0, 1.0, 0.0, 1.0, 1.0]
    assert batch.extra.shape == (5, 4)


def test_a_column_that_never_changes_is_named() -> None:
    flat = Transitions(
        *(np.zeros((4, 2), np.float32), np.zeros((4, 1), np.float32), np.zeros(4, np.float32)),
        np.zeros((4, 2), np.float32),
        np.zeros(4, bool),
        np.zeros(4, np.int64),
    )
    with pytest.warns(UserWarning, match="never change: still, dead"):
        assert Normaliser.of([flat], ["still", "dead"]).std.tolist() == [1e-3, 1e-3]


def test_the_config_round_trips() -> None:
    assert TrainConfig.from_json(json.loads(json.dumps(SMALL.to_json()))) == SMALL
