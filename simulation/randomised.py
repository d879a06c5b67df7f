"""Domain randomisation over the severity ladder: simulators anywhere between the nominal robot and a rung."""

from __future__ import annotations

from typing import Any

import numpy as np

from landbridge.joint import Friction
from landbridge.robot import Robot
from landbridge.simulation.scenario import NOMINAL, Scenario, load_scenario
from landbridge.simulation.transmission import transmissions


def draw_between(robot: Robot, rung: str, rng: np.random.Generator) -> Scenario:
    """A scenario whose every part lies uniformly between the nominal robot's and the rung's.

    A part is one number, one joint's friction, gear or cogging, or one link's payload; the numbers of a part move
    together, so that a friction law between two valid ones is valid. A gear that only one of both has is there
    throughout, and its gap is drawn from none; so is the amplitude of cogging. A link that only one of both changes is
    unchanged in the other; a push that only one of both has is in every scenario, since it belongs to the task.

    Raises:
        InputError: There is no such rung.
    """
    low, high = load_scenario(robot, NOMINAL), load_scenario(robot, rung)
    start, end = _complete(robot, low, high), _complete(robot, high, low)
    return Scenario.model_validate({field: _draw(start[field], end[field], rng) for field in start})


def _complete(robot: Robot, scenario: Scenario, other: Scenario) -> dict[str, Any]:
    """`scenario` as plain values, with an entry for every joint, and for all that the `other` end names."""
    plain = scenario.model_dump()
    for scales in ("link_mass_scale", "link_length_scale"):
        plain[scales] = dict.fromkeys(getattr(other, scales), 1.0) | plain[scales]
    plain["friction"] = {j.name: _friction(scenario.friction.get(j.name, j.friction)) for j in robot.spec.joints}
    plain["payload"] = {n: p.model_dump() | {"mass": 0.0} for n, p in other.payload.items()} | plain["payload"]
    own, others = transmissions(robot.spec, scenario), transmissions(robot.spec, other)
    tight = {name: gear.model_dump() | {"backlash": 0.0} for name, gear in others.items()}
    plain["transmission"] = tight | {name: gear.model_dump() for name, gear in own.items()}
    cogging = {name: law.model_dump() for name, law in scenario.cogging.items()}
    plain["cogging"] = {n: law.model_dump() | {"amplitude": 0.0} for n, law in other.cogging.items()} | cogging
    push = scenario.push or other.push
    plain["push"] = None if push is None else push.model_dump()
    return plain


def _friction(friction: Friction) -> dict[str, float]:
    stiction = friction.frictionloss if friction.stiction is None else friction.stiction
    return friction.model_dump() | {"stiction": stiction}


def _draw(low: Any, high: Any, rng: np.random.Generator) -> Any:
    """One field of a scenario: a number, or parts by name."""
    if isinstance(low, dict) and isinstance(high, dict):
        return {name: _blend(low[name], high[name], float(rng.random())) for name in low}
    return _blend(low, high, float(rng.random()))


def _blend(low: Any, high: Any, share: float) -> Any:
    if isinstance(low, dict):
        return {key: _blend(low[key], high[key], share) for key in low}
    if isinstance(low, tuple):
        return tuple(_blend(a, b, share) for a, b in zip(low, high, strict=True))
    return low if low is None else low + share * (high - low)
