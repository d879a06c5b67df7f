"""A task is tried when it is loaded, so that a wrong one says so before it has labelled anything."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from landbridge.errors import InputError
from landbridge.robot import ROBOTS, load_robot, robots
from landbridge.task import first_observations, load_task

RETURNED = "return height * centred + goal - 0.02 * np.square(np.asarray(action, np.float64)).sum(-1)"
STARTS = "return np.stack([arm, pendulum], -1), rng.normal(0, 0.01, (batch, 2))"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (RETURNED, "return (height * centred)[..., None]", r"reward is of shape \(2, 3, 1\).*\(2, 3\) is needed"),
        (RETURNED, "return 1.0", r"reward is a float.*\(2, 3\) is needed"),
        (RETURNED, "return np.full_like(height, np.nan)", "reward has values that are not finite"),
        ("return (arm <= lower) | (arm >= upper)", "return np.abs(arm)", "terminated is an array of float64"),
        ("return (arm <= lower) | (arm >= upper)", "return False", "terminated is a bool"),
        (STARTS, "return np.zeros(batch), np.zeros(batch)", r"initial_state's positions is of shape \(3,\)"),
        (
            STARTS,
            "return np.zeros((batch, 2)), np.zeros((batch, 3))",
            r"initial_state's velocities is of shape \(3, 3\)",
        ),
        ("            return False\n", "            return 0.5\n", "success is 0.5"),
        (
            '"joint_pos.arm"',
            '"joint_pos.elbow"',
            r"task.py:\d+: KeyError: 'joint_pos.elbow' is not in the observation; known",
        ),
        ("def make_task", "def build_task", "defines no make_task. see .*/robots/furuta/task.py"),
        ("return SwingUp(observer)", "SwingUp(observer)", "make_task returns None.*derived from Task"),
        ("def success", "def succeeded", r"task.py:\d+: TypeError: Can't instantiate abstract class"),
        ("UPRIGHT = 0.2", "UPRIGHT = = 0.2", r"task.py:11: SyntaxError: invalid syntax"),
        ("import numpy as np\n", "import no_such_package\n", r"task.py:5: ModuleNotFoundError: .*no_such_package"),
    ],
)
def test_a_wrong_task_says_where_and_what(tmp_path: Path, old: str, new: str, problem: str) -> None:
    folder = Path(shutil.copytree(ROBOTS / "furuta", tmp_path / "furuta"))
    text = (folder / "task.py").read_text()
    assert old in text
    (folder / "task.py").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=problem) as caught:
        load_task(load_robot(folder))
    assert caught.value.where.startswith(str(folder / "task.py"))


@pytest.mark.parametrize("name", robots())
def test_first_observations_are_of_a_robot_at_rest(name: str) -> None:
    task = load_task(load_robot(name))
    obs = first_observations(task, 5)
    assert obs.shape == (5, task.observer.size)
    _, joint_vel = task.observer.joint_state(obs)
    assert np.abs(joint_vel).max() < 0.1
    if task.observer.spec.base == "floating":
        assert task.observer.column(obs, "projected_gravity.z").tolist() == [-1] * 5
