"""A gap between drive and joint: found in a twin, kept in the file, and in every simulator that follows from it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest

from landbridge.calibration.identify import identify
from landbridge.calibration.report import report
from landbridge.calibration.shooting import simulate
from landbridge.calibration.windows import Windows, lags
from landbridge.episode import open_dataset, write_dataset
from landbridge.errors import InputError
from landbridge.robot import Robot, load_robot
from landbridge.simulation.calibrated import read_calibration
from landbridge.simulation.collect import collect
from landbridge.simulation.parameters import parameters, to_scenario, to_values
from landbridge.simulation.plant import make_plant
from landbridge.simulation.scenario import Scenario
from landbridge.simulation.transmission import transmissions

HIDDEN = {
    "backlash.arm": 0.026,
    "rotor_inertia_scale.arm": 1.3,
    "actuator_gain": 0.9,
    "latency_ms": 20.0,
    "friction.arm.frictionloss": 0.0018,
}
NOMINAL = "{backlash: 0.0175, rotor_inertia: 0.0002, stiffness: 100, damping: 0.05}"  # rad, kg m^2, N m/rad, N m s/rad
KNOWN = (
    *(f"link_{kind}_scale.{link}_link" for kind in ("mass", "length") for link in ("arm", "pendulum")),
    *(f"friction.pendulum.{field}" for field in ("frictionloss", "excess", "stribeck_velocity", "viscous")),
)


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Robot:
    """The furuta with a gear in its robot.yaml, and a rung that is the hidden robot."""
    folder = Path(shutil.copytree(load_robot("furuta").folder, tmp_path_factory.mktemp("robot") / "geared"))
    file = folder / "robot.yaml"
    file.write_text(file.read_text().replace("  - name: arm\n", f"  - name: arm\n    transmission: {NOMINAL}\n"))
    robot = load_robot(folder)
    noise = Scenario(joint_pos_noise=0.0006, joint_vel_noise=0.02)
    rung = to_scenario(robot, HIDDEN, noise).model_dump_json()
    (folder / "scenarios.yaml").write_text(f"schema_version: 1\nscenarios: {{none: {{}}, hidden: {rung}}}\n")
    return robot


@pytest.fixture(scope="module")
def recorded(robot: Robot) -> Path:
    data = robot.folder.parent / "target"
    collect(data, str(robot.folder), 1200, "hidden", "bullet", {"excite": 1.0}, "target", batch=4)
    return data


@pytest.fixture(scope="module")
def file(robot: Robot, recorded: Path) -> Path:
    out = robot.folder.parent / "calibration.yaml"
    printed = identify(recorded, out, str(robot.folder), KNOWN, "coulomb")
    assert [row["value"] for row in printed["parameters"] if row["parameter"] == "backlash.arm"]
    return out


def test_only_a_joint_with_a_gear_has_a_gap_to_find(robot: Robot) -> None:
    names = [p.name for p in parameters(robot)]
    assert [name for name in names if name.startswith("backlash")] == ["backlash.arm"]
    for plain in ("furuta", "arm", "quadruped"):
        assert [p.name for p in parameters(load_robot(plain)) if p.name.startswith("backlash")] == []
    values = to_values(robot, to_scenario(robot, HIDDEN))
    assert {name: values[name] for name in HIDDEN} == HIDDEN
    gear = transmissions(robot.spec, to_scenario(robot, HIDDEN))["arm"]
    assert gear.model_dump() == {"backlash": 0.026, "rotor_inertia": 1.3 * 0.0002, "stiffness": 100, "damping": 0.05}


def test_a_window_of_a_geared_robot_is_what_the_plant_does(robot: Robot) -> None:
    """Where its rotor starts is not measured; the motion before the window leads it there."""
    scenario = to_scenario(robot, HIDDEN)
    plant, before, rng = make_plant(robot, "mujoco", scenario), lags(robot), np.random.default_rng(0)
    plant.reset(np.array([0.1, 3.0]), np.zeros(2))
    commands = np.repeat(rng.uniform(-0.05, 0.05, (60, 1)), 2, axis=0)
    states = [np.concatenate(plant.measure())]
    for command in commands:
        plant.step([(0.0, command)])
        states.append(np.concatenate(plant.measure()))
    begins, every = range(before, 110, 8), np.array(states)
    windows = Windows(
        np.array([every[i : i + 9] for i in begins]),
        np.array([commands[i - before : i + 8] for i in begins]),
        np.zeros(len(begins), np.intp),
        np.array([every[i - before : i] for i in begins]),
        np.zeros((len(begins), before + 8)),
        np.zeros((len(begins), 9)),
    )

    def missed(scenario: Scenario, windows: Windows) -> float:
        return float(np.abs(simulate(robot, scenario, windows, windows.states[:, 0]) - windows.states)[..., 2].mean())

    hidden = missed(scenario, windows)
    assert hidden < 0.001  # rad/s of the arm
    assert hidden < 0.1 * missed(to_scenario(robot, HIDDEN | {"backlash.arm": 0.0}), windows)
    turned = windows.commands.copy()
    turned[:, : before - 2] *= -1  # none of these is still on its way when a window begins
    assert hidden < 0.5 * missed(scenario, replace(windows, commands=turned))


def test_a_hidden_gap_and_rotor_are_found(robot: Robot, file: Path) -> None:
    found = read_calibration(file, robot)
    for name, hidden in HIDDEN.items():
        assert found.estimates[name].low <= hidden <= found.estimates[name].high, name
    for name in ("backlash.arm", "rotor_inertia_scale.arm"):
        assert found.estimates[name].value == pytest.approx(HIDDEN[name], rel=0.05)
    assert found.calibrated_error.joint_pos["arm"] < 0.3 * found.nominal_error.joint_pos["arm"]
    found.write(file.parent / "again.yaml")
    assert read_calibration(file.parent / "again.yaml", robot) == found


def test_a_gear_that_the_physics_steps_do_not_bear_is_refused_before_anything_is_fitted(
    robot: Robot, recorded: Path, tmp_path: Path
) -> None:
    stiff = load_robot(shutil.copytree(robot.folder, tmp_path / "stiff"))
    file = stiff.folder / "robot.yaml"
    file.write_text(file.read_text().replace("stiffness: 100", "stiffness: 1000"))
    dataset, data = open_dataset(recorded), tmp_path / "target"
    digest = load_robot(stiff.folder).spec.digest()
    write_dataset(data, dataset, dataset.metadata.model_copy(update={"robot_hash": digest}))
    with pytest.raises(InputError, match=r"stiffness 1000 .* is too stiff"):
        identify(data, tmp_path / "calibration.yaml", str(stiff.folder))
    assert not (tmp_path / "calibration.yaml").exists()


def test_the_gap_is_in_every_simulator_of_the_calibration(robot: Robot, file: Path) -> None:
    found = read_calibration(file, robot)
    estimate = found.estimates["backlash.arm"]
    assert transmissions(robot.spec, found.scenario(robot))["arm"].backlash == estimate.value
    rng = np.random.default_rng(0)
    gaps = [transmissions(robot.spec, found.draw(robot, rng))["arm"].backlash for _ in range(400)]
    low, high = np.quantile(gaps, (0.025, 0.975))
    assert high - low == pytest.approx(estimate.high - estimate.low, rel=0.25)
    model = mujoco.MjModel.from_xml_path(str(file.parent / "furuta.calibrated.xml"))
    assert np.ptp(model.tendon_range[0]) == pytest.approx(estimate.value, rel=1e-5)
    folder = file.parent
    for name, drawn in (("plain", False), ("drawn", True)):
        collect(folder / name, str(robot.folder), 100, mix={"random": 1.0}, calibration=file, randomise=drawn, batch=1)
        assert len(list(open_dataset(folder / name))) > 0


def test_the_page_shows_the_gap(robot: Robot, recorded: Path, file: Path) -> None:
    page = file.parent / "page.html"
    report(recorded, file, page, str(robot.folder))
    assert page.read_text().count(">backlash.arm<") == 2  # in the chart and in the table
