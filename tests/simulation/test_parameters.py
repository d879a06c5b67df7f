from __future__ import annotations

import copy
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landbridge.robot import Robot, load_robot
from landbridge.simulation.parameters import at, parameters, to_scenario, to_values
from landbridge.simulation.scenario import Payload, Scenario, load_scenario

ROBOT = load_robot("furuta")
EVERY = parameters(ROBOT)


def test_the_furuta_has_a_gain_two_links_two_frictions_and_a_latency() -> None:
    assert [p.name for p in EVERY] == [
        "actuator_gain",
        "link_mass_scale.arm_link",
        "link_mass_scale.pendulum_link",
        "link_length_scale.arm_link",
        "link_length_scale.pendulum_link",
        *(f"friction.arm.{field}" for field in ("frictionloss", "excess", "stribeck_velocity", "viscous", "load")),
        *(f"friction.pendulum.{field}" for field in ("frictionloss", "excess", "stribeck_velocity", "viscous")),
        "latency_ms",
    ]


def test_what_is_welded_to_a_link_is_one_body_with_it(tmp_path: Path) -> None:
    """A rod in two pieces, the second on a fixed joint: friction and masses are those of both."""
    folder = Path(shutil.copytree(ROBOT.folder, tmp_path / "furuta"))
    root = ET.parse(ROBOT.urdf).getroot()
    rod = next(link for link in root.iter("link") if link.get("name") == "pendulum_link")
    bob = copy.deepcopy(rod)
    bob.set("name", "bob")
    for child in [child for child in rod if child.tag != "inertial"]:
        rod.remove(child)
    for part in (rod, bob):  # half of the rod each, in the same place
        inertial = part.find("inertial")
        assert inertial is not None
        for element in (inertial.find("mass"), inertial.find("inertia")):
            assert element is not None
            for key, value in element.attrib.items():
                element.set(key, str(float(value) / 2))
    weld = ET.SubElement(root, "joint", name="weld", type="fixed")
    ET.SubElement(weld, "parent", link="pendulum_link")
    ET.SubElement(weld, "child", link="bob")
    root.append(bob)
    ET.ElementTree(root).write(folder / ROBOT.urdf.name)
    split = load_robot(folder)
    for whole, halves in zip(EVERY, parameters(split), strict=True):
        assert (halves.name, halves.sd, halves.high) == (whole.name, pytest.approx(whole.sd), pytest.approx(whole.high))
    scenario = to_scenario(split, {"link_mass_scale.pendulum_link": 1.2, "link_length_scale.pendulum_link": 0.9})
    assert scenario.link_mass_scale == {"pendulum_link": 1.2, "bob": 1.2}
    assert scenario.link_length_scale == {"pendulum_link": 0.9, "bob": 0.9}


def test_a_rotor_counts_in_what_a_joint_can_rub() -> None:
    joints = tuple(joint.model_copy(update={"armature": 0.01}) for joint in ROBOT.spec.joints)
    heavy = Robot(ROBOT.spec.model_copy(update={"joints": joints}), ROBOT.folder)
    bare, driven = ({p.name: p for p in parameters(robot)} for robot in (ROBOT, heavy))
    assert driven["friction.pendulum.viscous"].high > 5 * bare["friction.pendulum.viscous"].high


@pytest.mark.parametrize("rung", ["none", "mild", "moderate", "severe", "extreme"])
def test_a_rung_survives_the_way_to_values_and_back(rung: str) -> None:
    scenario = load_scenario(ROBOT, rung)
    values = to_values(ROBOT, scenario)
    assert to_values(ROBOT, to_scenario(ROBOT, values)) == pytest.approx(values, rel=1e-12)
    assert to_scenario(ROBOT, {}, scenario).friction["arm"] == scenario.friction.get(
        "arm", ROBOT.spec.joint("arm").friction
    )


@pytest.mark.parametrize("name", ["furuta", "arm"])
@pytest.mark.parametrize("rung", ["mild", "moderate", "severe", "extreme"])
def test_every_rung_is_within_the_bounds_of_what_can_be_identified(name: str, rung: str) -> None:
    robot = load_robot(name)
    values = to_values(robot, load_scenario(robot, rung))
    for parameter in parameters(robot):
        assert parameter.low <= values[parameter.name] <= parameter.high, parameter.name


@settings(max_examples=50)
@given(st.lists(st.floats(-0.5, 0.5), min_size=len(EVERY), max_size=len(EVERY)))
def test_coordinates_give_values_within_bounds_and_come_back(coordinates: list[float]) -> None:
    values = at(EVERY, np.array(coordinates))
    found = to_values(ROBOT, to_scenario(ROBOT, values))
    assert found == pytest.approx(values, rel=1e-9, abs=1e-12)
    for parameter, z in zip(EVERY, coordinates, strict=True):
        assert parameter.low <= values[parameter.name] <= parameter.high
        if parameter.low < values[parameter.name] < parameter.high:
            assert parameter.coordinate(values[parameter.name]) == pytest.approx(z, abs=1e-9)


def test_a_factor_of_one_sigma_and_a_torque_of_one_sigma() -> None:
    by_name = {p.name: p for p in EVERY}
    assert by_name["actuator_gain"].value(1.0) == pytest.approx(np.exp(0.3))
    # 10 rad/s^2 on the arm link's own inertia about its joint: 0.00026 + 0.12 * 0.08^2 kg m^2
    assert by_name["friction.arm.frictionloss"].value(1.0) == pytest.approx(0.001 + 10 * (0.00026 + 0.12 * 0.08**2))
    assert by_name["latency_ms"].value(-1.0) == 0.0
    # The friction of gears is a share of what drives them: 5 % of 1.5 N m, 10 % of 0.07 N m s/rad.
    of_arm = {p.name: p for p in parameters(load_robot("arm"))}
    assert of_arm["friction.wrist_flex.frictionloss"].value(1.0) == pytest.approx(0.01 + 0.075)
    assert of_arm["friction.wrist_flex.viscous"].value(1.0) == pytest.approx(0.007)


def test_what_is_not_named_stays_as_it_was() -> None:
    base = Scenario(link_mass_scale={"arm_link": 2.0}, payload={"arm_link": Payload(mass=0.1, position=(0, 0, 0))})
    changed = to_scenario(ROBOT, {"latency_ms": 7.0, "link_mass_scale.pendulum_link": 1.5}, base)
    assert changed.payload == base.payload
    assert changed.link_mass_scale == {"arm_link": 2.0, "pendulum_link": 1.5}
    assert changed.latency_ms == 7.0 and changed.actuator_gain == 1.0
    Scenario.model_validate(changed.model_dump())
