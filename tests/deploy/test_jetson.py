"""The unit files of `deploy/jetson` start what the bring-up describes, and the nodes speak to systemd."""

from __future__ import annotations

import configparser
import os
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from landbridge.real_time import BRIDGE_PRIORITY
from landbridge_nodes import bringup
from landbridge_nodes.process import LOCK_MEMORY, PARK_SECONDS, notify
from landbridge_nodes.processes import Processes

SPECS = bringup.deploy("furuta", "hardware", 0, "bundle", black_box="faults")
ROOT = "/opt/landbridge"


@pytest.fixture
def folder(repository: Path) -> Path:
    return repository / "deploy" / "jetson"


@pytest.fixture
def service(folder: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(folder / "systemd" / "landbridge@.service")
    return parser["Service"]


def test_the_units_start_what_the_bringup_describes(folder: Path, service: configparser.SectionProxy) -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(folder / "systemd" / "landbridge.target")
    assert parser["Unit"]["wants"].split() == [f"landbridge@{spec.name}.service" for spec in SPECS]
    for spec in SPECS:
        command = shlex.split(service["ExecStart"].replace("%i", spec.name))
        assert command[:3] == [f"{ROOT}/python", "-m", f"{spec.package}.{spec.executable}"]
        assert f"__node:={spec.name}" in command
        assert f"bundle:={ROOT}/current/bundle" in command


def test_the_monitor_ends_before_what_it_parks_and_all_before_the_recorder(folder: Path) -> None:
    """Systemd stops in the reverse order; what it stops at once ends in any order."""
    before: dict[str, set[str]] = {}
    for spec in SPECS:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(folder / "systemd" / f"landbridge@{spec.name}.service.d" / "order.conf")
        names = parser.get("Unit", "After", fallback="").split()
        before[spec.name] = {name.removeprefix("landbridge@").removesuffix(".service") for name in names}
    assert before == {
        "recorder": set(),
        "bridge": {"recorder"},
        "policy": {"recorder", "bridge"},
        "monitor": {"recorder", "bridge", "policy"},
    }


def test_the_parameters_are_ones_that_the_nodes_have(folder: Path) -> None:
    told = {f"/{spec.name}": {*spec.parameters} for spec in SPECS}
    told["/policy"] |= {"provider", "strict"}
    content = yaml.safe_load((folder / "parameters.yaml").read_text())
    common = content.pop("/**")["ros__parameters"]
    assert all(common.keys() <= names for names in told.values())
    for node, block in content.items():
        assert block["ros__parameters"].keys() <= told[node], node


def test_rights_and_times_are_enough(service: configparser.SectionProxy) -> None:
    assert int(service["LimitRTPRIO"]) >= BRIDGE_PRIORITY
    assert float(service["WatchdogSec"]) > PARK_SECONDS  # a lifecycle node may park inside one callback
    assert float(service["TimeoutStopSec"]) > PARK_SECONDS + 1
    assert service["User"] != "root"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_units(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "systemd", tmp_path / "units")
    unit = tmp_path / "units" / "landbridge@.service"
    unit.write_text(unit.read_text().replace(f"{ROOT}/python", sys.executable))  # ROOT exists on the robot only
    names = ["landbridge.target", *(f"landbridge@{spec.name}.service" for spec in SPECS)]
    paths = [str(tmp_path / "units" / name) for name in names]
    environment = os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path / 'units'}:"}
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if "landbridge" in line]) == (0, [])


def test_a_systemd_that_is_gone_or_does_not_listen_holds_up_no_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    notify("READY=1")  # there is none
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        for _ in range(10_000):  # more than a queue holds
            notify("WATCHDOG=1")
        assert systemd.recv(64) == b"WATCHDOG=1"
    notify("WATCHDOG=1")  # gone, its file left behind


def test_the_robots_python_keeps_ros_on_that_machine_unless_told_otherwise(folder: Path, tmp_path: Path) -> None:
    setup, python = tmp_path / "setup.bash", tmp_path / "python"
    setup.write_text("ROS_DISTRO=humble\n")
    text = (folder / "python").read_text()
    text = text.replace("/opt/ros/humble/setup.bash", str(setup)).replace(f"{ROOT}/venv/bin/python", "/usr/bin/env")
    python.write_text(text)
    for said, becomes in (({}, "1"), ({"ROS_LOCALHOST_ONLY": "0"}, "0")):
        environment = {"PATH": os.environ["PATH"], **said}
        shown = subprocess.run(["bash", python], env=environment, capture_output=True, text=True, check=True).stdout
        assert f"ROS_LOCALHOST_ONLY={becomes}" in shown.splitlines()


@pytest.mark.ros
def test_a_node_tells_systemd_that_it_lives_and_a_stopped_one_does_not(
    tmp_path: Path, ros_domain: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """And it keeps its pages in memory, as the units ask, or says that it may not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), LOCK_MEMORY: "1"}
        with Processes([SPECS[-1]], environment) as processes:
            assert [systemd.recv(64) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            status = Path(f"/proc/{processes.pid('monitor')}/status").read_text()
            if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY or os.geteuid() == 0:
                assert int(status.split("VmLck:")[1].split()[0]) > 0  # kB
            else:
                assert "no right to lock memory" in capfd.readouterr().err
            os.kill(processes.pid("monitor"), signal.SIGSTOP)
            systemd.settimeout(0.5)  # five turns of the loop
            with pytest.raises(TimeoutError):
                _ = [systemd.recv(64) for _ in range(10)]  # those on their way
            os.kill(processes.pid("monitor"), signal.SIGCONT)
