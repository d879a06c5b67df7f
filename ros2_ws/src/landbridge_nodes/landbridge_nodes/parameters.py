"""What a node or a bring-up can be told: each parameter once, with its default, what it is and what it may be.

Nodes declare them with `declare`, launch files as arguments; `ros2 param describe` tells what stands here. A node reads
them when it starts, so that none can change: `ros2 param set` is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, get_args

from typing_extensions import Self

from landbridge.deploy.engine import Precision
from landbridge.deploy.hardware import KINDS
from landbridge.errors import InputError
from landbridge_nodes.sections import require_heard

LARGEST = 2**31 - 1  # of an integer: rqt_reconfigure shows none of a node's parameters if one goes beyond


@dataclass(frozen=True)
class Parameter:
    """One parameter, or argument of a launch file; its type is that of the default.

    Attributes:
        default: None makes the argument of a launch file a required one.
        least: Smallest value of an integer.
        one_of: Values that a text may have; any, if there are none.
    """

    name: str
    default: str | int | None
    description: str
    least: int = 0
    one_of: tuple[str, ...] = ()

    def by_default(self, default: str | int | None) -> Self:
        """This parameter with another default."""
        return replace(self, default=default)

    def read(self, text: str) -> str | int:
        """The value of a text from `ros2 launch`; raises InputError if that is none."""
        try:
            return int(text) if isinstance(self.default, int) else text
        except ValueError as error:
            raise InputError(f"argument {self.name}", f"is {text!r}", f"give {self.allowed}") from error

    @property
    def allowed(self) -> str:
        """What it may be; "" if that is any text."""
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, int):
            return f"an integer from {self.least} to {LARGEST}"
        return " or ".join(repr(value) for value in self.one_of)


ROBOT = Parameter("robot", "furuta", "robot that ships with landbridge, or folder of one")
SCENARIO = Parameter("scenario", "none", "rung of the robot's scenarios.yaml (twin)")
SEED = Parameter("seed", 0, "of start states, noise and behaviour")
HARDWARE = Parameter("hardware", "", "what moves the joints, in place of the robot's own line", one_of=("", *KINDS))
PORT = Parameter("port", "", "serial port, in place of the robot's own")
LINK = Parameter("link", "", "where to put the emulated board's port; a bring-up without one makes a new name")
CONTROLLER = Parameter("controller", "policy", "lifecycle node that commands: policy or excite, or one of your own")
EXCITATION = Parameter("excitation", "", "file of `landbridge calibrate excite`, in place of the robot's behaviour")
BUNDLE = Parameter("bundle", "", "bundle to run")
REQUIRE_SIGNATURE = Parameter("require_signature", "", "public key that must have signed the bundle")
COMPENSATE = Parameter("compensate", "", "calibration.yaml by which the policy's commands are compensated")
PROVIDER = Parameter("provider", "CPUExecutionProvider", "execution provider of onnxruntime, or tensorrt")
PRECISION = Parameter(
    "precision", "fp32", "what an engine accepted on this machine computes in", one_of=get_args(Precision)
)
STRICT = Parameter("strict", False, "refuse a provider that falls back")
OUT = Parameter("out", "", "bag folder to write")
BLACK_BOX = Parameter("black_box", "", "folder for a bag of the last seconds before every fault")
BLACK_BOX_SECONDS = Parameter("black_box_seconds", 30, "that such a bag reaches back", least=1)


# One file, or one `-p`, may serve all nodes: each passes over what only others take.
TAKEN = {parameter.name for parameter in vars().values() if isinstance(parameter, Parameter)}
OF_ROS = "qos_overrides."  # prefix of what rclpy declares with a publisher or subscription; the rest it has by now


def declare(node: Any, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The values of a node's parameters, by name.

    Raises:
        InputError: A value is of another type, or not allowed; the node is told one that no node has; or a file has a
            section whose name is almost the node's.
    """
    from rcl_interfaces.msg import IntegerRange, ParameterDescriptor  # only now: launch files are read without a node
    from rclpy.exceptions import ParameterException

    require_heard(node.get_fully_qualified_name(), sys.argv)
    _refuse_misspelt(node, [parameter.name for parameter in parameters])
    values = {}
    for parameter in parameters:
        descriptor = ParameterDescriptor(description=parameter.description, read_only=True)
        if type(parameter.default) is int:
            descriptor.integer_range = [IntegerRange(from_value=parameter.least, to_value=LARGEST)]
        else:
            descriptor.additional_constraints = parameter.allowed
        try:
            value = node.declare_parameter(parameter.name, parameter.default, descriptor).value
        except ParameterException as error:
            problem = str(error).removesuffix(f": {parameter.name}")
            raise InputError(f"parameter {parameter.name}", problem, f"give {parameter.allowed or 'a text'}") from error
        if parameter.one_of and value not in parameter.one_of:
            raise InputError(f"parameter {parameter.name}", f"is {value!r}", f"give {parameter.allowed}")
        values[parameter.name] = value
    return values


def _refuse_misspelt(node: Any, names: Sequence[str]) -> None:
    """ROS 2 ignores what nobody declares, and a robot would run with the default in place of what it was told."""
    told = node._parameter_overrides  # rclpy has no public name for what files and arguments say to a node
    others = [n for n in told if n not in TAKEN and not n.startswith(OF_ROS) and not node.has_parameter(n)]
    if others:
        raise no_such("parameter", others[0], f"that {node.get_name()} has", sorted(names))


def no_such(kind: str, told: str, whose: str, names: Sequence[str]) -> InputError:
    """What to say of a name that nobody declares, with the one that may have been meant."""
    meant = "".join(f", perhaps {near!r}" for near in get_close_matches(told, names, 1))
    return InputError(f"{kind} {told}", f"is none {whose}{meant}", f"give {', '.join(names)}")
