from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from landbridge.errors import InputError
from landbridge.robot import ROBOTS, RobotSpec, load_robot


@pytest.fixture
def furuta(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROBOTS / "furuta", tmp_path / "furuta"))


def edit(folder: Path, **changes: Any) -> Path:
    path = folder / "robot.yaml"
    spec = yaml.safe_load(path.read_text())
    spec.update(changes)
    path.write_text(yaml.safe_dump(spec))
    return path


def test_the_shipped_robot_loads_by_name_and_by_path(furuta: Path) -> None:
    assert load_robot("furuta").spec == load_robot(furuta).spec
    assert load_robot("furuta").spec.joint_names == ["arm", "pendulum"]
    assert load_robot("furuta").spec.actuated == ["arm"]


def test_the_digest_ignores_layout_and_sees_every_value(furuta: Path) -> None:
    before = load_robot("furuta").spec.digest()
    spec = yaml.safe_load((furuta / "robot.yaml").read_text())
    (furuta / "robot.yaml").write_text("# another comment\n" + yaml.safe_dump(spec, sort_keys=True))
    assert load_robot(furuta).spec.digest() == before
    edit(furuta, control_rate_hz=51)
    assert load_robot(furuta).spec.digest() != before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"speed": 3}, "speed: Extra inputs are not permitted (got 3)"),
        ({"control_rate_hz": -50}, "control_rate_hz: Input should be greater than 0 (got -50)"),
        ({"control_rate_hz": float("nan")}, "control_rate_hz"),
        ({"action": {"kind": "effort", "scale": {"elbow": 1.0}}}, "action.scale is for ['elbow']"),
        ({"observation": [{"kind": "joint_pos", "joints": ["elbow"]}]}, "unknown joints ['elbow']"),
        ({"urdf": "absent.urdf"}, "absent.urdf"),
        ({"schema_version": 2}, "schema_version"),
        ({"observation": [{"kind": "joint_pos", "joints": ["arm"], "history": 5}]}, "joint_pos takes no history"),
        ({"action": {"kind": "effort", "scale": {"arm": 1.0}, "relative": True}}, "action.relative is for positions"),
    ],
)
def test_a_malformed_robot_names_file_field_and_value(furuta: Path, change: dict[str, Any], expected: str) -> None:
    path = edit(furuta, **change)
    with pytest.raises(InputError) as caught:
        load_robot(furuta)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("joint", "problem"),
    [
        ({"effort_limit": 0}, "joint arm is actuated and needs effort_limit > 0 and rate_limit"),
        ({"rate_limit": None}, "joint arm is actuated and needs effort_limit > 0 and rate_limit"),
        ({"friction": {"frictionloss": 0.002, "stiction": 0.001}}, "stiction 0.001 is below frictionloss 0.002"),
    ],
)
def test_a_drive_that_could_not_move_and_friction_that_is_none_are_refused(
    furuta: Path, joint: dict[str, Any], problem: str
) -> None:
    joints = yaml.safe_load((furuta / "robot.yaml").read_text())["joints"]
    edit(furuta, joints=[{k: v for k, v in (joints[0] | joint).items() if v is not None}, joints[1]])
    with pytest.raises(InputError) as caught:
        load_robot(furuta)
    assert problem in str(caught.value)


def test_a_fixed_base_has_no_tilt_to_watch(furuta: Path) -> None:
    safety = yaml.safe_load((furuta / "robot.yaml").read_text())["safety"]
    edit(furuta, safety=safety | {"max_tilt": 0.5})
    with pytest.raises(InputError, match=r"safety\.max_tilt is 0\.5, and a fixed base does not tilt"):
        load_robot(furuta)


def test_a_heartbeat_that_one_late_measurement_would_miss_is_refused(furuta: Path) -> None:
    edit(furuta, control_rate_hz=9.99)  # with 200 ms, by default
    with pytest.raises(InputError, match="heartbeat_timeout_ms 200 is less than two control periods"):
        load_robot(furuta)


def test_duplicate_joints_and_inverted_limits_are_refused(furuta: Path) -> None:
    joints = yaml.safe_load((furuta / "robot.yaml").read_text())["joints"]
    edit(furuta, joints=[joints[0], joints[0]])
    with pytest.raises(InputError, match="not unique"):
        load_robot(furuta)
    edit(furuta, joints=[{**joints[0], "position_limit": [1.0, -1.0]}, joints[1]])
    with pytest.raises(InputError, match="not \\(lower, upper\\)"):
        load_robot(furuta)


def test_a_missing_robot_and_broken_yaml_are_one_line(furuta: Path) -> None:
    with pytest.raises(InputError, match="name one of \\['arm', 'furuta'"):
        load_robot("no_such_robot")
    (furuta / "robot.yaml").write_text("joints: [")
    with pytest.raises(InputError, match="not YAML") as caught:
        load_robot(furuta)
    assert "\n" not in str(caught.value)


def test_a_robot_folder_without_a_module_says_which(furuta: Path) -> None:
    (furuta / "task.py").unlink()
    with pytest.raises(InputError, match=r"a robot folder needs task\.py"):
        load_robot(furuta).module("task")


def test_joint_by_unknown_name() -> None:
    spec: RobotSpec = load_robot("furuta").spec
    with pytest.raises(KeyError, match="known: \\['arm', 'pendulum'\\]"):
        spec.joint("elbow")


@pytest.mark.parametrize(
    ("joint", "safety", "problem"),
    [
        ({"jerk_limit": None}, {}, "FR_hip_joint is commanded in position: acceleration_limit and jerk_limit"),
        ({"acceleration_limit": None}, {}, "FR_hip_joint is commanded in position: acceleration_limit and jerk_limit"),
        ({"default_joint_pos": 0.9}, {"parking_pose": {}}, "FR_hip_joint parks at 0.9, outside its position_limit"),
        ({}, {"parking_pose": {"FR_hip_joint": -0.81}}, "FR_hip_joint parks at -0.81, outside its position_limit"),
        ({}, {"parking_pose": {"tail": 0.0}}, "parking_pose names ['tail']"),
        ({}, {"parking_speed": 0}, "parking_speed: Input should be greater than 0"),
        ({"jerk_limit": float("inf")}, {}, "jerk_limit"),
        ({}, {"max_tracking_error": None}, "joints are commanded in position: safety.max_tracking_error"),
    ],
)
def test_a_robot_that_cannot_hold_or_park_is_refused(
    tmp_path: Path, joint: dict[str, Any], safety: dict[str, Any], problem: str
) -> None:
    folder = Path(shutil.copytree(ROBOTS / "quadruped", tmp_path / "quadruped"))
    spec = yaml.safe_load((folder / "robot.yaml").read_text())
    spec["joints"][0] = {k: v for k, v in (spec["joints"][0] | joint).items() if v is not None}
    edit(folder, joints=spec["joints"], safety=spec["safety"] | safety)
    with pytest.raises(InputError) as caught:
        load_robot(folder)
    assert problem in str(caught.value)


@pytest.mark.parametrize(("kind", "use"), [("effort", "stop"), ("velocity", "loop")])
def test_a_robot_whose_stop_would_do_nothing_is_refused(furuta: Path, kind: str, use: str) -> None:
    spec = yaml.safe_load((furuta / "robot.yaml").read_text())
    joint = spec["joints"][0] | {"damping": 0.0}
    edit(furuta, joints=[joint, spec["joints"][1]], action=spec["action"] | {"kind": kind})
    with pytest.raises(InputError, match=f"joint arm is commanded in {kind}: damping, the gain of its {use}"):
        load_robot(furuta)


def test_only_position_commands_can_park_in_a_pose(furuta: Path) -> None:
    safety = yaml.safe_load((furuta / "robot.yaml").read_text())["safety"]
    edit(furuta, safety=safety | {"parking_pose": {"arm": 0.0}})
    with pytest.raises(InputError, match=r"parking_pose needs position commands, action\.kind is effort"):
        load_robot(furuta)


def test_joints_that_the_parking_pose_does_not_name_park_at_their_default() -> None:
    spec = load_robot("quadruped").spec
    pose = spec.model_copy(update={"safety": spec.safety.model_copy(update={"parking_pose": {"FR_hip_joint": 0.1}})})
    assert pose.parking["FR_hip_joint"] == 0.1
    assert pose.parking["FR_calf_joint"] == -1.5
    assert list(pose.parking) == spec.actuated


def test_the_digest_counts_what_the_guard_moves_by_where_it_is_set(furuta: Path) -> None:
    before = load_robot("furuta").spec
    joints = yaml.safe_load((furuta / "robot.yaml").read_text())["joints"]
    edit(furuta, joints=[joints[0] | {"jerk_limit": 10.0}, joints[1]])
    assert load_robot(furuta).spec.digest() != before.digest()
    slower = before.model_copy(update={"safety": before.safety.model_copy(update={"parking_speed": 0.4})})
    assert slower.digest() != before.digest()
