"""What a robot folder's URDF must say, and that a wrong one is refused when the folder is read, by its own name."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from contextlib import closing
from pathlib import Path
from typing import get_args

import pytest

from landbridge.errors import InputError
from landbridge.robot import ROBOTS, load_robot
from landbridge.simulation.parameters import parameters
from landbridge.simulation.plant import Engine, make_plant
from landbridge.simulation.scenario import Scenario
from landbridge.urdf import check_inertia, limits, read_urdf, require_robot

MAST = """<link name="flag"><inertial><mass value="0.1"/>
<inertia ixx="1e-4" iyy="1e-4" izz="1e-4" ixy="0" ixz="0" iyz="0"/></inertial></link>
<joint name="mast" type="{kind}"><parent link="base"/><child link="flag"/><axis xyz="0 0 1"/></joint></robot>"""
SPHERE = '<sphere radius="0.02"/>'


@pytest.fixture
def furuta(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROBOTS / "furuta", tmp_path / "furuta"))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('joint name="arm"', 'joint name="arn"', r"no joint 'arm', which robot.yaml names.*perhaps it is 'arn'"),
        ('type="revolute"', 'type="prismatic"', "joint 'arm' is prismatic.*only revolute and continuous"),
        ('type="revolute"', 'type="fixed"', "joint 'arm' is fixed.*only revolute and continuous"),
        (
            "</robot>",
            MAST.format(kind="continuous"),
            "joint 'mast' moves and robot.yaml does not name it.*actuated: false",
        ),
        ("</robot>", MAST.format(kind="floating"), "joint 'mast' is floating"),
        ('<child link="pendulum_link"/>', '<child link="pendulum_link"/><mimic joint="arm"/>', "'pendulum' has <mimi"),
        ('<mass value="0.04"/>', "", "link pendulum_link: has no positive mass"),
        ("</robot>", '<link name="imu"/></robot>', "link imu: has no positive mass.*only a mere frame, fixed to one"),
        ('<child link="pendulum_link"/>', "", "joint 'pendulum' has no <child link=...>. add it"),
        ('izz="0.0000005"', 'izz="0.00060051"', "link pendulum_link.*belong to no rigid body.*round the largest down"),
        ("<robot ", '<robot xmlns:xacro="http://www.ros.org/wiki/xacro" ', None),  # a mere name space is none
        ("</robot>", '<x:if xmlns:x="http://ros.org/wiki/xacro"/></robot>', "is a xacro.*xacro furuta.urdf >"),
        ("</robot>", "", "URDF is not XML"),
    ],
)
def test_a_urdf_that_cannot_be_simulated_is_refused(furuta: Path, old: str, new: str, problem: str | None) -> None:
    urdf = furuta / "furuta.urdf"
    urdf.write_text(urdf.read_text().replace(old, new))
    if problem is None:
        assert load_robot(furuta).spec.name == "furuta"
        return
    with pytest.raises(InputError, match=problem) as caught:
        load_robot(furuta)
    assert caught.value.where.startswith(str(urdf))


def test_a_joint_that_does_not_move_needs_no_name(furuta: Path) -> None:
    urdf = furuta / "furuta.urdf"
    urdf.write_text(urdf.read_text().replace("</robot>", MAST.format(kind="fixed")))
    assert load_robot(furuta).spec.joint_names == ["arm", "pendulum"]


FRAMES = """<link name="imu"/><joint name="to_imu" type="fixed"><parent link="pendulum_link"/><child link="imu"/>
<origin xyz="0 0 0.1"/></joint>
<link name="optical"><visual><geometry><sphere radius="1"/></geometry></visual></link>
<joint name="to_optical" type="fixed"><parent link="imu"/><child link="optical"/></joint>
<link name="{root}"/><joint name="to_base" type="fixed"><parent link="{root}"/><child link="base"/>{origin}</joint>
</robot>"""


def test_mere_frames_are_no_bodies_to_either_engine(furuta: Path) -> None:
    """Of which Bullet would make 1 kg each."""
    bare = load_robot(furuta)
    urdf = furuta / "furuta.urdf"
    text = urdf.read_text()
    urdf.write_text(
        text.replace("</robot>", FRAMES.format(root="footprint", origin='<origin xyz="0 0 0" rpy="0 0 0"/>'))
    )
    robot = load_robot(furuta)
    assert [link.attrib["name"] for link in robot.urdf_root().iter("link")] == ["base", "arm_link", "pendulum_link"]
    assert parameters(robot) == parameters(bare)
    for engine in get_args(Engine):
        with (
            closing(make_plant(robot, engine, Scenario())) as framed,
            closing(make_plant(bare, engine, Scenario())) as plain,
        ):
            assert framed.inertias(["arm", "pendulum"]) == plain.inertias(["arm", "pendulum"])
    urdf.write_text(text.replace("</robot>", FRAMES.format(root="world", origin='<origin rpy="1.57 0 0"/>')))
    with pytest.raises(InputError, match="link world: has no positive mass"):
        load_robot(furuta)


def test_no_rounding_is_allowed_for() -> None:
    """Neither engine does: MuJoCo refuses such a body, and Bullet takes zero for its inertia."""
    plate = (
        '<link><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="{}" ixy="0" ixz="0" iyz="0"/></inertial></link>'
    )
    check_inertia(ET.fromstring(plate.format("2")), "plate")
    with pytest.raises(InputError, match="belong to no rigid body"):
        check_inertia(ET.fromstring(plate.format("2.0000000001")), "plate")


@pytest.mark.parametrize(
    "name", ["meshes/foot.stl", "package://any_name/meshes/foot.stl", "file://{folder}/meshes/foot.stl"]
)
def test_meshes_are_found_by_the_folder_and_named_absolutely(furuta: Path, name: str) -> None:
    urdf, mesh = furuta / "mesh.urdf", furuta / "meshes" / "foot.stl"
    link = (
        f'<link name="a"><visual><geometry><mesh filename="{name.format(folder=furuta)}"/></geometry></visual></link>'
    )
    urdf.write_text(f"<robot>{link}</robot>")
    with pytest.raises(InputError, match=rf"mesh '.*foot.stl' does not exist. put it at {mesh}"):
        read_urdf(urdf, furuta)
    mesh.parent.mkdir()
    mesh.touch()
    (found,) = ET.fromstring(read_urdf(urdf, furuta)).iter("mesh")
    assert found.attrib["filename"] == str(mesh)


def test_limits_are_those_that_the_file_names() -> None:
    found = limits(load_robot("furuta").urdf)
    assert found["arm"] == {"lower": -2.4, "upper": 2.4, "velocity": 30, "effort": 0.12}
    assert found["pendulum"] == {"lower": None, "upper": None, "velocity": 60, "effort": 0}


@pytest.mark.parametrize(
    ("inertial", "problem"),
    [
        ('<mass value="abc"/>', "<mass> has value='abc'. give a number"),
        ("<mass/>", "<mass> has no value"),
        ('<mass value="1"/>', "<inertia> has no ixx"),
    ],
)
def test_a_number_that_is_missing_or_none_is_named(inertial: str, problem: str) -> None:
    link = ET.fromstring(f"<link name='a'><inertial>{inertial}<inertia iyy='1'/></inertial></link>")
    with pytest.raises(InputError, match=f"swing.urdf: link a: {problem}"):
        check_inertia(link, "swing.urdf: link a")


def test_a_link_without_a_name_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "a.urdf"
    path.write_text("<robot name='a'><link/></robot>")
    with pytest.raises(InputError, match="a <link> has no name"):
        require_robot(path, [])
