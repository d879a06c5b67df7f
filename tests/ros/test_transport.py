"""Who hears the graph, and that no message of it goes through shared memory, by what its processes have opened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from landbridge.robot import load_robot
from landbridge_nodes import bringup
from landbridge_nodes.operator import Operator
from landbridge_nodes.processes import Processes
from landbridge_nodes.transport import (
    LOCALHOST_ONLY,
    PROFILES,
    RANGE,
    THIS_MACHINE,
    avoid_shared_memory,
    stay_on_this_machine,
)

UDP = {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}
HERE = UDP | dict.fromkeys(PROFILES, THIS_MACHINE) | {RANGE: "SYSTEM_DEFAULT"}
CYCLONE = {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}
OURS = (RANGE, LOCALHOST_ONLY, *PROFILES, *UDP)

NEIGHBOUR = """
import rclpy
from rclpy.executors import SingleThreadedExecutor
from landbridge_nodes import topics
rclpy.init()
node, heard = rclpy.create_node("neighbour"), []
topics.subscribe(node, topics.SAFETY_STATE, heard.append)
executor = SingleThreadedExecutor()
executor.add_node(node)
while not heard:
    executor.spin_once(timeout_sec=1)
print(any("/dev/shm/fastrtps" in line for line in open("/proc/self/maps")))
"""


@pytest.mark.parametrize(
    ("said", "becomes"),
    [
        ({}, HERE),
        ({"ROS_DISTRO": "jazzy"}, HERE),
        ({"ROS_DISTRO": "humble"}, HERE | {LOCALHOST_ONLY: "0"}),
        ({"ROS_DISTRO": "humble", LOCALHOST_ONLY: "1"}, HERE | {LOCALHOST_ONLY: "0"}),
        (HERE, HERE),
        (HERE | {RANGE: "LOCALHOST"}, HERE),
        ({RANGE: "SUBNET"}, UDP),
        ({"ROS_DISTRO": "humble", LOCALHOST_ONLY: "0"}, UDP),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA", RANGE: "SUBNET"}, {}),
        ({PROFILES[0]: "/etc/dds.xml"}, UDP | {RANGE: "LOCALHOST"}),
        ({"ROS_STATIC_PEERS": "192.168.0.7"}, UDP | {RANGE: "LOCALHOST"}),
        (CYCLONE, {RANGE: "LOCALHOST"}),
    ],
)
def test_a_graph_stays_on_this_machine_unless_the_user_says_otherwise(
    said: dict[str, str], becomes: dict[str, str]
) -> None:
    environment = dict(said)
    stay_on_this_machine(environment)
    assert environment == said | becomes


@pytest.mark.parametrize(("said", "becomes"), [({}, UDP), ({RANGE: "LOCALHOST"}, HERE), (CYCLONE, {})])
def test_a_node_that_a_person_starts_goes_as_far_as_their_shell(said: dict[str, str], becomes: dict[str, str]) -> None:
    environment = dict(said)
    avoid_shared_memory(environment)
    assert environment == said | becomes


@pytest.fixture
def shell(ros_domain: None) -> dict[str, str]:
    """A person's, who has chosen nothing."""
    return {name: value for name, value in os.environ.items() if name not in OURS}


@pytest.mark.ros
@pytest.mark.parametrize(
    ("chosen", "of_neighbour", "beyond"),
    [({RANGE: "LOCALHOST"}, {RANGE: "LOCALHOST"}, False), ({RANGE: "LOCALHOST"}, {}, False), ({}, {}, True)],
)
def test_neighbours_with_shared_memory_hear_a_node_without(
    shell: dict[str, str], chosen: dict[str, str], of_neighbour: dict[str, str], beyond: bool
) -> None:
    with subprocess.Popen([sys.executable, "-m", "landbridge_nodes.monitor"], env=shell | chosen) as monitor:
        try:
            neighbour = [sys.executable, "-c", NEIGHBOUR]
            heard = subprocess.run(neighbour, env=shell | of_neighbour, capture_output=True, text=True, timeout=30)
            assert heard.stdout == "True\n", heard.stderr
            assert "/dev/shm/fastrtps" not in Path(f"/proc/{monitor.pid}/maps").read_text()
            sockets = psutil.Process(monitor.pid).net_connections("udp4")
        finally:
            monitor.terminate()
    multicast = 7400 + 250 * int(shell["ROS_DOMAIN_ID"])  # of discovery: RTPS 2.5, section 9.6.2.3
    assert (multicast in {socket.laddr.port for socket in sockets}) == beyond


@pytest.mark.ros
def test_whatever_is_started_stays_on_this_machine(ros_domain: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS:
        monkeypatch.delenv(name, raising=False)
    for chosen, becomes in (({}, HERE), ({RANGE: "SUBNET"}, UDP | {RANGE: "SUBNET"})):
        with Processes(bringup.twin("furuta", "none", 0)[1:], chosen) as processes:
            environment = psutil.Process(processes.pid("monitor")).environ()
        assert {name: environment[name] for name in OURS if name in environment} == becomes
    with Operator(load_robot("furuta"), lambda: None):
        assert os.environ[RANGE] == "SYSTEM_DEFAULT"
        assert os.environ[PROFILES[0]] == THIS_MACHINE
