from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from landbridge.training.agents.iql import IQL, IQLConfig, expectile_loss
from landbridge.training.dataset import Batch
from landbridge.training.update import Update

NO_NOISE = torch.zeros(2, 0)


class Fixed(nn.Module):
    """Answers every row with its column `column`, times `gain`."""

    def __init__(self, column: int, gain: float = 1.0) -> None:
        super().__init__()
        self.column, self.gain = column, nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x[:, self.column : self.column + 1]


def agent(**config: object) -> IQL:
    made = IQL(2, 1, IQLConfig(hidden=(4,), **config), steps=10)  # type: ignore[arg-type]
    made.q = nn.ModuleList([Fixed(0), Fixed(1)])
    made.q_target = nn.ModuleList([Fixed(0), Fixed(1)])
    made.v = Fixed(0, 0.5)  # type: ignore[assignment]
    made.policy.net = Fixed(0, 0.0)  # type: ignore[assignment]
    return made


BATCH = Batch(
    obs=torch.tensor([[1.0, 2.0], [4.0, 3.0]]),
    action=torch.tensor([[0.5], [-1.0]]),
    next_obs=torch.tensor([[2.0, 0.0], [8.0, 0.0]]),
    reward=torch.tensor([1.0, 2.0]),
    not_terminated=torch.tensor([1.0, 0.0]),
    extra=torch.zeros(2, 0),
)
ROWS = torch.cat([BATCH.obs, BATCH.action, BATCH.next_obs, BATCH.reward[:, None], BATCH.not_terminated[:, None]], dim=1)
ONES = torch.ones(2)


def test_the_expectile_loss_by_hand() -> None:
    u = torch.tensor([2.0, -2.0, 0.0])
    assert expectile_loss(u, 0.7).tolist() == pytest.approx([0.7 * 4, 0.3 * 4, 0.0])


def test_the_three_losses_by_hand() -> None:
    (loss_v, loss_q, loss_pi), (v, u, _) = agent(gamma=0.9, weight_temp=2.0).losses(BATCH, ONES, NO_NOISE)
    # V = obs0 / 2 = (0.5, 2); min target Q = (1, 3); u = (0.5, 1)
    assert v.item() == pytest.approx((0.5 + 2.0) / 2)
    assert u.item() == pytest.approx((0.5 + 1.0) / 2)
    assert loss_v.item() == pytest.approx((0.7 * 0.25 + 0.7 * 1.0) / 2)
    # backups: 1 + 0.9 * V(2) = 1.9; terminated: 2. Q1 = (1, 4), Q2 = (2, 3)
    squares = (0.9**2 + 0.1**2) + (2.0**2 + 1.0**2)
    assert loss_q.item() == pytest.approx(squares / 2 / 2)
    # mean action 0, std 1: -log pi = a^2 / 2 + log(2 pi) / 2
    negative_log = [0.125 + 0.5 * math.log(2 * math.pi), 0.5 + 0.5 * math.log(2 * math.pi)]
    weighted = math.exp(1.0) * negative_log[0] + math.exp(2.0) * negative_log[1]
    assert loss_pi.item() == pytest.approx(weighted / 2, rel=1e-6)


def test_the_policy_weight_is_clipped_at_a_hundred() -> None:
    (_, _, loss_pi), _ = agent(weight_temp=1000.0).losses(BATCH, ONES, NO_NOISE)
    constant = 0.5 * math.log(2 * math.pi)
    assert loss_pi.item() == pytest.approx(100 * (0.125 + 0.5 + 2 * constant) / 2)


def test_weights_scale_rows_and_do_not_broadcast() -> None:
    made = agent(gamma=0.9)
    (_, loss_q, _), _ = made.losses(BATCH, torch.tensor([3.0, 0.5]), NO_NOISE)
    assert loss_q.item() == pytest.approx((3.0 * 0.82 + 0.5 * 5.0) / 4)
    with pytest.raises(AssertionError):
        made.losses(BATCH, torch.ones(2, 1), NO_NOISE)


def test_a_row_of_weight_zero_has_no_influence_on_q() -> None:
    gradients = []
    for reward in (2.0, 1e6):
        made = agent()
        batch = BATCH._replace(reward=torch.tensor([1.0, reward]))
        (_, loss_q, _), _ = made.losses(batch, torch.tensor([1.0, 0.0]), NO_NOISE)
        torch.autograd.backward(loss_q)
        gradients.append([p.grad.clone() for p in made.q.parameters() if p.grad is not None])
    assert len(gradients[0]) == 2
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_weights_reach_only_the_losses_they_are_meant_for() -> None:
    weights = torch.tensor([2.0, 2.0])
    plain, _ = agent().losses(BATCH, ONES, NO_NOISE)
    for name, at in (("v", 0), ("q", 1), ("pi", 2)):
        weighed, _ = agent(weigh=(name,)).losses(BATCH, weights, NO_NOISE)
        ratios = [(w / p).item() for w, p in zip(weighed, plain, strict=True)]
        assert ratios == pytest.approx([2.0 if i == at else 1.0 for i in range(3)])


def test_one_summed_loss_is_the_same_algorithm_as_three_updates_in_turn() -> None:
    torch.manual_seed(0)
    config = IQLConfig(hidden=(8, 8))
    summed, separate = IQL(2, 1, config, 10), IQL(2, 1, config, 10)
    separate.load_state_dict(summed.state_dict())
    update = Update([summed])
    optimisers = [
        torch.optim.Adam(parameters, lr=config.lr)
        for parameters in (separate.v.parameters(), separate.q.parameters(), separate.policy.parameters())
    ]
    for step in range(3):
        # CORL's order: V(s') and the advantage are computed before V moves
        losses, _ = separate.losses(BATCH, ONES, NO_NOISE)
        for loss, optimiser in zip(losses, optimisers, strict=True):
            optimiser.zero_grad()
            torch.autograd.backward(loss, retain_graph=True)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = config.lr
        optimisers[2].param_groups[0]["lr"] = config.lr * 0.5 * (1 + math.cos(math.pi * step / 10))
        for optimiser in optimisers:
            optimiser.step()
        with torch.no_grad():
            for target, online in zip(separate.q_target.parameters(), separate.q.parameters(), strict=True):
                target.lerp_(online, config.polyak)
        update([(ROWS, ONES)], step)
    for name, value in summed.state_dict().items():
        if name.startswith("policy_average"):
            continue
        torch.testing.assert_close(value, separate.state_dict()[name], rtol=0, atol=2e-6, msg=name)


def test_the_compiled_update_equals_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # of one graph: more processes would take longer to import torch. Named here, since it takes 2 s to import
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    torch.manual_seed(0)
    eager, compiled = (IQL(2, 1, IQLConfig(hidden=(8,)), 20) for _ in range(2))
    compiled.load_state_dict(eager.state_dict())
    updates = [Update([eager]), Update([compiled], compiled=True)]
    for step in range(10):
        (shown,) = zip(*(update([(ROWS, ONES)], step) for update in updates), strict=True)
        torch.testing.assert_close(shown[0], shown[1], rtol=1e-5, atol=1e-6)
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(value, compiled.state_dict()[name], rtol=0, atol=2e-6, msg=name)


def test_the_deployed_policy_is_the_average_of_the_run() -> None:
    torch.manual_seed(0)
    made = IQL(2, 1, IQLConfig(hidden=(4,), averaging=0.5), steps=8)
    update, seen = Update([made]), []
    for step in range(6):
        update([(ROWS, ONES)], step)
        seen.append(made.policy.log_std.item())
    # the plain mean of the first 4 = 0.5 * 8 steps, then an exponential one with that horizon
    expected = sum(seen[:4]) / 4
    for value in seen[4:]:
        expected += (value - expected) / 4
    average = made.policy_average
    assert average.log_std.item() == pytest.approx(expected, rel=1e-5)  # type: ignore[operator, union-attr]
