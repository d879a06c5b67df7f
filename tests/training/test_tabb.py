from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from landbridge.robot import load_robot
from landbridge.task import load_task
from landbridge.training.alignments.base import Context, effective_sample_size
from landbridge.training.alignments.tabb import Tabb, TabbConfig
from landbridge.training.dataset import Batch, Normaliser, Transitions, load_domains, pack
from landbridge.training.predictor import PredictorConfig

from .conftest import Data

ROBOT = load_robot("furuta")
SIZE = 8


def value(obs: Tensor) -> Tensor:
    """V(s) = s_0, so that backups can be computed in the head."""
    return obs[:, 0]


def tabb(gamma: float = 0.5, **config: object) -> Tabb:
    normaliser = Normaliser(np.zeros(SIZE), np.ones(SIZE))
    context = Context(ROBOT, load_task(ROBOT), normaliser, gamma, 1.0, torch.device("cpu"), 0)
    settings = TabbConfig(predictor=PredictorConfig(members=2, hidden=32, steps=400), **config)  # type: ignore[arg-type]
    return Tabb(settings, context)


def batch(reward: float, next_value: float, predicted: list[tuple[float, float]], terminated: bool = False) -> Batch:
    """One row whose members predict (reward, next value)."""
    states = [torch.cat([torch.tensor([r, v]), torch.zeros(SIZE - 1)]) for r, v in predicted]
    return Batch(
        obs=torch.zeros(1, SIZE),
        action=torch.zeros(1, 1),
        next_obs=torch.cat([torch.tensor([next_value]), torch.zeros(SIZE - 1)])[None],
        reward=torch.tensor([reward]),
        not_terminated=torch.tensor([0.0 if terminated else 1.0]),
        extra=torch.cat(states)[None],
    )


@pytest.mark.parametrize(("turn", "mismatch"), [(0, 1.0), (1, 2.0)])
def test_the_mismatch_by_hand(turn: int, mismatch: float) -> None:
    # |2 + 0.5 * 4 - (1 + 0.5 * 4)| = 1, |1 + 0.5 * 0 - (1 + 0.5 * 4)| = 2
    made = tabb()
    made.turn.fill_(turn)
    assert made.mismatch(batch(1.0, 4.0, [(2.0, 4.0), (1.0, 0.0)]), value).tolist() == pytest.approx([mismatch])


@pytest.mark.parametrize(("turn", "mismatch"), [(0, 1.0), (1, 0.0)])
def test_a_terminal_row_keeps_the_value_out_of_both_sides(turn: int, mismatch: float) -> None:
    made = tabb()
    made.turn.fill_(turn)
    row = batch(1.0, 4.0, [(2.0, 400.0), (1.0, -400.0)], terminated=True)
    assert made.mismatch(row, value).tolist() == pytest.approx([mismatch])


def test_every_turn_asks_all_members_and_a_row_asks_another_one_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    made, rng = tabb(), np.random.default_rng(0)
    obs, following = rng.standard_normal((2, 40, SIZE)).astype(np.float32)
    rows = Transitions(
        obs, np.zeros((40, 1), np.float32), np.zeros(40, np.float32), following, np.zeros(40, bool), np.arange(40)
    )
    monkeypatch.setattr(made, "predict", lambda of: np.stack([of.obs, of.obs + 1]))  # members tell each row apart
    whole = made.extend(rows)
    turns = torch.from_numpy(whole).view(40, 2, SIZE + 1)[:, :, 1].numpy() - obs[:, :1]
    assert {tuple(row) for row in turns.round().tolist()} == {(0, 1), (1, 0)}
    parts = [made.extend(rows[part]) for part in (slice(0, 7), slice(7, 40))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_the_weight_by_hand() -> None:
    made = tabb()
    made.floor.fill_(0.5)
    made.scale.fill_(2.0)
    made.blend.fill_(1.0)
    row = batch(1.0, 4.0, [(2.0, 4.0), (1.0, 0.0)])
    assert made.weights(row, value).tolist() == pytest.approx([np.exp(-(1.0 - 0.5) / 2.0)])
    made.floor.fill_(2.0)
    assert made.weights(row, value).tolist() == [1.0]
    made.floor.fill_(0.5)
    made.blend.fill_(0.25)
    assert made.weights(row, value).tolist() == pytest.approx([1 + 0.25 * (np.exp(-0.25) - 1)])


def test_the_effective_sample_size_by_hand() -> None:
    assert effective_sample_size(torch.tensor([1.0, 1.0, 0.0, 0.0])).item() == pytest.approx(0.5)
    assert effective_sample_size(torch.ones(7)).item() == pytest.approx(1.0)


def test_the_temperature_rises_until_the_effective_sample_size_is_kept() -> None:
    excess = torch.linspace(0, 50, 1000)
    made = tabb(ess_floor=0.3)
    temperature = made._temperature(excess)
    assert temperature > made.config.temperature
    assert effective_sample_size(torch.exp(-excess / temperature)).item() == pytest.approx(0.3, abs=0.01)
    assert tabb(ess_floor=0.01)._temperature(excess) == 1.0


def test_weights_are_damped_as_far_as_the_predictor_cannot_be_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tabb()
    rng = np.random.default_rng(0)
    obs, following = rng.standard_normal((2, 400, SIZE)).astype(np.float32)
    held = Transitions(
        obs, np.zeros((400, 1), np.float32), np.zeros(400, np.float32), following, np.zeros(400, bool), np.arange(400)
    )
    halfway = following - np.sqrt(0.5, dtype=np.float32) * (following - obs)  # leaves half of the variance
    monkeypatch.setattr(made, "learn", lambda *_: None)
    monkeypatch.setattr(made, "split", lambda rows: (rows, rows))
    monkeypatch.setattr(made, "predict", lambda _: halfway[None])
    with pytest.warns(UserWarning, match="explains 50% of the robot's motion on 400 held-out rows"):
        made.fit(held, held)
    assert made.trust == pytest.approx(0.5, abs=0.01)
    monkeypatch.setattr(made, "predict", lambda _: following[None])
    made.fit(held, held)
    assert made.trust == 1.0


def test_a_predictor_that_is_trained_on_is_asked_anew_and_by_the_same_rule(data: Data) -> None:
    """Before its first further step it says of a row what a frozen one has cached, and afterwards something better."""
    domains = load_domains(ROBOT, {"source": data.source, "target": data.target})
    source, target = domains["source"][:300], domains["target"]
    normaliser = Normaliser.of(list(domains.values()), load_task(ROBOT).observer.names)
    context = Context(ROBOT, load_task(ROBOT), normaliser, 0.99, 0.5, torch.device("cpu"), 0)
    predictor = PredictorConfig(members=2, hidden=32, source_steps=50, steps=50)
    torch.manual_seed(0)
    frozen = Tabb(TabbConfig(predictor=predictor), context)
    frozen.fit(source, target)
    online = Tabb(TabbConfig(predictor=predictor, schedule="every"), context)
    online.load_state_dict(frozen.state_dict())
    columns = {made: made.cache(source, target) for made in (frozen, online)}
    assert columns[online].shape == (300, 0)
    cached = torch.from_numpy(columns[frozen]).view(300, 2, SIZE + 1)
    first = torch.from_numpy(np.ascontiguousarray(source.obs).view(np.uint32).sum(1, np.int64) % 2)
    rows = {made: made._unpack(pack(source, normaliser, columns[made], 0.5)) for made in (frozen, online)}
    for turn in (0, 1):
        online.turn.fill_(turn)
        said = torch.where(first == turn, 0, 1)  # where the member of this turn stands among a row's
        own = cached[torch.arange(300), said]
        torch.testing.assert_close(online._asked(rows[online])[:, 0], own, rtol=0, atol=1e-4)

    def loss(made: Tabb) -> float:
        return float(np.square(made.predict(target).mean(0) - target.next_obs)[:, made.measured].mean())

    before, trust = loss(online), online.trust
    online.refresh(value, 1.0)
    assert int(online.blocks) == 1
    assert loss(online) < 0.9 * before
    assert online.trust > trust + 0.01  # measured again: weights reach as far as it explains by now
    assert online.diagnostics().figures["trust"] == online.trust
    frozen.refresh(value, 1.0)
    assert loss(frozen) == before
    assert bool(online.weights(rows[online], value).isfinite().all())


def test_a_predictor_that_is_trained_on_draws_other_rows_in_every_block(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator takes 32 bits of a seed, so the block's number must be in those."""
    target = load_domains(ROBOT, {"source": data.source, "target": data.target})["target"]
    normaliser = Normaliser.of([target], load_task(ROBOT).observer.names)
    context = Context(ROBOT, load_task(ROBOT), normaliser, 0.99, 0.5, torch.device("cpu"), 5)
    config = TabbConfig(predictor=PredictorConfig(members=1, hidden=8, source_steps=1, steps=1), schedule=200)
    made, draws = Tabb(config, context), list[list[int]]()

    def note(*asked: Any) -> None:
        draws.append(torch.randint(1000, (8,), generator=torch.Generator().manual_seed(asked[4])).tolist())

    monkeypatch.setattr(made.predictor, "go_on", note)
    made.cache(target[:10], target)
    for _ in range(3):
        made.refresh(value, 1.0)
    assert len({tuple(draw) for draw in draws}) == 3


def test_a_predictor_is_trained_on_as_seldom_as_it_is_told(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    target = load_domains(ROBOT, {"source": data.source, "target": data.target})["target"]
    normaliser = Normaliser.of([target], load_task(ROBOT).observer.names)
    context = Context(ROBOT, load_task(ROBOT), normaliser, 0.99, 0.5, torch.device("cpu"), 0)
    for schedule, steps in (("every", [256] * 4), (200, [1, 1, 1, 2]), (1000, [0, 0, 0, 1])):
        config = TabbConfig(predictor=PredictorConfig(members=1, hidden=8, source_steps=1, steps=1), schedule=schedule)
        made, taken = Tabb(config, context), list[int]()
        monkeypatch.setattr(made.predictor, "go_on", lambda *asked, to=taken: to.append(asked[3]))
        made.cache(target[:10], target)
        for _ in range(4):
            made.refresh(value, 1.0)
        assert taken == steps


def test_rows_of_the_robot_itself_weigh_more_than_rows_it_could_not_produce(data: Data) -> None:
    domains = load_domains(ROBOT, {"source": data.source, "target": data.target})
    normaliser = Normaliser.of(list(domains.values()), load_task(ROBOT).observer.names)
    context = Context(ROBOT, load_task(ROBOT), normaliser, 0.99, 1.0, torch.device("cpu"), 0)
    made = Tabb(TabbConfig(predictor=PredictorConfig(members=2, hidden=64, source_steps=300, steps=800)), context)
    source, target = domains["source"], domains["target"]
    made.fit(source, target)
    made.cache(source, target)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(SIZE, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))

    def random_value(obs: Tensor) -> Tensor:
        with torch.no_grad():
            answer: Tensor = network(obs)[:, 0]
            return answer

    made.refresh(random_value, progress=1.0)
    impossible = source.__class__(**{**vars(source), "next_obs": source.next_obs[::-1].copy()})
    weights = {}
    for name, rows in (("robot", target), ("impossible", impossible)):
        extra = made.extend(rows)
        weights[name] = made.weights(made._unpack(pack(rows, normaliser, extra)), random_value)
        assert weights[name].shape == (len(rows),)
        assert bool(((weights[name] >= 0) & (weights[name] <= 1)).all())
    assert weights["robot"].mean() > weights["impossible"].mean() + 0.2
    figures = made.diagnostics().figures
    assert 0 < figures["ess"] <= 1
    assert figures["heldout_unexplained.joint_pos.arm"] < 0.5
