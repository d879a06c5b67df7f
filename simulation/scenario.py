"""Scenarios: how a simulated robot differs from its nominal self.

`scenarios.yaml` of a robot names a severity ladder. `apply` does the rigid-body part: it edits the URDF text that every
engine loads. Friction, gain, transmissions, cogging, latency and noise are done by `landbridge.simulation.plant`.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from landbridge.errors import InputError
from landbridge.joint import Cogging, Friction, Transmission
from landbridge.robot import Robot
from landbridge.spec import EXAMPLE, Finite, NonNegative, Positive, Spec, read_model
from landbridge.urdf import INERTIA, check_inertia, parse_urdf

SCENARIOS = "scenarios.yaml"
NOMINAL = "none"  # the rung of the robot as robot.yaml has it
OF_NOMINAL = ("joint_pos_noise", "joint_vel_noise", "push")  # what may be on that rung: it is no shift of the robot


class Payload(Spec):
    """A solid cube fixed to a link.

    Attributes:
        mass: [kg]
        position: Of its centre in the link's frame [m].
        size: Edge [m].
    """

    mass: Positive
    position: tuple[Finite, Finite, Finite]
    size: Positive = 0.1


class Push(Spec):
    """Kicks to a floating base. They belong to the task: the nominal scenario has them too.

    Attributes:
        speed: Change of the base's horizontal velocity [m/s], in a random direction.
        interval_s: Time between two kicks [s].
    """

    speed: Positive
    interval_s: Positive


class Scenario(Spec):
    """One rung of the ladder; the defaults are the nominal robot.

    Attributes:
        actuator_gain: Delivered over commanded effort.
        link_mass_scale: Factor on a link's mass and, with it, on its inertia.
        link_length_scale: Uniform factor on a link's geometry, centre of mass and joints it carries; the mass stays, so
            the inertia grows with its square.
        friction: Joint friction in place of the one in `robot.yaml`.
        transmission: Gear of a joint, in place of the one in `robot.yaml` if there is one.
        cogging: Torque by where a joint stands. Calibration does not look for it.
        latency_ms: Time from the write of a command to its effect [ms].
        joint_pos_noise: Standard deviation of the measured positions [rad].
        joint_vel_noise: Standard deviation of the measured velocities [rad/s].
        ground_friction: Coulomb coefficient between a floating robot and the ground.
        payload: What a link carries, by the link's name.
        push: Kicks to a floating base.
    """

    actuator_gain: Positive = 1.0
    link_mass_scale: dict[str, Positive] = Field(default_factory=dict)
    link_length_scale: dict[str, Positive] = Field(default_factory=dict)
    friction: dict[str, Friction] = Field(default_factory=dict)
    transmission: dict[str, Transmission] = Field(default_factory=dict)
    cogging: dict[str, Cogging] = Field(default_factory=dict)
    latency_ms: Annotated[float, Field(ge=0, le=200)] = 0.0
    joint_pos_noise: NonNegative = 0.0
    joint_vel_noise: NonNegative = 0.0
    ground_friction: Positive = 0.8  # rubber on a smooth floor
    payload: dict[str, Payload] = Field(default_factory=dict)
    push: Push | None = None


class Ladder(Spec):
    """The file `scenarios.yaml`."""

    schema_version: Literal[1]
    scenarios: dict[str, Scenario]


def load_scenario(robot: Robot, name: str) -> Scenario:
    """The scenario `name` of `robot`.

    Raises:
        InputError: The file is missing or malformed, or names an unknown scenario, link or joint.
    """
    ladder = _ladder(robot)
    if name not in ladder:
        raise InputError(robot.folder / SCENARIOS, f"no scenario {name!r}", f"name one of {', '.join(ladder)}")
    return _fitting(robot, name, ladder[name])


def load_scenarios(robot: Robot) -> dict[str, Scenario]:
    """Every scenario of `robot`, as `load_scenario` gives it."""
    return {name: _fitting(robot, name, scenario) for name, scenario in _ladder(robot).items()}


def _ladder(robot: Robot) -> dict[str, Scenario]:
    path = robot.folder / SCENARIOS
    if not path.is_file():
        raise InputError(path, "no such file", f"a robot folder needs scenarios.yaml; see {EXAMPLE}")
    return read_model(Ladder, path).scenarios


def _fitting(robot: Robot, name: str, scenario: Scenario) -> Scenario:
    path = robot.folder / SCENARIOS
    allowed = scenario.model_dump(include={*OF_NOMINAL})
    if name == NOMINAL and scenario != Scenario(**allowed):
        shifts = [field for field, value in Scenario(**allowed) if getattr(scenario, field) != value]
        problem = f"{name}.{shifts[0]}: calibration starts from the robot of robot.yaml and its URDF, without shifts"
        remedy = f"give it to a rung of its own; {NOMINAL} may have {', '.join(OF_NOMINAL)}"
        raise InputError(path, problem, remedy)
    for field in ("friction", "cogging"):
        if unknown := sorted(set(getattr(scenario, field)) - set(robot.spec.joint_names)):
            known = ", ".join(robot.spec.joint_names)
            raise InputError(path, f"{name}.{field} names unknown joints {unknown}", f"joints are {known}")
    free = [joint.name for joint in robot.spec.driven if not joint.armature]
    if unknown := sorted(set(scenario.transmission) - set(free)):
        problem = f"{name}.transmission names {unknown}, which are no actuated joints without armature"
        raise InputError(path, problem, f"those are {', '.join(free)}")
    if scenario.push is not None and robot.spec.base == "fixed":
        raise InputError(path, f"{name}.push: {robot.spec.name} has a fixed base", "remove it")
    apply(robot.urdf_text(), scenario, where=f"{path}: {name}")
    return scenario


def apply(urdf: str, scenario: Scenario, where: str = "scenario") -> str:
    """The URDF text `urdf` with the links of `scenario` scaled and loaded.

    Raises:
        InputError: Not XML, a named link does not exist, or an inertia is not that of a body (see `check_inertia`).
    """
    root = parse_urdf(urdf, where)
    links = {link.attrib["name"]: link for link in root.iter("link")}
    named = set(scenario.link_mass_scale) | set(scenario.link_length_scale) | set(scenario.payload)
    if unknown := sorted(named - set(links)):
        raise InputError(where, f"unknown links {unknown}", f"links are {', '.join(links)}")
    for name, factor in scenario.link_mass_scale.items():
        _scale(links[name].find("inertial/mass"), factor, "value")
        _scale(links[name].find("inertial/inertia"), factor, *INERTIA)
    for name, factor in scenario.link_length_scale.items():
        _scale_length(root, links[name], factor)
    for name, payload in scenario.payload.items():
        _load(links[name], payload, f"{where}: link {name}")
    for name, link in links.items():
        check_inertia(link, f"{where}: link {name}")
    return ET.tostring(root, encoding="unicode")


def _load(link: ET.Element, payload: Payload, where: str) -> None:
    """Merge the payload into the link's mass, centre of mass and inertia (parallel axes)."""
    check_inertia(link, where)
    mass, origin, inertia = (link.find(f"inertial/{tag}") for tag in ("mass", "origin", "inertia"))
    assert mass is not None and inertia is not None
    if origin is None or any(float(angle) for angle in origin.get("rpy", "0 0 0").split()):
        raise InputError(where, "its inertial block has no <origin>, or a turned one", "express it in the link's frame")
    own, centre = float(mass.attrib["value"]), np.array([float(v) for v in origin.get("xyz", "0 0 0").split()])
    xx, yy, zz, xy, xz, yz = (float(inertia.attrib[key]) for key in INERTIA)
    total, at = own + payload.mass, np.array(payload.position)
    common = (own * centre + payload.mass * at) / total
    tensor = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]) + payload.mass * payload.size**2 / 6 * np.eye(3)
    for weight, place in ((own, centre - common), (payload.mass, at - common)):
        tensor += weight * (place @ place * np.eye(3) - np.outer(place, place))
    mass.set("value", repr(total))
    origin.set("xyz", " ".join(repr(float(v)) for v in common))
    for key, (i, j) in zip(INERTIA, ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)), strict=True):
        inertia.set(key, repr(float(tensor[i, j])))


def _scale_length(root: ET.Element, link: ET.Element, factor: float) -> None:
    for origin in link.iter("origin"):
        _scale(origin, factor, "xyz")
    for shape in ("box", "cylinder", "sphere"):
        for geometry in link.iter(shape):
            _scale(geometry, factor, "size", "radius", "length")
    _scale(link.find("inertial/inertia"), factor**2, *INERTIA)
    for joint in root.iter("joint"):
        parent = joint.find("parent")
        if parent is not None and parent.attrib["link"] == link.attrib["name"]:
            _scale(joint.find("origin"), factor, "xyz")


def _scale(element: ET.Element | None, factor: float, *keys: str) -> None:
    if element is None:
        return
    for key in keys:
        if key in element.attrib:
            element.attrib[key] = " ".join(repr(float(value) * factor) for value in element.attrib[key].split())
