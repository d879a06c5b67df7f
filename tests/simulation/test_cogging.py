"""Torque by where a joint stands: by hand in both engines, drawn, refused, and named where a file cannot hold it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from landbridge.errors import InputError
from landbridge.joint import Cogging
from landbridge.robot import load_robot
from landbridge.simulation.mjcf import to_mjcf
from landbridge.simulation.plant import Engine, make_plant
from landbridge.simulation.randomised import draw_between
from landbridge.simulation.scenario import Scenario, load_scenario

FURUTA = load_robot("furuta")
HANGING = np.pi
ENGINES: list[Engine] = ["mujoco", "bullet"]


def test_the_law_by_hand() -> None:
    law = Cogging(amplitude=0.02, periods=7, phase=0.3)
    assert law.torque(0.0) == pytest.approx(0.02 * 0.29552020666)
    assert law.torque(0.1 + 2 * np.pi / 7) == pytest.approx(law.torque(0.1))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["furuta", "arm"])
def test_a_first_step_from_rest_has_the_speed_that_the_torque_gives(name: str, engine: Engine) -> None:
    robot = load_robot(name)
    joint, rest = robot.spec.joints[0].name, np.array([j.default_joint_pos for j in robot.spec.joints])
    law, still = Cogging(amplitude=0.02, periods=3, phase=1.0), np.zeros(len(rest))
    gained = []
    for scenario in (Scenario(), Scenario(cogging={joint: law})):
        plant = make_plant(robot, engine, scenario)
        inertia = plant.inertias([joint])[joint]
        plant.spec = robot.spec.model_copy(update={"decimation": 1})  # one physics step
        plant.reset(rest, still)
        plant.step([])
        gained.append(plant.state()[1][0])
        plant.close()
    assert gained[1] - gained[0] == pytest.approx(law.torque(rest[0]) * plant.physics_dt / inertia, rel=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_arm_that_is_let_go_comes_to_rest_where_the_magnets_hold_it(engine: Engine) -> None:
    """At the nearest of the angles with 3 q + 0.6 = pi, modulo 2 pi."""
    plant = make_plant(FURUTA, engine, Scenario(cogging={"arm": Cogging(amplitude=0.02, periods=3, phase=0.6)}))
    plant.reset(np.array([0.2, HANGING]), np.zeros(2))
    for _ in range(500):
        plant.step([])
    angle, speed = (values[0] for values in plant.state())
    assert abs(speed) < 0.01
    friction = FURUTA.spec.joint("arm").friction.frictionloss
    assert 3 * angle + 0.6 == pytest.approx(np.pi, abs=np.arcsin(friction / 0.02) + 0.01)
    plant.close()


def test_randomisation_draws_its_amplitude() -> None:
    drawn = [draw_between(FURUTA, "structural", rng).cogging for rng in np.random.default_rng(0).spawn(50)]
    whole = load_scenario(FURUTA, "structural").cogging["arm"]
    amplitudes = [law["arm"].amplitude / whole.amplitude for law in drawn]
    assert 0 < min(amplitudes) < 0.1 and 0.9 < max(amplitudes) < 1
    assert {law["arm"].model_copy(update={"amplitude": whole.amplitude}) for law in drawn} == {whole}


def test_a_joint_that_the_robot_has_not_is_refused(tmp_path: Path) -> None:
    robot = load_robot(shutil.copytree(FURUTA.folder, tmp_path / "furuta"))
    text = "schema_version: 1\nscenarios: {bad: {cogging: {leg: {amplitude: 0.01, periods: 7}}}}\n"
    (robot.folder / "scenarios.yaml").write_text(text)
    with pytest.raises(InputError, match=r"bad.cogging names unknown joints \['leg'\].*joints are arm, pendulum"):
        load_scenario(robot, "bad")


def test_the_mjcf_names_what_it_leaves_out() -> None:
    scenario = Scenario(cogging={"arm": Cogging(amplitude=0.01, periods=7)})
    assert "Not in here: cogging of arm, friction smoothed near rest" in to_mjcf(FURUTA, scenario)
