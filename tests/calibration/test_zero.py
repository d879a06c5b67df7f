"""Encoders whose sign, offset or gear is wrong: by hand, as properties, and on a Bullet twin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landbridge.calibration import pipeline
from landbridge.calibration.descent import first_guess
from landbridge.calibration.design import run_episodes
from landbridge.calibration.shooting import simulate
from landbridge.calibration.windows import Windows, cut, lags, unwrapped
from landbridge.calibration.zero import EncoderProblem, Found, _parameters, encoders
from landbridge.episode import Episode
from landbridge.errors import InputError
from landbridge.joint import Encoder
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge.simulation.behaviour import load_behaviours
from landbridge.simulation.parameters import parameters
from landbridge.simulation.scenario import Scenario, load_scenario

FURUTA = load_robot("furuta")


@given(
    speeds=st.lists(st.floats(-60, 60), min_size=2, max_size=40),
    start=st.floats(-10, 10),
    gear=st.floats(0.5, 2.0),
    seed=st.integers(0, 99),
)
def test_a_wrapped_encoder_is_unwrapped_however_fast_it_turns(
    speeds: list[float], start: float, gear: float, seed: int
) -> None:
    velocity, step = np.array(speeds)[:, None], np.full(len(speeds) - 1, 0.02)
    way = start + np.concatenate([[0.0], np.cumsum((velocity[1:, 0] + velocity[:-1, 0]) / 2 * step)])[:, None]
    noisy = way + np.random.default_rng(seed).uniform(-0.1, 0.1, way.shape)
    turn = np.array([2 * np.pi / gear])
    wrapped = np.remainder(noisy + turn / 2, turn) - turn / 2
    difference = unwrapped(wrapped, velocity, step, turn) - noisy
    np.testing.assert_allclose(difference, difference[0, 0], atol=1e-9)
    assert difference[0, 0] / turn[0] == pytest.approx(round(difference[0, 0] / turn[0]), abs=1e-9)


def test_a_step_of_unknown_length_is_no_wrap() -> None:
    positions = np.array([[3.0], [3.1], [-3.1], [3.1]])
    steps = np.array([0.02, 0.02, np.nan])
    found = unwrapped(positions, np.full((4, 1), 4.0), steps, np.array([2 * np.pi]))
    np.testing.assert_allclose(found[:, 0], [3.0, 3.1, 2 * np.pi - 3.1, 2 * np.pi + 3.1])


signs = st.sampled_from([-1, 1])
angles = st.floats(-3, 3)


@given(
    present=st.tuples(signs, angles, st.floats(0.5, 2)), sign=signs, gain=st.floats(0.5, 2), shift=angles, raw=angles
)
def test_the_corrected_encoder_reads_what_is_true(
    present: tuple[int, float, float], sign: int, gain: float, shift: float, raw: float
) -> None:
    now = Encoder(sign=present[0], offset=present[1], gear=present[2])  # type: ignore[arg-type]
    measured = now.sign * raw / now.gear - now.offset
    shift = shift if abs(shift) > 0.011 else 0.5  # smaller differences are left alone
    gain = gain if abs(gain - 1) > 0.11 else 1.5
    found = Found("arm", now, sign, (shift, shift - 1e-3, shift + 1e-3), (gain, 0.999 * gain, 1.001 * gain))
    right = found.encoder
    assert right.sign * raw / right.gear - right.offset == pytest.approx(sign * gain * measured + shift, abs=1e-9)
    assert found.untold == [] and found.line.startswith("arm: encoder: {sign: ")


def test_what_the_data_do_not_tell_is_named_and_left_alone() -> None:
    silent = Found("arm", Encoder(offset=0.2), None, (0.1, -1.9, 1.9), (1.3, 0.8, 1.6))
    assert silent.untold == ["sign", "offset", "gear"]
    assert silent.line == "" and silent.encoder == silent.present
    assert set(silent.row().values()) == {"arm", None}
    right = Found("arm", Encoder(offset=0.2), 1, (0.001, -0.001, 0.003), (1.002, 0.999, 1.005))
    assert right.untold == [] and right.line == "" and right.row()["sign"] == 1
    low, value, high = (right.row()[f"offset{end}"] for end in ("_low", "", "_high"))
    assert low < value < high


@pytest.mark.parametrize("name", ["furuta", "arm"])
def test_measured_states_pass_the_encoder_and_so_do_position_commands(name: str) -> None:
    robot = load_robot(name)
    rng, size, before = np.random.default_rng(0), len(robot.spec.joints), lags(robot)
    gain = np.where(np.arange(size) % 2, -1.25, 1.0)
    shift = rng.uniform(-1, 1, size)
    truth = rng.uniform(-0.3, 0.3, (4, 2 * size))
    commands = rng.uniform(-0.1, 0.1, (4, before + 5, len(robot.spec.actuated)))
    number, ahead = np.zeros(4, np.intp), np.zeros((4, before, 2 * size))
    late, taken = np.zeros((4, before + 5)), np.zeros((4, 6))
    true = Windows(np.zeros((4, 6, 2 * size)), commands, number, ahead, late, taken)
    states = simulate(robot, Scenario(), true, truth)
    seen = np.concatenate([(states[..., :size] - shift) / gain, states[..., size:] / gain], -1)
    if robot.spec.action.kind == "position":  # furuta's torque is not what its encoder says
        commands = (commands - shift) / gain
    free = [parameter for joint in robot.spec.joint_names for parameter in _parameters(joint)]
    turned = tuple(np.sign(gain).astype(int).tolist())
    windows = replace(true, states=seen, commands=commands)
    problem = EncoderProblem(robot, free, windows, first_guess(robot), Scenario(), turned)
    values = {f"encoder.{j}.shift": s for j, s in zip(robot.spec.joint_names, shift, strict=True)}
    values |= {f"encoder.{j}.gain": abs(g) for j, g in zip(robot.spec.joint_names, gain, strict=True)}
    at_truth = problem.point(np.array([p.coordinate(values[p.name]) for p in free]), seen[:, 0])
    np.testing.assert_allclose(at_truth.error, 0, atol=1e-6)  # standard deviations of the noise


def seen_through(episode: Episode, true: tuple[Encoder, ...]) -> Episode:
    """What robot.yaml's encoders (sign 1, offset 0, gear 1) show where the `true` ones would be right."""
    observer = Observer(FURUTA.spec)
    pos, vel = observer.joint_state(episode.obs)
    factor = np.array([encoder.sign * encoder.gear for encoder in true])
    offset = np.array([encoder.offset for encoder in true])
    return replace(episode, obs=observer(factor * (pos + offset), factor * vel, observer.sent(episode.obs)))


def test_a_reversed_and_shifted_encoder_of_the_twin_is_found_and_a_vertical_axis_untold() -> None:
    scenario = Scenario(latency_ms=20, actuator_gain=0.9, joint_pos_noise=0.0006, joint_vel_noise=0.02)
    policy = load_behaviours(FURUTA)["excite"](2, np.random.default_rng(5))
    episodes = run_episodes(FURUTA, "bullet", scenario, policy, batch=2, seed=5)
    true = Encoder(offset=0.3), Encoder(sign=-1, offset=0.4)
    windows = cut([seen_through(episode, true) for episode in episodes], FURUTA, 6, "the twin")
    known = [p.name for p in parameters(FURUTA) if p.name not in ("actuator_gain", "latency_ms")]
    arm, pendulum = encoders(FURUTA, known, windows, np.random.default_rng(0))
    assert (arm.sign, pendulum.sign) == (1, -1)
    assert pendulum.untold == [] and arm.untold == ["offset"]
    assert pendulum.encoder.offset == pytest.approx(0.4, abs=0.01)
    assert pendulum.encoder.gear == pytest.approx(1.0, abs=0.01)
    assert arm.line == ""


def test_a_rod_that_is_balanced_late_is_not_taken_for_one_that_hangs(guide: Path) -> None:
    """Its encoder is right; half a turn off, the nominal robot, which has no delay, would predict better."""
    robot = load_robot(guide)
    policy = load_behaviours(robot)["excite"](8, np.random.default_rng(1))
    scenario = load_scenario(robot, "severe").model_copy(update={"joint_vel_noise": 0.02})
    windows = cut(run_episodes(robot, "bullet", scenario, policy, batch=8, seed=1), robot, 15, "the twin")
    (hinge,) = encoders(robot, [], windows, np.random.default_rng(0))
    assert hinge.line == ""
    assert hinge.shift[0] == pytest.approx(0, abs=0.01)


def test_all_stops_at_an_encoder_that_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "delays", lambda *_, **__: {"delays": []})
    wrong = ["pendulum: encoder: {sign: -1, offset: 0.4000, gear: 1}"]
    monkeypatch.setattr(pipeline, "zero", lambda *_, **__: {"robot.yaml": wrong})
    with pytest.raises(InputError, match=r"pendulum: encoder: .sign: -1.*record again"):
        pipeline.everything(tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
