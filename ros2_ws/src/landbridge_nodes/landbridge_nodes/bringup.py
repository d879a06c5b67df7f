"""Which processes make up a bring-up: pure data, from which `launch/*.launch.py` and `landbridge up` start the same.

Arguments come as text from `ros2 launch` and typed from the command line; `MODES` is the one table of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PACKAGE = "landbridge_nodes"


@dataclass(frozen=True)
class NodeSpec:
    """One process of a bring-up.

    Attributes:
        lifecycle: Whether it is a managed node (led by the monitor).
    """

    executable: str
    name: str
    parameters: Mapping[str, Any]
    lifecycle: bool
    package: str = PACKAGE
    namespace: str = ""


@dataclass(frozen=True)
class Argument:
    """One argument of a bring-up; a default of None makes it required."""

    name: str
    default: str | int | None
    description: str

    def read(self, text: str) -> str | int:
        """The value of a text from `ros2 launch`."""
        return int(text) if isinstance(self.default, int) else text


def record(robot: str, scenario: str, seed: int, out: str, hardware: str = "", port: str = "") -> list[NodeSpec]:
    """The robot, its exciting behaviour, the monitor, and the recorder."""
    return [
        _recorder(robot, scenario, "excite", out),
        _bridge(robot, scenario, seed, hardware, port),
        NodeSpec("excite", "excite", {"robot": robot, "seed": seed}, lifecycle=True),
        _monitor(robot, "excite"),
    ]


def deploy(
    robot: str,
    scenario: str,
    seed: int,
    bundle: str,
    out: str = "",
    require_signature: str = "",
    hardware: str = "",
    port: str = "",
) -> list[NodeSpec]:
    """The robot, a policy from a bundle, the monitor, and, if `out` names a bag, the recorder."""
    policy = {"robot": robot, "bundle": bundle, "require_signature": require_signature}
    return [
        *([_recorder(robot, scenario, "policy", out, bundle)] if out else []),
        _bridge(robot, scenario, seed, hardware, port),
        NodeSpec("policy", "policy", policy, lifecycle=True),
        _monitor(robot, "policy"),
    ]


def twin(robot: str, scenario: str, seed: int) -> list[NodeSpec]:
    """The robot's side alone: the twin and the monitor, for a policy node that is started elsewhere."""
    return [_bridge(robot, scenario, seed, "twin", ""), _monitor(robot, "policy")]


ROBOT = Argument("robot", "furuta", "robot that ships with landbridge, or folder of one")
SCENARIO = Argument("scenario", "severe", "rung of the robot's scenarios.yaml (twin)")
SEED = Argument("seed", 0, "of start states, noise and behaviour")
HARDWARE = (
    Argument("hardware", "", "twin, mcu, dynamixel or feetech, in place of the robot's own line"),
    Argument("port", "", "serial port, in place of the robot's own"),
)

MODES: dict[str, tuple[Callable[..., list[NodeSpec]], Sequence[Argument]]] = {
    "record": (record, (ROBOT, SCENARIO, SEED, Argument("out", None, "bag folder to write"), *HARDWARE)),
    "deploy": (
        deploy,
        (
            ROBOT,
            SCENARIO,
            SEED,
            Argument("bundle", None, "bundle to run"),
            Argument("out", "", "bag folder to write"),
            Argument("require_signature", "", "public key that must have signed the bundle"),
            *HARDWARE,
        ),
    ),
    "twin": (twin, (ROBOT, SCENARIO, SEED)),
}


def _bridge(robot: str, scenario: str, seed: int, hardware: str, port: str) -> NodeSpec:
    parameters = {"robot": robot, "hardware": hardware, "port": port, "scenario": scenario, "seed": seed}
    return NodeSpec("bridge", "bridge", parameters, lifecycle=True)


def _monitor(robot: str, controller: str) -> NodeSpec:
    return NodeSpec("monitor", "monitor", {"robot": robot, "controller": controller}, lifecycle=False)


def _recorder(robot: str, scenario: str, controller: str, out: str, bundle: str = "") -> NodeSpec:
    parameters = {"robot": robot, "scenario": scenario, "controller": controller, "out": out, "bundle": bundle}
    return NodeSpec("recorder", "recorder", parameters, lifecycle=False)
