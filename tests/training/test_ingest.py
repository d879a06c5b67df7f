"""Bags are written with the recorder's own code, messages with the nodes' own coding."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader

pytest.importorskip("rclpy", reason="bags are written with the recorder's own code, which needs rclpy")

from rclpy.serialization import serialize_message
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, MultiArrayDimension, MultiArrayLayout

from landbridge.bag import read_bag
from landbridge.cli import main
from landbridge.episode import open_dataset
from landbridge.errors import InputError
from landbridge.inspection import inspect
from landbridge.joint import Friction
from landbridge.observation import Observer, action_to_command, push_action
from landbridge.robot import RobotSpec, load_robot
from landbridge.simulation.calibrated import Calibration
from landbridge.simulation.compensation import Compensation
from landbridge.simulation.plant import make_plant
from landbridge.simulation.rollout import following
from landbridge.simulation.scenario import Scenario
from landbridge.task import load_task
from landbridge.training.ingest import ingest
from landbridge_nodes import topics
from landbridge_nodes.bag import BagWriter

TYPES = get_typestore(Stores.ROS2_JAZZY)
ROBOT = load_robot("furuta")
SPEC = ROBOT.spec
START = 1_700_000_000_000_000_000
PERIOD = 20_000_000  # ns
DAY = 86_400_000_000_000
ABOUT = {"robot": "furuta", "robot_hash": SPEC.digest(), "scenario": "severe", "controller": "excite"}


def observation(tick: int) -> np.ndarray:
    pos = np.array([[0.01 * tick, np.pi - 0.02 * tick]])
    return Observer(SPEC)(pos, np.zeros((1, 2)), np.zeros((1, 3, 1)))[0]


def as_on_the_wire(raw: bytes, kind: str) -> bytes:
    """Without the padding that `serialize_message` leaves behind empty sequences and DDS does not send."""
    definition = TYPES.get_msgdef(kind)
    _, length = definition.deserialize_cdr_le(raw[4:], 0, definition.cls, TYPES)
    return raw[: 4 + length]


def write(
    path: Path,
    ticks: Iterable[int],
    active_at: Iterable[int] = (0,),
    period: int = PERIOD,
    verdicts: Mapping[int, str] | None = None,
    clock_steps: Mapping[int, int] | None = None,
    between: Callable[[int], tuple[topics.Topic, object]] | None = None,
    **about: str,
) -> Path:
    """A bag with these control ticks; ACTIVE ends and begins anew before each tick of `active_at`.

    `verdicts` are the guard's on the ticks where it is not `ok`; before a tick of `clock_steps` the wall clock is set
    so far [ns]. `between` makes what somebody else publishes after each measurement.
    """
    bag = BagWriter(path, ABOUT | about, topics.TOPICS)

    def put(topic: topics.Topic, message: object, now: int) -> None:
        bag.write(topic.name, as_on_the_wire(serialize_message(message), topic.type_name), now)

    starts = set(active_at)
    for tick in ticks:
        now = START + tick * period + sum(step for at, step in (clock_steps or {}).items() if at <= tick)
        if tick in starts:
            stop = topics.joint_message(now - period, ["arm"], "effort", [0.0], "not_active")
            put(topics.GUARD_COMMAND, stop, now - 1000)
        angles = [np.pi - 0.02 * tick, 0.01 * tick]
        joints = topics.joint_message(now, ["pendulum", "arm"], "position", angles, topics.MEASURED)
        put(topics.JOINT_STATES, joints, now)
        if between is not None:
            foreign, message = between(tick)
            put(foreign, message, now)
        columns, values = Observer(SPEC).names[::-1], observation(tick).tolist()[::-1]  # order must not matter
        put(topics.OBSERVATION, topics.array_message(now, columns, values), now)
        verdict = (verdicts or {}).get(tick, "ok")
        put(
            topics.GUARD_COMMAND, topics.joint_message(now, ["arm"], "effort", [0.001 * tick], verdict), now + 1_500_000
        )
        put(topics.GUARD_TIMING, topics.array_message(now, topics.TIMING, [0.5, 0.6, 1.5, now / 1e6]), now + 1_500_000)
        refused = topics.joint_message(now, ["arm"], "effort", [0.09], "stale")
        put(topics.GUARD_COMMAND, refused, now + 1_600_000)
    bag.flush()
    bag.close()
    return path


def test_arrays_that_do_not_name_their_values_are_passed_over(tmp_path: Path) -> None:
    def stranger(tick: int) -> tuple[topics.Topic, object]:
        told = MultiArrayLayout(dim=[MultiArrayDimension(label="sec,nanosec")] * (tick // 2 % 2))
        return (topics.OBSERVATION, topics.GUARD_TIMING)[tick % 2], Float64MultiArray(data=[0.1], layout=told)

    clean, foreign = (
        read_bag(write(tmp_path / name, range(10), between=between), SPEC)
        for name, between in (("clean", None), ("foreign", stranger))
    )
    (ours,), (same,) = clean.segments, foreign.segments
    np.testing.assert_array_equal(ours.obs, same.obs)
    np.testing.assert_array_equal(ours.written, same.written)


def test_joint_states_of_somebody_else_are_no_measurements(tmp_path: Path) -> None:
    """Their rate would be added to the robot's; they may lack velocities, or have other joints."""

    def stranger(tick: int) -> tuple[topics.Topic, object]:
        now = START + tick * PERIOD + PERIOD // 2
        return topics.JOINT_STATES, topics.joint_message(now, ["arm", "tail"], "position", [0.0, 1.0])

    def speeds_alone(tick: int) -> tuple[topics.Topic, object]:
        return topics.JOINT_STATES, JointState(name=["arm", "pendulum"], velocity=[0.0, 0.0])

    whole = ingest((write(tmp_path / "alone", range(50)),), tmp_path / "data")
    for between in (stranger, speeds_alone):
        path = write(tmp_path / f"beside{id(between)}", range(50), between=between, joint_states_of=topics.MEASURED)
        figures = ingest((path,), tmp_path / f"data{id(between)}")
        assert figures["transitions"] == whole["transitions"]
        assert figures["recordings"][0]["measured_rate_hz"] == pytest.approx(50)
    before = write(tmp_path / "before", range(50), between=stranger)  # a bag that does not say whose they are
    with pytest.raises(InputError, match="measured rate 100"):
        ingest((before,), tmp_path / "none")


def test_what_several_bags_hold_counts_once(tmp_path: Path) -> None:
    """Black boxes are parts of a recording, and of each other; a copy is nothing new."""
    bag, box = write(tmp_path / "bag", range(30)), write(tmp_path / "black_box", range(20, 40))
    figures = ingest((bag, box, next(bag.glob("*.mcap"))), tmp_path / "data")
    told = [(row["transitions"], row.get("in_others")) for row in figures["recordings"]]
    assert told == [(29, None), (9, 10), (0, 30)]
    assert figures["transitions"] == 38


def test_what_moves_in_real_time_keeps_its_stamps(tmp_path: Path) -> None:
    """A twin steps by whole periods; an emulated board of the same rung does not."""
    late = {10: 3_000_000}
    for kind, steady in (("twin", True), ("mcu", False)):
        ingest((write(tmp_path / kind, range(50), clock_steps=late, hardware=kind),), tmp_path / f"data_{kind}")
        (episode,) = open_dataset(tmp_path / f"data_{kind}")
        assert bool(np.ptp(np.diff(episode.stamps)) < 1e-9) is steady


def test_transitions_carry_what_was_seen_and_what_was_written(tmp_path: Path) -> None:
    figures = ingest((write(tmp_path / "bag", range(50)),), tmp_path / "data")
    assert (figures["episodes"], figures["transitions"]) == (1, 49)
    (recording,) = figures["recordings"]
    assert (recording["transitions"], recording["lost_ticks"], recording["repaired"]) == (49, 0, None)
    assert (figures["ended_in_failure"], figures["mean_episode_s"]) == (0, pytest.approx(0.98))
    assert recording["measured_rate_hz"] == pytest.approx(50)
    assert figures["latency_p50_ms"] == figures["latency_max_ms"] == 1.5
    assert {row["latency_ms"]: row["ticks"] for row in figures["latency"]}["1 .. 2"] == 49
    dataset = open_dataset(tmp_path / "data")
    (episode,) = dataset
    np.testing.assert_array_equal(episode.obs, [observation(tick) for tick in range(50)])
    np.testing.assert_allclose(episode.actions[:, 0], [0.001 * tick / 0.1 for tick in range(49)], atol=1e-6)
    rewards = load_task(ROBOT).reward(episode.obs[:-1], episode.actions, episode.obs[1:])
    np.testing.assert_allclose(episode.rewards, rewards, atol=1e-6)
    assert episode.truncated.tolist() == [False] * 48 + [True]
    assert not episode.terminated.any()
    np.testing.assert_allclose(episode.stamps, np.arange(50) * 0.02)
    np.testing.assert_allclose(episode.written, [0.0015] * 49)
    assert (dataset.metadata.domain, dataset.metadata.scenario) == ("target", "severe")
    assert dataset.metadata.controllers == {"excite": 49}


def test_a_dataset_knows_the_calibration_that_held_for_the_robot(
    tmp_path: Path, calibration: Callable[..., Calibration]
) -> None:
    made, file = calibration(latency_ms=31.5), tmp_path / "calibration.yaml"
    made.write(file)
    ingest((write(tmp_path / "bag", range(50)),), tmp_path / "data", calibration=file)
    metadata = open_dataset(tmp_path / "data").metadata
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (metadata.calibration, metadata.latency_ms) == (digest, 31.5)
    shown = inspect(str(tmp_path / "data"))
    assert (shown["calibration"], shown["latency_ms"]) == (digest, 31.5)
    made.model_copy(update={"robot_hash": "of another"}).write(file)
    with pytest.raises(InputError, match="calibrates another 'furuta'"):
        ingest((tmp_path / "bag",), tmp_path / "other", calibration=file)
    assert not (tmp_path / "other").exists()


def test_a_robot_has_a_time_of_its_own_and_a_twin_moves_by_ticks(tmp_path: Path) -> None:
    """The computer's ticks are 2 % apart from what robot.yaml says."""
    bags = [
        write(tmp_path / name, range(30), period=PERIOD * 51 // 50, scenario=name) for name in ("severe", "hardware")
    ]
    for bag, step in zip(bags, (0.02, 0.0204), strict=True):
        ingest((bag,), tmp_path / f"data of {bag.name}")
        (episode,) = open_dataset(tmp_path / f"data of {bag.name}")
        np.testing.assert_allclose(episode.stamps, step * np.arange(30), atol=1e-9)


def test_a_lost_tick_and_a_new_stretch_of_active_both_cut(tmp_path: Path) -> None:
    ticks = [*range(20), *range(22, 40)]
    path = write(tmp_path / "bag", ticks, active_at=(0, 30))
    bag = read_bag(path, SPEC)
    assert [len(segment.stamps) for segment in bag.segments] == [20, 8, 10]
    assert bag.lost_ticks == 2
    np.testing.assert_allclose(bag.segments[1].joint_pos[0], [0.22, np.pi - 0.44])
    assert ingest((path,), tmp_path / "data")["transitions"] == 19 + 7 + 9


def test_several_bags_are_one_dataset(tmp_path: Path) -> None:
    bags = (
        write(tmp_path / "monday", range(50)),
        write(tmp_path / "tuesday", [*range(10), *range(12, 30)], clock_steps={0: DAY}, controller="b"),
    )
    figures = ingest(bags, tmp_path / "data")
    told = [(Path(row["recording"]).name, row["transitions"], row["lost_ticks"]) for row in figures["recordings"]]
    assert told == [("monday", 49, 0), ("tuesday", 9 + 17, 2)]
    assert (figures["episodes"], figures["transitions"]) == (3, 75)
    assert sum(row["ticks"] for row in figures["latency"]) == 75
    dataset = open_dataset(tmp_path / "data")
    assert [len(episode) for episode in dataset] == [49, 9, 17]
    assert dataset.metadata.controllers == {"excite": 49, "b": 26}


def test_recordings_that_make_no_dataset_together_are_refused(tmp_path: Path) -> None:
    bag, out = write(tmp_path / "bag", range(30)), tmp_path / "data"
    with pytest.raises(InputError, match="names no recording"):
        ingest((), out)
    with pytest.raises(InputError, match=r"ingest: names .*bag twice"):
        ingest((bag, tmp_path / "." / "bag"), out)
    with pytest.raises(InputError, match=r"hardware: its scenario is 'hardware', that of .*bag 'severe'.*apart"):
        ingest((bag, write(tmp_path / "hardware", range(30), scenario="hardware")), out)
    with pytest.raises(InputError, match=r"absent: no such file"):
        ingest((bag, tmp_path / "absent"), out)
    assert not out.exists()


def test_a_bag_that_was_copied_in_part_is_said_to_be_cut_off(tmp_path: Path) -> None:
    """Its metadata.yaml, which was copied whole, says nothing of it."""
    bag = write(tmp_path / "bag", range(30))
    assert "cut off" not in inspect(str(bag))
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-5000])
    assert "lost" in inspect(str(bag))["cut off"]


@pytest.mark.parametrize("step", [-1_007_000_000, -3_600_000_000_000, 3_600_000_000_000])
def test_no_transition_leads_over_a_clock_that_was_set(tmp_path: Path, step: int) -> None:
    """Of two seconds, so that the stamps after the shortest step fall among those before it."""
    bag = read_bag(write(tmp_path / "bag", range(200), clock_steps={100: step}), SPEC)
    assert [len(segment.stamps) for segment in bag.segments] == [100, 100]
    for segment in bag.segments:
        np.testing.assert_allclose(np.diff(segment.joint_pos[:, 0]), 0.01)
    assert bag.rate_hz == pytest.approx(50)
    assert bag.lost_ticks == max(0, step // PERIOD)
    information = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert information["starting_time"]["nanoseconds_since_epoch"] == START + min(-1000, 100 * PERIOD + step)
    assert information["duration"]["nanoseconds"] > 0


def test_an_episode_ends_where_the_task_ends_it(tmp_path: Path) -> None:
    path = write(tmp_path / "bag", range(300))  # the arm passes its 2.4 rad at tick 240
    with pytest.warns(UserWarning, match="1 of 1 episodes ended in a failure"):
        assert ingest((path,), tmp_path / "data")["transitions"] == 240


def test_a_refused_command_is_a_lost_tick_but_its_measurement_ends_the_run(tmp_path: Path) -> None:
    bag = read_bag(write(tmp_path / "bag", range(20), verdicts={10: "stale", 15: "limited"}), SPEC)
    assert [len(segment.stamps) for segment in bag.segments] == [11, 9]
    assert bag.lost_ticks == 1
    np.testing.assert_allclose(bag.segments[0].obs[-1], observation(10))
    np.testing.assert_allclose(bag.segments[1].commands[:, 0], [0.001 * tick for tick in range(11, 19)])
    np.testing.assert_allclose(bag.segments[1].written, [0.0015] * 8)


def test_the_measurement_that_stopped_the_robot_is_the_terminal_one(tmp_path: Path) -> None:
    """The arm reaches its limit at tick 240: the guard refuses every answer to it, the task calls it terminal."""
    path = write(tmp_path / "bag", range(200, 250), (200,), verdicts=dict.fromkeys(range(240, 250), "latched"))
    with pytest.warns(UserWarning, match="1 of 1 episodes ended in a failure"):
        figures = ingest((path,), tmp_path / "data")
    assert (figures["transitions"], figures["recordings"][0]["lost_ticks"]) == (40, 0)
    (episode,) = open_dataset(tmp_path / "data")
    assert episode.terminated.tolist() == [False] * 39 + [True]
    assert not episode.truncated.any()


def test_a_recording_in_which_the_guard_mostly_had_to_stop_the_robot_is_told_of(tmp_path: Path) -> None:
    """Two stretches of 0.4 s end in a stop for what the robot did, and one in which the command came too late."""
    stops = {20: "tracking_error", 41: "velocity_limit", 62: "stale"}
    path = write(tmp_path / "bag", range(63), active_at=(0, 21, 42), verdicts=stops)
    with pytest.warns(UserWarning, match=r"2 of 3 episodes ended in a failure, mean length 0.4 s of 6 s"):
        figures = ingest((path,), tmp_path / "data")
    assert (figures["ended_in_failure"], figures["mean_episode_s"]) == (2, pytest.approx(0.4))
    assert open_dataset(tmp_path / "data").metadata.stopped == 2
    with pytest.warns(UserWarning, match="ended in a failure"):  # the recording has failed, not the command
        assert main(["ingest", str(path), "--out", str(tmp_path / "again")]) == 0
    with warnings.catch_warnings(action="error"):  # a simulator's may start anywhere
        assert "ended_in_failure" not in ingest((path,), tmp_path / "source", domain="source")


def test_a_stop_written_before_the_next_measurement_spoils_the_transition(tmp_path: Path) -> None:
    """Disarmed after tick 9 was answered: what tick 10 shows is not what that answer led to."""
    bag = read_bag(write(tmp_path / "bag", range(12), (0, 10), verdicts={10: "armed", 11: "armed"}), SPEC)
    assert [len(segment.stamps) for segment in bag.segments] == [10]


def test_a_bag_cut_at_any_byte_gives_the_ticks_before_the_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "bag", range(120))
    file = path / "bag_0.mcap"
    whole, stamps = file.read_bytes(), read_bag(path, SPEC).segments[0].stamps
    (path / "metadata.yaml").unlink()
    found = []
    for size in [*range(0, len(whole), 2503), *range(len(whole) - 40, len(whole))]:
        file.write_bytes(whole[:size])
        try:
            bag = read_bag(path, SPEC)
        except InputError:
            found.append(0)
            continue
        assert bag.repaired is not None and "cut off" in bag.repaired
        (segment,) = bag.segments
        np.testing.assert_array_equal(segment.stamps, stamps[: len(segment.stamps)])
        found.append(len(segment.stamps))
    assert found == sorted(found)
    assert found[0] == 0 and found[-1] == 120


def test_a_last_chunk_without_its_content_is_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path / "bag", range(200))
    file = path / "bag_0.mcap"
    whole = file.read_bytes()
    chunks = make_reader(BytesIO(whole)).get_summary().chunk_indexes  # type: ignore[union-attr]
    last, end = chunks[1].chunk_start_offset, chunks[1].chunk_start_offset + chunks[1].chunk_length
    file.write_bytes(whole[: (last + end) // 2] + bytes(end - (last + end) // 2))
    bag = read_bag(path, SPEC)
    assert bag.repaired == f"cut off: {end - last} bytes after the last complete record are lost"
    file.write_bytes(whole[:last])
    assert read_bag(path, SPEC).repaired == "cut off: what came after the last complete record is lost"
    assert len(bag.segments[0].stamps) == len(read_bag(path, SPEC).segments[0].stamps) > 2


def test_a_changed_byte_is_refused_not_repaired(tmp_path: Path) -> None:
    path = write(tmp_path / "bag", range(200))
    file = path / "bag_0.mcap"
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged before byte \d+"):
        read_bag(path, SPEC)


def test_a_whole_bag_needs_no_repair(tmp_path: Path) -> None:
    assert read_bag(write(tmp_path / "bag", range(10)), SPEC).repaired is None


def changed() -> RobotSpec:
    return SPEC.model_copy(update={"latency_budget_ms": 11.0})


def test_bags_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "bag", range(30))
    with pytest.raises(InputError, match="has changed since the recording"):
        read_bag(path, changed())
    with pytest.raises(InputError, match="is of robot 'arm', not 'furuta'"):
        ingest((write(tmp_path / "foreign", range(30), robot="arm"),), tmp_path / "data")
    with pytest.raises(InputError, match=r"measured rate 40\.0 Hz, furuta declares 50 Hz"):
        ingest((write(tmp_path / "slow", range(30), period=25_000_000),), tmp_path / "data")
    file = write(tmp_path / "cut", range(30)) / "cut_0.mcap"
    file.write_bytes(file.read_bytes()[:1500])
    with pytest.raises(InputError, match=r"no two consecutive control ticks in ACTIVE \(cut off: \d+ bytes"):
        ingest((file.parent,), tmp_path / "data")
    with pytest.raises(InputError, match="absent: no such file or folder"):
        ingest((tmp_path / "absent",), tmp_path / "data")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match=r"holds 0 \.mcap files"):
        ingest((tmp_path / "nothing",), tmp_path / "data")
    with pytest.raises(InputError, match=r"name one of the bags in it: .*cut"):
        ingest((tmp_path,), tmp_path / "data")
    with pytest.raises(InputError, match=r"cut: not a readable Minari dataset.*it is a bag: `landbridge ingest"):
        open_dataset(file.parent)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/empty_0.mcap").touch()
    with pytest.raises(InputError, match="not an MCAP file, or an empty one"):
        ingest((tmp_path / "empty",), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_an_unknown_joint_is_named(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"joints": (*SPEC.joints, SPEC.joints[1].model_copy(update={"name": "wrist"}))})
    with pytest.raises(InputError, match=r"no value for joints \['wrist'\]; got \['arm', 'pendulum'\]"):
        read_bag(write(tmp_path / "bag", range(5), robot_hash=spec.digest()), spec)


def test_the_order_of_joints_in_messages_does_not_matter(tmp_path: Path) -> None:
    segment = read_bag(write(tmp_path / "bag", range(5)), SPEC).segments[0]
    assert segment.joint_pos[3].tolist() == pytest.approx([0.03, np.pi - 0.06])


def test_transitions_of_a_compensated_run_are_the_bare_robots(
    tmp_path: Path, calibration: Callable[..., Calibration]
) -> None:
    """From each observation, with the actions in flight that it holds, the bare plant comes to the next one.

    A tick is lost on the way: the rows after it, whose past actions were sent before, are left out. So is one whose
    command no action can ask for.
    """
    delayed = Scenario(latency_ms=30.0, friction={"arm": Friction(frictionloss=0.004)})
    compensation = Compensation(ROBOT, calibration(**{"friction.arm.frictionloss": 0.004}))
    plant, observer, lost, strong = make_plant(ROBOT, "mujoco", delayed), Observer(SPEC), 20, 48
    plant.reset(np.array([0.0, np.pi]), np.zeros(2))
    bag = BagWriter(tmp_path / "bag", ABOUT | {"compensation": "0" * 64}, topics.TOPICS)
    history = observer.initial_history(1)
    stop = topics.joint_message(START - PERIOD, ["arm"], "effort", [0.0], "not_active")
    bag.write("/guard/command", as_on_the_wire(serialize_message(stop), topics.GUARD_COMMAND.type_name), START - 1000)
    for tick in range(50):
        now, (pos, vel) = START + tick * PERIOD, plant.measure()
        asked = np.array([1.0 if tick == strong else 0.5 * np.sin(0.3 * tick)])
        sent = compensation(action_to_command(SPEC, asked), vel)
        obs = observer(pos[None], vel[None], history)[0]
        for topic, message in (
            (topics.JOINT_STATES, topics.joint_message(now, SPEC.joint_names, "position", pos.tolist())),
            (topics.OBSERVATION, topics.array_message(now, observer.names, obs.tolist())),
            (topics.GUARD_COMMAND, topics.joint_message(now, ["arm"], "effort", sent.tolist(), "ok")),
        ):
            if tick != lost:
                bag.write(topic.name, as_on_the_wire(serialize_message(message), topic.type_name), now)
        plant.step([(0.0, sent)])
        history = push_action(history, asked[None])
    bag.close()
    figures = ingest((tmp_path / "bag",), tmp_path / "data")
    assert figures["transitions"] == 19 + 28 - 3 - 1
    assert (figures["recordings"][0]["lost_ticks"], figures["recordings"][0]["left_out"]) == (1, 4)
    for episode in open_dataset(tmp_path / "data"):
        found = following(plant, observer, episode.obs[:-1], episode.actions)
        np.testing.assert_allclose(found, episode.obs[1:], atol=1e-4)
    plant.close()
