"""What a dynamics mismatch of a given size costs a policy that was made for the nominal robot.

    python benchmarks/mismatch.py --policies behaviour:tuned behaviour:sac_partial RUN
    python benchmarks/mismatch.py --robot quadruped --policies behaviour:tuned behaviour:ppo_partial RUN

Every physical parameter of the nominal robot (drive gain, mass and length of every moving link, friction of every
joint, ground) is wrong by the given share, each up or down by chance: a draw is a corner of that box, the same corners
and episodes for every policy. For comparison, what no percentage says: one control period of latency. In MuJoCo, so
that no other engine's ways are in it. Writes `results/mismatch_<robot>.json` and `.md`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from landbridge.joint import Friction
from landbridge.provenance import commit
from landbridge.robot import Robot, load_robot
from landbridge.simulation.parameters import moving_links
from landbridge.simulation.scenario import NOMINAL, Scenario, load_scenario
from landbridge.training.evaluate import resolve
from landbridge.training.run import CONFIG, read_run
from landbridge.training.scoring import score

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        policies: Run folders, bundles, or behaviour:NAME.
        robot: Robot that ships with landbridge.
        sizes: Shares by which every parameter is wrong.
        draws: Corners per size, and as many times the nominal robot.
        episodes: Per draw.
        seed: Of corners and episodes.
    """

    policies: tuple[str, ...]
    robot: str = "furuta"
    sizes: tuple[float, ...] = (0.05, 0.15, 0.3)
    draws: int = 20
    episodes: int = 10
    seed: int = 0


def main(options: Options) -> None:
    """Score every policy in every place; write the table."""
    robot = load_robot(options.robot)
    nominal = load_scenario(robot, NOMINAL)
    rng = np.random.default_rng(options.seed)
    period_ms = 1000 * robot.spec.control_dt
    places: dict[str, list[Scenario]] = {"nominal": [nominal] * options.draws}
    for size in options.sizes:
        places[f"+-{size:.0%}"] = [corner(robot, nominal, size, rng) for _ in range(options.draws)]
    places[f"{period_ms:g} ms late"] = [nominal.model_copy(update={"latency_ms": period_ms})] * options.draws
    found: dict[str, Any] = {}
    for name in options.policies:
        policy = resolve(name, robot)
        found[_label(name)] = {
            place: _figures(
                [
                    score(policy, robot, "mujoco", each, options.episodes, options.seed + i)
                    for i, each in enumerate(scenarios)
                ]
            )
            for place, scenarios in track(places.items(), _label(name), console=Console(stderr=True))
        }
    results = {"commit": commit(), "options": vars(options) | {"policies": list(found)}, "found": found}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"mismatch_{options.robot}"
    path.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    path.with_suffix(".md").write_text(_markdown(options, found))
    print(_markdown(options, found))


def corner(robot: Robot, nominal: Scenario, size: float, rng: np.random.Generator) -> Scenario:
    """The nominal scenario with every parameter multiplied by 1 + size or 1 - size, by chance."""

    def factor() -> float:
        return 1 + size * float(rng.choice([-1, 1]))

    links = dict.fromkeys(moving_links(robot).values())
    friction = {}
    for joint in robot.spec.joints:
        law, scale = joint.friction, factor()
        stiction = None if law.stiction is None else law.stiction * scale
        friction[joint.name] = Friction(
            frictionloss=law.frictionloss * scale,
            stiction=stiction,
            stribeck_velocity=law.stribeck_velocity,
            viscous=law.viscous * scale,
        )
    changed = {
        "actuator_gain": nominal.actuator_gain * factor(),
        "ground_friction": nominal.ground_friction * factor(),
        "link_mass_scale": {link: factor() for link in links},
        "link_length_scale": {link: factor() for link in links},
        "friction": friction,
    }
    return nominal.model_copy(update=changed)


def _figures(scores: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Mean over draws and episodes, and the worst draw's mean, of success and return."""
    success, returns = (np.stack([each[i] for each in scores]).mean(1) for i in (0, 1))
    return {
        "success": float(success.mean()),
        "success_worst": float(success.min()),
        "return": float(returns.mean()),
        "return_worst": float(returns.min()),
        "return_by_draw": returns.tolist(),
    }


def _label(name: str) -> str:
    if not (Path(name) / CONFIG).is_file():
        return name.removeprefix("behaviour:")
    train = read_run(Path(name))["train"]
    return f"{train['agent']} {train['alignment']} (seed {train['seed']})"


def _markdown(options: Options, found: dict[str, Any]) -> str:
    places = list(next(iter(found.values())))
    lines = [
        f"Share of the nominal return that is lost on `{options.robot}`, mean over {options.draws} corners x "
        f"{options.episodes} episodes (worst corner), and success (`python benchmarks/mismatch.py`).",
        "",
        "| policy | nominal return, success | " + " | ".join(places[1:]) + " |",
        "|---|---|" + "---|" * (len(places) - 1),
    ]
    for name, rows in found.items():
        base = rows["nominal"]["return"]
        cells = [f"{base:.0f}, {rows['nominal']['success']:.2f}"]
        for place in places[1:]:
            row = rows[place]
            mean, worst = (1 - row[key] / base for key in ("return", "return_worst"))
            cells.append(f"{mean:.0%} ({worst:.0%}), {row['success']:.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
