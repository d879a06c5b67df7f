"""`landbridge robot check`: quiet on a robot that is right, and each doubt by a robot that has it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from landbridge.cli import main
from landbridge.errors import InputError
from landbridge.robot import ROBOTS
from landbridge.simulation.check import check


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """A robot folder with the nominal rung only."""

    def copy(name: str) -> Path:
        folder = Path(shutil.copytree(ROBOTS / name, tmp_path / name))
        (folder / "scenarios.yaml").write_text("schema_version: 1\nscenarios: {none: {}}\n")
        return folder

    return copy


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_robot_that_is_right_raises_no_doubt(copied: Callable[[str], Path]) -> None:
    found = check(str(copied("furuta")), episodes=2)
    assert found["failed"] == []
    (arm, pendulum) = found["joints"]
    # kg m^2: M11 - M12^2 / M22 and M22 - M12^2 / M11 of the mass matrix at 0, as test_parity.py has it by hand
    arm_inertia = 0.12 * (0.16**2 + 0.02**2) / 12 + 0.12 * 0.08**2 + 0.04 * 0.17**2
    rod, coupling = 0.04 * (3 * 0.005**2 + 0.3**2) / 12 + 0.04 * 0.15**2, 0.04 * 0.17 * 0.15
    for engine in ("mujoco", "bullet"):
        assert arm[f"{engine} [kg m^2]"] == pytest.approx(arm_inertia - coupling**2 / rod, rel=1e-3)
        assert pendulum[f"{engine} [kg m^2]"] == pytest.approx(rod - coupling**2 / arm_inertia, rel=1e-3)
    assert arm["friction in a step"] == pytest.approx((0.001 / 0.1 + 0.0008) * 0.002 / arm["bullet [kg m^2]"])
    assert [(run["behaviour"], run["mujoco"], run["bullet"]) for run in found["runs"]] == [
        ("tuned", 1, 1),
        ("excite", 1, 1),
    ]
    assert all(run["apart"] < 1e-3 for run in found["runs"])


def test_the_robot_of_the_guide_raises_no_doubt_and_does_its_task(guide: Path) -> None:
    found = check(str(guide), episodes=2)
    assert found["failed"] == []
    assert [(run["rung"], run["mujoco"], run["bullet"]) for run in found["runs"] if run["behaviour"] == "tuned"] == [
        ("none", 1, 1),
        ("severe", 1, 1),
    ]


def test_a_parking_pose_that_its_drives_do_not_hold_is_named(copied: Callable[[str], Path]) -> None:
    """A hand held out level, with 220 g in it, sags by m g l / (gain k); near its stop it rests on that."""
    folder = copied("arm")
    loaded = "severe: {actuator_gain: 0.85, payload: {hand: {mass: 0.22, position: [0, 0, 0.07], size: 0.04}}}"
    (folder / "scenarios.yaml").write_text(f"schema_version: 1\nscenarios: {{none: {{}}, {loaded}}}\n")
    assert not any("parking_pose" in doubt for doubt in check(str(folder), episodes=1)["failed"])
    edit(folder / "robot.yaml", "wrist_flex: 1.5", "wrist_flex: 1.2")
    (doubt,) = (doubt for doubt in check(str(folder), episodes=1)["failed"] if "parking_pose" in doubt)
    assert doubt == "joint wrist_flex: sags 0.26 rad off parking_pose on 'severe': PARK ends in a fault"


def test_a_drive_that_does_not_stand_still_at_speed_zero_is_named(copied: Callable[[str], Path]) -> None:
    """Without an integral a drive of 0.01 N m s/rad lets what pulls with 0.1 N m turn at 10 rad/s."""
    folder = copied("furuta")
    edit(folder / "robot.yaml", "kind: effort", "kind: velocity")
    assert not any("at command 0" in doubt for doubt in check(str(folder), episodes=1)["failed"])
    ladder = "none: {}, pulled: {cogging: {arm: {amplitude: 0.1, periods: 1, phase: 1.5708}}}"
    (folder / "scenarios.yaml").write_text(f"schema_version: 1\nscenarios: {{{ladder}}}\n")
    (doubt,) = (doubt for doubt in check(str(folder), episodes=1)["failed"] if "at command 0" in doubt)
    assert doubt.startswith("joint arm: turns at ") and "on 'pulled', no stop ends: raise its damping" in doubt


def test_episodes_that_start_where_arming_is_a_fault_are_named(copied: Callable[[str], Path]) -> None:
    folder = copied("arm")
    edit(folder / "robot.yaml", "max_tracking_error: 0.8", "max_tracking_error: 0.01")
    found = [doubt for doubt in check(str(folder), episodes=1)["failed"] if "default_joint_pos" in doubt]
    assert found and all("with a max_tracking_error of 0.01 that is a fault" in doubt for doubt in found)


def test_limits_that_the_urdf_has_otherwise_are_named(copied: Callable[[str], Path]) -> None:
    folder = copied("furuta")
    edit(folder / "robot.yaml", "position_limit: [-2.4, 2.4]", "position_limit: [-137, 137]")
    edit(folder / "robot.yaml", "effort_limit: 0.12", "effort_limit: 1.2")
    assert check(str(folder), episodes=1)["failed"] == [
        "joint arm: lower limit is -137.0 in robot.yaml, -2.4 in furuta.urdf",
        "joint arm: upper limit is 137.0 in robot.yaml, 2.4 in furuta.urdf",
        "joint arm: effort limit is 1.2 in robot.yaml, 0.12 in furuta.urdf",
    ]


@pytest.mark.parametrize(
    ("joint", "friction"),
    [
        ("pendulum", "frictionloss: 0.1"),  # 0.1 / 0.1 * 0.002 of 0.0007 kg m^2
        ("arm", "frictionloss: 0.03, load: 0.9"),  # of 0.12 N m: 0.138 / 0.1 * 0.002 of 0.0013 kg m^2
    ],
)
def test_friction_that_the_physics_steps_do_not_bear_is_named(
    copied: Callable[[str], Path], joint: str, friction: str
) -> None:
    folder = copied("furuta")
    rung = f"none: {{}}, rough: {{friction: {{{joint}: {{{friction}}}}}}}"
    (folder / "scenarios.yaml").write_text(f"schema_version: 1\nscenarios: {{{rung}}}\n")
    assert f"joint {joint}: friction is unstable" in check(str(folder), episodes=1)["failed"][0]


@pytest.mark.parametrize(("height", "doubted"), [("0.316", False), ("3.16", True), ("0.25", True)])
def test_a_base_that_does_not_begin_on_the_ground_is_named(
    copied: Callable[[str], Path], height: str, doubted: bool
) -> None:
    folder = copied("quadruped")
    edit(folder / "robot.yaml", "base_height: 0.316", f"base_height: {height}")
    found = check(str(folder), episodes=1)["failed"]
    assert any("correct base_height" in doubt for doubt in found) == doubted


def test_a_behaviour_that_does_nothing_is_named_and_the_exit_code_is_1(
    copied: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied("furuta")
    edit(
        folder / "behaviour.py",
        '"tuned": lambda batch, rng: tuned',
        '"tuned": lambda batch, rng: lambda obs: 0 * tuned(obs)',
    )
    assert main(["robot", "check", str(folder), "--episodes", "1"]) == 1
    assert "behaviour 'tuned' never does the task on rung 'none' in bullet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "doubt"),
    [
        (
            "latency_budget_ms: 10",
            "latency_budget_ms: 25",
            "latency_budget_ms is 25, longer than the control period",
        ),
        ("max_command_age_ms: 30", "max_command_age_ms: 3", "max_command_age_ms is 3, below latency_budget_ms, 10"),
        ("heartbeat_timeout_ms: 200", "heartbeat_timeout_ms: 100", "heartbeat_timeout_ms is 100: a monitor is heard"),
        ("scale: {arm: 0.1}", "scale: {arm: 0.5}", "joint arm: action.scale is 0.5, above its effort_limit of 0.12"),
        (
            "rate_limit: 20 ",
            "rate_limit: 0.02 ",
            "joint arm: with its rate_limit a command takes 10 s from",
        ),
    ],
)
def test_numbers_by_which_no_command_would_arrive_as_meant_are_named(
    copied: Callable[[str], Path], old: str, new: str, doubt: str
) -> None:
    folder = copied("furuta")
    edit(folder / "robot.yaml", old, new)
    assert any(doubt in found for found in check(str(folder), episodes=1)["failed"])


def test_what_goes_wrong_in_mid_episode_or_elsewhere_is_named_too(copied: Callable[[str], Path]) -> None:
    folder = copied("furuta")
    edit(folder / "task.py", "+ goal -", "+ np.where(np.cos(alpha) > 0.9, np.nan, goal) -")
    doubts = check(str(folder), episodes=1)["failed"]
    assert any("'noisy', from anywhere in mujoco: rewards that are not finite" in doubt for doubt in doubts)
    turning = "lambda batch, rng: lambda obs: np.zeros((batch, 1)) if abs(obs[0, 4]) < 0.3 else 1 // 0"
    other = Path(shutil.copytree(folder, folder.with_name("other")))  # a module is imported once a file
    edit(other / "behaviour.py", '"random": random', f'"random": {turning}')
    with pytest.raises(InputError, match=r"behaviour\.py:\d+: ZeroDivisionError"):
        check(str(other), episodes=1)


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("behaviour.py", '"excite":', '"excited":', "behaviour.py: has no 'excite' among"),
        ("scenarios.yaml", "none:", "nominal:", r"scenarios.yaml: has no 'none' among \['nominal'\]"),
        (
            "behaviour.py",
            "import numpy as np\n",
            "import numpy as np\nraise OSError('x')\n",
            r"behaviour.py:\d+: OSError: x",
        ),
        (
            "behaviour.yaml",
            "      pump: 1.9404\n",
            "",
            r"behaviour.py:\d+: KeyError: pump.*parameters in behaviour.yaml",
        ),
        (
            "behaviour.py",
            "np.where(near, catch, swing)[:, None]",
            "np.where(near, catch, swing)",
            r"shape \(2,\).*\(batch, 1\)",
        ),
        (
            "behaviour.py",
            "np.where(near, catch, swing)[:, None]",
            "np.full((2, 1), np.nan)",
            "behaviour tuned: answers NaN or Inf",
        ),
        ("behaviour.py", '"noisy": 0.5', '"nosy": 0.5', r"SOURCE_MIX: unknown behaviours \['nosy'\]"),
        ("behaviour.py", '"noisy": 0.5', '"noisy": -0.5', "SOURCE_MIX: shares are .* a positive share"),
        ("behaviour.py", '"noisy": 0.5', '"noisy": "much"', "SOURCE_MIX: shares are .* a positive share"),
        ("behaviour.py", "SOURCE_MIX = {", "SOURCE_MIX = 3, {", "SOURCE_MIX: is .* give a dict of shares"),
        ("task.py", "episode_seconds = 6.0", "episode_seconds = 0.001", "episodes of 0.001 s: 0 control steps"),
        ("task.py", "episode_seconds = 6.0", "episode_seconds = 1e7", "episodes of 1 to 1000000 steps"),
        ("task.py", 'name = "', 'label = "', "AttributeError: .* no attribute 'name'"),
    ],
)
def test_a_file_that_is_wrong_ends_it(
    copied: Callable[[str], Path], file: str, old: str, new: str, problem: str
) -> None:
    folder = copied("furuta")
    edit(folder / file, old, new)
    with pytest.raises(InputError, match=problem):
        check(str(folder))
