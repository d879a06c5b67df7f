"""Files that ROS 2 expects under share/, beside what pyproject.toml declares."""

from glob import glob

from setuptools import setup

setup(
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/landbridge"]),
        ("share/landbridge", ["package.xml"]),
        ("share/landbridge/launch", glob("launch/*.launch.py")),
    ],
)
