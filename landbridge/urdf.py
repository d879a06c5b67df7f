"""The URDF of a robot folder: read and checked in one place, before an engine loads it.

Engines are more patient than they should be: Bullet takes zero for an impossible inertia and 1 kg for a missing mass.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from landbridge.errors import InputError

HINGES = ("revolute", "continuous")
INERTIA = ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")
PACKAGE = "package://"


def read_urdf(path: Path, folder: Path) -> str:
    """Its text, meshes named by absolute paths: engines read it from elsewhere.

    `package://NAME/` stands for the robot's `folder`; any other name is relative to the URDF.

    Raises:
        InputError: Not XML, or a mesh that does not exist.
    """
    root = parse_urdf(path.read_text(), path)
    for mesh in root.iter("mesh"):
        name = mesh.attrib["filename"]
        packed, inside = name.startswith(PACKAGE), name.removeprefix(PACKAGE).partition("/")[2]
        file = (folder / inside if packed else path.parent / name.removeprefix("file://")).resolve()
        if not file.is_file():
            remedy = f"put it at {file}, or name a <box>, <cylinder> or <sphere> in its place"
            raise InputError(path, f"mesh {name!r} does not exist", remedy)
        mesh.attrib["filename"] = str(file)
    return ET.tostring(root, encoding="unicode")


def parse_urdf(text: str, where: str | Path) -> ET.Element:
    """The root element of a URDF's `text`, without links that are mere frames.

    Raises:
        InputError: Not XML, or a joint that does not say which links it joins.
    """
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise InputError(where, f"URDF is not XML: {error}", "correct the file's syntax") from error
    while _drop_a_frame(root, where):
        pass
    return root


def _drop_a_frame(root: ET.Element, where: str | Path) -> bool:
    """Whether there was one: a link without mass and shape to collide that is fixed to one other link.

    So are tools and sensors described, and roots as `base_footprint` where nothing lies between it and its child.
    Engines make bodies of them: Bullet gives each a mass of 1 kg.
    """
    joints = [
        (joint, _link_of(joint, "parent", where), _link_of(joint, "child", where)) for joint in root.iterfind("joint")
    ]
    for link in root.iterfind("link"):
        name = link.attrib.get("name")
        at = [(joint, parent == name) for joint, parent, child in joints if name in (parent, child)]
        if link.find("inertial") is None and link.find("collision") is None and len(at) == 1:
            ((joint, is_root),) = at
            if joint.attrib.get("type") == "fixed" and not (is_root and _is_displaced(joint)):
                root.remove(link)
                root.remove(joint)
                return True
    return False


def _link_of(joint: ET.Element, end: str, where: str | Path) -> str:
    found = joint.find(end)
    if found is None or "link" not in found.attrib:
        raise InputError(where, f"joint {joint.attrib.get('name')!r} has no <{end} link=...>", "add it")
    return found.attrib["link"]


def _is_displaced(joint: ET.Element) -> bool:
    origin = joint.find("origin")
    return origin is not None and any(float(x) for key in ("xyz", "rpy") for x in origin.attrib.get(key, "0").split())


def require_robot(path: Path, names: Sequence[str]) -> None:
    """Raise InputError unless the joints that move are hinges called `names`, and every link has a body's inertia."""
    root = parse_urdf(path.read_text(), path)
    if any("/xacro}" in element.tag for element in root.iter()):
        raise InputError(path, "is a xacro", f"expand it: xacro {path.name} > {path.stem}.expanded.urdf")
    for element in (*root.iterfind("joint"), *root.iterfind("link")):
        for key in ("name", "type") if element.tag == "joint" else ("name",):
            if key not in element.attrib:
                raise InputError(path, f"a <{element.tag}> has no {key}: {element.attrib}", f"give it {key}=...")
    for joint in root.iterfind("joint"):
        if joint.find("mimic") is not None and joint.attrib["type"] != "fixed":
            problem = f"joint {joint.attrib['name']!r} has <mimic>, which MuJoCo obeys and Bullet does not"
            raise InputError(path, problem, "make it fixed, or take <mimic> out and list it in robot.yaml")
    types = {joint.attrib["name"]: joint.attrib["type"] for joint in root.iterfind("joint")}
    moving = [name for name, kind in types.items() if kind != "fixed"]
    for name in names:
        if name not in types:
            near = get_close_matches(name, moving)
            remedy = f"perhaps it is {near[0]!r}" if near else "make the two agree"
            raise InputError(path, f"has no joint {name!r}, which robot.yaml names; it has {moving}", remedy)
    for name in [*names, *moving]:
        if types[name] not in HINGES:
            remedy = (
                f"of joints that robot.yaml names, and all that move, only {' and '.join(HINGES)} ones are simulated"
            )
            raise InputError(path, f"joint {name!r} is {types[name]}", remedy)
        if name not in names:
            remedy = "add it to joints of robot.yaml, with `actuated: false` if nothing drives it, or make it fixed"
            raise InputError(path, f"joint {name!r} moves and robot.yaml does not name it", remedy)
    for link in root.iterfind("link"):
        check_inertia(link, f"{path}: link {link.attrib['name']}")


def limits(path: Path) -> dict[str, dict[str, float | None]]:
    """`lower` and `upper` [rad], `velocity` [rad/s] and `effort` [N m] of each joint that moves; None: it has none."""
    found = {}
    for joint in parse_urdf(path.read_text(), path).iterfind("joint"):
        if joint.attrib["type"] != "fixed":
            limit = joint.find("limit")
            told = {} if limit is None else dict(limit.attrib)
            if joint.attrib["type"] == "revolute":
                told = {"lower": "0", "upper": "0"} | told  # as the format says
            keys = ("lower", "upper", "velocity", "effort")
            found[joint.attrib["name"]] = {key: float(told[key]) if key in told else None for key in keys}
    return found


def _number(element: ET.Element, key: str, where: str) -> float:
    try:
        return float(element.attrib[key])
    except KeyError:
        raise InputError(where, f"<{element.tag}> has no {key}", f"give it {key}=...") from None
    except ValueError:
        problem = f"<{element.tag}> has {key}={element.attrib[key]!r}"
        raise InputError(where, problem, "give a number, in SI units") from None


def check_inertia(link: ET.Element, where: str) -> None:
    """Raise InputError unless the link's mass is positive and its principal inertias satisfy the triangle inequality.

    No rigid body has others. Neither engine allows for rounding.
    """
    mass, inertia = link.find("inertial/mass"), link.find("inertial/inertia")
    if mass is None or inertia is None or _number(mass, "value", where) <= 0:
        remedy = "give it an <inertial> block; only a mere frame, fixed to one other link, needs none"
        raise InputError(where, "has no positive mass or no inertia", remedy)
    xx, yy, zz, xy, xz, yz = (_number(inertia, key, where) for key in INERTIA)
    low, middle, high = np.linalg.eigvalsh([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    if low <= 0 or low + middle < high:
        raise InputError(
            where,
            f"principal inertias {low:.3g}, {middle:.3g}, {high:.3g} kg m^2 belong to no rigid body",
            "each must be positive and at most the sum of the other two: of a thin plate, round the largest down",
        )
