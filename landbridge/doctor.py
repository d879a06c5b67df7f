"""`landbridge doctor`: what this machine can do, and what to install for the rest."""

from __future__ import annotations

import grp
import importlib.metadata
import importlib.util
import os
import platform
import pwd
import resource
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from landbridge.errors import InputError
from landbridge.gpu import gpus
from landbridge.real_time import BRIDGE_PRIORITY

EXTRAS = {
    "sim": ("mujoco", "pybullet", "gymnasium", "minari"),
    "training": ("torch", "onnx", "onnxscript", "tensorboard", "mcap", "rosbags", "matplotlib"),
    "sweep": ("ray",),
    "calibration": ("scipy", "matplotlib"),
    "serial": ("serial", "cobs", "dynamixel_sdk", "scservo_sdk"),
    "hil": ("serial", "cobs", "dynamixel_sdk", "scservo_sdk", "matplotlib"),
    "watch": ("textual",),
    "foxglove": ("foxglove", "mcap", "rosbags"),
    "signing": ("model_signing", "OpenSSL"),
    "rerun": ("rerun",),
}


@dataclass(frozen=True)
class Check:
    """One line of the doctor's answer; `remedy` is empty when nothing is missing."""

    check: str
    found: str
    remedy: str = ""


def doctor() -> dict[str, Any]:
    """Say what this machine can do: ROS 2, inference providers, GPU, real-time rights, serial ports.

    Nothing is started or changed. Exit code 0 whatever is found: what is missing matters only for what you want to do.

    Example: landbridge doctor --json
    """
    checks = [*_machine(), *_ros(), *_packages(), *_inference(), *_real_time(), *_serial()]
    return {"checks": [asdict(check) for check in checks]}


def _machine() -> Iterator[Check]:
    memory = psutil.virtual_memory().total / 2**30
    yield Check("machine", f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.platform()}")
    yield Check("python", platform.python_version())


def _ros() -> Iterator[Check]:
    sourced = os.environ.get("ROS_DISTRO")
    wheels = _version("ros-rclpy")
    installed = sorted(p.name for p in Path("/opt/ros").glob("*") if p.is_dir())
    if sourced and wheels:
        yield Check(
            "ros 2", f"sourced {sourced} AND wheels {wheels}", "never mix them: use a venv without [ros-wheels]"
        )
    elif sourced:
        yield Check("ros 2", f"sourced {sourced}")
    elif wheels:
        yield Check("ros 2", f"wheels, rclpy {wheels} (no `ros2 launch`: use `landbridge up`)")
    elif installed:
        yield Check("ros 2", f"/opt/ros/{installed[-1]}, not sourced", f"source /opt/ros/{installed[-1]}/setup.bash")
    else:
        yield Check(
            "ros 2", "none", "apt install ros-jazzy-ros-base, or pip install 'landbridge[ros-wheels]' on x86-64"
        )
    launch = "found" if importlib.util.find_spec("launch_ros") else "not found"
    yield Check(
        "launch files", f"launch_ros {launch}", "" if launch == "found" else "`landbridge up` starts the same nodes"
    )


def _packages() -> Iterator[Check]:
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        found = f"missing {', '.join(missing)}" if missing else "complete"
        yield Check(f"extra [{extra}]", found, f"pip install 'landbridge[{extra}]'" if missing else "")


def _inference() -> Iterator[Check]:
    try:
        import onnxruntime

        yield Check("onnxruntime", f"{onnxruntime.__version__}: {', '.join(onnxruntime.get_available_providers())}")
    except ImportError as error:  # also a wheel of another CUDA, whose libraries are not here
        yield Check("onnxruntime", f"cannot be imported: {error}", "install the wheel that fits this machine")
    try:
        gpu = Check("gpu", "; ".join(", ".join(values) for values in gpus("name", "driver_version")))
    except InputError as error:
        gpu = Check("gpu", f"none: {error.where} {error.problem}", error.remedy)
    yield gpu
    tensorrt = _version("tensorrt")
    remedy = "" if tensorrt or gpu.remedy else "pip install 'landbridge[gpu]'"
    yield Check("tensorrt", tensorrt or "not installed", remedy)


def _real_time() -> Iterator[Check]:
    priority, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
    enough = priority == resource.RLIM_INFINITY or priority >= BRIDGE_PRIORITY or os.geteuid() == 0
    remedy = "" if enough else f"rtprio {BRIDGE_PRIORITY} in /etc/security/limits.d, then log in again"
    yield Check("real-time priority", "root" if os.geteuid() == 0 else f"up to {priority}", remedy)
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    size = "unlimited" if locked == resource.RLIM_INFINITY else f"{locked / 2**20:.0f} MiB"
    yield Check("lockable memory", size, "" if size == "unlimited" else "memlock unlimited in /etc/security/limits.d")


def _serial() -> Iterator[Check]:
    ports = sorted(p for pattern in ("ttyUSB*", "ttyACM*", "ttyTHS*") for p in Path("/dev").glob(pattern))
    if not ports:
        yield Check("serial ports", "none")
    for port in ports:
        if os.access(port, os.R_OK | os.W_OK):
            yield Check("serial ports", str(port))
        else:
            yield Check("serial ports", f"{port}: no permission", f"{_join_group(port)}, then log in again")


def _join_group(port: Path) -> str:
    """The command that puts this user into the port's group; numbers where a container knows no names."""
    group, user = port.stat().st_gid, os.geteuid()
    with suppress(KeyError):
        group_name, user_name = grp.getgrgid(group).gr_name, pwd.getpwuid(user).pw_name
        return f"sudo usermod -aG {group_name} {user_name}"
    return f"let user {user} into group {group} (docker run --group-add {group})"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
