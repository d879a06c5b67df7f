from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from landbridge.bundle import read_bundle
from landbridge.deploy.runtime import load_policy as load_runtime
from landbridge.errors import InputError
from landbridge.inspection import inspect
from landbridge.robot import load_robot
from landbridge.simulation.calibrated import Calibration, choose_scenario, digest_of
from landbridge.simulation.collect import collect
from landbridge.training import selection
from landbridge.training.agents import AGENTS
from landbridge.training.agents.iql import IQLConfig
from landbridge.training.config import TrainConfig
from landbridge.training.dataset import Normaliser
from landbridge.training.evaluate import evaluate
from landbridge.training.export import export
from landbridge.training.onnx_graph import beyond_tensorrt, to_onnx
from landbridge.training.policy import Actor, load_actor, load_policy
from landbridge.training.selection import Foretold
from landbridge.training.statistics import bootstrap, interquartile_mean, paired_difference
from landbridge.training.train import train

from .conftest import QUICK, Data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Data) -> Path:
    """Of data that were made with two calibrations."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    named = {
        path.name: _calibrated(path, folder.parent / path.name, digest) for path, digest in zip(data, "ab", strict=True)
    }
    config = TrainConfig(steps=300, rows=16, iql=IQLConfig(hidden=(16,)), tabb=QUICK)
    with pytest.warns(UserWarning, match="source_calibration a{12} and target_calibration b{12} differ"):
        train(folder, **named, config=config, score="severe")
    return folder


def _calibrated(path: Path, copy: Path, digit: str) -> Path:
    """A copy of a dataset that names a calibration."""
    shutil.copytree(path, copy)
    metadata = json.loads((copy / "metadata.json").read_text())
    metadata["landbridge"]["calibration"] = 64 * digit
    (copy / "metadata.json").write_text(json.dumps(metadata))
    return copy


@pytest.fixture(scope="module")
def bundle(run: Path) -> Path:
    out = run.parent / "policy.bundle"
    torch.set_num_threads(2)
    figures = export(run, out)
    assert torch.get_num_threads() == 1  # threads that wait for each other make minutes of seconds on a busy machine
    assert figures["golden_difference"] <= 1e-5
    return out


def test_onnx_computes_the_values_that_torch_computes(run: Path, bundle: Path) -> None:
    read = read_bundle(bundle)
    graph = onnx.load_from_string(read.files["policy.onnx"])
    onnx.checker.check_model(graph)
    assert [d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim] == [1, 8]
    actor, _ = load_actor(run)
    session = onnxruntime.InferenceSession(read.files["policy.onnx"], providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    mean, std = np.array(read.manifest.obs_mean), np.array(read.manifest.obs_std)
    for spread in (1.0, 10.0, 1e4):
        for obs in (mean + spread * std * rng.normal(size=(50, 8))).astype(np.float32):
            action = session.run(["action"], {"obs": obs[None]})[0]
            np.testing.assert_allclose(action, actor.numpy(obs[None]), atol=1e-5)
            assert np.abs(action).max() <= 1


def test_tensorrt_reads_every_operator_of_a_policy(bundle: Path) -> None:
    """Of the plain Gaussian in the bundle, and of the squashed one."""
    config = TrainConfig(agent="cql")
    squashed = Actor([AGENTS["cql"](8, 1, config.agent_config, steps=1)], Normaliser(np.zeros(8), np.ones(8))).eval()
    graphs = (
        read_bundle(bundle).files["policy.onnx"],
        to_onnx(squashed, {"obs": np.zeros((1, 8), np.float32)}, ["action"]),
    )
    assert [beyond_tensorrt(graph) for graph in graphs] == [[], []]


def test_operators_that_tensorrt_does_not_read_are_named() -> None:
    """Unknown, of another domain, and in a form newer than TensorRT's: Split has num_outputs since 18."""
    nodes = [("Det", ""), ("Tanh", "com.microsoft"), ("Split", ""), ("Relu", "")]
    made = [onnx.helper.make_node(name, ["x"], [f"y{i}"], domain=d) for i, (name, d) in enumerate(nodes)]
    graph = onnx.helper.make_graph(made, "g", [], [])
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets)
    assert beyond_tensorrt(model.SerializeToString()) == ["Det", "Split", "Tanh"]


def test_the_robots_runtime_accepts_it_and_agrees(run: Path, bundle: Path) -> None:
    read = read_bundle(bundle)
    runtime, actor = load_runtime(read), load_actor(run)[0]
    for obs in read.arrays("golden.npz")["obs"][:20].astype(np.float32):
        np.testing.assert_allclose(runtime(obs), actor.numpy(obs[None])[0], atol=1e-5)


def test_runs_of_several_seeds_are_deployed_as_the_mean_of_their_actions(data: Data, tmp_path: Path) -> None:
    config = TrainConfig(steps=2, rows=16, iql=IQLConfig(hidden=(16,)), tabb=QUICK)
    train(tmp_path / "runs", *data, config=config, seeds=(10, 9))
    export(tmp_path / "runs", tmp_path / "bundle")
    read = read_bundle(tmp_path / "bundle")
    runtime, each = load_runtime(read), [load_actor(tmp_path / "runs" / f"seed{seed}")[0] for seed in (9, 10)]
    for obs in read.arrays("golden.npz")["obs"][:20].astype(np.float32):
        actions = [actor.numpy(obs[None])[0] for actor in each]
        assert actions[0] != actions[1]
        np.testing.assert_allclose(runtime(obs), np.mean(actions, 0), atol=1e-5)
    assert read.manifest.provenance["seed"] == "9, 10"
    assert read.manifest.scores == {}
    found = evaluate([str(tmp_path / "runs"), str(tmp_path / "bundle")], episodes=2)
    assert found["policies"][0]["return"] == pytest.approx(found["policies"][1]["return"], rel=1e-3)


def test_a_folder_of_one_seed_is_exported_with_its_score(data: Data, tmp_path: Path) -> None:
    config = TrainConfig(steps=2, rows=16, iql=IQLConfig(hidden=(16,)), tabb=QUICK)
    train(tmp_path / "runs", *data, config=config, seeds=(7,), score="severe")
    export(tmp_path / "runs", tmp_path / "bundle")
    assert read_bundle(tmp_path / "bundle").manifest.scores.keys() == {"success on severe", "return on severe"}


def test_of_several_seeds_and_their_mean_what_does_best_in_a_calibrated_simulator_is_exported(
    data: Data, tmp_path: Path, calibration: Callable[..., Calibration], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "EPISODES", 4)
    config = TrainConfig(steps=20, rows=16, iql=IQLConfig(hidden=(16,)), tabb=QUICK)
    train(tmp_path / "runs", *data, config=config, seeds=(3, 4, 5))
    file = tmp_path / "calibration.yaml"
    calibration(latency_ms=31.5).write(file)
    with pytest.warns(UserWarning, match="none of 4 candidates succeeds in the calibrated simulator"):
        shown = export(tmp_path / "runs", tmp_path / "bundle", calibration=file)
    assert [Path(row["candidate"]).name for row in shown["candidates"]] == ["seed3", "seed4", "seed5", "runs"]
    returns = {}
    for name, seeds in {"seed3": "3", "seed4": "4", "seed5": "5", ".": "3, 4, 5"}.items():
        asked = {"engine": "mujoco", "calibration": file, "episodes": 4, "seed": selection.SEED}
        both = [
            evaluate([str(tmp_path / "runs" / name)], **asked, exploring=exploring)["policies"][0]
            for exploring in (False, True)
        ]
        returns[np.mean([row["success"] for row in both]), np.mean([row["return"] for row in both])] = name, seeds
    best, seeds = returns[max(returns)]
    read = read_bundle(tmp_path / "bundle")
    assert (Path(shown["run"]), read.manifest.provenance["seed"]) == (tmp_path / "runs" / best, seeds)
    assert shown["foretold"] == read.manifest.provenance["foretold"]
    robot = load_robot("furuta")  # chosen by some episodes, it is judged by others
    simulator = choose_scenario(robot, None, file)
    judged = selection.foretell(load_policy(tmp_path / "runs" / best, robot), robot, simulator, selection.AGAIN)
    assert shown["foretold"].startswith(str(judged))
    assert "from the task's start states, " in shown["foretold"] and shown["foretold"].endswith(
        f"{digest_of(file)[:12]})"
    )
    with pytest.raises(InputError, match="no such file"):
        export(tmp_path / "runs", tmp_path / "other", calibration=tmp_path / "none.yaml")
    assert not (tmp_path / "other").exists()


def test_success_decides_and_then_the_return() -> None:
    worse, better, best = Foretold(0.5, 9.0, (1.0, 0.0)), Foretold(0.6, 1.0, (0.6, 0.6)), Foretold(0.6, 2.0, (0.2, 1.0))
    assert max(better, worse, best) is best and max(worse, better) is better
    assert str(worse) == "1.00 from the task's start states, 0.00 from anywhere"
    assert str(Foretold(0.5, 0.0, (0.5,))) == "0.50 from the task's start states"


def test_seeds_of_different_runs_are_no_policy(data: Data, tmp_path: Path) -> None:
    config = TrainConfig(steps=2, rows=16, iql=IQLConfig(hidden=(16,)), tabb=QUICK)
    train(tmp_path / "runs", *data, config=config, seeds=(0,))
    train(tmp_path / "runs", *data, config=dataclasses.replace(config, rows=8), seeds=(1,))
    with pytest.raises(InputError, match="seed0 and seed1 were trained on other data, or with other options"):
        export(tmp_path / "runs", tmp_path / "bundle")
    with pytest.raises(InputError, match="add --robot furuta"):
        load_policy(tmp_path / "runs" / "seed0", load_robot("quadruped"))


def test_the_bundle_says_what_it_is(run: Path, bundle: Path) -> None:
    manifest = read_bundle(bundle).manifest
    assert (manifest.agent, manifest.alignment, manifest.joints) == ("iql", "tabb", ("arm", "pendulum"))
    assert len(manifest.dataset_hashes) == 2
    assert set(manifest.scores) == {"success on severe", "return on severe"}
    shown = inspect(str(bundle))
    assert shown["golden vectors"].endswith("allowed difference 5e-05")
    assert manifest.provenance["source_calibration"] == 64 * "a"
    assert shown["calibration"] == "source aaaaaaaaaaaa, target bbbbbbbbbbbb"
    assert "aaaa" not in shown["made"]
    assert [row["joint"] for row in shown["joints"]] == ["arm", "pendulum"]
    envelope = read_bundle(bundle).arrays("envelope.npz")
    assert envelope["target_quantiles"].shape == (5, 9)  # obs and action
    assert (np.diff(envelope["target_quantiles"], axis=0) >= 0).all()


def test_a_wrong_run_or_an_existing_bundle_is_refused(run: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"json: is no readable run: No such file or directory\. name"):
        export(tmp_path, tmp_path / "b")
    with pytest.raises(InputError, match="already exists"):
        export(run, bundle)
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_data_have_changed_is_not_exported(run: Path, data: Data, tmp_path: Path) -> None:
    """Envelope and limits would be of other data than the hashes beside them."""
    changed = tmp_path / "run"
    shutil.copytree(run, changed)
    plain = json.loads((changed / "config.json").read_text())
    plain["dataset_hashes"] |= {next(iter(plain["dataset_hashes"])): "0" * 64}
    (changed / "config.json").write_text(json.dumps(plain))
    with pytest.raises(InputError, match="its datasets have changed since it was trained on them"):
        export(changed, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_run_whose_data_have_moved_is_exported_from_where_they_are(run: Path, bundle: Path, tmp_path: Path) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    plain = json.loads((moved / "config.json").read_text())
    source, target = Path(plain["source"]), Path(plain["target"])
    gone = {name: f"/elsewhere/{name}" for name in ("source", "target")}
    (moved / "config.json").write_text(json.dumps(plain | gone))
    with pytest.raises(InputError, match=r"no such source dataset\. say where it is with --source"):
        export(moved, tmp_path / "b")
    collect(tmp_path / "other", steps=100, batch=1, engine="bullet", domain="target", mix={"excite": 1.0})
    with pytest.raises(InputError, match="its datasets have changed since it was trained on them"):
        export(moved, tmp_path / "b", source=source, target=tmp_path / "other")
    export(moved, tmp_path / "b", source=source, target=target)
    assert read_bundle(tmp_path / "b").files["policy.onnx"] == read_bundle(bundle).files["policy.onnx"]
    (moved / "config.json").write_text(json.dumps(plain | {"target": None}))
    with pytest.raises(InputError, match="--target: the run was given no target dataset"):
        export(moved, tmp_path / "c", source=source, target=target)


def test_evaluation_is_paired_and_repeatable(run: Path, bundle: Path) -> None:
    policies = [str(run), str(bundle), "behaviour:tuned"]
    first, second = (evaluate(policies, scenario="none", episodes=3, seed=7)["policies"] for _ in range(2))
    assert first == second
    assert first[0]["return"] == pytest.approx(first[1]["return"], rel=1e-3)  # torch and onnxruntime, same episodes
    assert first[2]["success"] == 1.0
    assert first[2]["success_low"] <= first[2]["success"] <= first[2]["success_high"]


def test_unknown_policies_are_refused(tmp_path: Path, calibration: Callable[..., Calibration]) -> None:
    with pytest.raises(InputError, match="no behaviour 'moonwalk'"):
        evaluate(["behaviour:moonwalk"])
    with pytest.raises(InputError, match="no such run or bundle"):
        load_policy(Path("/nowhere"), load_robot("furuta"))
    with pytest.raises(InputError, match="at least one of each"):
        evaluate([])
    with pytest.raises(InputError, match=r"--write-ms.*25 ms.*20 ms"):
        evaluate(["behaviour:tuned"], write_ms=25)
    made = tmp_path / "calibration.yaml"
    calibration(latency_ms=31.5).write(made)
    with pytest.raises(InputError, match="--write-ms: comes on top of a calibration, whose latency"):
        evaluate(["behaviour:tuned"], write_ms=2, calibration=made)
    with pytest.raises(InputError, match="--scenario: is 'moderate' beside a calibration"):
        evaluate(["behaviour:tuned"], scenario="moderate", calibration=made)


def test_intervals_by_hand() -> None:
    assert bootstrap(np.ones((3, 5))) == (1.0, 1.0)
    low, high = bootstrap(np.array([[0.0, 1.0] * 50]))
    assert low == pytest.approx(0.40, abs=0.03)  # 0.5 -+ 1.96 sqrt(0.25 / 100)
    assert high == pytest.approx(0.60, abs=0.03)
    assert interquartile_mean(np.array([[0.0], [1.0], [2.0], [100.0]])) == pytest.approx(1.5)
    mean, low, high = paired_difference(np.array([[3.0, 5.0]]), np.array([[1.0, 3.0]]))
    assert (mean, low, high) == (2.0, 2.0, 2.0)


def test_copies_of_a_run_on_the_same_episodes_tell_no_more_than_one() -> None:
    run = np.array([[0.0, 1.0] * 25])
    width = np.ptp(bootstrap(run))
    assert np.ptp(bootstrap(np.repeat(run, 4, 0), same_episodes=True)) == pytest.approx(width, rel=0.1)
    assert np.ptp(bootstrap(np.repeat(run, 4, 0))) < 0.6 * width
