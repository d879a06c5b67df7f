"""The losses of every agent by hand, and that updates are the algorithm they are said to be."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from landbridge.training.agents.bc import BC, BCConfig
from landbridge.training.agents.cql import CQL, CQLConfig
from landbridge.training.agents.iql import IQL, IQLConfig, expectile_loss
from landbridge.training.agents.td3bc import TD3BC, TD3BCConfig
from landbridge.training.dataset import Batch
from landbridge.training.update import Update

NO_NOISE = torch.zeros(2, 0)


class Fixed(nn.Module):
    """Answers every row with its column `column`, times `gain`."""

    def __init__(self, column: int, gain: float = 1.0) -> None:
        super().__init__()
        self.column, self.gain = column, nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        return self.gain * x[:, self.column : self.column + 1]


class Nothing(nn.Module):
    """Answers every row with mean 0 and log-std 0 of one action."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 2)


def iql(**config: object) -> IQL:
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
    (loss_v, loss_q, loss_pi), (v, u, _) = iql(gamma=0.9, weight_temp=2.0).losses(BATCH, ONES, NO_NOISE)
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
    (_, _, loss_pi), _ = iql(weight_temp=1000.0).losses(BATCH, ONES, NO_NOISE)
    constant = 0.5 * math.log(2 * math.pi)
    assert loss_pi.item() == pytest.approx(100 * (0.125 + 0.5 + 2 * constant) / 2)


def cql(**config: object) -> CQL:
    made = CQL(2, 1, CQLConfig(hidden=(4,), gamma=0.9, alpha=0.5, num_actions=1, **config), steps=10)  # type: ignore[arg-type]
    made.q = nn.ModuleList([Fixed(0), Fixed(2)])  # obs0, and the action
    made.q_target = nn.ModuleList([Fixed(0), Fixed(0, 0.5)])
    made.policy.net = Nothing()  # type: ignore[assignment]
    torch.nn.init.constant_(made.log_eta, math.log(0.5))
    return made


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 0.5)])
def test_the_losses_of_cql_by_hand(weights: tuple[float, float]) -> None:
    # a', a~, and one of each proposal: uniform, pi(s), pi(s'); all 0 but the first row's a~ and uniform one
    noise = torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.0], [0.0] * 5])
    (loss_q, loss_pi, loss_eta), (value, gap, entropy) = cql().losses(BATCH, torch.tensor(weights), noise)
    # backups: 1 + 0.9 * min(2, 1) = 1.9; terminated: 2. Q1 = (1, 4), Q2 = (0.5, -1)
    squares = [(0.9**2 + 1.4**2) / 2, (2.0**2 + 3.0**2) / 2]
    # densities 1/2 and, of a standard normal squashed, at 0, 1/sqrt(2 pi); Q1 does not depend on the action
    root, uniform = math.sqrt(2 * math.pi), math.erf(1 / math.sqrt(2))
    plain, drawn = math.log((2 + 2 * root) / 3), math.log((2 * math.exp(uniform) + 2 * root) / 3)
    gaps = [plain + drawn - 0.5, plain + plain + 1.0]
    rows = [square + 0.5 * gap for square, gap in zip(squares, gaps, strict=True)]
    assert loss_q.item() == pytest.approx(sum(w * row / 2 for w, row in zip(weights, rows, strict=True)) / 2)
    assert (value.item(), gap.item()) == (pytest.approx(2.5), pytest.approx(plain))
    # a~ = tanh(1) of log density -1/2 - log sqrt(2 pi) - log(1 - tanh(1)^2), and 0
    log_pi = [-0.5 - math.log(root) - math.log(1 - math.tanh(1.0) ** 2), -math.log(root)]
    assert loss_pi.item() == pytest.approx((0.5 * log_pi[0] - math.tanh(1.0) + 0.5 * log_pi[1] - 0.0) / 2)
    assert loss_eta.item() == pytest.approx(math.log(2) * (sum(log_pi) / 2 - 1))
    assert entropy.item() == pytest.approx(-sum(log_pi) / 2)


def td3bc(**config: object) -> TD3BC:
    made = TD3BC(2, 1, TD3BCConfig(hidden=(4,), gamma=0.9, **config), steps=10)  # type: ignore[arg-type]
    made.q = nn.ModuleList([Fixed(0), Fixed(2)])
    made.q_target = nn.ModuleList([Fixed(0), Fixed(2)])
    made.policy.net = Fixed(0, 0.0)  # type: ignore[assignment]
    made.policy_target.net = Fixed(0, 0.0)  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(("draw", "smooth"), [(1.0, 0.2), (10.0, 0.5)])  # of a deviation of 0.2, clipped at 0.5
def test_the_losses_of_td3bc_by_hand(draw: float, smooth: float) -> None:
    noise = torch.tensor([[draw], [0.0]])
    (loss_q, loss_pi), (value,) = td3bc().losses(BATCH, torch.tensor([3.0, 0.5]), noise)
    backup = 1 + 0.9 * smooth  # min(2, a'); terminated: 2
    squares = [(1 - backup) ** 2 + (0.5 - backup) ** 2, 2.0**2 + 3.0**2]
    assert loss_q.item() == pytest.approx((3.0 * squares[0] + 0.5 * squares[1]) / 4)
    # pi(s) = 0, Q1 = (1, 4), lambda = 2.5 / 2.5, whatever Q's weights
    assert loss_pi.item() == pytest.approx(((0.5**2 - 1.0) + (1.0**2 - 4.0)) / 2)
    assert value.item() == pytest.approx(2.5)


def test_the_smoothed_action_of_td3bc_stays_within_the_range() -> None:
    made = td3bc(policy_noise=5.0, noise_clip=5.0)
    (loss_q, _), _ = made.losses(BATCH, torch.tensor([1.0, 0.0]), torch.tensor([[1.0], [0.0]]))
    assert loss_q.item() == pytest.approx(((1 - 1.9) ** 2 + (0.5 - 1.9) ** 2) / 4)


def test_the_value_of_td3bc_is_scaled_by_the_weighted_mean_of_its_size() -> None:
    (_, loss_pi), _ = td3bc(weigh=("pi",)).losses(BATCH, torch.tensor([3.0, 0.5]), torch.zeros(2, 1))
    scale = 2.5 * 3.5 / (3.0 * 1.0 + 0.5 * 4.0)
    assert loss_pi.item() == pytest.approx((3.0 * (0.25 - scale * 1.0) + 0.5 * (1.0 - scale * 4.0)) / 2)


def test_the_loss_of_bc_by_hand() -> None:
    made = BC(2, 1, BCConfig(hidden=(4,)), steps=10)
    made.policy.net = Fixed(0, 0.0)  # type: ignore[assignment]
    (loss,), _ = made.losses(BATCH, torch.tensor([3.0, 0.5]), NO_NOISE)
    constant = 0.5 * math.log(2 * math.pi)
    assert loss.item() == pytest.approx((3.0 * (0.125 + constant) + 0.5 * (0.5 + constant)) / 2)


def test_weights_scale_rows_and_do_not_broadcast() -> None:
    made = iql(gamma=0.9)
    (_, loss_q, _), _ = made.losses(BATCH, torch.tensor([3.0, 0.5]), NO_NOISE)
    assert loss_q.item() == pytest.approx((3.0 * 0.82 + 0.5 * 5.0) / 4)
    with pytest.raises(AssertionError):
        made.losses(BATCH, torch.ones(2, 1), NO_NOISE)


def test_a_row_of_weight_zero_has_no_influence_on_q() -> None:
    gradients = []
    for reward in (2.0, 1e6):
        made = iql()
        batch = BATCH._replace(reward=torch.tensor([1.0, reward]))
        (_, loss_q, _), _ = made.losses(batch, torch.tensor([1.0, 0.0]), NO_NOISE)
        torch.autograd.backward(loss_q)
        gradients.append([p.grad.clone() for p in made.q.parameters() if p.grad is not None])
    assert len(gradients[0]) == 2
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_weights_reach_only_the_losses_they_are_meant_for() -> None:
    weights = torch.tensor([2.0, 2.0])
    plain, _ = iql().losses(BATCH, ONES, NO_NOISE)
    for name, at in (("v", 0), ("q", 1), ("pi", 2)):
        weighed, _ = iql(weigh=(name,)).losses(BATCH, weights, NO_NOISE)
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
