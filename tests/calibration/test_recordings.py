"""Recordings that identification refuses, before anything is fitted or written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from landbridge.calibration.delay import delays
from landbridge.calibration.identify import identify
from landbridge.calibration.windows import _join_turns, cut, lags, open_rollouts
from landbridge.episode import Episode, open_dataset, write_dataset
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import Robot, load_robot
from landbridge.simulation.parameters import free_parameters

ROBOT = load_robot("furuta")


def spoiled(path: Path, out: Path, change) -> Path:  # type: ignore[no-untyped-def]
    """A copy of the dataset with each episode changed."""
    dataset = open_dataset(path)
    write_dataset(out, [change(episode) for episode in dataset], dataset.metadata)
    return out


def not_a_number(episode: Episode) -> Episode:
    obs = episode.obs.copy()
    obs[7, 4] = np.nan
    return replace(episode, obs=obs)


def idle(episode: Episode) -> Episode:
    return replace(episode, actions=np.zeros_like(episode.actions))


def frozen(episode: Episode) -> Episode:
    return replace(episode, obs=np.repeat(episode.obs[:1], len(episode.obs), axis=0))


def saturated(episode: Episode) -> Episode:
    obs = episode.obs.copy()
    obs[:, 0] = np.clip(obs[:, 0], -0.1, 0.1)  # joint_pos.arm
    return replace(episode, obs=obs)


def with_lost_ticks(episode: Episode) -> Episode:
    return replace(episode, stamps=episode.stamps * np.where(np.arange(len(episode.stamps)) % 2, 1.0, 1.5))


def cut_short(episode: Episode) -> Episode:
    return episode.cut(120)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (not_a_number, r"episode 0: observation joint_vel.pendulum of row 7 is nan"),
        (idle, r"the commands of joints \['arm'\] never vary"),
        (frozen, r"joints \['arm', 'pendulum'\] never move"),
        (saturated, r"joint arm reads the same position while it turns, in \d+% of the rows. its encoder is saturated"),
        (cut_short, r"has 16 usable windows. record at least 20"),
        (with_lost_ticks, r"no episode holds 30 steady control periods"),
    ],
)
def test_data_that_cannot_be_used_are_refused(recorded: Path, tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    path, out = spoiled(recorded, tmp_path / "spoiled", change), tmp_path / "calibration.yaml"
    with pytest.raises(InputError, match=message):
        identify(path, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"robot_hash": "0"}, r"was recorded on another 'furuta' \(0\) than 'furuta' \([0-9a-f]{12}\)"),
        ({"measured_rate_hz": 40.0}, "was recorded at 40 Hz, furuta runs at 50 Hz"),
        ({"measured_rate_hz": 51.0}, "was recorded at 51 Hz"),
        ({"domain": "source"}, "stands for the simulator"),
        ({"measured_rate_hz": float("nan")}, "was recorded at nan Hz"),
    ],
)
def test_rollouts_of_another_robot_or_rate_are_refused(
    recorded: Path, tmp_path: Path, update: dict[str, object], message: str
) -> None:
    dataset = open_dataset(recorded)
    path = tmp_path / "other"
    write_dataset(path, dataset, dataset.metadata.model_copy(update=update))
    with pytest.raises(InputError, match=message):
        open_rollouts(path, ROBOT)
    with pytest.raises(InputError, match=message):
        delays(path)


def test_nothing_is_fitted_for_a_file_that_cannot_be_written(recorded: Path, tmp_path: Path) -> None:
    for there in (tmp_path / "calibration.yaml", tmp_path / "furuta.calibrated.xml"):
        there.write_text("mine")
        with pytest.raises(InputError, match=rf"{there.name}: already exists"):
            identify(recorded, tmp_path / "calibration.yaml")
        assert there.read_text() == "mine"
        there.unlink()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        identify(recorded, tmp_path / "file" / "calibration.yaml")
    for horizon in (float("nan"), 0.0, 0.0001, float("inf")):
        with pytest.raises(InputError, match="--horizon"):
            identify(recorded, tmp_path / "calibration.yaml", horizon=horizon)
    with pytest.raises(InputError, match=r"--out: .*furuta\.calibrated\.xml is the name of the model"):
        identify(recorded, tmp_path / "furuta.calibrated.xml")
    assert [path.name for path in tmp_path.iterdir() if "calib" in path.name] == []


def test_data_of_another_robot_and_an_unknown_parameter_are_refused(recorded: Path) -> None:
    with pytest.raises(InputError, match=r"is of robot 'furuta', not 'quadruped'. add --robot furuta"):
        open_rollouts(recorded, load_robot("quadruped"))
    with pytest.raises(InputError, match=r"\['wind'\] are no parameters. name some of \['actuator_gain'"):
        free_parameters(ROBOT, ("wind",))


def test_a_command_is_late_by_what_its_measurement_and_its_write_were(recorded: Path) -> None:
    first, second, *_ = open_dataset(recorded)
    took, stamps, before = np.full(len(first), 0.001), first.stamps.copy(), lags(ROBOT)
    took[[0, 7, 9]] = 0.002, 0.004, np.nan  # of the last nobody took the time
    stamps[[2, before + 3]] += 0.005, -0.001
    windows = cut([replace(first, written=took, stamps=stamps)], ROBOT, 25, "it")
    assert len(windows) == (len(first) - before) // 25
    late, taken = np.zeros(before + 25), np.zeros(26)
    late[[0, 2, 7, before + 3]], taken[3] = (0.001, 0.005, 0.003, -0.001), -0.001
    np.testing.assert_allclose(windows.late[0], late, atol=1e-12)
    np.testing.assert_allclose(windows.taken[0], taken, atol=1e-12)
    untimed = replace(second, written=np.full(len(second), np.nan))  # as in datasets of before
    np.testing.assert_allclose(cut([untimed], ROBOT, 25, "it").late, 0.0, atol=1e-12)


def test_angles_have_no_wraps_whatever_the_limit_of_the_speed(recorded: Path) -> None:
    arm, pendulum = ROBOT.spec.joints
    faster = pendulum.model_copy(update={"velocity_limit": 160.0})  # more than half a turn in a control period
    robot = Robot(ROBOT.spec.model_copy(update={"joints": (arm, faster)}), ROBOT.folder)
    dataset = open_dataset(recorded)
    np.testing.assert_array_equal(cut(dataset, robot, 25, "it").states, cut(dataset, ROBOT, 25, "it").states)
    assert np.abs(np.diff(cut(dataset, robot, 25, "it").states[..., :2], axis=1)).max() < np.pi


def test_a_measurement_at_its_clip_is_in_no_window(recorded: Path) -> None:
    """0.7 is less in single precision, in which observations are kept, than in double precision."""
    terms = tuple(t.model_copy(update={"clip": 0.7}) if t.kind == "joint_vel" else t for t in ROBOT.spec.observation)
    robot = Robot(ROBOT.spec.model_copy(update={"observation": terms}), ROBOT.folder)
    speeds = [name.startswith("joint_vel") for name in Observer(robot.spec).names]
    first = next(iter(open_dataset(recorded)))
    obs = first.obs.copy()
    obs[:, speeds] = 0.0
    obs[40, speeds] = 0.7
    whole, cut_by_one = (cut([replace(first, obs=o)], robot, 5, "it") for o in (np.minimum(obs, 0.6), obs))
    assert len(cut_by_one) < len(whole)


def test_a_joint_whose_turn_is_not_seen_is_in_that_of_its_commands() -> None:
    """Commanded to 3.1 rad and more, it would seem to be a whole turn behind once its sine changes sign."""
    arm, pendulum = ROBOT.spec.joints
    driven = pendulum.model_copy(update={"actuated": True})
    action = ROBOT.spec.action.model_copy(update={"kind": "position"})
    spec = ROBOT.spec.model_copy(update={"joints": (arm, driven), "action": action})
    for seen, commanded, there in ((-3.1, 3.1, 2 * np.pi - 3.1), (3.1, 3.2, 3.1), (0.1, 6.3, 0.1 + 2 * np.pi)):
        state = np.array([[0.0, seen, 0.0, 0.0], [0.0, seen + 0.1, 0.0, 0.0]])
        _join_turns(spec, Observer(spec), state, np.array([[9.0, commanded]]))
        np.testing.assert_allclose(state[:, :2], [[0.0, there], [0.0, there + 0.1]])
