"""A designed excitation: its series by hand, its limits, its information, and who may record it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from landbridge.calibration import design as design_module
from landbridge.calibration import excite as excite_module
from landbridge.calibration.design import Design
from landbridge.calibration.excite import _within_limits, excite, preview_on
from landbridge.episode import Episode
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import Robot, load_robot
from landbridge.simulation import excitation as excitation_module
from landbridge.simulation.behaviour import load_behaviours
from landbridge.simulation.excitation import EDGE, Following, behaviour_of, read_excitation
from landbridge.simulation.parameters import free_parameters, parameters
from landbridge.simulation.scenario import Scenario

ROBOT = load_robot("furuta")
KNOWN = ("link_mass_scale.arm_link",)
LIMIT = 2.4  # rad, of the arm, either way


def following(centre: float = 0.1, sine: float = 0.5, cosine: float = 0.0) -> Following:
    """One row at 1 Hz."""
    return Following(ROBOT, (1.0,), np.array([centre]), np.full((1, 1, 1), sine), np.full((1, 1, 1), cosine))


def seen(position: float, velocity: float = 0.0) -> np.ndarray:
    observer = Observer(ROBOT.spec)
    return observer(np.array([[position, np.pi]]), np.array([[velocity, 0.0]]), observer.initial_history(1))


def test_the_series_by_hand() -> None:
    position, velocity = following().reference(1.25)  # a quarter of the second turn: sin = 1, cos = 0
    assert position == pytest.approx(0.6) and velocity == pytest.approx(0.0, abs=1e-9)
    position, velocity = following(cosine=0.2).reference(1.0)
    assert position == pytest.approx(0.3) and velocity == pytest.approx(np.pi)
    position, velocity = following().reference(0.0)  # from standstill in the middle
    assert position == pytest.approx(0.1) and velocity == pytest.approx(0.0)


def test_it_pulls_to_the_series_and_back_from_the_edge() -> None:
    assert following()(seen(0.0)) == pytest.approx(0.25, abs=1e-6)  # 0.1 rad behind; 0.4 rad is the whole action
    assert following()(seen(0.0, velocity=-1.0)) == pytest.approx(0.5, abs=1e-6)  # and 0.1 s of 1 rad/s more
    assert following(centre=2.0)(seen(EDGE * LIMIT + 0.4)) == -1.0
    assert following(centre=2.0)(seen(1.9, velocity=4.0)) == -1.0
    assert following(centre=-2.0)(seen(-2.35)) == 1.0


def design() -> Design:
    return Design(ROBOT, free_parameters(ROBOT, KNOWN), (0.5, 2.0), 0.7, seed=0)


def test_no_series_is_larger_than_its_share_of_the_limits() -> None:
    rng, made = np.random.default_rng(0), design()
    for size in (0.01, 1.0, 100.0):
        series = made.scaled(size * rng.standard_normal((2, 1, 2)))
        policy = Following(ROBOT, (0.5, 2.0), np.zeros(1), series[None, 0], series[None, 1])
        positions, velocities = zip(*(policy.reference(0.02 * tick) for tick in range(301)), strict=True)
        assert np.abs(positions).max() <= 0.7 * LIMIT + 1e-9
        assert np.abs(velocities).max() <= 0.7 * 30 + 1e-9


def test_targets_of_servos_move_no_faster_than_the_guard_lets_them() -> None:
    robot = load_robot("arm")
    series = Design(robot, [], (0.5, 2.0), 0.7, seed=0).scaled(
        100 * np.random.default_rng(0).standard_normal((2, 6, 2))
    )
    policy = Following(robot, (0.5, 2.0), np.zeros(6), series[None, 0], series[None, 1])
    velocities = [policy.reference(0.02 * tick)[1] for tick in range(301)]
    assert np.abs(velocities).max() == pytest.approx(0.7 * 5, rel=0.01)  # rate_limit; the velocity limit is 8 rad/s


def test_a_larger_motion_tells_more() -> None:
    series = np.array([[[0.6, 0.2]], [[0.0, 0.1]]])
    small, large = np.linalg.slogdet(design().of_series(np.stack([0.1 * series, series]), 1, 0))[1]
    assert large > small + 10


def test_the_velocity_of_an_excitation_is_that_of_its_position_also_while_it_fades_in() -> None:
    rng = np.random.default_rng(0)
    sine, cosine = rng.normal(size=(2, 3, 1, 2))
    following = Following(ROBOT, (0.5, 1.3), np.zeros(1), sine, cosine)
    for time in (0.1, 0.3, 0.49, 0.51, 2.0):
        before, after = (following.reference(time + step)[0] for step in (-1e-5, 1e-5))
        assert following.reference(time)[1] == pytest.approx((after - before) / 2e-5, abs=1e-3)


def test_the_search_climbs(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the peak of an information by hand, at a quarter of a radian in every term."""

    def peaked(_: Design, series: np.ndarray, *rest: int) -> np.ndarray:
        return np.exp(-np.square(series - 0.25).sum((1, 2, 3)))[:, None, None] * np.eye(1)

    monkeypatch.setattr(Design, "of_series", peaked)
    made = Design(ROBOT, parameters(ROBOT)[:1], (0.5, 1.0), 10.0, seed=0)
    first, last = (np.square(made.search(generations) - 0.25).sum() for generations in (1, 15))
    assert last < first / 10


@pytest.fixture(scope="module")
def designed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    path = tmp_path_factory.mktemp("design") / "excitation.yaml"
    with pytest.MonkeyPatch.context() as patch:
        for module, brief in ((excite_module, ("FREQUENCIES", 2)), (design_module, ("STARTS", 1))):
            patch.setattr(module, *brief)
        patch.setattr(excite_module, "PREVIEWED", 1)
        patch.setattr(design_module, "JUDGED", 1)
        return path, excite(path, known=KNOWN, reach=0.5, band_hz=(0.3, 1.0), generations=1)


def test_a_design_keeps_the_limits_and_says_what_to_expect(designed: tuple[Path, dict[str, object]]) -> None:
    path, figures = designed
    found = read_excitation(path, ROBOT)
    assert found.robot_hash == ROBOT.spec.digest()
    assert [preview.scenario for preview in found.previews] == ["none"]
    assert 0 < found.previews[0].position < 1 and 0 < found.previews[0].velocity < 1
    assert set(found.expected_sd) == {p.name for p in free_parameters(ROBOT, KNOWN)}
    assert all(0 < sd <= 1 for sd in found.expected_sd.values())  # no more than beforehand
    assert figures["excitation"] == str(path)
    policy = behaviour_of(ROBOT, found)(1, np.random.default_rng(0))
    assert policy(seen(0.0)).shape == (1, 1)


def test_another_robots_design_and_a_missing_one_are_refused(designed: tuple[Path, dict[str, object]]) -> None:
    path, _ = designed
    other = Robot(ROBOT.spec.model_copy(update={"control_rate_hz": 100.0}), ROBOT.folder)
    with pytest.raises(InputError, match="was designed for another 'furuta'"):
        read_excitation(path, other)
    with pytest.raises(InputError, match="make one with `landbridge calibrate excite`"):
        read_excitation(path.with_name("none.yaml"), ROBOT)


def test_a_motion_that_leaves_the_limits_is_made_smaller_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made, series, rungs = design(), np.full((2, 1, 2), 1.0), {"none": Scenario()}
    monkeypatch.setattr(excite_module, "PREVIEWED", 1)
    monkeypatch.setattr(excitation_module, "EDGE", 100.0)  # nothing drives the arm back
    with pytest.raises(InputError, match=r"preview on none: the twin comes to 1\.\d+ .* lower --reach"):
        _within_limits(ROBOT, made, 4 * series, rungs, 0)
    monkeypatch.setattr(excite_module, "SMALLER", (4.0, 0.1))
    kept, previews = _within_limits(ROBOT, made, series, rungs, 0)
    np.testing.assert_allclose(kept, 0.1 * series)
    assert previews[0].kept


def test_a_motion_that_the_drives_do_not_follow_is_outside_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A servo lags its target by damping over stiffness times its speed; the guard makes a fault of too much."""
    arm = load_robot("arm")
    safety = arm.spec.safety.model_copy(update={"max_tracking_error": 0.05})
    strict = Robot(arm.spec.model_copy(update={"safety": safety}), arm.folder)
    monkeypatch.setattr(excite_module, "PREVIEWED", 1)
    start = load_behaviours(arm)["excite"]
    for robot, kept in ((arm, True), (strict, False)):
        preview = preview_on(robot, lambda batch: start(batch, np.random.default_rng(0)), "none", Scenario(), 0)
        assert preview.kept is kept
        assert preview.tracking * robot.spec.safety.max_tracking_error == pytest.approx(0.168, abs=0.02)


@pytest.mark.parametrize("seen", [5.0, np.nan])  # 50 rad/s, the observation's clip: below the pendulum's limit of 60
def test_what_the_observation_cannot_show_is_outside_the_limits(seen: float, monkeypatch: pytest.MonkeyPatch) -> None:
    run, at = excite_module.run_episodes, Observer(ROBOT.spec).names.index("joint_vel.pendulum")

    def spoiled(*arguments: object) -> list[Episode]:
        episodes = run(*arguments)  # type: ignore[arg-type]
        episodes[0].obs[3, at] = seen
        return episodes

    monkeypatch.setattr(excite_module, "PREVIEWED", 1)
    series = np.full((2, 1, 2), 0.01)
    assert preview_on(ROBOT, partial(design().following, series), "none", Scenario(), 0).kept
    monkeypatch.setattr(excite_module, "run_episodes", spoiled)
    preview = preview_on(ROBOT, partial(design().following, series), "none", Scenario(), 0)
    assert preview.velocity == np.inf and not preview.kept


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"reach": 1.0}, "--reach: 1. give a share above 0 and below 1"),
        ({"band_hz": (0.3, 25.0)}, "--band-hz: 0.3 25. give two rising frequencies between 0 and 25"),
        ({"preview": ("storm",)}, "no scenario 'storm'"),
        ({"preview": ()}, "--preview: names no rung"),
        ({"known": ("wind",)}, "are no parameters"),
        ({"robot": "quadruped"}, "has a floating base"),
    ],
)
def test_mistakes_are_named_before_the_search(arguments: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said.split(".")[0]):
        excite(tmp_path / "excitation.yaml", **arguments)  # type: ignore[arg-type]


def test_a_design_is_not_written_over_and_not_followed_once_changed(
    designed: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="already exists"):
        excite(designed[0])
    plain = yaml.safe_load(designed[0].read_text())
    plain["joints"]["arm"]["sine"].append(3.0)
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(plain))
    with pytest.raises(InputError, match="more or fewer terms than there are frequencies"):
        read_excitation(changed, ROBOT)
    changed.write_text(yaml.safe_dump(plain | {"joints": {}}))
    with pytest.raises(InputError, match=r"its joints are not \['arm'\]"):
        read_excitation(changed, ROBOT)
