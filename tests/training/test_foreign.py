"""Policies from elsewhere: the names and shapes of rsl_rl's exporter, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from landbridge.bundle import read_bundle
from landbridge.deploy.runtime import load_policy
from landbridge.errors import InputError
from landbridge.inspection import inspect
from landbridge.robot import load_robot
from landbridge.simulation.behaviour import Policy
from landbridge.simulation.scenario import load_scenario
from landbridge.training.evaluate import evaluate
from landbridge.training.foreign import drive, import_policy
from landbridge.training.policy import load_policy as load_behaviour
from landbridge.training.scoring import score

WEIGHT = np.random.default_rng(0).normal(size=(8, 1)).astype(np.float32)


class Memory(nn.Module):
    """An LSTM and a head, called as `rsl_rl.models.rnn_model._OnnxRNNModel` calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(8, 4, num_layers=2), nn.Linear(4, 1)

    def forward(self, obs: Tensor, h_in: Tensor, c_in: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, (h, c) = self.rnn(obs.unsqueeze(0), (h_in, c_in))
        return self.head(x.squeeze(0)), h, c


@pytest.mark.filterwarnings("ignore")  # torch's exporter has many
def test_a_recurrent_policy_of_torch_drives_as_torch_computes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Memory().eval(), tmp_path / "policy.onnx"
    inputs = torch.zeros(1, 8), torch.zeros(2, 1, 4), torch.zeros(2, 1, 4)
    names = {"input_names": ["obs", "h_in", "c_in"], "output_names": ["actions", "h_out", "c_out"]}
    torch.onnx.export(module, inputs, path, opset_version=18, dynamo=False, **names)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="policy.onnx.data", size_threshold=0)
    assert (tmp_path / "policy.onnx.data").is_file()  # where the default exporter since torch 2.9 puts the weights
    figures = import_policy(path, "furuta", tmp_path / "b", episodes=2)
    assert figures["state"] == "h [2, 1, 4], c [2, 1, 4]"
    assert figures["tensorrt"] == "reads every operator of the policy"
    (tmp_path / "policy.onnx.data").unlink()
    bundle = read_bundle(tmp_path / "b")
    policy, golden = load_policy(bundle), bundle.arrays("golden.npz")
    assert policy.golden_error == 0.0
    with torch.no_grad():
        for sequence, expected in zip(golden["obs"], golden["action"], strict=True):
            state = inputs[1:]
            for obs, action in zip(sequence, expected, strict=True):
                answer, *state = module(torch.from_numpy(obs[None]), *state)
                np.testing.assert_allclose(answer[0], action, atol=1e-6)


def test_import_and_evaluate_score_what_the_policy_computes(
    tmp_path: Path, linear_graph: Callable[..., bytes], recurrent_graph: Callable[..., bytes]
) -> None:
    """Feed-forward and recurrent, each beside the same function in numpy on the same episodes."""
    robot = load_robot("furuta")
    rung, returns = load_scenario(robot, "none"), []
    graphs = {"ff": linear_graph(WEIGHT, "actions"), "rnn": recurrent_graph(WEIGHT)}
    for name, computed in {"ff": feed_forward, "rnn": running_mean}.items():
        (tmp_path / f"{name}.onnx").write_bytes(graphs[name])
        figures = import_policy(tmp_path / f"{name}.onnx", "furuta", tmp_path / name, episodes=2)
        assert figures["clipped"] == 0.0
        assert load_policy(read_bundle(tmp_path / name)).recurrent == (name == "rnn")
        driven = [episode.rewards.sum() for episode in drive(robot, rung, computed, 2)]
        assert figures["return on none"] == pytest.approx(np.mean(driven), rel=1e-3)
        (row,) = evaluate([str(tmp_path / name)], engine="mujoco", scenario="none", episodes=2)["policies"]
        assert row["return"] == pytest.approx(score(computed, robot, "mujoco", rung, 2, 0)[1].mean(), rel=1e-3)
        returns.append(row["return"])
    assert returns[0] != pytest.approx(returns[1], rel=1e-2)


def feed_forward(batch: int, rng: np.random.Generator) -> Policy:
    return lambda obs: np.tanh(obs @ WEIGHT)


def running_mean(batch: int, rng: np.random.Generator) -> Policy:
    seen: list[np.ndarray] = []

    def policy(obs: np.ndarray) -> np.ndarray:
        seen.append(obs @ WEIGHT)
        return np.tanh(np.mean(seen, axis=0))

    return policy


def test_every_row_of_a_batch_has_a_state_of_its_own(tmp_path: Path, recurrent_bundle: Callable[..., Path]) -> None:
    """As `landbridge evaluate` runs it: two episodes at once are what the robot's runtime makes of each."""
    path, robot = recurrent_bundle(tmp_path / "b", WEIGHT), load_robot("furuta")
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(50, 8)).astype(np.float32)
    batch = load_behaviour(path, robot)(2, rng)
    answers = np.stack([batch(np.stack([row, -2 * row])) for row in rows])
    runtime = load_policy(read_bundle(path))
    for episode, sign in enumerate((1, -2)):
        runtime.reset()
        np.testing.assert_array_equal(answers[:, episode], [runtime(sign * row).copy() for row in rows])


def test_actions_beyond_the_limits_are_counted(tmp_path: Path, linear_graph: Callable[..., bytes]) -> None:
    """Policies of Isaac Lab are not bounded; what they ask for beyond [-1, 1] is cut off on the robot."""
    model = onnx.load_from_string(linear_graph(WEIGHT, "actions"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([[5.0]]), "five"))
    model.graph.node[0].output[0] = "x"
    model.graph.node[1].op_type, model.graph.node[1].input[:] = "Max", ["x", "five"]
    onnx.save(model, tmp_path / "p.onnx")
    assert import_policy(tmp_path / "p.onnx", "furuta", tmp_path / "b", episodes=1)["clipped"] == 1.0
    np.testing.assert_array_equal(read_bundle(tmp_path / "b").arrays("golden.npz")["action"], 1)
    assert inspect(str(tmp_path / "b"))["normaliser"].startswith("unknown: imported; reads joint_pos.arm, ")


@pytest.mark.parametrize(
    ("rename", "match"),
    [
        ({"h_out": "h_after"}, r"input h_in \(1, 1\) has no output h_out"),
        ({"c_in": "cell"}, r"input cell \(1, 1\) has no output cell_out"),
        ({"obs": "observation"}, r"input obs is None, furuta has \(1, 8\). see `landbridge inspect furuta`"),
        ({"action": "means"}, r"output action is None, furuta has \(1, 1\)"),
    ],
)
def test_ends_that_do_not_pair_are_refused_by_name(
    tmp_path: Path, recurrent_graph: Callable[..., bytes], rename: dict[str, str], match: str
) -> None:
    (tmp_path / "p.onnx").write_bytes(recurrent_graph(WEIGHT, rename))
    with pytest.raises(InputError, match=match):
        import_policy(tmp_path / "p.onnx", "furuta", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_what_is_no_policy_of_this_robot_is_refused(tmp_path: Path, linear_graph: Callable[..., bytes]) -> None:
    path = tmp_path / "p.onnx"
    with pytest.raises(InputError, match=r"p\.onnx: no such file"):
        import_policy(path, "furuta", tmp_path / "b")
    path.write_bytes(b"not a graph")
    with pytest.raises(InputError, match=r"p\.onnx: not an ONNX file"):
        import_policy(path, "furuta", tmp_path / "b")
    path.write_bytes(linear_graph(WEIGHT[:-1], "actions"))
    with pytest.raises(InputError, match=r"input obs is \(1, 7\), furuta has \(1, 8\)"):
        import_policy(path, "furuta", tmp_path / "b")
    model = onnx.load_from_string(linear_graph(WEIGHT, "actions"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"obs is FLOAT \['batch', 8\]"):
        import_policy(path, "furuta", tmp_path / "b")
    model = onnx.load_from_string(linear_graph(WEIGHT, "actions"))
    model.graph.node[1].domain = "elsewhere"
    model.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"p\.onnx: onnxruntime cannot load it: .*elsewhere"):
        import_policy(path, "furuta", tmp_path / "b")
    model = onnx.load_from_string(linear_graph(WEIGHT, "mean"))
    model.graph.node.append(onnx.helper.make_node("RandomNormalLike", ["mean"], ["noise"]))
    model.graph.node.append(onnx.helper.make_node("Add", ["mean", "noise"], ["actions"]))
    model.graph.output[0].name = "actions"
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"answers the same observations in two ways\. export the policy's mean"):
        import_policy(path, "furuta", tmp_path / "b")
    path.write_bytes(linear_graph(np.full_like(WEIGHT, np.nan), "actions"))
    with pytest.raises(InputError, match="answers NaN or Inf"):
        import_policy(path, "furuta", tmp_path / "b")
    with pytest.raises(InputError, match="--episodes: is 0"):
        import_policy(path, "furuta", tmp_path / "b", episodes=0)
    path.write_bytes(linear_graph(WEIGHT))
    import_policy(path, "furuta", tmp_path / "b", episodes=1)
    with pytest.raises(InputError, match="already exists"):
        import_policy(path, "furuta", tmp_path / "b")
