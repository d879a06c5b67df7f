"""benchmarks/offdynamics: every shift does to the physics what it says, and files and arms go through the study."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import data
import gymnasium as gym
import h5py
import mujoco
import numpy as np
import pytest
import study
from shifts import IDS, JOINTS, LEVELS, OPTIONS, make_env, named, shifted
from task import Locomotion

from landbridge.errors import InputError
from landbridge.training.alignments.tabb import TabbConfig
from landbridge.training.predictor import PredictorConfig

pytestmark = pytest.mark.filterwarnings("ignore:compiler attribute 'settotalmass'")  # of Gymnasium's half_cheetah.xml


def stock(name: str) -> mujoco.MjModel:
    return gym.make(IDS[name]).unwrapped.model


def floor_friction(model: mujoco.MjModel) -> np.ndarray:
    """Friction of the contacts with the floor, lying on it."""
    state = mujoco.MjData(model)
    mujoco.mj_step(model, state, nstep=1000)
    assert state.ncon > 0
    return np.unique(state.contact.friction[:, 0])


@pytest.mark.parametrize("name", IDS)
def test_every_shift_makes_an_environment_that_steps(name: str) -> None:
    for shift in ["gravity-0.5", "friction-0.5", "friction-5.0", *named(name)]:
        env = make_env(name, shift)
        env.action_space.seed(0)
        obs, _ = env.reset(seed=0)
        for _ in range(5):
            obs, reward, *_ = env.step(env.action_space.sample())
        assert np.isfinite(obs).all() and np.isfinite(reward), shift


@pytest.mark.parametrize("name", IDS)
def test_a_factor_of_one_is_gymnasiums_own_environment_to_the_last_bit(name: str) -> None:
    ours, theirs = make_env(name, "gravity-1"), gym.make(IDS[name], **OPTIONS.get(name, {}))
    theirs.action_space.seed(0)
    np.testing.assert_array_equal(ours.reset(seed=0)[0], theirs.reset(seed=0)[0])
    for _ in range(20):
        action = theirs.action_space.sample()
        (a, *after), (b, *expected) = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(a, b)
        assert after[:3] == expected[:3]
    assert ours.spec.max_episode_steps == theirs.spec.max_episode_steps == 1000


@pytest.mark.parametrize("name", IDS)
def test_gravity_and_friction_are_scaled(name: str) -> None:
    model, before = shifted(name, "gravity-0.5"), stock(name)
    np.testing.assert_allclose(model.opt.gravity, [0, 0, -4.905])
    assert model.opt.timestep == before.opt.timestep
    np.testing.assert_allclose(shifted(name, "friction-0.5").geom_friction, 0.5 * before.geom_friction)
    touching = floor_friction(shifted(name, "friction-0.5"))
    assert set(touching) <= {0.5 * max(f, before.geom("floor").friction[0]) for f in before.geom_friction[:, 0]}


@pytest.mark.parametrize("name", IDS)
def test_joints_keep_a_share_of_their_range(name: str) -> None:
    before = stock(name)
    for part, joints in JOINTS[name].items():
        for level, share in zip(LEVELS, (0.8, 0.5, 0.2), strict=True):
            model = shifted(name, f"kinematic-{part}-{level}")
            changed = [j for j in range(model.njnt) if (model.jnt_range[j] != before.jnt_range[j]).any()]
            assert {model.joint(j).name for j in changed} == set(joints)
            spans = (np.diff(of.jnt_range[changed])[:, 0] for of in (model, before))
            np.testing.assert_allclose(next(spans), share * next(spans))


@pytest.mark.parametrize(
    ("name", "shift", "joint", "degrees"),
    [
        ("hopper", "kinematic-legjnt-medium", "leg_joint", (-75, 0)),
        ("hopper", "kinematic-footjnt-hard", "foot_joint", (-9, 9)),
        ("ant", "kinematic-anklejnt-easy", "ankle_1", (30, 62)),
        ("ant", "kinematic-anklejnt-easy", "ankle_2", (-62, -30)),
        ("halfcheetah", "kinematic-thighjnt-medium", "fthigh", np.degrees((-0.5, 0.35))),
    ],
)
def test_ranges_are_those_of_odrls_files(name: str, shift: str, joint: str, degrees: tuple[float, float]) -> None:
    np.testing.assert_allclose(np.degrees(shifted(name, shift).joint(joint).range), degrees)


@pytest.mark.parametrize(
    ("name", "shift", "geom", "ends", "radius"),  # ends of the capsule in the world [m], as ODRL's files have them
    [
        ("hopper", "morph-torso-hard", "torso_geom", [(0, 0, 1.05), (0, 0, 1.85)], 0.125),
        ("walker2d", "morph-torso-easy", "torso_geom", [(0, 0, 1.05), (0, 0, 1.53)], 0.075),
        ("hopper", "morph-foot-easy", "foot_geom", [(-0.104, 0, 0.1), (0.208, 0, 0.1)], 0.048),
        ("walker2d", "morph-leg-medium", "thigh_geom", [(0, 0, 1.05), (0, 0, 0.35)], 0.05),
        ("walker2d", "morph-leg-medium", "leg_left_geom", [(0, 0, 0.35), (0, 0, 0.1)], 0.04),
        ("halfcheetah", "morph-torso-medium", "torso", [(-0.25, 0, 0.7), (0.25, 0, 0.7)], 0.046),
        ("halfcheetah", "morph-thigh-hard", "fthigh", [(0.5, 0, 0.7), (0.46, 0, 0.65)], 0.046),
        ("halfcheetah", "morph-thigh-hard", "fshin", [(0.46, 0, 0.65), (0.57, 0, 0.52)], 0.046),
        ("ant", "morph-alllegs-medium", "third_ankle_geom", [(-0.4, -0.4, 0.75), (-0.6, -0.6, 0.75)], 0.08),
        ("ant", "morph-halflegs-medium", "third_ankle_geom", [(-0.4, -0.4, 0.75), (-0.8, -0.8, 0.75)], 0.08),
    ],
)
def test_limbs_are_where_odrls_files_put_them(
    name: str, shift: str, geom: str, ends: list[tuple[float, float, float]], radius: float
) -> None:
    model = shifted(name, shift)
    state = mujoco.MjData(model)
    mujoco.mj_forward(model, state)
    at, half = state.geom(geom).xpos, model.geom(geom).size[1] * state.geom(geom).xmat.reshape(3, 3)[:, 2]
    np.testing.assert_allclose(sorted([tuple(at - half), tuple(at + half)]), sorted(ends), atol=1e-6)
    assert model.geom(geom).size[0] == pytest.approx(radius)


def test_the_knee_of_walker2d_is_where_thigh_and_leg_meet() -> None:
    state = mujoco.MjData(model := shifted("walker2d", "morph-leg-hard"))
    mujoco.mj_forward(model, state)
    np.testing.assert_allclose(state.joint("leg_joint").xanchor, [0, 0, 0.2], atol=1e-6)
    np.testing.assert_allclose(state.joint("foot_joint").xanchor, [0, 0, 0.1], atol=1e-6)


@pytest.mark.parametrize("shift", ["gravity", "gravity-0", "gravity--1", "morph-leg-easy", "kinematic-legjnt", "x-1"])
def test_an_unknown_shift_is_refused_with_the_known_ones(shift: str) -> None:
    with pytest.raises(InputError, match="kinematic-legjnt-easy"):
        make_env("hopper", shift)
    with pytest.raises(InputError, match="halfcheetah"):
        make_env("cheetah")


@pytest.mark.parametrize("name", IDS)
def test_the_task_says_of_a_transition_what_the_environment_does(name: str, tmp_path: Path) -> None:
    data.collect(data.Collect(tmp_path / "a.hdf5", rows=600, env=name))
    rows, task = data.read(tmp_path / "a.hdf5", name), Locomotion(name)
    np.testing.assert_array_equal(task.terminated(rows.obs, rows.action, rows.next_obs), rows.terminated)
    assert rows.terminated.any() == (name != "halfcheetah")
    error = task.reward(rows.obs, rows.action, rows.next_obs) - rows.reward
    assert np.corrcoef(task.reward(rows.obs, rows.action, rows.next_obs), rows.reward)[0, 1] > 0.95
    assert abs(error.mean()) < 0.02  # the speed is a mean of two, not the way by the time


def test_terminals_and_timeouts_stay_apart_in_a_file(tmp_path: Path) -> None:
    data.collect(data.Collect(tmp_path / "a.hdf5", rows=1100, env="halfcheetah"))
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert not file["terminals"][:].any()
        assert np.flatnonzero(file["timeouts"][:]).tolist() == [999, 1099]  # the time limit, and where the log ends
        observed = file["observations"][:]
    rows = data.read(tmp_path / "a.hdf5", "halfcheetah")
    assert np.bincount(rows.episode).tolist() == [1000, 100]
    np.testing.assert_array_equal(rows.obs, observed.astype(np.float32))
    for path in (tmp_path / "a.hdf5", tmp_path / "none" / "a.hdf5"):
        with pytest.raises(InputError, match="exists"):
            data.collect(data.Collect(path, rows=10))


@pytest.mark.parametrize("contacts", [78, 84])  # Gymnasium's v5, Gym's v3
def test_of_an_ant_with_contact_forces_these_are_left_out(contacts: int, tmp_path: Path) -> None:
    data.collect(data.Collect(tmp_path / "a.hdf5", rows=100, env="ant"))
    plain = data.read(tmp_path / "a.hdf5", "ant")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        for name in ("observations", "next_observations"):
            wide = np.concatenate([file[name][:], np.zeros((100, contacts))], 1)
            del file[name]
            file[name] = wide
    found = data.read(tmp_path / "a.hdf5", "ant")
    assert plain.obs.shape == (100, 27)
    np.testing.assert_array_equal(found.obs, plain.obs)
    np.testing.assert_array_equal(found.next_obs, plain.next_obs)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    data.collect(data.Collect(path, rows=100))
    with pytest.raises(InputError, match=r"\(100, 11\).* do not fit sizes 17 and 6"):
        data.read(path, "walker2d")
    with h5py.File(path, "a") as file:
        del file["rewards"]
    with pytest.raises(InputError, match="has no \\['rewards'\\]"):
        data.read(path, "hopper")
    with pytest.raises(InputError, match=r"none\.hdf5: no such file"):
        data.read(tmp_path / "none.hdf5", "hopper")
    data.collect(data.Collect(tmp_path / "few.hdf5", rows=20))
    with pytest.raises(InputError, match="only 20 transitions"):
        data.read(tmp_path / "few.hdf5", "hopper")


def test_a_behaviour_is_trained_goes_on_elsewhere_and_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "ROUND", 128)
    first, second = tmp_path / "first", tmp_path / "second"
    assert data.train(data.Train(first, steps=data.ROUND))["steps"] == data.ROUND
    data.train(data.Train(second, shift="gravity-0.5", start=first, steps=data.ROUND))
    for policy in (first, second):
        assert data.collect(data.Collect(policy / "log.hdf5", 100, policy, shift="gravity-0.5"))["rows"] == 100
    a, b = (data.read(policy / "log.hdf5", "hopper") for policy in (first, second))
    np.testing.assert_array_equal(a.obs[0], b.obs[0])  # the same start, ...
    assert (a.action[0] != b.action[0]).any()  # ... another policy
    with pytest.raises(InputError, match=r"no policy\.zip"):
        data.collect(data.Collect(tmp_path / "log.hdf5", 100, tmp_path))
    with pytest.raises(InputError, match="observes"):
        data.collect(data.Collect(tmp_path / "log.hdf5", 100, first, env="walker2d"))
    with pytest.raises(InputError, match="observes"):
        data.train(data.Train(tmp_path / "third", env="walker2d", start=first))


def test_the_study_trains_scores_and_records_every_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = PredictorConfig(hidden=16, source_steps=10, steps=10, batch=32)
    small = replace(study.SETTINGS["literature"], tabb=TabbConfig(predictor=quick))
    monkeypatch.setattr(study, "SETTINGS", {"literature": small})
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    source, target = (tmp_path / f"{name}.hdf5" for name in ("source", "target"))
    data.collect(data.Collect(source, rows=400))
    data.collect(data.Collect(target, rows=200, shift="gravity-0.5"))
    asked = study.Study(source, target, tmp_path / "work", arms=("source_only", "none", "tabb"), steps=8, episodes=2)
    with pytest.warns(UserWarning, match="explains"):
        study.main(asked)
    found = json.loads((tmp_path / "offdynamics_hopper_gravity-0.5.json").read_text())
    assert list(found["arms"]) == ["source_only", "none", "tabb"]
    for of in found["arms"].values():
        assert of["score"] == pytest.approx(100 * (of["return"] + 26.336) / (3234.3 + 26.336))
    assert "| `tabb` |" in (tmp_path / "offdynamics_hopper_gravity-0.5.md").read_text()
    before = (tmp_path / "work" / "tabb_0" / "scores.json").stat().st_mtime_ns
    study.main(asked)
    assert (tmp_path / "work" / "tabb_0" / "scores.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="other settings or other data"):
        study.main(replace(asked, steps=16))


@pytest.mark.parametrize(
    ("shift", "expert"), [("gravity-0.5", 5194.713), ("friction-5", 4988.835), ("morph-leg-easy", 4592.3)]
)
def test_references_are_of_the_shifted_environment(shift: str, expert: float) -> None:
    asked = study.Study(Path(), Path(), Path(), env="walker2d", shift=shift)
    assert study.reference(asked)["expert"] == expert
    with pytest.raises(InputError, match="--expert"):
        study.reference(replace(asked, shift="gravity-0.7"))
    assert study.reference(replace(asked, shift="gravity-0.7", expert=2.0))["expert"] == 2.0
