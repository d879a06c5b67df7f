"""Operator services, lifecycle and process supervision against the real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from std_msgs.msg import Float64MultiArray

from landbridge.bundle import read_bundle, write_bundle
from landbridge.deploy.supervisor import Event, State
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import Robot, load_robot
from landbridge.simulation.calibrated import Calibration
from landbridge_nodes import bringup, neighbours, topics
from landbridge_nodes.listener import Listener
from landbridge_nodes.operator import PLACE, EStopError, Operator
from landbridge_nodes.processes import Processes
from landbridge_nodes.up import record, up

pytestmark = pytest.mark.ros
FURUTA = load_robot("furuta")
STILL = np.zeros((Observer(FURUTA.spec).size, 1), np.float32)

Make = Callable[..., Path]


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        os.sched_yield()


@pytest.fixture(scope="module")
def brought_up(
    tmp_path_factory: pytest.TempPathFactory,
    new_ros_domain: Callable[[pytest.MonkeyPatch], None],
    linear_bundle: Make,
) -> Iterator[tuple[Processes, Operator]]:
    """Twin, still policy and monitor."""
    specs = bringup.deploy("furuta", "none", 0, str(linear_bundle(tmp_path_factory.mktemp("graph") / "bundle", STILL)))
    with pytest.MonkeyPatch.context() as patch:
        new_ros_domain(patch)
        with Processes(specs) as processes, Operator(FURUTA, processes.check) as operator:
            operator.wait_ready(recorded=False)
            yield processes, operator


@pytest.fixture
def running(brought_up: tuple[Processes, Operator]) -> tuple[Processes, Operator]:
    """`brought_up`, in STANDBY."""
    assert brought_up[1].state is State.STANDBY
    return brought_up


def refused(operator: Operator, service: str) -> str:
    with pytest.raises(InputError) as caught:
        operator.call(service)
    return caught.value.problem


def test_the_operators_way_through_the_states(running: tuple[Processes, Operator]) -> None:
    _, operator = running
    assert "refused in STANDBY" in refused(operator, "/monitor/disarm")
    assert "refused in STANDBY" in refused(operator, "/monitor/reset")
    operator.call("/monitor/arm")
    operator.wait(lambda: operator.state is State.ACTIVE, 5)
    assert "disarm first" in refused(operator, "/bridge/reset_plant")
    assert "refused in ACTIVE" in refused(operator, "/monitor/arm")
    operator.call("/monitor/estop")
    operator.wait(lambda: operator.state is State.ESTOP, 1)
    assert "refused in ESTOP" in refused(operator, "/monitor/arm")
    operator.call("/monitor/estop")
    operator.wait(lambda: operator.accepted("/monitor/reset"), 5)  # once the robot rests
    operator.wait(lambda: operator.state is State.STANDBY, 5)
    outcome = operator.episode(20)
    assert (outcome.ended, outcome.ticks, outcome.success) == ("STANDBY", 20, False)


def test_a_second_bring_up_in_one_domain_is_refused_before_anything_is_started(
    running: tuple[Processes, Operator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heard by the first monitor, its bridge would be led and its robot armed with the first one."""
    monkeypatch.setattr(neighbours, "LISTEN_SECONDS", 20.0)  # a busy machine is late at times
    already = "ROS_DOMAIN_ID: domain .* has a robot already: /(bridge|monitor)"
    before = psutil.Process().children()
    for start in (lambda: up("twin", scenario="none"), lambda: record(tmp_path / "bag", scenario="none")):
        with pytest.raises(InputError, match=already):
            start()
    assert psutil.Process().children() == before
    assert not (tmp_path / "bag").exists()


def test_who_has_just_started_hears_of_a_robot_while_it_listens(running: tuple[Processes, Operator]) -> None:
    """Participants tell of themselves twice in the time; DDS by itself would once in three seconds."""
    took = []
    for _ in range(5):
        with neighbours.Neighbours() as listening:
            since = time.monotonic()
            until(lambda listening=listening: bool(listening._names()))
            took.append(time.monotonic() - since)
    assert sorted(took)[-2] < neighbours.LISTEN_SECONDS, took  # a busy machine is late at times


def test_nothing_moves_while_two_monitors_share_a_domain(running: tuple[Processes, Operator]) -> None:
    """Their services bear one name: an arm that was meant for a twin would arm the robot beside it."""
    _, operator = running
    operator.call("/monitor/arm")
    operator.wait(lambda: operator.state is State.ACTIVE, 5)
    with Processes([bringup.deploy("furuta", "none", 0, "")[-1]]):
        shared = "another monitor runs in this ROS domain"
        operator.wait(lambda: shared in refused(operator, "/monitor/park"), 15)
        operator.wait(lambda: operator.state is State.FAULT, 5)  # ACTIVE came between the other's states
        for service in ("/monitor/arm", "/monitor/reset"):  # either monitor answers, and each has to hear the other
            operator.wait(lambda service=service: shared in refused(operator, service), 5)
        operator.call("/monitor/estop")
    operator.wait(lambda: operator.accepted("/monitor/reset"), 5)
    operator.wait(lambda: operator.state is State.STANDBY, 5)
    assert operator.episode(20).ended == "STANDBY"


def test_a_person_reaches_into_a_robot_only_after_it_is_parked(
    running: tuple[Processes, Operator], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(words: str) -> None:
        asked.append((words, operator.state, operator.reason))

    asked: list[tuple[str, State, str]] = []
    processes, operator = running
    monkeypatch.setattr(operator, "_ask", ask)  # as of hardware
    assert operator.episode(5).ended == "STANDBY"
    operator.call("/monitor/arm")
    operator.wait(lambda: operator.state is State.ACTIVE, 5)
    os.kill(processes.pid("policy"), signal.SIGSTOP)
    operator.wait(lambda: operator.state is State.FAULT, 5)
    why = operator.reason
    os.kill(processes.pid("policy"), signal.SIGCONT)
    assert operator.episode(5).ended == "STANDBY"
    operator.call("/monitor/arm")
    operator.wait(lambda: operator.state is State.ACTIVE, 5)
    operator.call("/monitor/estop")
    operator.wait(lambda: operator.state is State.ESTOP, 5)
    with pytest.raises(InputError, match="/monitor/estop: was called"):
        operator.episode(5)
    operator.wait(lambda: operator.accepted("/monitor/reset"), 5)
    operator.wait(lambda: operator.state is State.STANDBY, 5)  # it holds
    assert operator.episode(5).ended == "STANDBY"
    first, parking, placing, *held = asked
    step_back = "torque may be on: support what could fall, step back, then press Enter: it will park"
    assert held == [(step_back, State.STANDBY, "configured"), (PLACE, State.STANDBY, "park")]
    assert (first[:2], placing) == ((PLACE, State.STANDBY), (PLACE, State.STANDBY, "park"))
    assert parking[1:] == (State.FAULT, why)
    assert parking[0].startswith(f"stopped by {why}, torque may be on: support what could fall")


def test_an_estop_that_is_called_while_a_person_is_asked_stays(
    running: tuple[Processes, Operator], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(words: str) -> None:
        asked.append(words)
        with Listener([topics.SAFETY_STATE]) as another:  # somebody at another terminal
            until(lambda: another.ask(Event.ESTOP).accepted)

    asked: list[str] = []
    processes, operator = running
    operator.call("/monitor/arm")
    operator.wait(lambda: operator.state is State.ACTIVE, 5)
    os.kill(processes.pid("policy"), signal.SIGSTOP)
    operator.wait(lambda: operator.state is State.FAULT, 5)
    os.kill(processes.pid("policy"), signal.SIGCONT)
    with monkeypatch.context() as patch:
        patch.setattr(operator, "_ask", ask)  # as of hardware
        with pytest.raises(EStopError, match="/monitor/estop: was called"):
            operator.episode(5)
    assert len(asked) == 1
    assert "it will park" in asked[0]
    assert operator.state is State.ESTOP
    operator.wait(lambda: operator.accepted("/monitor/reset"), 5)
    operator.wait(lambda: operator.state is State.STANDBY, 5)
    assert operator.episode(5).ended == "STANDBY"


def test_an_estop_that_somebody_else_resets_while_a_person_is_asked_ends_the_episode(
    running: tuple[Processes, Operator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who stands at the robot has heard of neither."""

    def ask(words: str) -> None:
        with Listener([topics.SAFETY_STATE]) as another:
            until(lambda: another.ask(Event.ESTOP).accepted)
            until(lambda: another.ask(Event.RESET).accepted)

    operator = running[1]
    assert operator.episode(5).ended == "STANDBY"
    with monkeypatch.context() as patch:
        patch.setattr(operator, "_ask", ask)
        with pytest.raises(EStopError, match="/monitor/estop: was called"):
            operator.episode(5)
    operator.wait(lambda: operator.state is State.STANDBY, 5)
    assert operator.episode(5).ended == "STANDBY"


def test_arrays_of_somebody_else_do_not_end_an_episode(running: tuple[Processes, Operator]) -> None:
    operator = running[1]
    for topic in (topics.OBSERVATION, topics.GUARD_TIMING):
        topics.publish(operator.node, topic).publish(Float64MultiArray(data=[0.1]))
    assert operator.episode(5).ended == "STANDBY"


def test_an_episode_begins_in_a_start_state_of_the_task(running: tuple[Processes, Operator]) -> None:
    """Not several periods after it: as in the simulator, and no matter how long arming took."""
    _, operator = running
    rng, observer = np.random.default_rng(0), Observer(FURUTA.spec)
    starts = [observer(*operator.task.initial_state(rng, 1), observer.initial_history(1))[0] for _ in range(20)]
    found = []
    for _ in range(2):
        operator.episode(5)
        begun = operator._observations[operator._admitted[0]]
        found += [i for i, start in enumerate(starts) if np.allclose(begun, start, atol=1e-6)]
    assert found[0] > 0  # the first is that of the twin's construction; `none` has no noise to draw
    assert found == [found[0], found[0] + 1]


def test_an_invalid_transition_does_not_end_a_node(running: tuple[Processes, Operator]) -> None:
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    processes, operator = running
    client = operator.node.create_client(ChangeState, "/bridge/change_state")
    operator.wait(client.service_is_ready, 5)
    client.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE)))
    assert operator.episode(20).ended == "STANDBY"
    processes.check()


def test_a_folder_of_ones_own_and_a_wrong_bundle(tmp_path: Path, linear_bundle: Make) -> None:
    bundle = linear_bundle(tmp_path / "bundle", STILL)
    (bundle / "policy.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match="does not match SHA256SUMS"):
        up("deploy", bundle=bundle, scenario="none", episodes=1)
    with pytest.raises(InputError, match="--bundle"):
        up("deploy")
    with pytest.raises(InputError, match="takes no --bundle"):
        up("twin", bundle=bundle)


def test_a_wrong_compensation_is_refused_before_anything_is_started(
    tmp_path: Path, linear_bundle: Make, calibration: Callable[..., Calibration]
) -> None:
    before = psutil.Process().children()
    file, bundle = tmp_path / "calibration.yaml", read_bundle(linear_bundle(tmp_path / "bundle", STILL))
    calibration(actuator_gain=0.9).model_copy(update={"robot_hash": "0"}).write(file)
    with pytest.raises(InputError, match="calibrates another 'furuta'"):
        up("deploy", bundle=bundle.path, scenario="none", episodes=1, compensate=file)
    with pytest.raises(InputError, match="takes no --compensate"):
        up("twin", compensate=file)
    calibration(actuator_gain=0.9).write(file)
    provenance = bundle.manifest.provenance | {"source_calibration": "f" * 64}
    manifest = bundle.manifest.model_copy(update={"provenance": provenance})
    files = {name: bundle.files[name] for name in ("policy.onnx", "golden.npz", "envelope.npz")}
    twice = write_bundle(tmp_path / "calibrated", manifest, bundle.robot, files)
    for mode in ("deploy", "hil"):
        with pytest.raises(InputError, match="it would be compensated twice"):
            up(mode, bundle=twice.path, scenario="none", episodes=1, compensate=file)
    assert psutil.Process().children() == before


def test_a_place_that_takes_no_bag_is_named_before_anything_is_started(
    tmp_path: Path, linear_bundle: Make, ros_domain: None
) -> None:
    """`/proc` says that root may write there, and takes nothing."""
    before, bundle, there = psutil.Process().children(), linear_bundle(tmp_path / "bundle", STILL), Path("/proc/bags")
    for start in (
        lambda: record(there / "bag", scenario="none"),
        lambda: up("deploy", bundle=bundle, record=there / "bag"),
        lambda: up("hil", bundle=bundle, record=there / "bag"),
        lambda: up("deploy", bundle=bundle, black_box=there),
    ):
        with pytest.raises(InputError, match="/proc/bags: cannot be written: nothing can be made in /proc"):
            start()
    with pytest.raises(InputError, match=r"nothing can be made in .*/SHA256SUMS .Not a directory"):
        up("deploy", bundle=bundle, black_box=bundle / "SHA256SUMS")
    assert psutil.Process().children() == before


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_landbridge_up(ending: signal.Signals, ros_domain: None) -> None:
    command = [sys.executable, "-m", "landbridge", "up", "twin", "--scenario", "none"]
    parent = psutil.Process(subprocess.Popen(command, start_new_session=True).pid)
    until(lambda: len(parent.children()) == 2)
    children = parent.children()
    until(lambda: all("landbridge_nodes" in " ".join(child.cmdline()) for child in children))
    os.kill(parent.pid, ending)
    assert parent.wait(15) == (-ending if ending == signal.SIGKILL else 130)  # the others are heard and obeyed
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []


def test_a_signal_that_comes_while_a_process_is_forked_is_obeyed(ros_domain: None) -> None:
    """What is raised in a hook of os.fork is dropped: `landbridge up` then ran on, deaf to every further SIGTERM."""
    hook = "os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))"
    script = f"import os, signal, sys; from landbridge.cli import main; {hook}; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "up", "twin", "--scenario", "none"]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            assert process.wait(30) == 130
        finally:
            process.kill()


def test_deploying_a_bundle_for_an_episode(
    tmp_path: Path, ros_domain: None, brief_furuta: Robot, linear_bundle: Make
) -> None:
    robot, bag = brief_furuta.folder, tmp_path / "bag"
    bundle = linear_bundle(tmp_path / "bundle", STILL, robot=robot)
    figures = up("deploy", bundle=bundle, robot=str(robot), scenario="mild", episodes=1, record=bag)
    assert figures is not None
    assert (figures["episodes"], figures["success"], figures["ended"]) == (1, [False], ["disarm"])
    assert figures["ticks"] == 101  # a whole episode: 2 s at 50 Hz, and the last observation
    assert sorted(p.name for p in bag.iterdir()) == ["bag_0.mcap", "metadata.yaml"]


def test_a_robot_that_is_left_in_a_fault_is_told_of(
    tmp_path: Path, ros_domain: None, brief_furuta: Robot, linear_bundle: Make
) -> None:
    into_its_limit = STILL.copy()
    into_its_limit[Observer(brief_furuta.spec).names.index("joint_cos.pendulum")] = -5.0  # it hangs: full effort
    bundle = linear_bundle(tmp_path / "bundle", into_its_limit, robot=brief_furuta.folder)
    figures = up("deploy", bundle=bundle, robot=str(brief_furuta.folder), scenario="none", episodes=1)
    assert figures is not None
    assert figures["ended"] == ["position_limit"]
    assert figures["failed"] == "the robot is left in FAULT: position_limit"


def test_an_estop_ends_the_episodes_and_what_is_finished_counts(
    tmp_path: Path, ros_domain: None, brief_furuta: Robot, linear_bundle: Make
) -> None:
    def stop_the_second() -> None:
        """Whoever watches."""
        with Listener([topics.SAFETY_STATE]) as watching:
            for state in (State.ACTIVE, State.STANDBY, State.ACTIVE):
                until(lambda of=state: getattr(watching.message(topics.SAFETY_STATE), "name", "") == of.value, 60)
            assert watching.ask(Event.ESTOP).accepted

    bundle = linear_bundle(tmp_path / "bundle", STILL, robot=brief_furuta.folder)
    with ThreadPoolExecutor() as pool:
        stopped = pool.submit(stop_the_second)
        figures = up("deploy", bundle=bundle, robot=str(brief_furuta.folder), scenario="none", episodes=3)
        stopped.result()
    assert figures is not None
    assert figures["ended"] == ["disarm", "estop"]
    assert figures["failed"].startswith("/monitor/estop: was called")


def test_a_node_that_cannot_start_ends_the_bringup(ros_domain: None) -> None:
    specs = bringup.deploy("furuta", "none", 0, "/nowhere/bundle")
    with Processes(specs) as processes, Operator(FURUTA, processes.check) as operator:
        pids = [processes.pid(spec.name) for spec in specs]
        with pytest.raises(InputError, match="node policy: ended with code 2"):
            operator.wait_ready(recorded=False)
    assert not any(psutil.pid_exists(pid) for pid in pids)
