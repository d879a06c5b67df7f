"""A policy from elsewhere, which knows no limits, sees over ROS 2 what it saw in the simulator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from landbridge.bag import BagReader
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge.simulation.plant import make_plant
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import load_scenario
from landbridge.task import load_task
from landbridge.training.foreign import import_policy
from landbridge.training.policy import load_policy
from landbridge_nodes.bringup import deploy
from landbridge_nodes.log import read_log
from landbridge_nodes.operator import Operator
from landbridge_nodes.processes import Processes
from landbridge_nodes.replay import replay

pytestmark = pytest.mark.ros
ROBOT, TICKS = load_robot("furuta"), 6
OBSERVER = Observer(ROBOT.spec)


def test_what_was_sent_is_observed_as_in_the_simulator(
    tmp_path: Path, ros_domain: None, linear_graph: Callable[..., bytes]
) -> None:
    """It asks for -5 with the pendulum down; both histories hold -1."""
    weight = 5 * np.float32([[name == "joint_cos.pendulum"] for name in OBSERVER.names])
    (tmp_path / "p.onnx").write_bytes(linear_graph(weight, "actions", "Identity"))
    assert import_policy(tmp_path / "p.onnx", "furuta", tmp_path / "bundle", episodes=1)["clipped"] > 0.5
    specs = deploy("furuta", "none", 0, str(tmp_path / "bundle"), str(tmp_path / "bag"))
    with Processes(specs) as processes, Operator(ROBOT, processes.check) as operator:
        operator.wait_ready(recorded=True)
        operator.episode(TICKS)
    log = read_log(BagReader(tmp_path / "bag"), ROBOT.spec)
    begin = next(stamp for stamp in sorted(log.action) if log.tick[stamp] == 1)
    stamps = [stamp for stamp in sorted(log.action) if stamp >= begin][: TICKS - 1]
    assert [log.tick[stamp] for stamp in stamps] == list(range(1, TICKS))
    simulated = simulate(tmp_path / "bundle")
    on_the_robot = OBSERVER.sent(np.array([log.obs[stamp] for stamp in stamps]))
    np.testing.assert_array_equal(on_the_robot, OBSERVER.sent(simulated)[1:TICKS])
    np.testing.assert_array_equal(on_the_robot[0].ravel(), [-1, 0, 0])
    assert replay(tmp_path / "bag", tmp_path / "bundle", tolerance=0.0)["bit_for_bit"]


def simulate(bundle: Path) -> np.ndarray:
    """Observations (T, n) of an episode of the same policy in the twin."""
    rng = np.random.default_rng(0)
    plant = make_plant(ROBOT, "bullet", load_scenario(ROBOT, "none"), rng)
    try:
        return lockstep([plant], load_task(ROBOT), load_policy(bundle, ROBOT)(1, rng), rng)[0].obs
    finally:
        plant.close()
