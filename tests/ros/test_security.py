"""`deploy/security/policy.xml` permits the nodes what they do, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge_nodes import bringup, topics
from landbridge_nodes.listener import Listener
from landbridge_nodes.operator import Operator
from landbridge_nodes.process import ENCLAVES, require_one_ros
from landbridge_nodes.processes import Processes

pytestmark = pytest.mark.ros
QUADRUPED = load_robot("quadruped")  # its base is measured too
KINDS = {"publish": "publisher", "subscribe": "subscriber", "reply": "service", "request": "client"}  # as rclpy says
Permissions = set[tuple[str, str, str]]  # node, kind, name


def permitted(repository: Path) -> Permissions:
    policy = ElementTree.parse(repository / "deploy" / "security" / "policy.xml").getroot()
    return {
        (profile.attrib["node"], kind, "/" + str(entry.text).replace("~", profile.attrib["node"]))
        for profile in policy.iter("profile")
        for rule in profile
        for kind in rule.attrib
        for entry in rule
    }


def done(node: Any, names: list[str]) -> Iterator[tuple[str, str, str]]:
    for name in names:
        for kind, word in KINDS.items():
            for entity, _ in getattr(node, f"get_{word}_names_and_types_by_node")(name, "/"):
                yield name, kind, entity


# Not in that graph: `landbridge state`, an emulated board and who asks it, and how the monitor leads `excite`.
ELSEWHERE = {"state", "board"}
LED_ELSEWHERE = {
    *(("monitor", "request", f"/excite/{service}") for service in ("get_state", "change_state")),
    ("operator", "request", "/board/reset_plant"),
}


def test_the_policy_permits_what_the_nodes_do_and_no_more(
    tmp_path: Path, ros_domain: None, linear_bundle: Callable[..., Path], repository: Path
) -> None:
    still = np.zeros((Observer(QUADRUPED.spec).size, len(QUADRUPED.spec.actuated)), np.float32)
    bundle = linear_bundle(tmp_path / "bundle", still, robot="quadruped")
    specs = bringup.deploy("quadruped", "none", 0, str(bundle), out=str(tmp_path / "bag"))
    specs += [spec for spec in bringup.record("quadruped", "none", 0, "out") if spec.name == "excite"]
    names = [*(spec.name for spec in specs), "operator", "watch"]
    rules = permitted(repository)
    every = topics.every(QUADRUPED.spec)  # as `landbridge foxglove`; `watch` listens to fewer
    with Processes(specs) as processes, Operator(QUADRUPED, processes.check) as operator, Listener(every):
        operator.wait_ready(recorded=True)
        operator.wait(lambda: set(names) <= set(operator.node.get_node_names()), 20)

        def used() -> bool:
            found = set(done(operator.node, names))
            return {r for r in rules if r[0] not in ELSEWHERE and not any(covers(r, use) for use in found)} == (
                LED_ELSEWHERE
            )

        operator.wait(used, 20)  # topics and services are discovered after their nodes
        found = sorted(done(operator.node, names))
    assert [use for use in found if not any(covers(rule, use) for rule in rules)] == []


def covers(rule: tuple[str, str, str], use: tuple[str, str, str]) -> bool:
    return rule[:2] == use[:2] and fnmatch(use[2], rule[2])


def test_every_process_has_an_enclave_in_the_policy(repository: Path) -> None:
    policy = ElementTree.parse(repository / "deploy" / "security" / "policy.xml").getroot()
    paths = {enclave.attrib["path"] for enclave in policy.iter("enclave")}
    specs = [*bringup.hil("furuta", "none", 0, "b", out="o"), *bringup.record("furuta", "none", 0, "o")]
    assert paths == {spec.enclave for spec in specs} | {f"{ENCLAVES}/operator"}


@pytest.mark.parametrize(
    ("environment", "problem"), [({}, "HOME: is not set"), ({"HOME": "/proc"}, "HOME: /proc takes no folder")]
)
def test_where_ros_cannot_keep_its_logs_is_named(environment: dict[str, str], problem: str) -> None:
    with pytest.raises(InputError, match=f"{problem}.*set ROS_LOG_DIR"):
        require_one_ros(environment)
    require_one_ros(environment | {"ROS_LOG_DIR": "/tmp"})
