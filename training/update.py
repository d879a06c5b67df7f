"""The gradient step of one agent, or of several of one kind at once."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from landbridge.training import ranks
from landbridge.training.agents.base import Agent
from landbridge.training.captured import Captured

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # as torch.optim.Adam calls them

Tensors = dict[str, Tensor]
Rows = tuple[Tensor, Tensor]  # packed rows (N, .) and their weights (N,)


class Update:
    """One summed loss, one backward pass, one Adam step, then the target networks and the policy's average.

    The parameters of an agent become views of a few vectors, so that a step, an average over ranks or a target network
    is one operation. Of several agents the vectors are the rows of a matrix, and `torch.vmap` takes their steps at
    once: S small products become one batched product, which costs a GPU hardly more than one of them. An agent is
    trained by the `Update` that was made of it last.

    Args:
        agents: Of one class and configuration, on one device; each keeps its own generator.
        compiled: Compile the loss with its gradient; on a GPU, replay the step as a CUDA graph (not under `torchrun`).
    """

    def __init__(self, agents: Sequence[Agent], compiled: bool = False) -> None:
        self.agents = list(agents)
        lead = self._lead = self.agents[0]
        self._config, device = lead.config, lead.generator.device
        trained = [name for name, p in lead.named_parameters() if p.requires_grad]
        policy = [name for name in trained if name.startswith("policy.")]
        rest = [name for name in trained if name not in policy]
        self._groups = [(self._flattened(names), names) for names in (policy, rest) if names]
        self._gradients = [torch.zeros_like(flat) for flat, _ in self._groups]
        self._trained: Tensors = {}
        for flat, names in self._groups:
            self._trained |= self._views(flat, names)
        self._frozen: Tensors = {}
        self._targets = [self._pair(target, online) for target, online in lead.target_networks.items()]
        if prior := [name for name, _ in lead.named_parameters() if name.startswith("prior.")]:
            self._frozen |= self._views(self._flattened(prior).detach(), prior)
        self._average = self._pair("policy_average", "policy")
        self._average_rate = torch.ones((), device=device)
        on_gpu = device.type == "cuda"
        rate = torch.tensor(self._config.lr, dtype=torch.float32 if on_gpu else torch.float64, device=device)
        groups = [{"params": [flat], "lr": rate.clone()} for flat, _ in self._groups]  # tensors: a graph reads them
        self._adam = torch.optim.Adam(groups, fused=True, capturable=on_gpu)
        gradient = torch.func.grad(self._loss, has_aux=True)
        if len(self.agents) > 1:
            gradient = torch.vmap(gradient, in_dims=(0, 0, 0, 0, 0, None))
        self._gradient = torch.compile(gradient, dynamic=False) if compiled else gradient
        self._step: dict[bool, Callable[..., Tensor]] = {
            turn: functools.partial(self._advance, updates_policy=turn) for turn in (True, False)
        }
        if on_gpu and compiled and ranks.count() == 1:
            self._step = {turn: Captured(step) for turn, step in self._step.items()}

    def __call__(self, batches: Sequence[Rows], step: int) -> list[Tensor]:
        """One step of every agent on its rows of all ranks; returns this rank's `metrics` of each, on the device.

        A loss that is a mean over rows has the gradient of the global batch; TD3+BC's lambda is of this rank's rows.
        """
        lead, config = self._lead, self._config
        noise = [self._noise(agent, len(rows)) for agent, (rows, _) in zip(self.agents, batches, strict=True)]
        if lead.cosine:
            rate = config.lr * 0.5 * (1 + math.cos(math.pi * step / lead.steps))
            self._adam.param_groups[0]["lr"].fill_(rate)
        horizon = min(step + 1.0, config.averaging * lead.steps)  # the plain mean at first
        self._average_rate.fill_(1 / max(1.0, horizon))
        each = [(*rows, drawn) for rows, drawn in zip(batches, noise, strict=True)]
        together = map(torch.stack, zip(*each, strict=True)) if len(each) > 1 else each[0]
        shown = self._step[lead.updates_policy(step)](*together)
        return list(shown) if len(each) > 1 else [shown]

    def state_dict(self, agent: int) -> dict[str, Any]:
        """Adam's moments of one of the agents, empty before the first step."""
        states = [self._adam.state[flat] for flat, _ in self._groups]
        return {name: [_of(s[name], agent).clone() for s in states if s] for name in MOMENTS}

    def load_state_dict(self, agent: int, state: dict[str, Any]) -> None:
        """Continue with the moments of a checkpoint; raises ValueError if it was of other parameters."""
        if (*state,) != MOMENTS:
            raise ValueError(f"{', '.join(state)} in place of {', '.join(MOMENTS)}")
        for i, (flat, _) in enumerate(self._groups):
            mine = self._adam.state[flat]
            for name, values in state.items():
                if not values:
                    continue
                shape = () if name == "step" else flat.shape
                mine.setdefault(name, torch.zeros(shape, device=flat.device))
                place = _of(mine[name], agent)
                if values[i].shape != place.shape:
                    raise ValueError(f"{values[i].numel()} moments of {place.numel()} parameters")
                place.copy_(values[i])

    def _noise(self, agent: Agent, rows: int) -> Tensor:
        """Standard normal numbers (rows, `total_noise_size`) of this rank, from those of all."""
        size, generator = (rows * ranks.count(), agent.total_noise_size), agent.generator
        return ranks.share(torch.randn(size, generator=generator, device=generator.device))

    def _loss(
        self, trained: Tensors, frozen: Tensors, rows: Tensor, weights: Tensor, noise: Tensor, policy: bool
    ) -> tuple[Tensor, Tensor]:
        """`Agent.forward` as a function of the parameters, so that it compiles together with its gradient."""
        answer: tuple[Tensor, Tensor] = torch.func.functional_call(
            self._lead, {**trained, **frozen}, (rows, weights, noise, policy)
        )
        return answer

    @torch.no_grad()  # no gradient of the gradient
    def _advance(self, rows: Tensor, weights: Tensor, noise: Tensor, updates_policy: bool) -> Tensor:
        """What of a step happens on the device, and the same in every step."""
        gradients, shown = self._gradient(self._trained, self._frozen, rows, weights, noise, updates_policy)
        for (flat, names), buffer in zip(self._groups, self._gradients, strict=True):
            flat.grad = None  # Adam leaves one without gradient, and its moments, alone
            if updates_policy or not names[0].startswith("policy."):
                parts = [gradients[name].reshape(*flat.shape[:-1], -1) for name in names]
                flat.grad = torch.cat(parts, -1, out=buffer)
                ranks.average_(buffer)
        self._adam.step()
        if updates_policy:
            for follower, leader in self._targets:
                follower.lerp_(leader, self._config.polyak)
        follower, leader = self._average
        follower.lerp_(leader, self._average_rate)
        return shown

    def _flattened(self, names: list[str]) -> nn.Parameter:
        """The named parameters as one vector, or a row of one per agent; they become views of it."""
        each = [[agent.get_parameter(name) for name in names] for agent in self.agents]
        vectors = torch.stack([parameters_to_vector(parameters).detach() for parameters in each])
        flat = nn.Parameter(vectors if len(each) > 1 else vectors[0])
        for row, parameters in zip(flat.detach().view(len(each), -1), each, strict=True):
            vector_to_parameters(row, parameters)
        return flat

    def _views(self, flat: Tensor, names: list[str]) -> Tensors:
        shapes = [self._lead.get_parameter(name).shape for name in names]
        parts = torch.split(flat.detach(), [shape.numel() for shape in shapes], -1)
        each = zip(names, parts, shapes, strict=True)
        return {name: part.view((*flat.shape[:-1], *shape)) for name, part, shape in each}

    def _pair(self, target: str, online: str) -> tuple[Tensor, Tensor]:
        """The parameters of a target network and of the network that it follows, as `_flattened` has them."""
        names = [name for name in self._trained if name.startswith(f"{online}.")]
        flat, group = next(vector for vector in self._groups if names[0] in vector[1])
        sizes = [self._lead.get_parameter(name).numel() for name in group]
        first = group.index(names[0])  # a module's parameters follow each other
        leader = flat.detach().narrow(-1, sum(sizes[:first]), sum(sizes[first : first + len(names)]))
        followers = [target + name.removeprefix(online) for name in names]
        follower = self._flattened(followers).detach()
        self._frozen |= self._views(follower, followers)
        return follower, leader


def _of(moment: Tensor, agent: int) -> Tensor:
    """One agent's row; of a single agent, or of the step that all have taken, the whole."""
    return moment[agent] if moment.ndim > 1 else moment
