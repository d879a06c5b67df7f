"""Run a bundle on an emulated board: ros2 launch landbridge hil.launch.py bundle:=BUNDLE"""

from launch import LaunchDescription

from landbridge_nodes.launching import describe


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    return describe("hil")
