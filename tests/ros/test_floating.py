"""The quadruped through the real processes: IMU and odometry beside the joints, from twin to policy and back."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from landbridge.bag import BagReader
from landbridge.deploy.supervisor import State
from landbridge.episode import open_dataset
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge.training.ingest import ingest
from landbridge_nodes.bringup import deploy
from landbridge_nodes.episodes import run_episodes
from landbridge_nodes.operator import Operator
from landbridge_nodes.processes import Processes
from landbridge_nodes.replay import replay

pytestmark = pytest.mark.ros
ROBOT = load_robot("quadruped")
OBSERVER = Observer(ROBOT.spec)
STILL = np.zeros((OBSERVER.size, OBSERVER.num_actions), np.float32)
SECONDS = 3.0


@pytest.fixture(scope="module")
def stood(
    tmp_path_factory: pytest.TempPathFactory,
    new_ros_domain: Callable[[pytest.MonkeyPatch], None],
    linear_bundle: Callable[..., Path],
) -> tuple[Path, Path, dict[str, Any]]:
    """Bag, bundle and figures of a policy that stands still while it is pushed."""
    folder = tmp_path_factory.mktemp("floating")
    bundle = linear_bundle(folder / "bundle", STILL, robot="quadruped")
    specs = deploy("quadruped", "none", 0, str(bundle), str(folder / "bag"))
    with pytest.MonkeyPatch.context() as patch:
        new_ros_domain(patch)
        figures = run_episodes(ROBOT, specs, seconds=SECONDS)
    return folder / "bag", bundle, figures


def test_the_robot_stands(stood: tuple[Path, Path, dict[str, Any]]) -> None:
    _, _, figures = stood
    assert figures["ended"] == ["disarm"]
    assert figures["ticks"] > 45 * SECONDS


def test_the_policy_sees_the_base_and_the_gait_clock(stood: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    bag, _, _ = stood
    ingest((bag,), out=tmp_path / "data", robot="quadruped")
    episode = max(open_dataset(tmp_path / "data"), key=len)  # a lost tick would cut it
    gravity = np.stack([OBSERVER.column(episode.obs, f"projected_gravity.{axis}") for axis in "xyz"], -1)
    np.testing.assert_allclose(np.linalg.norm(gravity, axis=1), 1, atol=1e-6)
    assert gravity[:, 2].max() < -0.95
    assert np.abs(OBSERVER.column(episode.obs, "base_lin_vel.x")).max() > 0.1  # it was pushed
    phase = np.unwrap(np.arctan2(*(OBSERVER.column(episode.obs, f"gait_phase.{part}") for part in ("sin", "cos"))))
    np.testing.assert_allclose(np.diff(phase), OBSERVER.gait_step, atol=1e-5)


def test_a_bag_holds_what_the_base_needs_to_be_computed_again(stood: tuple[Path, Path, dict[str, Any]]) -> None:
    bag, bundle, _ = stood
    figures = replay(bag, bundle)
    assert figures["bit_for_bit"], figures
    compared = {row["stage"]: row["compared"] for row in figures["stages"]}
    assert compared["observation"] > 45 * SECONDS
    imu = next(message for topic, _, message in BagReader(bag).messages(["/imu/data"]))
    assert imu.header.frame_id == "base_link"
    assert imu.linear_acceleration_covariance[0] == -1


WITHOUT_IMU = """
import pathlib, sys
from landbridge_nodes import topics

silent, publisher_of = pathlib.Path(__file__).with_name("silent"), topics.publish

class Failing:
    def __init__(self, publisher):
        self.publisher = publisher

    def publish(self, message):
        if not silent.exists():
            self.publisher.publish(message)

def publish(node, topic):
    publisher = publisher_of(node, topic)
    return Failing(publisher) if topic is topics.IMU else publisher

topics.publish = publish
from landbridge_nodes.bridge import main
sys.exit(main())
"""


def test_an_imu_that_falls_silent_stops_the_robot_as_a_silent_policy_does(
    tmp_path: Path, ros_domain: None, linear_bundle: Callable[..., Path]
) -> None:
    bundle = linear_bundle(tmp_path / "bundle", STILL, robot="quadruped")
    programs = tmp_path / "replaced"
    programs.mkdir()
    (programs / "bridge.py").write_text(WITHOUT_IMU)
    bridge, *others = deploy("quadruped", "none", 0, str(bundle))
    path = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    specs = [replace(bridge, package=programs.name), *others]
    with (
        Processes(specs, {"PYTHONPATH": os.pathsep.join(path)}) as processes,
        Operator(ROBOT, processes.check) as operator,
    ):
        operator.wait_ready(recorded=False)
        operator.call("/monitor/arm")
        operator.wait(lambda: operator.state is State.ACTIVE, 10)
        (programs / "silent").touch()
        operator.wait(lambda: operator.state is State.FAULT, 5)
        assert operator.reason == "silent"
        (programs / "silent").unlink()
        assert operator.episode(20).ended == "STANDBY"
