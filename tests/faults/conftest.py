"""The bring-up that the tests of this folder strike."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from landbridge_nodes import bringup, topics
from landbridge_nodes.operator import Operator
from landbridge_nodes.processes import Processes

from .rig import FURUTA, WEIGHT, Rig, Verdict


@pytest.fixture
def rig(
    tmp_path: Path, ros_domain: None, linear_bundle: Callable[..., Path], request: pytest.FixtureRequest
) -> Iterator[Rig]:
    """Recorder, bridge, policy and monitor in STANDBY; a parameter (executable, source) replaces one executable."""
    bag, box = tmp_path / "bag", tmp_path / "black_box"
    bundle = linear_bundle(tmp_path / "bundle", WEIGHT)
    specs = bringup.deploy("furuta", "none", 0, str(bundle), str(bag), black_box=str(box))
    name, source = getattr(request, "param", ("", ""))
    (tmp_path / "replaced").mkdir()
    (tmp_path / "replaced" / f"{name}.py").write_text(source)
    specs = [replace(spec, package="replaced") if spec.name == name else spec for spec in specs]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with Processes(specs, {"PYTHONPATH": path}) as processes, Operator(FURUTA, lambda: None) as operator:
        verdicts: list[Verdict] = []

        def keep(message: Any) -> None:
            stamp = topics.to_ns(message.header.stamp)
            verdicts.append(Verdict(stamp, time.time_ns(), message.header.frame_id, message.effort[0]))

        topics.subscribe(operator.node, topics.GUARD_COMMAND, keep)
        operator.wait_ready(recorded=True)
        yield Rig(processes, operator, verdicts, bag, box, bundle, {spec.name: spec for spec in specs})
        for spec in specs:  # a stopped process does not hear SIGTERM
            if (Path("/proc") / str(processes.pid(spec.name))).exists():
                os.kill(processes.pid(spec.name), signal.SIGCONT)
