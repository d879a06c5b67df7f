"""A bring-up as actions of `launch`: what the files in `launch/` hand to `ros2 launch`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from landbridge_nodes.bringup import MODES, NodeSpec
from landbridge_nodes.neighbours import Neighbours
from landbridge_nodes.parameters import no_such
from landbridge_nodes.processes import BAD_INPUT

OF_LAUNCH = {"launch-prefix", "launch-prefix-filter"}  # arguments that `ros2 launch` gives itself


def describe(mode: str) -> Any:
    """The LaunchDescription of a mode of `landbridge_nodes.bringup`, its arguments declared.

    `launch` is imported here only: it comes with a ROS 2 installation, and machines without it have the nodes too.
    """
    from launch import LaunchDescription
    from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
    from launch.substitutions import LaunchConfiguration
    from launch_ros.actions import LifecycleNode, Node

    make, arguments = MODES[mode]

    def ending(spec: NodeSpec, event: Any, context: Any) -> list[Any]:
        """As `landbridge up` does: nothing starts to work without a process that has refused what it was told."""
        ends = spec.essential or event.returncode == BAD_INPUT
        return [Shutdown(reason=f"{spec.name} has ended")] if ends else []

    def start(context: Any) -> list[Any]:
        if any(Path(word).name == f"{mode}.launch.py" for word in sys.argv):  # not where another file includes this one
            _refuse_misspelt(context.argv, [a.name for a in arguments])
        with Neighbours() as neighbours:
            neighbours.require_none()
        values = {a.name: a.read(LaunchConfiguration(a.name).perform(context)) for a in arguments}
        return [
            (LifecycleNode if spec.lifecycle else Node)(
                package=spec.package,
                executable=spec.executable,
                name=spec.name,
                namespace=spec.namespace,
                parameters=[dict(spec.parameters)],
                arguments=["--ros-args", "--enclave", spec.enclave],
                output="screen",
                on_exit=partial(ending, spec),
            )
            for spec in make(**values)
        ]

    declared = [
        DeclareLaunchArgument(
            a.name, default_value=None if a.default is None else str(a.default), description=a.description
        )
        for a in arguments
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def _refuse_misspelt(argv: Sequence[str], names: Sequence[str]) -> None:
    """`ros2 launch` ignores what no file declares, and a robot would run with the default in place of what was told."""
    for told in (word.partition(":=")[0] for word in argv):
        if told not in names and told not in OF_LAUNCH:
            raise no_such("argument", told, "of this launch file", names)
