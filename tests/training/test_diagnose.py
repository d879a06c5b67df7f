"""Diagnosis on rows whose dynamics are known by construction; the real engines are in benchmarks/diagnosis.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.simulation.collect import collect
from landbridge.task import load_task
from landbridge.training import diagnose as module
from landbridge.training.dataset import Normaliser, Transitions
from landbridge.training.diagnose import (
    ADVICE,
    WITHOUT_HISTORY,
    Comparison,
    Evidence,
    _blocks,
    _thinned,
    advice_of,
    diagnose,
    findings_of,
    fit_source_model,
    held_out,
    sign_flip,
)
from landbridge.training.predictor import PredictorConfig

from .conftest import Data

TASK = load_task(load_robot("furuta"))
MEASURED = TASK.observer.measured
NEWEST = [column.name for column in TASK.observer.columns].index("action_history.arm.0")


class Exact:
    """The source's dynamics as they are: s' = s + 0.1 a."""

    def __init__(self, normaliser: Normaliser) -> None:
        self.normaliser, self.task = normaliser, TASK

    def residual(self, data: Transitions) -> NDArray[np.float64]:
        change = data.next_obs - data.obs
        return np.asarray(change[:, MEASURED] - 0.1 * data.action, np.float64)


def rows(
    count: int, seed: int, gain: float = 1.0, delayed: float = 0.0, noise: float = 0.01, stray: float = 0.0
) -> Transitions:
    """`gain` a, of which the share `delayed` is of the action before; white noise; the share `stray` is elsewhere."""
    rng = np.random.default_rng(seed)
    obs = rng.uniform(-1, 1, (count, TASK.observer.size)).astype(np.float32)
    obs[: round(stray * count)] += 1.5
    action = rng.uniform(-1, 1, (count, 1)).astype(np.float32)
    acting = (1 - delayed) * action[:, 0] + delayed * obs[:, NEWEST]
    following = obs.copy()
    following[:, MEASURED] += 0.1 * gain * acting[:, None] + noise * rng.standard_normal((count, MEASURED.sum()))
    return Transitions(
        obs, action, np.zeros(count, np.float32), following, np.zeros(count, bool), np.arange(count) // 300
    )


SOURCE, HELD = rows(6000, 0), rows(3000, 1)


def evidence(target: Transitions) -> dict[str, Evidence]:
    model = Exact(Normaliser.of([SOURCE], TASK.observer.names))
    found = Comparison(model, SOURCE, HELD, 0).evidence(target)  # type: ignore[arg-type]
    return {e.gap: e for e in found}


@pytest.mark.parametrize(
    ("target", "gaps"),
    [
        (rows(3000, 2), set()),
        (rows(3000, 2, noise=0.03), set()),
        (rows(3000, 2, gain=0.5), {"dynamical"}),
        (rows(3000, 2, delayed=1.0), {"dynamical", "structural"}),
        (rows(3000, 2, stray=0.3), {"distributional"}),
    ],
    ids=["the same robot", "more sensor noise", "half the gain", "a delay", "elsewhere"],
)
def test_each_gap_is_named(target: Transitions, gaps: set[str]) -> None:
    assert {name for name, e in evidence(target).items() if e.holds} == gaps


def test_the_effect_of_a_lower_gain_by_hand() -> None:
    # without correction the error is (0.05 a)^2 + 0.01^2, E a^2 = 1/3, with it 0.01^2
    expected = np.log((0.05**2 / 3 + 0.01**2) / 0.01**2)
    assert evidence(rows(3000, 2, gain=0.5))["dynamical"].effect == pytest.approx(expected, rel=0.15)


def test_where_only_one_has_been_there_is_nothing_to_compare() -> None:
    found = evidence(rows(1500, 2, gain=0.5, stray=0.8))
    assert found["distributional"].holds
    assert found["distributional"].effect == pytest.approx(0.8, abs=0.05)
    assert (found["dynamical"].effect, found["structural"].effect) == (None, None)
    assert findings_of([*found.values()]) == ["distributional", "unknown"]
    assert evidence(rows(1500, 2, stray=1.0))["dynamical"].effect is None


def test_twenty_seconds_are_enough_where_most_of_them_can_be_compared() -> None:
    found = evidence(rows(1000, 2, delayed=1.0, stray=0.15))
    assert findings_of([*found.values()]) == ["structural", "dynamical"]


def test_without_past_actions_nobody_can_say_that_there_is_no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Comparison, "_history", lambda self: np.zeros(len(TASK.observer.names), bool))
    found = evidence(rows(3000, 2))
    assert found["structural"].effect is None
    assert findings_of([*found.values()]) == ["unknown"]
    assert advice_of([*found.values()]) == [WITHOUT_HISTORY]  # no longer recording would help


def test_a_question_that_was_not_asked_is_no_answer() -> None:
    no, unasked = Evidence("distributional", 0.1, 0.5), Evidence("structural", None, 1.0)
    assert findings_of([no, Evidence("dynamical", 0.1, 0.5)]) == ["none"]
    assert findings_of([no, Evidence("dynamical", None, 1.0), unasked]) == ["unknown"]
    assert findings_of([no, Evidence("dynamical", 0.9, 0.001), unasked]) == ["dynamical", "unknown"]
    assert set(ADVICE) == {"none", "unknown", "distributional", "dynamical", "structural"}


def test_held_out_errors_do_not_see_their_own_fold() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((500, 3))
    linear = features @ rng.standard_normal((3, 2)) + 5.0
    blocks = np.arange(500) // 10
    assert np.abs(held_out(features, linear, blocks)).max() < 0.05
    # blocks of pure noise of their own, that features name: a fit that saw them would explain them
    named = np.eye(50)[blocks]
    noise = rng.standard_normal((50, 1))[blocks]
    assert np.square(held_out(named, noise, blocks)).mean() > 0.5 * np.square(noise).mean()


def test_a_seed_is_one_model_and_no_row_is_its_own_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SOURCE_MODEL", PredictorConfig(source_steps=50, steps=0))
    (first, fitted, held), (second, _, _) = (fit_source_model(SOURCE, TASK, 3) for _ in range(2))
    np.testing.assert_array_equal(first.residual(HELD), second.residual(HELD))
    assert {*fitted.episode.tolist()}.isdisjoint(held.episode.tolist())
    assert len(fitted) + len(held) == len(SOURCE)


def test_p_values_are_uniform_without_an_effect_and_small_with_one() -> None:
    rng = np.random.default_rng(0)
    alike = np.full(20, 50)
    p = np.array([sign_flip(rng.standard_normal(20), alike, rng)[1] for _ in range(200)])
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.04)
    assert p.mean() == pytest.approx(0.5, abs=0.07)
    assert sign_flip(rng.standard_normal(20) + 3, alike, rng)[1] < 0.002


def test_a_block_is_worth_its_rows() -> None:
    """Lost ticks cut episodes; a scrap of one row that says otherwise than a block of 100 changes nothing."""
    differences, sizes = np.array([-1.0] * 10 + [1.0] * 30), np.array([100] * 10 + [1] * 30)
    mean, p = sign_flip(differences, sizes, np.random.default_rng(0))
    assert mean == pytest.approx((-1000 + 30) / 1030)
    assert p > 0.99


def test_rows_outside_that_are_scraps_of_episodes_are_no_gap_in_coverage() -> None:
    """Every eightieth row is elsewhere, and an episode of its own."""
    target = rows(2000, 2)
    outside = np.arange(40, 2000, 80)
    target.obs[outside] += 1.5
    target.next_obs[outside] += 1.5
    cut = np.zeros(2000, bool)
    cut[outside] = cut[outside + 1] = True
    found = evidence(dataclasses.replace(target, episode=np.cumsum(cut)))["distributional"]
    assert found.effect is not None and found.effect < 0.1  # a twentieth of what is inside counts as outside
    assert not found.holds


def test_the_command_answers_each_question_and_gives_advice(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"only 890 transitions.*at least 900"):
        module.compare(SOURCE, rows(890, 2), TASK, 0, data.target)
    twin: dict[str, Any] = {"engine": "bullet", "scenario": "severe", "domain": "target", "mix": {"excite": 1.0}}
    collect(tmp_path / "target", steps=1800, batch=6, seed=3, **twin)
    with pytest.raises(InputError, match=r"--source: only 1500 transitions, \d+ of them to be held out. collect 9000"):
        diagnose(data.source, tmp_path / "target")
    collect(tmp_path / "source", steps=7000, seed=1)
    monkeypatch.setattr(module, "SOURCE_MODEL", PredictorConfig(source_steps=200, steps=0))
    found = diagnose(tmp_path / "source", tmp_path / "target")
    assert [row["gap"] for row in found["evidence"]] == ["distributional", "dynamical", "structural"]
    findings = [row["gap"] for row in found["evidence"][::-1] if row["holds"]]
    findings += ["unknown"] if any(row["effect"] is None for row in found["evidence"]) else []
    assert found["gap"] == (findings or ["none"])[0]
    merged = [name for name in findings if name != "dynamical" or "structural" not in findings]  # whose advice has both
    assert found["advice"] == [ADVICE[name] for name in merged or ["none"]]


def test_held_out_rows_are_thinned_by_whole_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single rows of a long source would be less alike than a robot's neighbours, and no gap would look like one."""
    blocks = _blocks(SOURCE)
    assert len(_thinned(SOURCE, np.random.default_rng(0))) == len(SOURCE)
    monkeypatch.setattr(module, "CANDIDATES", len(SOURCE) // 3)
    numbered = dataclasses.replace(SOURCE, reward=np.arange(len(SOURCE), dtype=np.float32))
    kept = _thinned(numbered, np.random.default_rng(0)).reward.astype(int)
    assert len(SOURCE) // 3 - blocks.size // blocks.max() - 1 <= len(kept) <= len(SOURCE) // 3
    whole = np.bincount(blocks)[blocks[kept]]
    np.testing.assert_array_equal(np.bincount(blocks[kept])[blocks[kept]], whole)
