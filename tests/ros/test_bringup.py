"""`ros2 launch` and `landbridge up` start the same processes with the same arguments.

The launch files are expanded with the real launch_ros where there is one. It comes with a ROS 2 installation and not
from PyPI, so elsewhere minimal modules of its interface take its place.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from landbridge.cli import main
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge_nodes import bringup
from landbridge_nodes import up as up_module
from landbridge_nodes.bringup import NodeSpec
from landbridge_nodes.neighbours import Neighbours
from landbridge_nodes.processes import BAD_INPUT, Processes, arguments, parameters_yaml

HAS_LAUNCH_ROS = importlib.util.find_spec("launch_ros") is not None
VALUES = {
    "record": {"robot": "furuta", "scenario": "mild", "seed": "7", "out": "/tmp/bag"},
    "deploy": {
        "robot": "quadruped",
        "scenario": "none",
        "seed": "0",
        "bundle": "b.zip",
        "black_box": "x",
        "black_box_seconds": "9",
        "compensate": "calibration.yaml",
    },
    "hil": {"robot": "furuta", "scenario": "mild", "bundle": "b.zip", "link": "/tmp/board", "compensate": "c.yaml"},
    "twin": {"scenario": "extreme"},
}

Process = tuple[str, str, list[str], dict[str, Any], bool]  # the last: whether its end is that of the bring-up


def as_started_by_up(spec: NodeSpec) -> Process:
    parameters = yaml.safe_load(parameters_yaml(spec))
    return spec.package, spec.executable, arguments(spec, "FILE"), parameters, spec.essential


def file_replaced(argv: list[str]) -> tuple[list[str], dict[str, Any]]:
    at = argv.index("--params-file") + 1
    return [*argv[:at], "FILE", *argv[at + 1 :]], yaml.safe_load(Path(argv[at]).read_text())


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("launch_file", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


def ends(on_exit: Callable[[Any, Any], list[Any]]) -> bool:
    """Whether the end of a process is that of all; it always is where it has refused what it was told."""
    assert on_exit(types.SimpleNamespace(returncode=BAD_INPUT), None)
    return bool(on_exit(types.SimpleNamespace(returncode=-9), None))


def expand_with_launch_ros(
    path: Path, values: dict[str, str], monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...] = ()
) -> list[Process]:
    from launch import LaunchContext
    from launch.actions import ExecuteProcess
    from launch.utilities import perform_substitutions
    from launch_ros.actions import Node

    found: list[Process] = []

    def execute(self: Any, context: Any) -> None:  # in place of starting it
        argv = [perform_substitutions(context, part) for part in self.cmd[1:]]
        ends_all = ends(self._ExecuteLocal__on_exit)
        found.append((self.node_package, self.node_executable, *file_replaced(argv), ends_all))

    monkeypatch.setattr(ExecuteProcess, "execute", execute)
    context = LaunchContext(argv=argv)
    context.launch_configurations.update(values)
    waiting = list(load(path).visit(context))
    while waiting:
        action = waiting.pop(0)
        produced = Node.execute(action, context) if isinstance(action, Node) else action.visit(context)
        waiting[:0] = produced or []
    return found


def expand_with_stand_ins(
    path: Path, values: dict[str, str], monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...] = ()
) -> list[Process]:
    class DeclareLaunchArgument:
        def __init__(self, name: str, *, default_value: str | None, description: str) -> None:
            assert description
            assert default_value is not None or name in values, f"{name} is required"
            values.setdefault(name, default_value or "")

    class LaunchConfiguration:
        def __init__(self, name: str) -> None:
            self.perform = lambda context: values[name]

    class OpaqueFunction:
        def __init__(self, *, function: Callable[[Any], list[Any]]) -> None:
            self.function = function

    class Shutdown:
        def __init__(self, *, reason: str) -> None:
            self.reason = reason

    class Node:
        def __init__(
            self,
            *,
            package: str,
            executable: str,
            name: str,
            namespace: str,
            parameters: Any,
            arguments: list[str],
            output: str,
            on_exit: Callable[[Any, Any], list[Shutdown]],
        ) -> None:
            (values,) = parameters
            remaps = ["-r", f"__node:={name}", "-r", f"__ns:=/{namespace}"]
            argv = [*arguments, "--ros-args", *remaps, "--params-file", "FILE"]
            self.process = (package, executable, argv, {f"/{name}": {"ros__parameters": values}}, ends(on_exit))

    modules = {
        "launch": {"LaunchContext": object, "LaunchDescription": list},
        "launch.actions": {
            "DeclareLaunchArgument": DeclareLaunchArgument,
            "OpaqueFunction": OpaqueFunction,
            "Shutdown": Shutdown,
        },
        "launch.substitutions": {"LaunchConfiguration": LaunchConfiguration},
        "launch_ros": {},
        "launch_ros.actions": {"Node": Node, "LifecycleNode": type("LifecycleNode", (Node,), {})},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    (function,) = [action.function for action in load(path) if isinstance(action, OpaqueFunction)]
    return [node.process for node in function(types.SimpleNamespace(argv=argv))]


expand = expand_with_launch_ros if HAS_LAUNCH_ROS else expand_with_stand_ins


@pytest.mark.parametrize("mode", bringup.MODES)
def test_both_front_ends_start_identical_argument_lists(
    mode: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, declared = bringup.MODES[mode]
    listened: list[str] = []
    monkeypatch.setattr(Neighbours, "require_none", lambda self: listened.append(mode))
    launched = expand(repository / "launch" / f"{mode}.launch.py", dict(VALUES[mode]), monkeypatch)
    assert listened == [mode]
    typed = {a.name: a.read(VALUES[mode].get(a.name, str(a.default))) for a in declared}
    assert launched == [as_started_by_up(spec) for spec in make(**typed)]
    assert len(launched) == {"record": 4, "deploy": 4, "hil": 4, "twin": 2}[mode]


def test_an_argument_that_a_launch_file_does_not_have_is_refused(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not ignored, as `ros2 launch` would; but where another file includes this one, arguments may be for that."""
    monkeypatch.setattr(Neighbours, "require_none", lambda self: None)
    path, told = repository / "launch" / "deploy.launch.py", ("bundle:=b.zip", "require_signatur:=key.pub")
    assert len(expand(path, {"bundle": "b.zip"}, monkeypatch, told)) == 3
    for program in (["ros2", "launch", "landbridge", "deploy.launch.py"], ["ros2", "launch", str(path)]):
        monkeypatch.setattr(sys, "argv", [*program, *told])
        with pytest.raises(InputError, match="require_signatur: is none of this launch file, perhaps 'require_sig"):
            expand(path, {"bundle": "b.zip"}, monkeypatch, told)
        assert len(expand(path, {"bundle": "b.zip"}, monkeypatch, (told[0], "launch-prefix:=gdb"))) == 3


def test_the_recorder_starts_first_and_the_monitor_last() -> None:
    for specs in (bringup.record("furuta", "s", 0, "o"), bringup.deploy("furuta", "s", 0, "b", "o")):
        assert (specs[0].name, specs[-1].name) == ("recorder", "monitor")
    assert "recorder" not in [spec.name for spec in bringup.deploy("furuta", "s", 0, "b")]


def test_policy_and_recorder_are_told_what_compensates() -> None:
    for specs in (
        bringup.deploy("furuta", "s", 0, "b", "o", compensate="c.yaml"),
        bringup.hil("furuta", "s", 0, "b", "o", compensate="c.yaml"),
    ):
        told = {spec.name: spec.parameters["compensate"] for spec in specs if "compensate" in spec.parameters}
        assert told == {"policy": "c.yaml", "recorder": "c.yaml"}


def test_hil_stands_on_an_emulated_board() -> None:
    board, bridge, *_ = bringup.hil("r", "mild", 3, "b", link="/tmp/board")
    assert board.parameters == {"robot": "r", "scenario": "mild", "seed": 3, "link": "/tmp/board"}
    assert [bridge.parameters[name] for name in ("hardware", "port", "scenario")] == ["mcu", "/tmp/board", "mild"]


def test_two_bring_ups_do_not_share_an_emulated_board() -> None:
    links = [bringup.hil("furuta", "none", 0, "b")[0].parameters["link"] for _ in range(2)]
    assert len({*links}) == 2
    assert not any(Path(link).exists() for link in links)


@pytest.fixture
def on_a_board(tmp_path: Path) -> str:
    """A furuta whose own line is a microcontroller, on a port that is not there."""
    folder = shutil.copytree(load_robot("furuta").folder, tmp_path / "furuta")
    text = (folder / "robot.yaml").read_text()
    changed = text.replace("hardware: {kind: twin}", "hardware: {kind: mcu, port: /dev/nowhere}")
    assert changed != text
    (folder / "robot.yaml").write_text(changed)
    return str(folder)


def test_what_runs_on_hardware_is_labelled_so(on_a_board: str) -> None:
    def labels(specs: list[NodeSpec]) -> set[object]:
        return {spec.parameters["scenario"] for spec in specs if "scenario" in spec.parameters}

    for robot, hardware, port, label in (
        ("furuta", "", "", "severe"),
        ("furuta", "", "/dev/ttyACM0", "hardware"),
        ("furuta", "dynamixel", "/dev/ttyACM0", "hardware"),
        (on_a_board, "", "", "hardware"),
        (on_a_board, "twin", "", "severe"),
    ):
        assert labels(bringup.record(robot, "severe", 0, "out", "", hardware, port)) == {label}
        assert labels(bringup.deploy(robot, "severe", 0, "b", "out", "", hardware, port)) == {label}


def test_a_negative_seed_is_refused_before_a_process_starts() -> None:
    for make, rest in ((bringup.record, ("o",)), (bringup.deploy, ("b",)), (bringup.hil, ("b",)), (bringup.twin, ())):
        with pytest.raises(InputError, match="--seed: is -1"):
            make("furuta", "none", -1, *rest)


def test_the_twin_of_a_robot_on_a_board_needs_no_board(on_a_board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[NodeSpec] = []

    def stay(specs: list[NodeSpec]) -> NoReturn:
        started.extend(specs)
        raise KeyboardInterrupt

    monkeypatch.setattr(up_module, "_stay", stay)
    with pytest.raises(KeyboardInterrupt):
        up_module.up("twin", robot=on_a_board, scenario="mild")
    assert (started[0].parameters["hardware"], started[0].parameters["scenario"]) == ("twin", "mild")


@pytest.mark.ros
def test_a_bring_up_goes_on_without_its_recorder_and_says_so_twice(
    ros_domain: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recorder, _, _, monitor = bringup.deploy("furuta", "none", 0, "b", str(tmp_path / "bag"))
    with Processes([recorder, monitor]) as processes:
        os.kill(processes.pid("recorder"), signal.SIGKILL)
        os.waitid(os.P_PID, processes.pid("recorder"), os.WEXITED | os.WNOWAIT)
        processes.check()
        processes.check()
        said = "node recorder ended with code -9"
        assert capfd.readouterr().err.count(said) == 1
    assert capfd.readouterr().err.count(said) == 1
    with Processes([dataclasses.replace(recorder, parameters={"robot": "/nowhere"})]) as processes:
        os.waitid(os.P_PID, processes.pid("recorder"), os.WEXITED | os.WNOWAIT)
        with pytest.raises(InputError, match="node recorder: ended with code 2"):
            processes.check()
    recorder = bringup.record("furuta", "none", 0, str(tmp_path / "bag"))[0]
    with Processes([recorder]) as processes:
        os.kill(processes.pid("recorder"), signal.SIGKILL)
        os.waitid(os.P_PID, processes.pid("recorder"), os.WEXITED | os.WNOWAIT)
        with pytest.raises(InputError, match="node recorder: ended with code -9"):
            processes.check()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["up", "deploy", "--bundle", "none", "--episodes", "-1"], "--episodes: is -1. ask for 1 or more"),
        (["record", "--out", "none", "--seconds", "0"], "--seconds: is 0. give a finite number above 0"),
        (["record", "--out", "none", "--seconds", "nan"], "--seconds: is nan. give a finite number above 0"),
        (["record", "--out", "none", "--seconds", "0.09"], "--seconds: is 0.09, less than 5 control periods of 0.02"),
        (
            ["up", "deploy", "--bundle", "none", "--black-box-seconds", "5"],
            "--black-box-seconds: is 5, of no black box. add --black-box",
        ),
        (["state", "--seconds", "-1"], "--seconds: is -1. give a finite number above 0"),
        (["state", "--seconds", "nan"], "--seconds: is nan. give a finite number above 0"),
    ],
)
def test_a_length_that_is_none_is_refused(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not taken for a run of nothing, whose figures would be `nan`."""
    assert main(arguments) == 2
    assert problem in " ".join(capsys.readouterr().err.split())
