"""A robot that asks for signed bundles starts no other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from landbridge.errors import InputError
from landbridge_nodes.up import up

pytestmark = pytest.mark.ros


def test_an_unsigned_bundle_is_refused_by_the_command_and_by_the_node(
    tmp_path: Path, linear_bundle: Callable[..., Path], ros_domain: None
) -> None:
    bundle = linear_bundle(tmp_path / "b", np.ones((8, 1), np.float32))
    key = tmp_path / "key.pub"
    with pytest.raises(InputError, match=r"model\.sig is missing: it is not signed"):
        up("deploy", bundle, require_signature=key)
    parameters = [f"bundle:={bundle}", f"require_signature:={key}"]
    command = [sys.executable, "-m", "landbridge_nodes.policy", "--ros-args"]
    for parameter in parameters:
        command += ["-p", parameter]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "model.sig is missing: it is not signed" in done.stderr
