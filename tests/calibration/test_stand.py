"""A legged robot hung from a stand: a robot folder of its own, with a fixed base, on which identification works."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from landbridge.calibration.descent import first_guess
from landbridge.calibration.design import Design, run_episodes
from landbridge.calibration.fit import Problem, fit
from landbridge.calibration.windows import cut
from landbridge.robot import BASE_KINDS, Robot, load_robot
from landbridge.simulation.parameters import at, parameters
from landbridge.simulation.scenario import Scenario

TASK = """
import numpy as np
from landbridge.task import Task

class Hang(Task):
    name = "hang"
    episode_seconds = 3.0

    def reward(self, obs, action, next_obs):
        return np.zeros(obs.shape[:-1])

    def terminated(self, obs, action, next_obs):
        return np.zeros(obs.shape[:-1], bool)

    def success(self, obs):
        return len(obs) > self.episode_steps

    def initial_state(self, rng, batch):
        default = np.array([joint.default_joint_pos for joint in self.observer.spec.joints])
        return np.tile(default, (batch, 1)), np.zeros((batch, len(default)))

def make_task(observer):
    return Hang(observer)
"""


@pytest.fixture
def hung(tmp_path: Path) -> Robot:
    """The quadruped as a stand holds it."""
    folder = shutil.copytree(load_robot("quadruped").folder, tmp_path / "hung")
    spec = yaml.safe_load((folder / "robot.yaml").read_text())
    del spec["base"], spec["base_height"], spec["safety"]["max_tilt"]
    spec["observation"] = [part for part in spec["observation"] if part["kind"] not in BASE_KINDS]
    (folder / "robot.yaml").write_text(yaml.safe_dump(spec))
    (folder / "task.py").write_text(TASK)
    return load_robot(str(folder))


def test_gain_latency_and_friction_of_a_hung_quadruped_are_found(hung: Robot) -> None:
    noise = {"joint_pos_noise": 0.001, "joint_vel_noise": 0.02}
    knee = hung.spec.joint("FR_calf_joint").friction.model_copy(update={"frictionloss": 0.8})
    twin = Scenario(actuator_gain=0.8, latency_ms=12.5, friction={"FR_calf_joint": knee}, **noise)  # type: ignore[arg-type]
    design = Design(hung, [], (0.7, 2.3), 0.3, seed=0)
    series = design.scaled(np.random.default_rng(0).standard_normal((2, 12, 2)))
    episodes = run_episodes(hung, "bullet", twin, design.following(series, 1), 1, 0)
    windows = cut(episodes, hung, 10, "the twin")
    sought = ("actuator_gain", "friction.FR_calf_joint.frictionloss", "latency_ms")
    free = [parameter for parameter in parameters(hung) if parameter.name in sought]
    found = at(free, fit(Problem(hung, free, windows, first_guess(hung))).here.z)
    assert found["actuator_gain"] == pytest.approx(0.8, rel=0.02)
    assert found["friction.FR_calf_joint.frictionloss"] == pytest.approx(0.8, rel=0.1)
    assert found["latency_ms"] == pytest.approx(12.5, abs=0.5)
