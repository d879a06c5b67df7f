"""The robot's side alone, for a policy started elsewhere: ros2 launch landbridge twin.launch.py"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from landbridge_nodes.bringup import MODES

make, arguments = MODES["twin"]


def start(context: LaunchContext) -> list[Node]:
    """The processes of the bring-up, from the values of the launch arguments."""
    values = {a.name: a.read(LaunchConfiguration(a.name).perform(context)) for a in arguments}
    return [
        (LifecycleNode if spec.lifecycle else Node)(
            package=spec.package,
            executable=spec.executable,
            name=spec.name,
            namespace=spec.namespace,
            parameters=[dict(spec.parameters)],
            output="screen",
        )
        for spec in make(**values)
    ]


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    declared = [
        DeclareLaunchArgument(
            a.name, default_value=None if a.default is None else str(a.default), description=a.description
        )
        for a in arguments
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])
