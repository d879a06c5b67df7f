"""Files that ROS 2 expects under share/, beside what pyproject.toml declares."""

from glob import glob

from setuptools import setup

setup(
    python_requires=">=3.10",  # a plain string: colcon evaluates the repr of every field
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/landbridge"]),
        ("share/landbridge", ["package.xml"]),
        ("share/landbridge/launch", glob("launch/*.launch.py")),
    ],
)
