"""The live monitors in the policy's process: what they find is in `/diagnostics` while the robot moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from landbridge.bag import BagReader
from landbridge.bundle import npz, read_bundle, write_bundle
from landbridge.manifest import Drift, Threshold
from landbridge.observation import action_to_command
from landbridge.robot import load_robot
from landbridge.simulation.calibrated import Calibration, digest_of
from landbridge_nodes.bringup import deploy
from landbridge_nodes.episodes import run_episodes
from landbridge_nodes.log import read_log
from landbridge_nodes.replay import replay

pytestmark = pytest.mark.ros
WINDOW = 10


def still_robot() -> bytes:
    """A target model that expects nothing to move: mismatch = sum |next_obs - obs|."""
    nodes = [
        helper.make_node("Sub", ["next_obs", "obs"], ["change"]),
        helper.make_node("Abs", ["change"], ["size"]),
        helper.make_node("ReduceSum", ["size"], ["total"], keepdims=0),
        helper.make_node("Mul", ["action", "zero"], ["none"]),  # an input that nothing reads would be dropped
        helper.make_node("Add", ["total", "none"], ["both"]),
        helper.make_node("Reshape", ["both", "one"], ["mismatch"]),
        helper.make_node("Reshape", ["obs", "shape"], ["predicted"]),
    ]
    inputs = [("obs", [1, 8]), ("action", [1, 1]), ("next_obs", [1, 8])]
    outputs = [("mismatch", [1]), ("predicted", [1, 1, 8])]
    constants = [
        helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("shape", TensorProto.INT64, [3], [1, 1, 8]),
    ]
    infos = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in part] for part in (inputs, outputs)]
    graph = helper.make_graph(nodes, "alignment", *infos, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def watched_bundle(path: Path, plain: Path) -> Path:
    """The bundle `plain` with that target model, whose limit any motion exceeds, and an envelope that holds all."""
    bundle, rng = read_bundle(plain), np.random.default_rng(0)
    obs, following, action = (rng.normal(size=(4, size)).astype(np.float32) for size in (8, 8, 1))
    golden = bundle.arrays("golden.npz") | {"alignment_obs": obs, "alignment_action": action}
    golden |= {"alignment_next_obs": following, "alignment_mismatch": np.abs(following - obs).sum(1)}
    drift = Drift(
        window=WINDOW,
        quantile=0.99,
        margin=1.0,
        heldout_ticks=100,
        mismatch=Threshold(floor=0.0, limit=1e-3),
        envelope=Threshold(floor=0.0, limit=1e6),
    )
    files = {
        "policy.onnx": bundle.files["policy.onnx"],
        "alignment.onnx": still_robot(),
        "golden.npz": npz(**golden),
        "envelope.npz": npz(target_mean=np.zeros(9), target_cov=np.eye(9)),
    }
    write_bundle(path, bundle.manifest.model_copy(update={"drift": drift}), bundle.robot, files)
    return path


def test_a_robot_that_moves_where_the_model_expects_none_is_reported(
    tmp_path: Path, linear_bundle: Callable[..., Path], calibration: Callable[..., Calibration], ros_domain: None
) -> None:
    """Of a compensated run, which is replayed bit for bit with the calibration that its bag names, and not without."""
    weight = np.full((8, 1), 0.02, np.float32)  # so gentle that no limit ends the episode
    bundle = watched_bundle(tmp_path / "b", linear_bundle(tmp_path / "plain", weight))
    bag, file = tmp_path / "bag", tmp_path / "calibration.yaml"
    calibration(**{"friction.arm.frictionloss": 0.002}).write(file)
    specs = deploy("furuta", "none", 0, str(bundle), str(bag), compensate=str(file))
    run_episodes(load_robot("furuta"), specs, seconds=2.0)
    reported = [
        (status.level, status.message, {pair.key: pair.value for pair in status.values})
        for _, _, message in BagReader(bag).messages(["/diagnostics"])
        for status in message.status
        if status.name == "policy"
    ]
    level, text, values = reported[-1]
    assert (level, text) == (1, "drift: mismatch")
    assert float(values["mismatch.mean"]) > float(values["mismatch.limit"]) == 1e-3
    assert (values["mismatch.raised"], values["distance.raised"]) == ("True", "False")
    assert values["bundle"] == read_bundle(bundle).digest
    assert (values["provider"], values["precision"]) == ("CPUExecutionProvider", "fp32")
    assert values["compensation"] == digest_of(file)
    figures = replay(bag, bundle, compensate=file)
    stages = {row["stage"]: row for row in figures["stages"]}
    assert figures["compensation"].endswith("the recorded one")
    assert stages["command"]["bit for bit"] == stages["command"]["compared"] > 80
    log, spec = read_log(BagReader(bag), read_bundle(bundle).robot), read_bundle(bundle).robot
    added = [log.command[stamp][0] - action_to_command(spec, np.array(log.action[stamp]))[0] for stamp in log.action]
    assert np.abs(added).max() == pytest.approx(0.001, rel=0.1)  # 0.002 less the 0.001 of robot.yaml
