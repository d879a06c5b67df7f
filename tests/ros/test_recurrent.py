"""A recurrent policy over ROS 2: its state begins with the episode, and its log is computed again bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from landbridge.bag import BagReader
from landbridge.bundle import read_bundle
from landbridge.deploy.runtime import load_policy
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge_nodes.bringup import deploy
from landbridge_nodes.log import Log, read_log
from landbridge_nodes.operator import Operator
from landbridge_nodes.processes import Processes
from landbridge_nodes.replay import replay, replay_policy

pytestmark = pytest.mark.ros
WEIGHT = np.random.default_rng(0).normal(size=(8, 1)).astype(np.float32)
TICKS = 30  # of an episode
ROBOT = load_robot("furuta")
DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory,
    recurrent_bundle: Callable[..., Path],
    new_ros_domain: Callable[[pytest.MonkeyPatch], None],
) -> tuple[Path, Path]:
    """A bundle, and the bag of two episodes of it."""
    folder = tmp_path_factory.mktemp("recurrent")
    bundle = recurrent_bundle(folder / "bundle", WEIGHT)
    with pytest.MonkeyPatch.context() as patch:
        new_ros_domain(patch)
        specs = deploy("furuta", "none", 0, str(bundle), str(folder / "bag"))
        with Processes(specs) as processes, Operator(ROBOT, processes.check) as operator:
            operator.wait_ready(recorded=True)
            for _ in range(2):
                operator.episode(TICKS)
    return bundle, folder / "bag"


def actions(log: Log, bundle: Path) -> list[tuple[bool, int]]:
    """Of every action computed again whether it is the recorded one, and its tick."""
    compared = replay_policy(log, ROBOT.spec, load_policy(read_bundle(bundle)))
    return [(c.recorded == c.replayed, log.tick[c.stamp]) for c in compared if c.stage == "action"]


def test_both_episodes_are_computed_again_bit_for_bit(recorded: tuple[Path, Path]) -> None:
    bundle, bag = recorded
    assert replay(bag, bundle, tolerance=0.0)["bit_for_bit"]
    same, ticks = zip(*actions(read_log(BagReader(bag), ROBOT.spec), bundle), strict=True)
    assert all(same)
    assert ticks.count(TICKS // 2) == 2  # once in each episode


def test_an_episode_whose_begin_is_not_in_the_log_is_left_out(recorded: tuple[Path, Path]) -> None:
    """As in the bag of a black box: what the policy remembered then is unknown."""
    bundle, bag = recorded
    log = read_log(BagReader(bag), ROBOT.spec)
    whole = len(actions(log, bundle))
    lost = next(stamp for stamp in sorted(log.action) if log.tick[stamp] == 3)
    del log.action[lost], log.tick[lost]
    after = actions(log, bundle)
    assert all(same for same, _ in after)
    assert TICKS // 2 in [tick for _, tick in after]  # of the other episode
    assert len(after) <= whole - TICKS // 2


def test_a_state_that_began_a_tick_too_early_would_be_seen(recorded: tuple[Path, Path]) -> None:
    """As if the policy had remembered, in its second episode, what it asked for before."""
    bundle, bag = recorded
    log = read_log(BagReader(bag), ROBOT.spec)
    second = [stamp for stamp in sorted(log.action) if log.tick[stamp] == 0][-1]
    log.tick |= {stamp: tick + 1 for stamp, tick in log.tick.items() if stamp >= second}
    same, ticks = zip(*actions(log, bundle), strict=True)
    assert ticks.count(TICKS // 2) == 2
    assert not all(same)


def test_a_log_that_does_not_count_ticks_is_refused(recorded: tuple[Path, Path]) -> None:
    """The committed log is of a version before there were recurrent policies."""
    with pytest.raises(InputError, match="does not say at which tick a policy's state began"):
        replay(DATA / "replay.mcap", recorded[0])
