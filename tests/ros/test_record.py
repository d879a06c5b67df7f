"""One short recording of the twin through the real processes, and what the bag holds, value by value."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from landbridge.errors import InputError
from landbridge.observation import Observer, action_to_command, push_action
from landbridge.robot import Robot, load_robot
from landbridge.simulation.excitation import Excitation, Series, behaviour_of
from landbridge.verdict import ADMITTED
from landbridge_nodes import topics
from landbridge_nodes.replay import replay
from landbridge_nodes.up import record

pytestmark = pytest.mark.ros
SPEC = load_robot("furuta").spec
SECONDS = 1.5


def read(bag: Path) -> dict[str, list[Any]]:
    store = get_typestore(Stores.ROS2_JAZZY)
    found: dict[str, list[Any]] = {}
    with Reader(bag) as reader:
        for connection, _, raw in reader.messages():
            found.setdefault(connection.topic, []).append(store.deserialize_cdr(raw, connection.msgtype))
    return found


def header_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def by_stamp(messages: list[Any]) -> dict[int, list[float]]:
    return {int(m.data[0]) * 10**9 + int(m.data[1]): list(m.data[2:]) for m in messages}


def names(message: Any) -> list[str]:
    return str(message.layout.dim[0].label).split(",")[2:]


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory, new_ros_domain: Callable[[pytest.MonkeyPatch], None]
) -> tuple[Path, dict[str, Any]]:
    bag = tmp_path_factory.mktemp("record") / "bag"
    with pytest.MonkeyPatch.context() as patch:
        new_ros_domain(patch)
        figures = record(bag, scenario="none", seconds=SECONDS, seed=3)
    return bag, figures


def test_robot_time_is_filled_and_not_exceeded(recorded: tuple[Path, dict[str, Any]]) -> None:
    _, figures = recorded
    assert SECONDS - 0.1 < figures["active_seconds"] <= SECONDS
    assert figures["episodes"] == 1
    assert figures["guard"].get("ok", 0) + figures["guard"].get("limited", 0) >= figures["ticks"] > 60
    assert 0 < figures["latency_p50_ms"] < SPEC.safety.max_command_age_ms  # of so few ticks p99 is the slowest one
    assert figures["latency_p50_ms"] <= figures["latency_p99_ms"]


def test_every_tick_is_complete_and_exact(recorded: tuple[Path, dict[str, Any]]) -> None:
    """Each admitted action is what the policy asked for, on an observation that the joint states reproduce."""
    found = read(recorded[0])
    states = {header_ns(m): m for m in found["/joint_states"]}
    observations, actions = by_stamp(found["/policy/observation"]), by_stamp(found["/policy/action"])
    timings = by_stamp(found["/guard/timing"])
    observer = Observer(SPEC)
    assert names(found["/policy/observation"][0]) == observer.names
    assert names(found["/policy/action"][0]) == [*SPEC.actuated, "inference_start_ms", "inference_end_ms", "tick"]
    assert names(found["/guard/timing"][0]) == ["received_ms", "gated_ms", "written_ms", "measured_ms"]
    admitted = [m for m in found["/guard/command"] if m.header.frame_id in ADMITTED]
    assert len(admitted) > 60
    history, offsets = observer.initial_history(1), list[float]()
    for message in admitted:
        stamp = header_ns(message)
        state, action = states[stamp], np.array(actions[stamp][: len(SPEC.actuated)])
        assert state.name == SPEC.joint_names
        obs = observer(state.position[None], state.velocity[None], history)
        np.testing.assert_array_equal(obs[0], np.array(observations[stamp], np.float32))
        received, gated, written, measured = timings[stamp]
        assert 0 < received <= gated <= written < SPEC.safety.max_command_age_ms
        offsets.append(stamp / 1e6 - measured)
        assert message.name == SPEC.actuated
        if message.header.frame_id == "ok":
            np.testing.assert_array_equal(message.effort, action_to_command(SPEC, action))
        assert abs(message.effort[0]) <= SPEC.joint("arm").effort_limit
        history = push_action(history, action[None])
    assert np.ptp(offsets) < 5  # ms between wall and monotonic clock: nobody has set the one meanwhile


def test_no_policy_is_compared_with_the_behaviour_that_was_recorded(recorded: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(InputError, match="is of the controller 'excite': no policy ran"):
        replay(recorded[0], Path(__file__).parent / "data" / "replay.zip")


def test_an_episode_is_one_stretch_of_active(recorded: tuple[Path, dict[str, Any]]) -> None:
    states = [m.name for m in read(recorded[0])["/safety/state"]]
    changes = [b for a, b in zip(["", *states], states, strict=False) if a != b]
    assert changes[-5:] == ["STANDBY", "ARMED", "ACTIVE", "PARK", "STANDBY"]


def test_the_bag_is_a_rosbag2_of_version_8(recorded: tuple[Path, dict[str, Any]]) -> None:
    bag, _ = recorded
    information = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert (information["version"], information["storage_identifier"]) == (8, "mcap")
    assert information["relative_file_paths"] == ["bag_0.mcap"]
    assert information["custom_data"]["robot_hash"] == SPEC.digest()
    counted = {t["topic_metadata"]["name"]: t["message_count"] for t in information["topics_with_message_count"]}
    assert sum(counted.values()) == information["message_count"]
    assert counted["/joint_states"] == len(read(bag)["/joint_states"])
    with (bag / "bag_0.mcap").open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        (about,) = [m.metadata for m in reader.iter_metadata() if m.name == "landbridge"]
        channels = reader.get_summary().channels.values()  # type: ignore[union-attr]
    assert (about["robot"], about["scenario"], about["controller"]) == ("furuta", "none", "excite")
    assert all(c.metadata["topic_type_hash"].startswith("RIHS01_") for c in channels)
    assert {c.message_encoding for c in channels} == {"cdr"}


def test_nobody_is_asked_to_stand_at_a_board_that_never_answered(
    tmp_path: Path, ros_domain: None, capfd: pytest.CaptureFixture[str]
) -> None:
    ends = os.openpty()
    port = os.ttyname(ends[1])
    with pytest.raises(InputError, match=f"hardware: {port}: no microcontroller answers in 2 s"):
        record(tmp_path / "bag", port=port)
    assert "press Enter" not in capfd.readouterr().err
    for end in ends:
        os.close(end)


def test_bad_input_is_refused_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no scenario 'worse'"):
        record(tmp_path / "bag", scenario="worse")
    with pytest.raises(InputError, match="no such robot"):
        record(tmp_path / "bag", robot="nobody")
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="already exists"):
        record(tmp_path / "there")
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/opt/ros/jazzy")
    with pytest.raises(InputError, match="/opt/ros/jazzy"):
        record(tmp_path / "bag")
    monkeypatch.delenv("AMENT_PREFIX_PATH")
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
    with pytest.raises(InputError, match="no SROS2"):
        record(tmp_path / "bag")
    assert not (tmp_path / "bag").exists()


def test_a_designed_excitation_is_followed_from_its_beginning(tmp_path: Path, ros_domain: None) -> None:
    series = {"arm": Series(centre=0.0, sine=(0.8,), cosine=(0.0,))}
    about = {"robot": "furuta", "robot_hash": SPEC.digest(), "commit": "", "created": ""}
    found = Excitation(frequencies_hz=(1.0,), joints=series, previews=(), expected_sd={}, **about)  # type: ignore[arg-type]
    found.write(tmp_path / "excitation.yaml")
    record(tmp_path / "bag", scenario="none", seconds=1.0, excitation=tmp_path / "excitation.yaml")
    messages = read(tmp_path / "bag")
    observations, actions = by_stamp(messages["/policy/observation"]), by_stamp(messages["/policy/action"])
    admitted = [header_ns(m) for m in messages["/guard/command"] if m.header.frame_id in ADMITTED]
    asked = np.array([actions[stamp][0] for stamp in admitted])
    obs = np.array([observations[stamp] for stamp in admitted], np.float32)
    follow = behaviour_of(load_robot("furuta"), found)

    def followed(late: int) -> np.ndarray:
        policy = follow(1, np.random.default_rng(0))
        return np.array([policy(row[None])[0, 0] for row in np.concatenate([obs[:late], obs])][late:])

    errors = [float(np.abs(followed(late) - asked)[1:].max()) for late in range(3)]  # beside the change of state
    assert len(asked) > 30
    assert min(errors) < 1e-6


def test_a_robot_that_is_stopped_whenever_it_is_armed_is_not_armed_for_ever(ros_domain: None, tmp_path: Path) -> None:
    context = rclpy.Context()
    rclpy.init(context=context)
    stranger = rclpy.create_node("stranger", context=context)
    stranger.create_publisher(topics.COMMAND.message, topics.COMMAND.name, 1)
    try:
        with pytest.raises(InputError, match="3 episodes in a row were stopped before they began: foreign_publisher"):
            record(tmp_path / "bag", scenario="none", seconds=1.0)
    finally:
        stranger.destroy_node()
        rclpy.shutdown(context=context)


def test_a_full_disk_ends_a_recording(ros_domain: None, tmp_path: Path, brief_furuta: Robot) -> None:
    """No file may grow beyond what the first second needs: most of a minute of the robot would not be in the bag."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, hard))  # the processes inherit it
    try:
        with pytest.raises(InputError, match=r"recorder: has stopped: .*bag_0.mcap: File too large\. free space"):
            record(tmp_path / "bag", robot=str(brief_furuta.folder), scenario="none", seconds=60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 0 < (tmp_path / "bag/bag_0.mcap").stat().st_size <= 80_000


def test_a_recording_without_its_end_is_no_success(
    ros_domain: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("landbridge_nodes.up._run", lambda *_, **__: {"episodes": 1})
    with pytest.raises(InputError, match=r"bag: is incomplete: the recorder could not write its end\. free space"):
        record(tmp_path / "bag", scenario="none", seconds=6)
