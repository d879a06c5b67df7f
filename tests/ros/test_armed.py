"""`landbridge deploy push` to a robot that runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from landbridge.deploy.supervisor import State
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge_nodes import bringup
from landbridge_nodes.operator import Operator
from landbridge_nodes.processes import Processes

FURUTA = load_robot("furuta")
WEIGHT = np.zeros((Observer(FURUTA.spec).size, 1), np.float32)


@pytest.mark.ros
def test_a_robot_that_is_armed_is_left_alone(target: Any, tmp_path: Path, linear_bundle: Callable[..., Path]) -> None:
    bundle = linear_bundle(tmp_path / "bundle", WEIGHT)
    specs = bringup.deploy("furuta", "none", 0, str(bundle))
    with Processes(specs) as processes, Operator(FURUTA, processes.check) as operator:
        operator.wait_ready(recorded=False)
        operator.call("/monitor/arm")
        operator.wait(lambda: operator.state is State.ACTIVE, 10)
        with pytest.raises(InputError, match=r"the robot is ACTIVE\. disarm it"):
            target.push(bundle)
        assert not (target.root / "releases").exists()
