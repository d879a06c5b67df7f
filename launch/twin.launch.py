"""The robot's side alone, for a policy started elsewhere: ros2 launch landbridge twin.launch.py"""

from launch import LaunchDescription

from landbridge_nodes.launching import describe


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    return describe("twin")
