"""Parameters of real nodes: described, checked when a node starts, and never changed after that."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from rclpy.parameter import Parameter as RosParameter

from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge_nodes import board, bridge, excite, monitor, policy, recorder
from landbridge_nodes.parameters import LARGEST, SEED, Parameter
from landbridge_nodes.sections import require_heard

pytestmark = pytest.mark.ros
OWN = {"use_sim_time", "start_type_description_service"}  # rclpy's, of every node
NODES: dict[str, tuple[Callable[[], Any], Sequence[Parameter]]] = {
    "bridge": (bridge.Bridge, bridge.PARAMETERS),
    "board": (board.BoardNode, board.PARAMETERS),
    "excite": (excite.ExciteNode, excite.PARAMETERS),
    "monitor": (monitor.Monitor, monitor.PARAMETERS),
    "policy": (policy.PolicyNode, policy.PARAMETERS),
    "recorder": (recorder.Recorder, recorder.PARAMETERS),
}

Start = Callable[..., Any]


@pytest.fixture
def start(ros_domain: None, tmp_path: Path, linear_bundle: Callable[..., Path]) -> Iterator[Start]:
    """Starts a node by name, told `given`."""
    started: list[Any] = []

    def make(name: str, **given: object) -> Any:
        if name == "policy":
            size = Observer(load_robot("furuta").spec).size
            given.setdefault("bundle", linear_bundle(tmp_path / "bundle", np.zeros((size, 1), np.float32)))
        if name == "board":
            given.setdefault("link", tmp_path / "board")
        told = [part for key, value in given.items() for part in ("-p", f"{key}:={value}")]
        rclpy.init(args=["--ros-args", *told] if told else [])
        started.append(NODES[name][0]())
        return started[0]

    yield make
    for node in started:
        node.close()
        node.destroy_node()
    gc.collect()  # a node that refused to be made hangs on its error, in a cycle, and would be heard in its domain
    rclpy.try_shutdown()


@pytest.mark.parametrize("name", NODES)
def test_every_parameter_is_described_and_cannot_change(start: Start, name: str) -> None:
    node, table = start(name), {parameter.name: parameter for parameter in NODES[name][1]}
    before = {key: parameter.value for key, parameter in node.get_parameters_by_prefix("").items()}
    assert before.keys() - OWN == table.keys()
    for key, parameter in table.items():
        described = node.describe_parameter(key)
        assert described.description == parameter.description
        assert described.read_only
        bounds = [(bound.from_value, bound.to_value) for bound in described.integer_range]
        assert bounds == ([(parameter.least, LARGEST)] if type(parameter.default) is int else [])
        assert all(repr(value) in described.additional_constraints for value in parameter.one_of)
        other = {str: "other", int: 7, bool: True}[type(parameter.default)]
        (answer,) = node.set_parameters([RosParameter(key, value=other)])
        assert not answer.successful
        assert "read-only" in answer.reason
    assert {key: parameter.value for key, parameter in node.get_parameters_by_prefix("").items()} == before


@pytest.mark.parametrize(
    ("name", "given", "problem"),
    [
        ("bridge", {"seed": -1}, rf"parameter seed: .*\(-1\).* give an integer from 0 to {LARGEST}"),
        ("excite", {"seed": LARGEST + 1}, rf"parameter seed: .*{LARGEST + 1}.* give an integer from 0 to {LARGEST}"),
        ("bridge", {"seed": "often"}, "parameter seed: .*'often'.* give an integer"),
        ("bridge", {"hardware": "steam"}, "parameter hardware: is 'steam'.* give '' or 'twin' or 'mcu' or"),
        ("policy", {"precision": "bf16"}, "parameter precision: is 'bf16'.* give 'fp32' or 'fp16' or 'int8'"),
        ("policy", {"provider": "Nonsense"}, "provider: there is no 'Nonsense'.* name tensorrt"),
        ("policy", {"strict": "perhaps"}, "parameter strict: .*'perhaps'.* give true or false"),
        ("recorder", {"black_box_seconds": 0}, r"parameter black_box_seconds: .*\(0\).* give an integer from 1 to"),
        ("monitor", {"robot": 7}, "parameter robot: .*'7'.* give a text"),
    ],
)
def test_what_is_not_allowed_is_refused(start: Start, name: str, given: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        start(name, **given)


@pytest.mark.parametrize(
    ("name", "given", "problem"),
    [
        (
            "bridge",
            {"scenaro": "mild"},
            "parameter scenaro: is none that bridge has, perhaps 'scenario'. give hardware,",
        ),
        ("policy", {"bundel": "a"}, "parameter bundel: is none that policy has, perhaps 'bundle'. give bundle, compen"),
        ("excite", {"excitation.file": "a"}, "parameter excitation.file: is none that excite has"),
        ("monitor", {"rate": 7}, "parameter rate: is none that monitor has. give controller, robot"),
        ("recorder", {"blackbox": "a"}, "parameter blackbox: is none that recorder has, perhaps 'black_box'"),
        ("board", {"Link": "a"}, "parameter Link: is none that board has, perhaps 'link'. give link, robot, scenario"),
    ],
)
def test_a_misspelt_parameter_is_refused(start: Start, name: str, given: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        start(name, **given)


def test_a_file_for_every_node_may_hold_what_only_one_takes_and_what_ros_takes_itself(
    ros_domain: None, tmp_path: Path
) -> None:
    qos = {"/tf": {"publisher": {"depth": 7}}}
    shared = {"robot": "arm", "bundle": "b", "use_sim_time": False, "start_type_description_service": False}
    (tmp_path / "all.yaml").write_text(yaml.safe_dump({"/**": {"ros__parameters": {**shared, "qos_overrides": qos}}}))
    rclpy.init(args=["--ros-args", "--params-file", str(tmp_path / "all.yaml")])
    try:
        node = monitor.Monitor()
        assert node.get_parameter("robot").value == "arm"
        node.close()
        node.destroy_node()
    finally:
        rclpy.try_shutdown()


def refusal(*arguments: str | Path) -> str:
    """The one line with which the process of the bridge ends that is started so."""
    command = [sys.executable, "-m", "landbridge_nodes.bridge", "--ros-args", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    return line


def test_a_misspelt_name_in_a_parameters_file_ends_the_process_with_one_line(ros_domain: None, tmp_path: Path) -> None:
    (tmp_path / "bridge.yaml").write_text("/bridge:\n  ros__parameters:\n    scenaro: mild\n")
    line = refusal("--params-file", tmp_path / "bridge.yaml")
    assert line.startswith("parameter scenaro: is none that bridge has, perhaps 'scenario'. give hardware, port, ")


@pytest.mark.parametrize(
    ("section", "is_told", "meant"),
    [
        ({"/**": {}}, True, None),
        ({"/left/monitor": {}}, True, None),
        ({"left": {"monitor": {}}}, True, None),  # nested by namespace
        ({"/*/monitor": {}}, True, None),
        ({"/left/**": {}}, True, None),
        ({"/policy": {}}, False, None),  # a file may serve many nodes
        ({"/left/monitro": {}}, False, "/left/monitro"),
        ({"left": {"Monitor": {}}}, False, "/left/Monitor"),
        ({"/monitor": {}}, False, "/monitor"),
        ({"/*/*/monitor": {}}, False, "/*/*/monitor"),
    ],
)
def test_a_section_of_a_file_that_no_node_hears_is_refused(
    ros_domain: None, tmp_path: Path, section: dict[str, Any], is_told: bool, meant: str | None
) -> None:
    """Which section is heard is as ROS 2 itself has it."""
    file = tmp_path / "parameters.yaml"
    file.write_text(yaml.safe_dump(section).replace("{}", "{ros__parameters: {robot: arm}}"))
    arguments = ["--ros-args", "--params-file", str(file), "-r", "__ns:=/left"]
    rclpy.init(args=arguments)
    try:
        node = rclpy.create_node("monitor")
        assert ("robot" in node._parameter_overrides) is is_told
        if meant is None:
            require_heard(node.get_fully_qualified_name(), arguments)
        else:
            with pytest.raises(
                InputError, match=re.escape(f"{file}: has no section for /left/monitor, but one for {meant}")
            ):
                require_heard(node.get_fully_qualified_name(), arguments)
        node.destroy_node()
    finally:
        rclpy.try_shutdown()


def test_a_misspelt_node_in_a_parameters_file_ends_its_process_with_one_line(ros_domain: None, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text("/brigde:\n  ros__parameters:\n    scenario: mild\n")
    line = refusal("--params-file", tmp_path / "all.yaml")
    assert line == f"{tmp_path / 'all.yaml'}: has no section for /bridge, but one for /brigde. rename it, or the node."


def test_a_node_that_refuses_a_parameter_ends_with_one_line(ros_domain: None) -> None:
    assert refusal("-p", "seed:=-1").startswith("parameter seed: ")


def test_an_argument_of_a_launch_file_is_refused_before_a_process_is_started() -> None:
    assert SEED.read("3") == 3
    with pytest.raises(InputError, match=r"argument seed: is 'often'\. give an integer from 0 to"):
        SEED.read("often")
