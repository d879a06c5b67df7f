"""What is refused when a bus of servos is opened: other servos, other robots, a port that is taken or silent."""

from __future__ import annotations

import os

import pytest

from landbridge.deploy.hardware import choose_hardware
from landbridge.deploy.hardware.servos import Servos
from landbridge.errors import InputError
from landbridge.hardware_spec import DynamixelHardware
from landbridge.robot import Robot

from .arm import ARM, HOME, SETTINGS, connect, until
from .rig import FURUTA, Emulated

pytestmark = pytest.mark.filterwarnings("ignore:feetech")


def test_servos_that_are_not_the_robots(kind: str, arm_bus: Emulated) -> None:
    arm_bus.order("model elbow 350")
    with pytest.raises(InputError, match=r"servo 3 \(elbow\) has model number 350; known to the"):
        connect(kind, arm_bus)
    arm_bus.order("clear")
    for order, said in {
        "mode elbow 1": "has operating_mode 1, not",
        "homing elbow -100": "has homing_offset -100, not 0",
        "narrow elbow 3000": "takes goals of 0 to 3000 ticks, and position_limit .* asks for 1005 to 3091",
    }.items():
        arm_bus.order(order)
        with pytest.raises(InputError, match=rf"servo 3 \(elbow\) {said}.*servo setup .* --id 3"):
            connect(kind, arm_bus)
        arm_bus.order("clear")
    arm_bus.order("switches_off elbow 65")
    with pytest.raises(InputError, match=r"max_temperature_c: 65: servo 3 \(elbow\) switches off at 65 deg C"):
        connect(kind, arm_bus)
    arm_bus.order("clear")
    with pytest.raises(InputError, match=r"no answer at 1000000 baud from elbow \(9\)\. .*servo scan"):
        connect(kind, arm_bus, ids={**{n: i for i, n in enumerate(ARM.spec.joint_names, 1)}, "elbow": 9})
    with pytest.raises(InputError, match="no answer at 57600 baud from shoulder_pan"):
        connect(kind, arm_bus, baud=57_600)
    other = next(name for name in SETTINGS if name != kind)
    with pytest.raises(InputError, match="no answer at 1000000 baud"):
        connect(other, arm_bus)
    assert not any(arm_bus.order("status")["torque"])
    connect(kind, arm_bus).close()


def test_a_joint_that_is_held_far_outside_its_limits_is_not_driven_into_them(kind: str, arm_bus: Emulated) -> None:
    """Left by another program, or by this one under another robot.yaml: nobody has armed it."""
    before = connect(kind, arm_bus)
    until(before, lambda: bool(before.torque), HOME)
    before.close()
    elbow = ARM.spec.joint_names.index("elbow")
    narrow = ARM.spec.joints[elbow].model_copy(update={"position_limit": (-3.0, HOME[elbow] - 0.2)})
    joints = tuple(narrow if joint.name == "elbow" else joint for joint in ARM.spec.joints)
    robot = Robot(ARM.spec.model_copy(update={"joints": joints}), ARM.folder)
    stood = arm_bus.order("status")
    with pytest.raises(InputError, match=r"elbow stands at .* rad, outside .*, with torque on\. support the robot"):
        Servos(robot, SETTINGS[kind](port=arm_bus.port))
    assert arm_bus.order("status")["torque"] == stood["torque"]


@pytest.mark.real_servos
def test_a_second_program_finds_the_port_taken(servos: Servos, kind: str, arm_bus: Emulated) -> None:
    with pytest.raises(InputError, match="another program uses this port"):
        connect(kind, arm_bus)


def test_a_port_is_asked_for_by_name() -> None:
    with pytest.raises(InputError, match=r"set it in robot\.yaml or with --port"):
        Servos(ARM, DynamixelHardware())
    assert choose_hardware(ARM.spec, "dynamixel", "/dev/x") == DynamixelHardware(port="/dev/x")


def test_robots_that_servos_cannot_be() -> None:
    def changed(name: str, **changes: object) -> Robot:
        joints = [j.model_copy(update=changes) if j.name == name else j for j in ARM.spec.joints]
        return Robot(ARM.spec.model_copy(update={"joints": tuple(joints)}), ARM.folder)

    with pytest.raises(InputError, match="is effort-commanded"):
        Servos(FURUTA, DynamixelHardware())
    with pytest.raises(InputError, match="not within one turn of its encoder"):
        Servos(changed("elbow", position_limit=(-4.0, 1.0)), DynamixelHardware())
    with pytest.raises(InputError, match="less than two control periods"):
        Servos(ARM, DynamixelHardware(watchdog_ms=39))
    with pytest.raises(InputError, match=r"hardware\.ids names \['elbow'\]"):
        Servos(ARM, DynamixelHardware(ids={"elbow": 1}))
    with pytest.raises(ValueError, match="two joints share a bus id"):
        DynamixelHardware(ids={"elbow": 1, "gripper": 1})


def test_a_bus_where_nobody_answers() -> None:
    ends = os.openpty()
    with pytest.raises(InputError, match="no answer at 1000000 baud from shoulder_pan"):
        Servos(ARM, DynamixelHardware(port=os.ttyname(ends[1])))
    for end in ends:
        os.close(end)
