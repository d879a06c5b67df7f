from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from landbridge.cli import main
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.spec import MAX_SEED
from landbridge.training.agents.bc import BCConfig
from landbridge.training.agents.cql import CQLConfig
from landbridge.training.agents.iql import IQLConfig
from landbridge.training.alignments.oracle import OracleConfig
from landbridge.training.alignments.otdf import OTDFConfig
from landbridge.training.alignments.tabb import TabbConfig
from landbridge.training.alignments.vgdf import VGDFConfig
from landbridge.training.config import TrainConfig
from landbridge.training.export import export
from landbridge.training.policy import load_policy
from landbridge.training.predictor import PredictorConfig
from landbridge.training.run import read_run
from landbridge.training.train import train
from landbridge.training.trainer import Block, Trainer, read_checkpoint
from landbridge.training.update import Rows, Update

from .conftest import BLOCK, Data

pytestmark = pytest.mark.usefixtures("short_blocks")
PREDICTOR = PredictorConfig(members=2, hidden=8, source_steps=5, steps=10)
SMALL = TrainConfig(
    steps=BLOCK, rows=16, iql=IQLConfig(hidden=(8,)), tabb=TabbConfig(predictor=PREDICTOR), device="cpu"
)
PLAIN = dataclasses.replace(SMALL, alignment="none")

OUT_OF_RANGE: list[tuple[str, dict[str, Any]]] = [
    ("--steps", {"steps": 0}),
    ("--seed", {"seed": -1}),
    ("--rows", {"rows": 0}),
    ("--reward-scale", {"reward_scale": float("nan")}),
    ("--device", {"device": "tpu"}),
    ("--iql.lr", {"iql": IQLConfig(lr=-1.0)}),
    ("--iql.gamma", {"iql": IQLConfig(gamma=1.5)}),
    ("--iql.hidden", {"iql": IQLConfig(hidden=(128, 0))}),
    ("--iql.expectile", {"iql": IQLConfig(expectile=1.0)}),
    ("--iql.weigh", {"iql": IQLConfig(weigh=("Q",))}),  # type: ignore[arg-type]
    ("--cql.weigh", {"cql": CQLConfig(weigh=("v",))}),  # type: ignore[arg-type]
    ("--bc.weigh", {"bc": BCConfig(weigh=("q",))}),  # type: ignore[arg-type]
    ("--bc.layer-norm", {"bc": BCConfig(layer_norm=("q",))}),  # type: ignore[arg-type]
    ("--cql.num-actions", {"cql": CQLConfig(num_actions=0)}),
    ("--tabb.temperature", {"tabb": TabbConfig(temperature=0.0)}),
    ("--tabb.ess-floor", {"tabb": TabbConfig(ess_floor=1.5)}),  # no temperature would keep it
    ("--tabb.holdout", {"tabb": TabbConfig(holdout=0.51)}),
    ("--seed", {"seed": MAX_SEED + 1}),
    ("--tabb.predictor.members", {"tabb": TabbConfig(predictor=PredictorConfig(members=0))}),
    ("--otdf.epsilon", {"otdf": OTDFConfig(epsilon=1e-4)}),  # the kernel of float32 underflows
]


@pytest.mark.parametrize(("flag", "changes"), OUT_OF_RANGE)
def test_an_option_out_of_range_is_named_before_anything_is_written(
    tmp_path: Path, data: Data, flag: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=f"^{flag}: "):
        train(tmp_path / "run", data.source, data.target, config=dataclasses.replace(PLAIN, **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("collect --out {0}/out --steps 9 --seed -1", "--seed: is -1. give 0 or more"),
        ("evaluate --policies behaviour:tuned --seed -1", "--seed: is -1"),
        ("demo --out {0}/out --train-steps 0", "--train-steps: is 0. give a finite number above 0"),
        ("diagnose --source {0}/a --target {0}/b --seed -1", "--seed: is -1"),
        ("train --out {0}/out --seeds 0 0", "--seeds: names 0 twice"),
        ("sweep --out {0}/out --options alignment=none --seeds 0 -2", "--seed: is -2"),
        ("sweep --out {0}/out --options alignment=none iql.lr=-1", "--iql.lr: Input should be greater than 0"),
        *[(f"calibrate {step} {{0}}/a --seed -1", "--seed: is -1") for step in ("delay", "zero", "identify")],
        ("calibrate all {0}/a --out {0}/out --seed -1", "--seed: is -1"),
        ("calibrate excite --out {0}/out --seed -1", "--seed: is -1"),
        ("hil emulate --seed -1", "--seed: is -1"),
        ("hil emulate --baud 0", "--baud: a pty has no rate 0"),
        ("collect --out {0}/out --steps 9 --calibration {0}/bytes", "bytes: not YAML"),
        ("collect --out {0}/out --steps 9 --calibration {0}/empty", "empty: is empty. name the right file"),
        ("collect --out {0}/out --steps 9 --calibration {0}/list", r"list: holds \[1, 2\], no fields by name"),
        ("collect --out {0}/out --steps 9 --seed 99999999999", "--seed: is 99999999999. give 4294967293 or less"),
        ("servo scan {0}", "is no serial port"),
        ("servo scan {0} --baud 123", r"--baud: is 123, a rate of no such servo. name one of \[9600, "),
        ("ingest {0}/absent --out {0}/out", "absent: no such file or folder"),
        ("ingest {0}/single.hdf5 --out {0}/out", r"\['rewards'\] are groups or single values"),
        ("import {0}/absent.onnx --robot furuta --out {0}/out", "absent.onnx: no such file"),
        ("inspect {0}/absent", "absent: no such file or folder, nor a robot that ships"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    (tmp_path / "bytes").write_bytes(bytes(range(256)))
    (tmp_path / "empty").touch()
    (tmp_path / "list").write_text("[1, 2]")
    with h5py.File(tmp_path / "single.hdf5", "w") as file:
        for name, value in (("observations", np.zeros((5, 8))), ("actions", np.zeros((5, 1))), ("rewards", 1.0)):
            file[name] = value
        file["terminals"] = np.zeros(5)
    assert main(command.format(tmp_path).split()) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_the_defaults_are_in_range() -> None:
    TrainConfig().require_valid()


def test_what_only_the_machine_or_the_alignment_can_tell_is_refused_too(tmp_path: Path, data: Data) -> None:
    (tmp_path / "file").touch()
    one = VGDFConfig(predictor=dataclasses.replace(PREDICTOR, members=1))
    for name, message, changes in (
        ("run", "cuda:99, and torch finds", {"device": "cuda:99"}),
        ("run", "one member has no deviation", {"alignment": "vgdf", "vgdf": one}),
        ("file/run", "cannot be written", {}),
    ):
        with pytest.raises(InputError, match=message):
            train(tmp_path / name, data.source, data.target, config=dataclasses.replace(PLAIN, **changes))
        assert not (tmp_path / name).exists()


def test_a_finished_run_may_be_resumed_and_keeps_its_figures(tmp_path: Path, data: Data) -> None:
    before = train(tmp_path / "run", data.source, data.target, config=SMALL)
    after = train(tmp_path / "run", data.source, data.target, config=SMALL, resume=True)
    assert before.keys() == after.keys()
    assert json.loads((tmp_path / "run/diagnostics.json").read_text()).keys() >= {"ess", "noise_floor", "trust"}


def test_what_a_run_did_not_begin_with_is_refused_on_resume(tmp_path: Path, data: Data) -> None:
    run = tmp_path / "run"
    train(run, data.source, data.target, config=PLAIN)
    for message, arguments in (
        ("began with --steps 32, not 64", {"config": dataclasses.replace(PLAIN, steps=2 * BLOCK)}),
        ("began with --iql.lr 0.001, not 0.1", {"config": dataclasses.replace(PLAIN, iql=IQLConfig((8,), lr=0.1))}),
        ("began with --score None, not severe", {"score": "severe"}),
    ):
        with pytest.raises(InputError, match=message):
            train(run, resume=True, **arguments)  # type: ignore[arg-type]


def test_a_parameter_that_the_last_step_spoils_reaches_no_checkpoint(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Update.__call__

    def spoiling(self: Update, batches: Sequence[Rows], step: int) -> list[torch.Tensor]:
        shown = take(self, batches, step)
        if step == BLOCK - 1:
            self._groups[0][0].data[0] = float("inf")
        return shown

    monkeypatch.setattr(Update, "__call__", spoiling)
    with pytest.raises(InputError, match=f"a parameter became NaN or Inf at step {BLOCK - 1}"):
        train(tmp_path / "run", data.source, data.target, config=PLAIN)
    state = read_checkpoint(tmp_path / "run")
    assert all(bool(value.isfinite().all()) for value in state["agent"].values())


def test_an_unfinished_run_is_not_exported(tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    config, block = dataclasses.replace(PLAIN, steps=2 * BLOCK), Trainer.block

    def once(self: Trainer, until: int) -> Block:
        if self.step:
            raise KeyboardInterrupt
        return block(self, until)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "block", once)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run", data.source, data.target, config=config)
    with pytest.raises(InputError, match=r"has not come to its end at step 64\. go on with `train --resume`"):
        export(tmp_path / "run", tmp_path / "policy.bundle")


def test_a_run_plays_on_its_own_robot_only(tmp_path: Path, data: Data) -> None:
    run = tmp_path / "run"
    train(run, data.source, data.target, config=PLAIN)
    with pytest.raises(InputError, match="was trained for robot 'furuta', this is 'quadruped'"):
        load_policy(run, load_robot("quadruped"))
    plain = read_run(run)
    (run / "config.json").write_text(json.dumps(plain | {"robot_hash": "0" * 64}))
    with pytest.raises(InputError, match="robot 'furuta' has changed since"):
        load_policy(run, load_robot("furuta"))
    with pytest.raises(InputError, match="no such run or bundle"):
        load_policy(tmp_path / "absent", load_robot("furuta"))


def test_options_of_what_is_not_trained_are_told_of(tmp_path: Path, data: Data) -> None:
    """One command line may serve several agents, but nobody should think that it did."""
    idle = dataclasses.replace(PLAIN, cql=CQLConfig(alpha=7.0))
    with pytest.warns(UserWarning, match=r"--cql\.\*, .*: of no use to"):
        train(tmp_path / "run", data.source, data.target, config=idle)


def test_an_oracle_of_another_twin_than_the_datas_is_refused(tmp_path: Path, data: Data) -> None:
    other = dataclasses.replace(PLAIN, alignment="oracle", oracle=OracleConfig(scenario="mild"))
    with pytest.raises(InputError, match=r"--oracle\.scenario: is 'mild', and the target data are of '\w+'"):
        train(tmp_path / "run", data.source, data.target, config=other)


def test_the_folder_of_one_run_takes_no_seeds(tmp_path: Path, data: Data) -> None:
    """Whoever reads it afterwards would take the first run for them."""
    train(tmp_path / "run", data.source, data.target, config=PLAIN)
    with pytest.raises(InputError, match="is the folder of one run"):
        train(tmp_path / "run", data.source, data.target, config=PLAIN, seeds=(1, 2))
    assert not (tmp_path / "run" / "seed1").exists()


def test_a_configuration_without_what_every_run_has_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"train": TrainConfig().to_json()}))
    with pytest.raises(InputError, match=r"of another version of landbridge: 'robot'"):
        read_run(tmp_path)


def test_a_run_of_another_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"train": TrainConfig().to_json() | {"momentum": 0.9}}))
    with pytest.raises(InputError, match=r"of another version of landbridge: .*momentum"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("", {"iql", "tabb"}),
        ("--agent cql --alignment=shuffled", {"cql", "tabb"}),
        ("--alignment none", {"iql"}),
        ("--agent bc --alignment dara", {"bc", "dara"}),
    ],
)
def test_help_shows_the_hyperparameters_of_what_is_chosen(
    arguments: str, shown: set[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit, match="0"):
        main(["train", *arguments.split(), "--help"])
    text = capsys.readouterr().out
    assert set(re.findall(r"--([a-z_0-9-]+)\.", text)) == shown
    assert {"--source", "--target-share", "--resume"} <= {*re.findall(r"--[a-z-]+", text)}
    assert text.count("\n") < 110


def test_what_help_does_not_show_is_an_option_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--out", str(tmp_path / "run"), "--cql.num-actions", "0"]) == 2
    assert "--cql.num-actions" in capsys.readouterr().err
