"""Record target rollouts on the twin: ros2 launch landbridge record.launch.py out:=BAG"""

from launch import LaunchDescription

from landbridge_nodes.launching import describe


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    return describe("record")
