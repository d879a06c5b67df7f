"""Which processes make up a bring-up: pure data, from which `launch/*.launch.py` and `landbridge up` start the same.

Arguments come as text from `ros2 launch` and typed from the command line; `MODES` is the one table of both.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landbridge.deploy.hardware import choose_hardware
from landbridge.hardware_spec import TwinHardware
from landbridge.robot import load_robot
from landbridge.spec import require_seed
from landbridge_nodes.parameters import (
    BLACK_BOX,
    BLACK_BOX_SECONDS,
    BUNDLE,
    COMPENSATE,
    EXCITATION,
    HARDWARE,
    LINK,
    OUT,
    PORT,
    REQUIRE_SIGNATURE,
    ROBOT,
    SCENARIO,
    SEED,
    Parameter,
)
from landbridge_nodes.process import ENCLAVES

PACKAGE = "landbridge_nodes"


@dataclass(frozen=True)
class NodeSpec:
    """One process of a bring-up.

    Attributes:
        lifecycle: Whether it is a managed node (led by the monitor).
        essential: Whether its end is that of the whole bring-up; else it is reported, and the robot goes on.
    """

    executable: str
    name: str
    parameters: Mapping[str, Any]
    lifecycle: bool
    package: str = PACKAGE
    namespace: str = ""
    essential: bool = True

    @property
    def enclave(self) -> str:
        """Where SROS2 finds the keys of the process, and what these permit it: `deploy/security/policy.xml`."""
        return f"{ENCLAVES}/{self.name}"


def record(
    robot: str, scenario: str, seed: int, out: str, excitation: str = "", hardware: str = "", port: str = ""
) -> list[NodeSpec]:
    """The robot, its exciting behaviour or a designed excitation, the monitor, and the recorder.

    A bag of hardware is labelled so, whatever `scenario` says.

    Raises:
        InputError: No such robot, or `hardware` and `port` do not go together.
    """
    kind, scenario = _label(robot, scenario, hardware, port)
    return [
        # The bag is what it is for.
        _recorder(robot, scenario, "excite", {"hardware": kind, "out": out}, essential=True),
        _bridge(robot, scenario, seed, hardware, port),
        NodeSpec("excite", "excite", {"robot": robot, "seed": seed, "excitation": excitation}, lifecycle=True),
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
    black_box: str = "",
    black_box_seconds: int = 30,
    compensate: str = "",
) -> list[NodeSpec]:
    """The robot, a policy from a bundle, the monitor, and, if `out` or `black_box` names a folder, the recorder.

    A bag of hardware is labelled so, whatever `scenario` says.

    Raises:
        InputError: No such robot, or `hardware` and `port` do not go together.
    """
    kind, scenario = _label(robot, scenario, hardware, port)
    told: dict[str, str | int] = {"hardware": kind, "bundle": bundle, "compensate": compensate, "out": out}
    told |= {"black_box": black_box, "black_box_seconds": black_box_seconds}
    return [
        *([_recorder(robot, scenario, "policy", told)] if out or black_box else []),
        _bridge(robot, scenario, seed, hardware, port),
        _policy(robot, bundle, require_signature, compensate),
        _monitor(robot, "policy"),
    ]


def hil(
    robot: str,
    scenario: str,
    seed: int,
    bundle: str,
    out: str = "",
    require_signature: str = "",
    link: str = "",
    compensate: str = "",
) -> list[NodeSpec]:
    """As `deploy`, on an emulated microcontroller with its port at `link`; a real one is `deploy` with a port.

    Without a `link` the port gets a name that nobody else has, so that runs and users do not take each other's board.
    """
    link = link or str(Path(tempfile.gettempdir(), f"landbridge-board-{uuid.uuid4().hex[:8]}"))
    board = {"robot": robot, "scenario": scenario, "seed": seed, "link": link}
    told = {"hardware": "mcu", "bundle": bundle, "compensate": compensate, "out": out}
    return [
        NodeSpec("board", "board", board, lifecycle=False),
        *([_recorder(robot, scenario, "policy", told)] if out else []),
        _bridge(robot, scenario, seed, "mcu", link),
        _policy(robot, bundle, require_signature, compensate),
        _monitor(robot, "policy"),
    ]


def twin(robot: str, scenario: str, seed: int) -> list[NodeSpec]:
    """The robot's side alone: the twin and the monitor, for a policy node that is started elsewhere."""
    return [_bridge(robot, scenario, seed, "twin", ""), _monitor(robot, "policy")]


TWIN = (ROBOT, SCENARIO.by_default("severe"), SEED)
RUNNING = (*TWIN, BUNDLE.by_default(None), OUT, REQUIRE_SIGNATURE, COMPENSATE)

MODES: dict[str, tuple[Callable[..., list[NodeSpec]], Sequence[Parameter]]] = {
    "record": (record, (*TWIN, OUT.by_default(None), EXCITATION, HARDWARE, PORT)),
    "deploy": (deploy, (*RUNNING, HARDWARE, PORT, BLACK_BOX, BLACK_BOX_SECONDS)),
    "hil": (hil, (*RUNNING, LINK)),
    "twin": (twin, TWIN),
}


def _bridge(robot: str, scenario: str, seed: int, hardware: str, port: str) -> NodeSpec:
    require_seed(seed)
    parameters = {"robot": robot, "hardware": hardware, "port": port, "scenario": scenario, "seed": seed}
    return NodeSpec("bridge", "bridge", parameters, lifecycle=True)


def _policy(robot: str, bundle: str, require_signature: str, compensate: str) -> NodeSpec:
    parameters = {"robot": robot, "bundle": bundle, "require_signature": require_signature, "compensate": compensate}
    return NodeSpec("policy", "policy", parameters, lifecycle=True)


def _monitor(robot: str, controller: str) -> NodeSpec:
    return NodeSpec("monitor", "monitor", {"robot": robot, "controller": controller}, lifecycle=False)


def _recorder(
    robot: str, scenario: str, controller: str, told: Mapping[str, str | int], essential: bool = False
) -> NodeSpec:
    parameters = {"robot": robot, "scenario": scenario, "controller": controller, **told}
    return NodeSpec("recorder", "recorder", parameters, lifecycle=False, essential=essential)


def _label(robot: str, scenario: str, hardware: str, port: str) -> tuple[str, str]:
    """The kind of the hardware, and what the scenario of its recordings is called."""
    settings = choose_hardware(load_robot(robot).spec, hardware, port)
    return settings.kind, scenario if isinstance(settings, TwinHardware) else "hardware"
