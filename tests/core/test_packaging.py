"""What colcon and pip see: the two metadata files agree, and both packages are found and built."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import landbridge


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def setup_cfg(repository: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(repository / "setup.cfg")
    return parser


def test_setup_cfg_agrees_with_pyproject(project: dict[str, Any], setup_cfg: configparser.ConfigParser) -> None:
    assert setup_cfg["metadata"]["name"] == project["project"]["name"]
    assert setup_cfg["metadata"]["version"] == project["project"]["version"] == landbridge.__version__
    tool = project["tool"]["setuptools"]
    assert setup_cfg["options"]["packages"].split() == tool["packages"]
    assert setup_cfg["options.package_data"]["landbridge"].split() == tool["package-data"]["landbridge"]
    scripts = [f"{name} = {target}" for name, target in project["project"]["scripts"].items()]
    assert setup_cfg["options.entry_points"]["console_scripts"].strip().splitlines() == scripts


def test_every_package_folder_is_listed(repository: Path, project: dict[str, Any]) -> None:
    root = repository / "landbridge"
    found = {
        ".".join(Path(folder).relative_to(repository).parts)
        for folder, _, files in os.walk(root, followlinks=True)
        if "__init__.py" in files
    }
    assert found == set(project["tool"]["setuptools"]["packages"])


def test_package_xml_versions_agree(repository: Path) -> None:
    for xml in (repository / "package.xml", repository / "ros2_ws/src/landbridge_nodes/package.xml"):
        assert f"<version>{landbridge.__version__}</version>" in xml.read_text()


def colcon(repository: Path, *arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("colcon")), *arguments]
    done = subprocess.run(command, cwd=repository / "ros2_ws", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_colcon_lists_both_packages_as_ament_python(repository: Path, tmp_path: Path) -> None:
    listed = colcon(repository, "--log-base", str(tmp_path), "list")
    assert [line.split("\t") for line in listed.splitlines()] == [
        ["landbridge", "..", "(ros.ament_python)"],
        ["landbridge_nodes", "src/landbridge_nodes", "(ros.ament_python)"],
    ]


@pytest.mark.parametrize("layout", [[], ["--symlink-install"]], ids=["copied", "symlinked"])
def test_colcon_build_installs_what_ros_looks_for(repository: Path, tmp_path: Path, layout: list[str]) -> None:
    bases = ["--build-base", str(tmp_path / "build"), "--install-base", str(tmp_path / "install")]
    colcon(repository, "--log-base", str(tmp_path / "log"), "build", *bases, *layout)
    install = tmp_path / "install"
    for package in ("landbridge", "landbridge_nodes"):
        assert (install / package / "share" / package / "package.xml").is_file()
        assert (install / package / "share/ament_index/resource_index/packages" / package).is_file()
    nodes = sorted(p.name for p in (install / "landbridge_nodes/lib/landbridge_nodes").iterdir())
    assert nodes == ["board", "bridge", "excite", "monitor", "policy", "recorder"]
    launch_files = {p.name for p in (install / "landbridge/share/landbridge/launch").iterdir()}
    assert launch_files == {"record.launch.py", "deploy.launch.py", "hil.launch.py", "twin.launch.py"}
    if not layout:
        library = install / f"landbridge/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        for part in ("robot.py", "deploy/guard.py", "robots/furuta/robot.yaml", "deploy/firmware/firmware.c"):
            assert (library / "landbridge" / part).is_file(), part


def test_the_robot_side_never_imports_torch_or_mujoco() -> None:
    code = (
        "import sys, landbridge.deploy.guard, landbridge.deploy.supervisor, landbridge.deploy.runtime, "
        "landbridge.bundle, landbridge.task, landbridge.deploy.hil.acceptance, landbridge_nodes.hil; "
        "print([m for m in ('torch', 'mujoco', 'minari', 'h5py', 'gymnasium') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_steps_of_the_readme_write_to_where_nothing_is_in_a_fresh_clone(repository: Path) -> None:
    """And to where git does not look: what a dataset or a run notes of its commit stays clean."""
    steps = (repository / "README.md").read_text().partition("## Step by step")[2].partition("\n**On hardware**")[0]
    written = re.findall(r"--(?:out|record|black-box) (\S+)", steps)
    assert {"data/source", "calibrations/first", "policy.bundle"} <= {*written}
    listed = subprocess.run(["git", "ls-files", *written], cwd=repository, capture_output=True, text=True, check=True)
    assert listed.stdout == ""
    ignored = subprocess.run(["git", "check-ignore", *written], cwd=repository, capture_output=True, text=True)
    assert {*written} == {*ignored.stdout.split()}
