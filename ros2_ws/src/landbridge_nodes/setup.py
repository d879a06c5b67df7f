"""ament_python package; metadata in setup.cfg."""

from setuptools import setup

setup(
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/landbridge_nodes"]),
        ("share/landbridge_nodes", ["package.xml"]),
    ],
)
