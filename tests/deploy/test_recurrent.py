"""A policy with a state: kept in the runtime, forgotten at every episode's begin, and refused when it does not pair."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from untrained import write_untrained

from landbridge.bundle import read_bundle
from landbridge.cli import main
from landbridge.deploy.accept import compare
from landbridge.deploy.bench import bench
from landbridge.deploy.runtime import load_policy
from landbridge.errors import InputError
from landbridge.inspection import inspect
from landbridge.manifest import parse_manifest
from landbridge.robot import load_robot
from landbridge.simulation.behaviour import load_behaviours

RNG = np.random.default_rng(1)
WEIGHT = RNG.normal(size=(8, 1)).astype(np.float32)
OBS = RNG.normal(size=(50, 8)).astype(np.float32)

MakeBundle = Callable[..., Path]


def test_the_state_is_fed_back(tmp_path: Path, recurrent_bundle: MakeBundle) -> None:
    policy = load_policy(read_bundle(recurrent_bundle(tmp_path / "b", WEIGHT)))
    assert policy.recurrent
    assert policy.golden_error <= 1e-6
    for ticks in range(1, len(OBS) + 1):
        expected = np.tanh((OBS[:ticks] @ WEIGHT).mean())
        np.testing.assert_allclose(policy(OBS[ticks - 1]), [expected], atol=1e-6)


def test_after_a_reset_the_same_sequence_gives_the_same_bits(tmp_path: Path, recurrent_bundle: MakeBundle) -> None:
    policy = load_policy(read_bundle(recurrent_bundle(tmp_path / "b", WEIGHT)))
    first = [policy(obs).tobytes() for obs in OBS]
    without = [policy(obs).tobytes() for obs in OBS]
    assert policy.reset() is policy
    assert [policy(obs).tobytes() for obs in OBS] == first
    assert without[0] != first[0]  # the state does matter


def test_a_state_that_is_not_a_number_is_forgotten_too(tmp_path: Path, recurrent_bundle: MakeBundle) -> None:
    policy = load_policy(read_bundle(recurrent_bundle(tmp_path / "b", WEIGHT)))
    before = policy(OBS[0]).copy()
    policy(np.full(8, np.nan))
    assert np.isnan(policy(OBS[0]))
    np.testing.assert_array_equal(policy.reset()(OBS[0]), before)


def test_a_call_allocates_nothing(tmp_path: Path, recurrent_bundle: MakeBundle) -> None:
    policy = load_policy(read_bundle(recurrent_bundle(tmp_path / "b", WEIGHT)))
    first = policy(OBS[0])
    tracemalloc.start()
    for _ in range(100):
        policy(OBS[0])
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(1000):
        assert policy(OBS[0]) is first
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 1000


@pytest.mark.parametrize(
    ("rename", "match"),
    [
        ({"h_in": "h_before"}, r"input is .*'h_before'.* expected float32 .*'h_in': \(1, 1\)"),
        ({"c_out": "c_after"}, r"output is .*'c_after'.* expected float32 .*'c_out': \(1, 1\)"),
        ({"h_in": "g_in", "h_out": "g_out"}, r"input is .*'g_in'.* expected float32 .*'h_in': \(1, 1\)"),
    ],
)
def test_a_graph_whose_state_is_not_the_manifests_is_refused_by_name(
    tmp_path: Path,
    recurrent_bundle: MakeBundle,
    recurrent_graph: Callable[..., bytes],
    rename: dict[str, str],
    match: str,
) -> None:
    bundle = recurrent_bundle(tmp_path / "b", WEIGHT, recurrent_graph(WEIGHT, rename))
    with pytest.raises(InputError, match=match):
        load_policy(read_bundle(bundle))


def test_golden_vectors_are_sequences(
    tmp_path: Path, recurrent_bundle: MakeBundle, recurrent_graph: Callable[..., bytes]
) -> None:
    """A graph that forgets h at once answers the first tick of every sequence right, and is refused."""
    model = onnx.load_from_string(recurrent_graph(WEIGHT))
    (add,) = (node for node in model.graph.node if "h_in" in node.input)
    add.op_type = "Identity"
    add.input[:] = ["x"]
    with pytest.raises(InputError, match=r"golden.npz.*differ by"):
        load_policy(read_bundle(recurrent_bundle(tmp_path / "b", WEIGHT, model.SerializeToString())))


@pytest.mark.parametrize("shape", [(15, 8), (15, 1, 8)])
def test_golden_vectors_of_single_ticks_are_refused(
    tmp_path: Path, recurrent_graph: Callable[..., bytes], shape: tuple[int, ...]
) -> None:
    """They would be right without any state."""
    obs = RNG.normal(size=shape).astype(np.float32)
    golden, state = (obs, np.tanh(obs @ WEIGHT)), {"h": (1, 1), "c": (1, 1)}
    write_untrained(
        tmp_path / "b", load_robot("furuta").spec, recurrent_graph(WEIGHT), golden, agent="test", state=state
    )
    with pytest.raises(InputError, match=r"golden\.npz: obs \(15, .*no sequences .* of 2 or more ticks"):
        load_policy(read_bundle(tmp_path / "b"))


def test_a_state_of_no_size_is_refused(tmp_path: Path, recurrent_bundle: MakeBundle) -> None:
    manifest = read_bundle(recurrent_bundle(tmp_path / "b", WEIGHT)).manifest.model_dump()
    content = json.dumps(manifest | {"state": {"h": (1, 0)}}).encode()
    with pytest.raises(InputError, match=r"manifest\.json: state\.h\.1: .*greater than 0 \(got 0\)"):
        parse_manifest(tmp_path / "manifest.json", content)


def test_verify_inspect_and_bench_take_it(
    tmp_path: Path, recurrent_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recurrent_bundle(tmp_path / "b", WEIGHT)
    assert main(["verify", str(path), "--robot", "furuta", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["golden_error"] <= 1e-6
    assert inspect(str(path))["policy"].endswith("state h [1, 1], state c [1, 1]")
    assert inspect(str(path))["golden vectors"].startswith("15, ")
    assert {line["case"] for line in bench(path, calls=50)["latency"]} > {"steady", "bare session"}


def test_the_closed_loop_begins_every_episode_without_a_past(tmp_path: Path, linear_bundle: MakeBundle) -> None:
    """A controller that works only in its first episode, unless it is started again, loses the second one."""
    robot, episodes = load_robot("furuta"), 2
    bundle = read_bundle(linear_bundle(tmp_path / "b", WEIGHT))
    tuned = load_behaviours(robot)["tuned"](1, RNG)
    ticks = 0

    def infer(row: np.ndarray) -> np.ndarray:
        nonlocal ticks
        ticks += 1
        return tuned(row[None])[0].astype(np.float32) * np.float32(ticks <= 400)

    def start() -> Callable[[np.ndarray], np.ndarray]:
        nonlocal ticks
        ticks = 0
        return infer

    scores = compare(bundle, robot, start, lambda: infer, "none", episodes)
    assert (scores["success"], scores["success_cpu"]) == (1.0, 0.0)
