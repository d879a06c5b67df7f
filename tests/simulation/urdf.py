"""Reading the numbers of a robot's URDF, to hold the engines against them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from landbridge.robot import Robot


def links_of(robot: Robot) -> dict[str, ET.Element]:
    return {link.attrib["name"]: link for link in ET.parse(robot.urdf).getroot().iter("link")}


def tensor(link: ET.Element) -> np.ndarray:
    inertia = link.find("inertial/inertia")
    assert inertia is not None
    xx, yy, zz, xy, xz, yz = (float(inertia.attrib[k]) for k in ("ixx", "iyy", "izz", "ixy", "ixz", "iyz"))
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def numbers(link: ET.Element, path: str, key: str) -> list[float]:
    element = link.find(path)
    assert element is not None
    return [float(value) for value in element.attrib[key].split()]
