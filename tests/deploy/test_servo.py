"""One emulated servo in virtual time: what a lasting load does to it, by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from landbridge.deploy.hardware.dynamixel import DYNAMIXEL
from landbridge.deploy.hardware.feetech import FEETECH
from landbridge.deploy.hardware.servo_joints import to_ticks
from landbridge.deploy.hil.servo import FULL_PWM, HEAT_S, IDLE_C, Servo
from landbridge.robot import load_robot

ELBOW = load_robot("arm").spec.joint("elbow")  # 2.5 N m, 6 N m/rad: the largest effort is 0.417 rad off the goal
HALF, FULL = 0.5 * ELBOW.effort_limit / ELBOW.stiffness, 1.1 * ELBOW.effort_limit / ELBOW.stiffness
ACCESS_ERROR = 7


@pytest.fixture(params=["dynamixel", "feetech"])
def servo(request: pytest.FixtureRequest) -> Iterator[Servo]:
    """Driven towards 0 rad."""
    family, model = {"dynamixel": (DYNAMIXEL, 1060), "feetech": (FEETECH, 777)}[request.param]
    made = Servo(family, ELBOW, 3, 1_000_000, model)
    write(made, "goal_position", to_ticks(ELBOW, 0.0), 0.0)
    write(made, "torque_enable", 1, 0.0)
    made.live(0.0, 0.0, 0.0)
    yield made
    assert made.get("model_number") == model


def write(servo: Servo, name: str, value: int, now: float) -> int:
    register = servo.family.table[name]
    return servo.write(register.address, register.encode(value), now)


def load(servo: Servo) -> float:
    return abs(servo.get("present_load")) / 1000


def lived(servo: Servo, position: float, seconds: float, start: float = 0.0) -> float:
    """Held at `position` [rad], off its goal, for so long; when that ends."""
    for tenth in range(1, round(10 * seconds) + 1):
        servo.live(position, 0.0, start + tenth / 10)
    return start + seconds


def test_it_warms_up_with_the_square_of_its_load(servo: Servo) -> None:
    lived(servo, HALF, 600.0)
    assert load(servo) == pytest.approx(0.5, abs=0.01)
    assert servo.celsius == pytest.approx(IDLE_C + 60 / 4 * (1 - math.exp(-600 / HEAT_S)), abs=0.5)  # 13 K
    assert servo.get("present_temperature") == round(servo.celsius)
    assert servo.torque and not servo.get("hardware_error")


def test_too_hot_it_switches_off(servo: Servo) -> None:
    servo.celsius = 70.6
    servo.live(0.0, 0.0, 0.1)
    assert servo.get("hardware_error") == 4
    assert not servo.torque


def test_no_more_effort_than_the_limit_that_is_set(servo: Servo) -> None:
    assert write(servo, "goal_pwm", FULL_PWM[servo.family.name] * 2 // 5, 0.0) == 0
    lived(servo, FULL, 0.1)
    assert load(servo) == pytest.approx(0.4, abs=0.002)
    pulled = ELBOW.stiffness * (servo.pull(FULL, 0.0) - FULL)
    assert pulled == pytest.approx(-0.4 * ELBOW.effort_limit, rel=0.01)
    servo.reboot(1.0)
    assert servo.get("goal_pwm") == FULL_PWM[servo.family.name]


def test_an_overload_is_borne_for_a_while(servo: Servo) -> None:
    lived(servo, FULL, 0.9)
    lived(servo, HALF, 0.1, 0.9)  # a moment of relief, and the count begins anew
    lived(servo, FULL, 0.9, 1.0)
    assert servo.get("hardware_error") == 0


@pytest.mark.parametrize("servo", ["dynamixel"], indirect=True)
def test_an_overloaded_dynamixel_has_no_torque_until_it_is_restarted(servo: Servo) -> None:
    now = lived(servo, FULL, 1.3)
    assert servo.get("hardware_error") == 32
    assert not servo.torque and servo.pull(FULL, 0.0) == FULL
    assert write(servo, "torque_enable", 1, now) == ACCESS_ERROR
    servo.reboot(now)
    assert not servo.listens(1_000_000, now + 0.1)
    assert write(servo, "torque_enable", 1, now + 0.5) == 0
    assert servo.torque


@pytest.mark.parametrize("servo", ["feetech"], indirect=True)
def test_an_overloaded_feetech_protects_itself_until_a_new_goal(servo: Servo) -> None:
    now = lived(servo, FULL, 2.3)
    assert servo.get("hardware_error") == 32
    assert servo.torque and load(servo) == pytest.approx(0.2, abs=0.001)
    now = lived(servo, FULL, 1.0, now)  # it does not recover by itself
    assert load(servo) == pytest.approx(0.2, abs=0.001)
    write(servo, "goal_position", to_ticks(ELBOW, FULL), now)
    servo.live(FULL, 0.0, now)
    assert servo.get("hardware_error") == 0 and load(servo) < 0.01
