"""Measurement-to-command latency and missed ticks of the whole chain over ROS 2.

    python benchmarks/latency.py [--seconds 20] [--rates 50 250]

Twin, policy (a random network of two hidden layers of 64), monitor and bridge run as in `landbridge up deploy`. Latency
is from the measurement in the bridge to the write of the command that answers it, on one monotonic clock, and so
contains two DDS hops, the observation, inference and the guard.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import record
import tyro
import yaml
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table
from untrained import write_untrained

from landbridge.observation import Observer
from landbridge.robot import Robot, load_robot
from landbridge_nodes.bringup import deploy
from landbridge_nodes.episodes import run_episodes

RESULTS = Path(__file__).parent / "results" / "latency.json"
PHYSICS_RATE_HZ = 500
HIDDEN = 64
SHOWN = ("ticks", "latency_p50_ms", "latency_p99_ms", "latency_max_ms", "missed_ticks")
FIGURES = (*SHOWN, "active_seconds", "bridge_ticks")


def robot_at(rate_hz: float, folder: Path) -> Robot:
    """The furuta with another control rate."""
    shutil.copytree(load_robot("furuta").folder, folder)
    path = folder / "robot.yaml"
    content = yaml.safe_load(path.read_text())
    content |= {"control_rate_hz": rate_hz, "decimation": max(1, round(PHYSICS_RATE_HZ / rate_hz))}
    path.write_text(yaml.safe_dump(content))
    return load_robot(folder)


def random_bundle(robot: Robot, path: Path) -> None:
    """A bundle with random weights and small actions, so that an episode can last."""
    spec, names = robot.spec, tuple(Observer(robot.spec).names)
    rng = np.random.default_rng(0)
    sizes = [len(names), HIDDEN, HIDDEN, len(spec.actuated)]
    weights = [rng.normal(0, 1 / np.sqrt(a), (a, b)).astype(np.float32) for a, b in itertools.pairwise(sizes)]
    weights[-1] *= 0.05
    nodes = []
    for i in range(len(weights)):
        last = i == len(weights) - 1
        nodes.append(helper.make_node("MatMul", [f"h{i}" if i else "obs", f"w{i}"], [f"m{i}"]))
        nodes.append(helper.make_node("Tanh" if last else "Relu", [f"m{i}"], ["action" if last else f"h{i + 1}"]))
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("obs", TensorProto.FLOAT, [1, sizes[0]])],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, [1, sizes[-1]])],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    obs = rng.normal(size=(16, sizes[0])).astype(np.float32)
    hidden = np.maximum(np.maximum(obs @ weights[0], 0) @ weights[1], 0)
    golden = obs, np.tanh(hidden @ weights[2])
    graph_bytes = model.SerializeToString()
    write_untrained(path, spec, graph_bytes, golden, agent="random", task="none", tolerance=1e-4)


def measure(rate_hz: float, seconds: float) -> dict[str, Any]:
    """Figures of one rate."""
    with tempfile.TemporaryDirectory() as scratch:
        robot = robot_at(rate_hz, Path(scratch) / "robot")
        random_bundle(robot, Path(scratch) / "bundle")
        specs = deploy(str(robot.folder), "none", 0, str(Path(scratch) / "bundle"))
        figures = run_episodes(robot, specs, seconds=seconds)
    return {"rate_hz": rate_hz, **{key: figures[key] for key in FIGURES}, "guard": figures["guard"]}


def main(seconds: float = 20.0, rates: tuple[float, ...] = (50.0, 250.0)) -> None:
    """Measure, print a table, and write `benchmarks/results/latency.json`.

    Args:
        seconds: ACTIVE time at each rate.
        rates: Control rates [Hz].
    """
    load = os.getloadavg()[0]
    rows = [measure(rate, seconds) for rate in rates]
    table = Table("rate [Hz]", "ticks", "p50 [ms]", "p99 [ms]", "max [ms]", "missed", title="measurement to command")
    for row in rows:
        table.add_row(*(f"{row[key]:g}" for key in ("rate_hz", *SHOWN)))
    Console().print(table)
    record.write(RESULTS, load, rates=rows)


if __name__ == "__main__":
    tyro.cli(main)
