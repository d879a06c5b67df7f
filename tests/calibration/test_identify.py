"""Hidden parameters of a twin are found, and the file of them gives the simulator, the MJCF and the page."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import yaml

from landbridge.calibration.identify import _require_excitation, calibration, figures
from landbridge.calibration.report import report
from landbridge.calibration.windows import cut
from landbridge.cli import main
from landbridge.episode import Episode, open_dataset
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import Robot, load_robot
from landbridge.simulation.behaviour import load_behaviours
from landbridge.simulation.calibrated import Calibration, TermChoice, read_calibration
from landbridge.simulation.collect import collect
from landbridge.simulation.mjcf import to_mjcf
from landbridge.simulation.parameters import free_parameters, to_scenario, to_values
from landbridge.simulation.plant import make_plant
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import Scenario
from landbridge.task import load_task

ROBOT = load_robot("furuta")
HORIZON = 15
WEIGHED = "link_mass_scale.arm_link"
NOISE = {"joint_pos_noise": 0.0006, "joint_vel_noise": 0.02}
HIDDEN = to_values(ROBOT, Scenario()) | {
    "actuator_gain": 0.9,
    "link_mass_scale.pendulum_link": 1.1,
    "link_length_scale.pendulum_link": 1.05,
    "friction.arm.frictionloss": 0.002,
    "friction.arm.excess": 0.0008,
    "friction.arm.viscous": 0.001,
    "latency_ms": 26.0,
}


def rollouts(
    values: dict[str, float],
    count: int = 3,
    behaviour: str = "excite",
    share: float = 1.0,
    noise: dict[str, float] = NOISE,
) -> list[Episode]:
    """Noisy episodes of a Bullet furuta with hidden parameters; `share` scales the actions."""
    rng = np.random.default_rng(1)
    scenario = to_scenario(ROBOT, values, Scenario(**noise))  # type: ignore[arg-type]
    plants = [make_plant(ROBOT, "bullet", scenario, each) for each in rng.spawn(count)]
    policy = load_behaviours(ROBOT)[behaviour](count, rng)
    try:
        return lockstep(plants, load_task(ROBOT), lambda obs: share * policy(obs), rng)
    finally:
        for plant in plants:
            plant.close()


def calibrated(episodes: Sequence[Episode], known: tuple[str, ...] = (WEIGHED,), horizon: int = HORIZON) -> Calibration:
    windows = cut(episodes, ROBOT, horizon, "twin")
    rng = np.random.default_rng(0)
    return calibration(ROBOT, free_parameters(ROBOT, known), windows, rng, "twin", "", "stribeck")


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    return rollouts(HIDDEN, count=4)


@pytest.fixture(scope="module")
def found(episodes: list[Episode]) -> Calibration:
    return calibrated(episodes)


@pytest.fixture(scope="module")
def written(found: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "calibration.yaml"
    found.write(path)
    return path


def test_hidden_parameters_of_the_bullet_twin_are_found(found: Calibration) -> None:
    estimates = found.estimates
    assert WEIGHED not in estimates and found.known == (WEIGHED,)
    inside = [estimate.low <= HIDDEN[name] <= estimate.high for name, estimate in estimates.items()]
    assert np.mean(inside) >= 0.8
    for name in ("actuator_gain", "link_mass_scale.pendulum_link", "link_length_scale.pendulum_link"):
        assert estimates[name].identifiable
        assert estimates[name].value == pytest.approx(HIDDEN[name], rel=0.01)
    assert estimates["friction.arm.frictionloss"].value == pytest.approx(0.002, rel=0.1)
    assert estimates["friction.arm.viscous"].value == pytest.approx(0.001, rel=0.05)
    assert estimates["latency_ms"].value == pytest.approx(26.0, abs=0.2)
    assert found.joint_pos_noise == pytest.approx(0.0006, rel=0.2)
    assert found.joint_vel_noise == pytest.approx(0.02, rel=0.2)


def test_held_out_prediction_is_better_by_far(found: Calibration) -> None:
    for joint in ("arm", "pendulum"):
        assert found.calibrated_error.joint_pos[joint] < 0.2 * found.nominal_error.joint_pos[joint]


def test_a_fit_that_cannot_be_right_is_doubted_wherever_it_is_used(
    episodes: list[Episode], found: Calibration, recorded: Path, tmp_path: Path
) -> None:
    """Its latency of 26 ms is said to be known, as none."""
    assert found.doubts == ()
    wrong = calibrated(episodes[:2], known=(WEIGHED, "latency_ms"))
    (doubt,) = wrong.doubts
    assert "is no noise" in doubt
    assert figures(wrong)["doubts"] == [doubt]
    wrong.write(file := tmp_path / "calibration.yaml")
    with pytest.warns(UserWarning, match="calibration.yaml: doubtful: what the fit leaves is no noise"):
        assert read_calibration(file, ROBOT) == wrong
    with pytest.warns(UserWarning, match="doubtful"):
        report(recorded, file, tmp_path / "page.html")
    assert "<p class=alarm>Doubtful: what the fit leaves is no noise" in (tmp_path / "page.html").read_text()


def test_a_twin_that_is_nominal_is_found_nominal_though_latency_and_excess_begin_at_their_bounds() -> None:
    nominal = to_values(ROBOT, Scenario())
    estimates = calibrated(rollouts(nominal, count=2)).estimates
    assert estimates["latency_ms"].value == pytest.approx(0.0, abs=0.1)
    assert estimates["latency_ms"].low == 0.0
    assert estimates["actuator_gain"].value == pytest.approx(1.0, rel=0.01)
    assert estimates["friction.arm.viscous"].value == pytest.approx(nominal["friction.arm.viscous"], rel=0.05)


@pytest.mark.parametrize("values", [to_values(ROBOT, Scenario()), HIDDEN])
def test_what_rounding_leaves_of_a_twin_without_noise_is_no_reason_for_doubt(values: dict[str, float]) -> None:
    found = calibrated(rollouts(values, count=2, noise={}))
    assert max(found.calibrated_error.joint_pos.values()) < 1e-5  # rad
    assert (found.doubts, found.inflation) == ((), 1.0)


def test_without_a_weighed_link_torques_and_masses_are_named_undetermined(episodes: list[Episode]) -> None:
    found = calibrated(episodes[:2], known=())
    named = [set(direction) for direction in found.undetermined]
    assert {"actuator_gain", WEIGHED, "link_mass_scale.pendulum_link"} in named
    assert not found.estimates["actuator_gain"].identifiable
    assert found.estimates["link_length_scale.pendulum_link"].identifiable
    ratio = found.estimates["actuator_gain"].value / found.estimates[WEIGHED].value
    assert ratio == pytest.approx(0.9, rel=0.01)  # what can be known: the true one over the true mass
    assert found.calibrated_error.joint_pos["arm"] < 0.2 * found.nominal_error.joint_pos["arm"]


def test_the_file_comes_back_and_gives_the_simulator(found: Calibration, written: Path) -> None:
    read = read_calibration(written, ROBOT)
    assert read == found
    scenario = read.scenario(ROBOT)
    assert scenario.actuator_gain == found.estimates["actuator_gain"].value
    assert scenario.joint_vel_noise == found.joint_vel_noise
    Scenario.model_validate(scenario.model_dump())


def test_the_mjcf_has_the_identified_numbers(found: Calibration) -> None:
    model = mujoco.MjModel.from_xml_string(to_mjcf(ROBOT, found.scenario(ROBOT)))
    value = {name: estimate.value for name, estimate in found.estimates.items()}
    assert model.actuator("arm").gainprm[0] == pytest.approx(value["actuator_gain"], rel=1e-5)
    assert model.body("pendulum_link").mass[0] == pytest.approx(0.04 * value["link_mass_scale.pendulum_link"], rel=1e-5)
    assert model.dof_frictionloss[0] == pytest.approx(value["friction.arm.frictionloss"], rel=1e-5)
    assert model.dof_damping[0] == pytest.approx(value["friction.arm.viscous"], rel=1e-5)


def test_draws_spread_as_the_intervals_say(found: Calibration) -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([to_values(ROBOT, found.draw(ROBOT, rng))["friction.arm.viscous"] for _ in range(400)])
    estimate = found.estimates["friction.arm.viscous"]
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert high - low == pytest.approx(estimate.high - estimate.low, rel=0.25)
    assert drawn.mean() == pytest.approx(estimate.value, rel=0.01)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text.replace("robot_hash: ", "robot_hash: 0"), "calibrates another 'furuta'"),
        (lambda text: text.replace("urdf_hash: ", "urdf_hash: 0"), "calibrates furuta with another furuta.urdf"),
        (
            lambda text: re.sub(r"(actuator_gain:\n    value:) .*", r"\1 -1.0", text),
            "actuator_gain is -1, outside 0.25 .. 4",
        ),
        (
            lambda text: re.sub(r"(latency_ms:\n    value:) .*", r"\1 5e3", text),
            "latency_ms is 5000, outside 0 .. 100 ms",
        ),
        (lambda text: re.sub(r"(covariance:\n- - ).*", r"\1-5.0", text), "not symmetric, or has a negative spread"),
        (lambda text: text.replace("  latency_ms:\n", "  wind:\n"), "not of this robot's parameters"),
        (lambda text: text.replace("schema_version: 2", "schema_version: 3"), "schema_version"),
        (
            lambda text: re.sub(
                r"(?s)schema_version: 2(.*)friction:.*?known:", r"schema_version: 1\1friction: 3\nknown:", text
            ),
            "schema",
        ),
        (lambda text: text + "wind: 3\n", "wind"),
        (
            lambda text: text.replace("friction:\n  arm:\n", "friction:\n  leg:\n"),
            "friction names unknown joints .'leg'.",
        ),
    ],
)
def test_a_file_that_is_not_this_robots_is_refused(written: Path, tmp_path: Path, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "calibration.yaml"
    path.write_text(spoil(written.read_text()))
    with pytest.raises(InputError, match=message):
        read_calibration(path, ROBOT)
    with pytest.raises(InputError, match="no such file"):
        read_calibration(tmp_path / "none.yaml", ROBOT)


def test_a_file_of_version_1_which_knew_no_friction_by_load_is_read(tmp_path: Path, calibration: Any) -> None:
    now = calibration(actuator_gain=0.9).model_dump(mode="json")
    choice = {"model": "coulomb", "coulomb_error": 0.9, "stribeck_error": 0.8, "gain": 2.0, "gain_se": 1.0}
    old = now | {"schema_version": 1, "friction": {"arm": choice | {"model": "stribeck"}, "pendulum": choice}}
    (path := tmp_path / "calibration.yaml").write_text(yaml.safe_dump(old))
    found = read_calibration(path, ROBOT)
    assert found.absent == [("pendulum", "stribeck")]
    reason = TermChoice(chosen=True, error_without=0.9, error_with=0.8, gain=2.0, gain_se=1.0)
    assert found.friction["arm"] == {"stribeck": reason}
    found.write(path)
    assert read_calibration(path, ROBOT) == found


def test_source_data_are_collected_in_the_calibrated_simulator(written: Path, tmp_path: Path) -> None:
    data = {}
    for name, extra in (("plain", {}), ("again", {}), ("drawn", {"randomise": True})):
        collect(tmp_path / name, steps=150, batch=2, mix={"random": 1.0}, calibration=written, **extra)  # type: ignore[arg-type]
        dataset = open_dataset(tmp_path / name)
        assert dataset.metadata.scenario == ("calibrated-randomised" if extra else "calibrated")
        assert dataset.metadata.calibration == hashlib.sha256(written.read_bytes()).hexdigest()
        assert dataset.metadata.latency_ms == read_calibration(written, ROBOT).estimates["latency_ms"].value
        data[name] = np.concatenate([episode.obs for episode in dataset])
    np.testing.assert_array_equal(data["plain"], data["again"])
    assert not np.array_equal(data["plain"], data["drawn"])
    for rung in ("mild", "none"):
        with pytest.raises(InputError, match=f"is {rung!r} beside a calibration. give one of the two"):
            collect(tmp_path / "both", scenario=rung, calibration=written)
    with pytest.raises(InputError, match="add --scenario RUNG or --calibration FILE"):
        collect(tmp_path / "neither", randomise=True)
    assert not (tmp_path / "both").exists()


def test_policies_are_scored_in_the_calibrated_simulator(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "evaluate --policies behaviour:tuned --episodes 1 --engine mujoco --json --calibration"
    assert main([*command.split(), str(written)]) == 0
    assert '"scenario": "calibrated"' in capsys.readouterr().out


def test_the_page_shows_all_and_needs_nothing_else(written: Path, found: Calibration, recorded: Path) -> None:
    out = recorded.parent / "page.html"
    figures = report(recorded, written, out)
    page = out.read_text()
    assert figures["windows"] > 20
    assert all(name in page for name in found.estimates)
    assert page.count("<svg") == 3 and "calibrated [rad/s]" in page
    assert page.count(">latency_ms<") == 2  # nominally zero, and in the chart as in the table
    assert "src=" not in page.replace("src='data:", "") and "<link" not in page and "<script" not in page
    assert "friction.pendulum.stribeck_velocity" in page and f"Held at nominal by request: {WEIGHED}" in page


def test_windows_at_the_clip_of_a_position_or_behind_a_lost_tick_are_left_out() -> None:
    """10 s at 50 Hz in windows of 10 periods, from period 5 on."""
    terms = [
        term.model_copy(update={"clip": 1.0}) if term.kind == "joint_pos" else term for term in ROBOT.spec.observation
    ]
    robot = Robot(ROBOT.spec.model_copy(update={"observation": tuple(terms)}), ROBOT.folder)
    (episode,) = rollouts(HIDDEN, count=1)
    at = Observer(robot.spec).names.index("joint_pos.arm")
    obs = np.array(episode.obs)
    obs[:, at] = np.clip(obs[:, at], -0.9, 0.9)
    whole = len(cut([replace(episode, obs=obs)], robot, 10, "whole"))
    obs[37, at] = 1.0  # inside the window from 35 on
    assert len(cut([replace(episode, obs=obs)], robot, 10, "clipped")) == whole - 1
    stamps = episode.stamps + 0.02 * (np.arange(len(episode.stamps)) > 33)  # the period before that window
    assert len(cut([replace(episode, stamps=stamps)], ROBOT, 10, "lost")) == whole - 2


def test_a_joint_that_hardly_moves_is_named() -> None:
    faint = rollouts(HIDDEN | {"friction.arm.frictionloss": 0.03}, count=1, behaviour="random", share=0.3)
    with pytest.raises(InputError, match="joint arm moves too little to tell its friction"):
        calibrated(faint, horizon=8)


def test_that_a_model_does_not_fit_is_no_fault_of_the_recording(
    episodes: list[Episode], found: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors that are no noise widen the intervals beyond telling: that is doubted, named, and not refused."""
    monkeypatch.setattr("landbridge.calibration.identify.inflation", lambda *_: 1e3)
    doubted = calibrated(episodes)
    assert any("what the fit leaves is no noise (inflation 1000.00" in doubt for doubt in doubted.doubts)
    assert any("friction.arm.frictionloss" in direction for direction in doubted.undetermined)
    assert not any("friction.arm.frictionloss" in direction for direction in found.undetermined)
    for name, estimate in found.estimates.items():
        assert doubted.estimates[name].value == estimate.value


@pytest.mark.parametrize(("spread", "told"), [(0.004, True), (0.012, False)])
def test_friction_of_a_geared_joint_is_told_by_its_value_and_not_by_its_wide_prior(spread: float, told: bool) -> None:
    """The roll of `arm` has 0.01 N m, and a prior of 0.05 * 0.6 N m: half of that is more than all its friction."""
    arm = load_robot("arm")
    (dry,) = (p for p in free_parameters(arm, ()) if p.name == "friction.wrist_roll.frictionloss")
    assert (dry.nominal, dry.sd) == (0.01, pytest.approx(0.03))
    samples = np.random.default_rng(0).normal(0, spread / dry.sd, (2000, 1))
    if told:
        _require_excitation(arm, [dry], np.zeros(1), samples, "twin")
    else:
        with pytest.raises(InputError, match="joint wrist_roll moves too little to tell its friction"):
            _require_excitation(arm, [dry], np.zeros(1), samples, "twin")


@pytest.mark.parametrize(("correlation", "told"), [(-0.99, True), (0.0, False)])
def test_friction_of_which_one_direction_is_told_is_no_reason_to_refuse(correlation: float, told: bool) -> None:
    """Dry and viscous friction of a joint that turns at one speed: their sum is known, neither of them is."""
    free = [p for p in free_parameters(ROBOT, ()) if p.name in ("friction.arm.frictionloss", "friction.arm.viscous")]
    covariance = [[1.0, correlation], [correlation, 1.0]]
    samples = np.random.default_rng(0).multivariate_normal(np.zeros(2), covariance, 2000)
    if told:
        _require_excitation(ROBOT, free, np.zeros(2), samples, "twin")
    else:
        with pytest.raises(InputError, match="joint arm moves too little to tell its friction"):
            _require_excitation(ROBOT, free, np.zeros(2), samples, "twin")
