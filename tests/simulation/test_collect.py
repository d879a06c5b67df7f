"""Rollouts, behaviours and collection."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from landbridge.episode import open_dataset
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.simulation import collect as collect_module
from landbridge.simulation.behaviour import Tuned, load_behaviours, read_behaviours
from landbridge.simulation.collect import collect
from landbridge.simulation.plant import Engine, make_plant
from landbridge.simulation.rollout import following, lockstep
from landbridge.simulation.scenario import Scenario, load_scenario
from landbridge.simulation.tune import replaced, search
from landbridge.task import load_task

ROBOT = load_robot("furuta")
TASK = load_task(ROBOT)


def still(obs: np.ndarray) -> np.ndarray:
    return np.zeros((len(obs), 1))


def full(obs: np.ndarray) -> np.ndarray:
    return np.ones((len(obs), 1))


def test_episode_is_truncated_after_six_seconds() -> None:
    (episode,) = lockstep([make_plant(ROBOT, "mujoco", Scenario())], TASK, still, np.random.default_rng(0))
    assert len(episode) == 300
    assert episode.truncated.tolist() == [False] * 299 + [True]
    assert not episode.terminated.any()
    np.testing.assert_allclose(episode.stamps, np.arange(301) * 0.02)
    rewards = TASK.reward(episode.obs[:-1], episode.actions, episode.obs[1:])
    np.testing.assert_array_equal(episode.rewards, rewards.astype(np.float32))


def test_episode_ends_at_the_arms_limit() -> None:
    (episode,) = lockstep([make_plant(ROBOT, "mujoco", Scenario())], TASK, full, np.random.default_rng(0))
    arm = TASK.observer.column(episode.obs, "joint_pos.arm")
    assert len(episode) < 300
    assert episode.terminated.tolist() == [False] * (len(episode) - 1) + [True]
    assert arm[-1] >= 2.4 - 1e-6
    assert (arm[:-1] < 2.4).all()


def test_observation_carries_the_actions_sent() -> None:
    (episode,) = lockstep([make_plant(ROBOT, "mujoco", Scenario())], TASK, full, np.random.default_rng(0))
    history = np.stack([TASK.observer.column(episode.obs, f"action_history.arm.{age}") for age in range(3)], -1)
    np.testing.assert_array_equal(history[:5], [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]])


def test_a_later_write_is_as_good_as_that_much_latency() -> None:
    def run(latency_ms: float, write_after: float) -> np.ndarray:
        plant, rng = make_plant(ROBOT, "bullet", Scenario(latency_ms=latency_ms)), np.random.default_rng(0)
        (episode,) = lockstep([plant], TASK, full, rng, write_after=write_after)
        return episode.obs

    np.testing.assert_array_equal(run(4.0, 0.0), run(0.0, 0.004))
    assert not np.array_equal(run(0.0, 0.0)[:10], run(0.0, 0.004)[:10])


@pytest.mark.parametrize("engine", ["mujoco", "bullet"])
def test_a_transition_can_be_done_again_from_its_observation(engine: Engine) -> None:
    rung = load_scenario(ROBOT, "severe").model_copy(update={"joint_pos_noise": 0.0, "joint_vel_noise": 0.0})
    plant, rng = make_plant(ROBOT, engine, rung), np.random.default_rng(0)
    (episode,) = lockstep([plant], TASK, load_behaviours(ROBOT)["excite"](1, rng), rng)
    again = following(plant, TASK.observer, episode.obs[:-1], episode.actions)
    settled = slice(TASK.observer.history, None)  # before that, what was on its way is not all in the observation
    np.testing.assert_allclose(again[settled], episode.obs[1:][settled], atol=2e-4)


def test_lockstep_equals_one_at_a_time() -> None:
    """Plants of a batch do not touch each other, also when one of them ends early."""

    def policy(obs: np.ndarray) -> np.ndarray:
        return np.clip(3 * TASK.observer.column(obs, "joint_pos.arm"), -1, 1)[:, None]

    plants = [make_plant(ROBOT, "mujoco", Scenario()) for _ in range(4)]
    together = lockstep(plants, TASK, policy, np.random.default_rng(3))
    starts = TASK.initial_state(np.random.default_rng(3), 4)

    class Same:
        def __getattr__(self, name: str) -> object:
            return getattr(TASK, name)

    for b, episode in enumerate(together):
        task = Same()
        task.initial_state = lambda rng, batch, b=b: (starts[0][b : b + 1], starts[1][b : b + 1])
        (alone,) = lockstep([plants[b]], task, policy, np.random.default_rng(0))
        np.testing.assert_array_equal(alone.obs, episode.obs)
    assert len({len(episode) for episode in together}) > 1


def test_energy_and_lqr_balances_the_nominal_robot() -> None:
    plants = [make_plant(ROBOT, "mujoco", Scenario()) for _ in range(20)]
    rng = np.random.default_rng(5)
    runs = lockstep(plants, TASK, load_behaviours(ROBOT)["tuned"](20, rng), rng)
    assert np.mean([TASK.success(run.obs) for run in runs]) >= 0.9


@pytest.mark.parametrize("engine", ["mujoco", "bullet"])
def test_excitation_stays_within_the_arms_limit(engine: Engine) -> None:
    """On `severe` most recordings last their six seconds, and reach the upper half."""
    plants = [make_plant(ROBOT, engine, load_scenario(ROBOT, "severe"), np.random.default_rng(i)) for i in range(12)]
    rng = np.random.default_rng(6)
    runs = lockstep(plants, TASK, load_behaviours(ROBOT)["excite"](12, rng), rng)
    for plant in plants:
        plant.close()
    assert np.mean([run.truncated[-1] for run in runs]) >= 0.75
    upper = [np.cos(TASK.observer.angle(run.obs, "pendulum")).max() > 0.9 for run in runs]
    assert np.mean(upper) >= 0.9


@pytest.mark.parametrize("name", ["furuta", "quadruped", "arm"])
def test_behaviours_are_within_the_action_box_and_repeatable(name: str) -> None:
    robot = load_robot(name)
    observer = load_task(robot).observer
    obs = np.random.default_rng(0).normal(0, 2, (50, 8, observer.size)).astype(np.float32)
    for behaviour_name, behaviour in load_behaviours(robot).items():
        first, second = (behaviour(8, np.random.default_rng(1)) for _ in range(2))
        for row in obs:
            action = first(row)
            assert action.shape == (8, observer.num_actions), behaviour_name
            assert (np.abs(action) <= 1).all(), behaviour_name
            np.testing.assert_array_equal(action, second(row), err_msg=behaviour_name)


def test_negative_parameter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "behaviour.yaml"
    path.write_text("schema_version: 1\nbehaviours: {tuned: {made_by: me, parameters: {pump: -1}}}\n")
    with pytest.raises(InputError, match="pump"):
        read_behaviours(path)


def test_collect_is_deterministic_and_complete(tmp_path: Path) -> None:
    datasets = []
    for name in ("first", "second"):
        figures = collect(tmp_path / name, steps=1000, batch=4, seed=3, mix={"noisy": 1, "random": 1}, scenario="mild")
        assert figures["steps"] == 1000
        datasets.append(open_dataset(tmp_path / name))
    assert datasets[0].metadata.controllers == {"noisy": 500, "random": 500}
    assert datasets[0].metadata.robot_hash == ROBOT.spec.digest()
    assert (datasets[0].metadata.engine, datasets[0].metadata.scenario) == ("mujoco", "mild")
    assert len(datasets[0]) == len(datasets[1])
    for one, other in zip(*datasets, strict=True):
        for field in ("obs", "actions", "rewards", "terminated", "truncated", "stamps"):
            assert getattr(one, field).tobytes() == getattr(other, field).tobytes()
        assert one.terminated[-1] != one.truncated[-1]


def test_a_behaviour_is_tuned_for_the_robot_that_is_simulated_and_makes_the_data(tmp_path: Path) -> None:
    of: dict[str, Any] = {"steps": 300, "scenario": "moderate", "mix": {"tuned": 1.0}, "exploring": 0.0}
    found = collect(tmp_path / "data", **of, retune=1)["retuned"]
    assert open_dataset(tmp_path / "data").metadata.retuned == found
    assert found["generations"] == 1
    start = read_behaviours(ROBOT.folder / "behaviour.yaml")
    parameters = {name: found[name] for name in start.behaviours["tuned"].parameters}
    assert parameters != start.behaviours["tuned"].parameters
    tuned = load_behaviours(ROBOT, replaced(start, "tuned", Tuned(made_by="", parameters=parameters)))["tuned"]
    (episode,) = open_dataset(tmp_path / "data")
    expected = tuned(1, np.random.default_rng(0))(episode.obs[:-1])
    np.testing.assert_array_equal(episode.actions, expected.astype(np.float32))


def test_tuning_begins_where_the_robot_does_best_already() -> None:
    """A controller that hardly moves has no better neighbours; that of `excite`, of the same parameters, succeeds."""
    start = read_behaviours(ROBOT.folder / "behaviour.yaml")
    weak = {name: value / 1000 for name, value in start.behaviours["tuned"].parameters.items()}
    start = replaced(start, "tuned", Tuned(made_by="", parameters=weak))
    _, _, success = search(ROBOT, start, "tuned", [load_scenario(ROBOT, "severe")], "mujoco", 1, 4, 0)
    assert success > 0


def test_half_of_a_source_starts_anywhere_and_a_target_never_does(tmp_path: Path) -> None:
    def hanging(name: str, **arguments: Any) -> float:
        collect(tmp_path / name, steps=3000, batch=1, seed=3, mix={"excite": 1.0}, **arguments)
        starts = np.stack([episode.obs[0] for episode in open_dataset(tmp_path / name)])
        return float(np.mean(np.abs(TASK.observer.angle(starts, "pendulum")) > np.pi - 0.11))

    assert hanging("robot", domain="target") == 1.0
    assert hanging("wide", exploring=1.0) < 0.5
    assert 0.1 < hanging("source") < 0.95


def test_another_seed_gives_other_data(tmp_path: Path) -> None:
    episodes = []
    for seed in (1, 2):
        collect(tmp_path / str(seed), steps=100, batch=1, seed=seed, mix={"random": 1})
        episodes.append(next(iter(open_dataset(tmp_path / str(seed)))))
    assert not np.array_equal(episodes[0].obs[0], episodes[1].obs[0])


def test_target_data_without_ros(tmp_path: Path) -> None:
    collect(tmp_path / "t", steps=300, engine="bullet", scenario="severe", domain="target", mix={"excite": 1})
    metadata = open_dataset(tmp_path / "t").metadata
    assert (metadata.domain, metadata.engine, metadata.scenario) == ("target", "bullet", "severe")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"exploring": 1.5}, "--exploring: is 1.5"),
        ({"robot": "arm", "exploring": 0.5}, "--exploring: arm's task has no exploring states"),
        ({"mix": {"genius": 1.0}}, "unknown behaviours \\['genius'\\].*random"),
        ({"mix": {"random": -1.0}}, "positive share"),
        ({"steps": 0}, "steps is 0"),
        ({"retune": -1}, "--retune: is -1"),
        ({"retune": 1, "mix": {"excite": 1, "random": 1}}, "none of \\['excite', 'random'\\] builds. add tuned"),
        ({"scenario": "hell"}, "no scenario"),
        ({"robot": "nobody"}, "no such robot"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path, arguments: dict, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        collect(tmp_path / "out", **{"steps": 100, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="already exists"):
        collect(tmp_path / "out", steps=100)
    assert list((tmp_path / "out").iterdir()) == []


def test_interrupt_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def interrupted(*args: object, **options: Any) -> object:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return lockstep(*args, **options)

    monkeypatch.setattr(collect_module, "lockstep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(tmp_path / "out", steps=2000, batch=2, mix={"random": 1})
    assert list(tmp_path.iterdir()) == []


def test_there_are_no_more_simulators_than_steps(tmp_path: Path) -> None:
    assert collect(tmp_path / "out", steps=20, batch=10**9)["steps"] == 20


def test_robot_without_behaviours_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ROBOT.folder, tmp_path / "furuta"))
    (folder / "behaviour.yaml").unlink()
    with pytest.raises(InputError, match="no such file"):
        load_behaviours(load_robot(folder))


def test_a_source_mix_that_names_no_behaviour_is_blamed_on_its_file(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ROBOT.folder, tmp_path / "furuta"))
    (folder / "behaviour.py").write_text((folder / "behaviour.py").read_text().replace('"noisy": 0.5', '"nosy": 0.5'))
    with pytest.raises(InputError, match=r"behaviour.py: SOURCE_MIX: unknown behaviours \['nosy'\]"):
        collect(tmp_path / "out", robot=str(folder), steps=10)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("late", "problem"), [(np.full((1, 1), np.nan), "answers NaN or Inf"), (np.zeros((1, 2)), r"shape \(1, 2\)")]
)
def test_a_policy_that_goes_wrong_later_ends_the_rollout(late: np.ndarray, problem: str) -> None:
    given = iter([np.zeros((1, 1))] * 3 + [late])
    with pytest.raises(InputError, match=f"control step 3: .*{problem}"):
        lockstep([make_plant(ROBOT, "mujoco", Scenario())], TASK, lambda obs: next(given), np.random.default_rng(0))
