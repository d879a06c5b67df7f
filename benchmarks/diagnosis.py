"""Does `landbridge diagnose` name the gap? Pairs of known kind, and the confusion matrix.

    python benchmarks/diagnosis.py [--draws 20]

Each draw is a robot in Bullet, recorded for a minute, or for `--rows`, by the behaviour that `landbridge record` uses,
with sensor noise: `none`, the nominal robot; `distributional`, the same beside a source that never swung up;
`dynamical`, other gain, masses, length and friction; `structural`, nothing but delay. `backlash` is structural as well:
no delay, but a motor behind a gear with play. Thresholds were chosen on seeds from 100 on.
Writes `results/diagnosis.json` and `.md`, with `_<rows>` if those are not a minute's.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import track

from landbridge.joint import Friction, Transmission
from landbridge.provenance import commit
from landbridge.robot import load_robot
from landbridge.simulation.behaviour import load_behaviours
from landbridge.simulation.plant import Engine, opened
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import Scenario
from landbridge.task import load_task
from landbridge.training.dataset import Transitions
from landbridge.training.diagnose import Comparison, Finding, Gap, findings_of, fit_source_model

RESULTS = Path(__file__).parent / "results"
GAPS: tuple[Gap, ...] = get_args(Gap)
FINDINGS: tuple[Finding, ...] = (*GAPS, "unknown")
Kind = Gap | Literal["backlash"]
KINDS: tuple[Kind, ...] = (*GAPS, "backlash")
ARM_INERTIA = 0.12 * ((0.16**2 + 0.02**2) / 12 + 0.08**2)  # kg m^2 of the furuta's arm about its axis, as its URDF says
NOISE = {"joint_pos_noise": 0.0005, "joint_vel_noise": 0.015}
EPISODES = {"source": 200, "target": 10}
BATCH = 10


@dataclass(frozen=True)
class Options:
    """What to draw.

    Attributes:
        draws: Robots per kind.
        seed: Of the draws.
        rows: Transitions of each robot; 3000 are a minute, and its results have no suffix.
    """

    draws: int = 20
    seed: int = 1  # 0 showed that an edge at the 99 % quantile misses a thin source
    rows: int = 3000


def rollouts(
    scenario: Scenario, engine: Engine, mix: dict[str, int], rng: np.random.Generator, exploring: float
) -> Transitions:
    """Transitions of so many episodes of each behaviour."""
    robot = load_robot("furuta")
    task, behaviours = load_task(robot), load_behaviours(robot)
    noises, episodes = [np.random.default_rng(rng.integers(2**32)) for _ in range(BATCH)], []
    with opened(robot, engine, [scenario] * BATCH, noises) as plants:
        for name, count in mix.items():
            for _ in range(count // BATCH):
                policy = behaviours[name](BATCH, rng)
                episodes += lockstep(plants, task, policy, rng, exploring=bool(rng.random() < exploring))
    return Transitions.of_episodes(episodes)


def drawn(kind: Kind, rng: np.random.Generator) -> Scenario:
    """A robot with the gap `kind` to the nominal one.

    A rotor takes its inertia from the arm: in contact both turn as the nominal arm does, and play is all there is.
    """
    if kind == "backlash":
        gear = Transmission(
            backlash=rng.uniform(0.0087, 0.035),  # 0.5 to 2 degrees: small gears, new and worn
            rotor_inertia=rng.uniform(1e-4, 4e-4),
            stiffness=100,
            damping=0.05,
        )
        rest = 1 - gear.rotor_inertia / ARM_INERTIA
        return Scenario(transmission={"arm": gear}, link_mass_scale={"arm_link": rest}, **NOISE)
    if kind == "dynamical":
        return Scenario(
            actuator_gain=rng.uniform(0.85, 0.97),
            link_mass_scale={"pendulum_link": rng.uniform(1.03, 1.12)},
            link_length_scale={"pendulum_link": rng.uniform(1.02, 1.06)},
            friction={"arm": Friction(frictionloss=rng.uniform(0.0015, 0.0025), viscous=0.001)},
            **NOISE,
        )
    return Scenario(latency_ms=rng.uniform(10, 40) if kind == "structural" else 0.0, **NOISE)


def main(options: Options) -> None:
    """Draw, diagnose and write the matrix."""
    torch.set_num_threads(1)  # as `landbridge diagnose`: with more, sums and so source models differ from run to run
    rng = np.random.default_rng(options.seed)
    task = load_task(load_robot("furuta"))
    mix = dict.fromkeys(("tuned", "noisy", "excite", "random"), EPISODES["source"] // 4)
    sources = {
        "wide": rollouts(Scenario(), "mujoco", mix, rng, 0.5),
        "narrow": rollouts(Scenario(), "mujoco", {"random": EPISODES["source"]}, rng, 0.0),
    }
    comparisons = {}
    for name, source in sources.items():
        comparisons[name] = Comparison(*fit_source_model(source, task, options.seed), options.seed)
    named: dict[Kind, Counter[Finding]] = {kind: Counter() for kind in KINDS}
    effects: list[dict[str, Any]] = []
    for kind in KINDS:
        for _ in track(range(options.draws), kind, console=Console(stderr=True)):
            scenario = drawn(kind, rng)
            target = rollouts(scenario, "bullet", {"excite": EPISODES["target"]}, rng, 0.0)[: options.rows]
            evidence = comparisons["narrow" if kind == "distributional" else "wide"].evidence(target)
            named[kind][findings_of(evidence)[0]] += 1
            hidden = scenario.model_dump(exclude_defaults=True)
            effects.append({"kind": kind, "scenario": hidden} | {e.gap: (e.effect, e.p_value) for e in evidence})
    table = markdown(named, options)
    Console().print(table, highlight=False)
    name = "diagnosis" if options.rows == Options.rows else f"diagnosis_{options.rows}"
    (RESULTS / f"{name}.md").write_text(table)
    facts = {"commit": commit(), **vars(options), "named": named, "draws_in_full": effects}
    (RESULTS / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")


def markdown(named: dict[Kind, Counter[Finding]], options: Options) -> str:
    """Rows: what was built in; columns: what was named."""
    command = "python benchmarks/diagnosis.py" + ("" if options.rows == Options.rows else f" --rows {options.rows}")
    lines = [
        f"`furuta`, {options.draws} draws per kind (`{command}`); rows: gap built in, columns: gap named.",
        "",
        "| | " + " | ".join(FINDINGS) + " |",
        "|---|" + "---|" * len(FINDINGS),
        *(f"| **{kind}** | " + " | ".join(str(named[kind][name]) for name in FINDINGS) + " |" for kind in KINDS),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
