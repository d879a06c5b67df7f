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


def test_limits_that_the_urdf_has_otherwise_are_named(copied: Callable[[str], Path]) -> None:
    folder = copied("furuta")
    edit(folder / "robot.yaml", "position_limit: [-2.4, 2.4]", "position_limit: [-137, 137]")
    edit(folder / "robot.yaml", "effort_limit: 0.12", "effort_limit: 1.2")
    assert check(str(folder), episodes=1)["failed"] == [
        "joint arm: lower limit is -137.0 in robot.yaml, -2.4 in furuta.urdf",
        "joint arm: upper limit is 137.0 in robot.yaml, 2.4 in furuta.urdf",
        "joint arm: effort limit is 1.2 in robot.yaml, 0.12 in furuta.urdf",
    ]


def test_friction_that_the_physics_steps_do_not_bear_is_named(copied: Callable[[str], Path]) -> None:
    folder = copied("furuta")
    rung = "none: {friction: {pendulum: {frictionloss: 0.1}}}"  # 0.1 / 0.1 * 0.002 of 0.0007 kg m^2
    (folder / "scenarios.yaml").write_text(f"schema_version: 1\nscenarios: {{{rung}}}\n")
    assert "joint pendulum: friction is unstable" in check(str(folder), episodes=1)["failed"][0]


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
    ],
)
def test_a_file_that_is_wrong_ends_it(
    copied: Callable[[str], Path], file: str, old: str, new: str, problem: str
) -> None:
    folder = copied("furuta")
    edit(folder / file, old, new)
    with pytest.raises(InputError, match=problem):
        check(str(folder))
