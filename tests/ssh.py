"""A robot's computer that tests push to: an sshd on this machine, with keys and a ROOT of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from landbridge.deploy.push import PARAMETERS, UNITS, push

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
MISSING = [name for name, found in (("sshd", SSHD), *((n, shutil.which(n)) for n in ("ssh", "rsync"))) if not found]


class Target(NamedTuple):
    host: str
    root: Path
    ssh: str  # one connection for all commands
    plain: str  # a connection for each: ten are made in a push, 0.3 s each

    def push(self, *bundle: Path, **options: object) -> dict[str, object]:
        return push(self.host, *bundle, root=str(self.root), ssh=self.ssh, **options)  # type: ignore[arg-type]

    def link(self, name: str) -> str:
        return os.readlink(self.root / name)


@pytest.fixture
def target(tmp_path: Path, ros_domain: None) -> Iterator[Target]:
    """Whom sshd lets in by a new key; `python` in ROOT is this environment's, in the test's ROS domain."""
    if MISSING:
        pytest.skip(f"not installed: {', '.join(MISSING)} (Debian: openssh-server, openssh-client, rsync)")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": tmp_path / "host",
        "AuthorizedKeysFile": tmp_path / "user.pub",
        "PidFile": "none",
        "StrictModes": "no",  # a temporary folder's parents are anybody's
        "UsePAM": "no",
        "PasswordAuthentication": "no",
    }
    (tmp_path / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    key = (tmp_path / "host.pub").read_text()
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
    root = tmp_path / "robot's root"
    root.mkdir()
    exported = "".join(
        f"export {name}='{os.environ.get(name, '')}'\n"
        for name in ("PYTHONPATH", "ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE")
    )
    (root / "python").write_text(f'#!/bin/sh\n{exported}exec {sys.executable} "$@"\n')
    (root / "python").chmod(0o755)
    shutil.copy(UNITS.parent / PARAMETERS, root)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own, for privilege separation
    options = f"-F none -p {port} -i {tmp_path}/user -o UserKnownHostsFile={tmp_path}/known_hosts -o BatchMode=yes"
    server = subprocess.Popen([str(SSHD), "-D", "-e", "-f", tmp_path / "sshd_config"])
    with tempfile.TemporaryDirectory() as short:  # a socket's path has 108 bytes at most
        shared = f"ssh {options} -o ControlMaster=auto -o ControlPersist=60 -o ControlPath={short}/master"
        try:
            _until_listening(port)
            yield Target("127.0.0.1", root, shared, f"ssh {options}")
        finally:
            subprocess.run([*shared.split(), "-O", "exit", "127.0.0.1"], capture_output=True)  # if there is one
            server.terminate()
            server.wait()


def _until_listening(port: int) -> None:
    deadline = time.monotonic() + 15
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "sshd did not come up"
            os.sched_yield()
