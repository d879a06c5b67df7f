"""Off-dynamics learning as its literature measures it: many source rows, few of a shifted target, normalised scores.

    python benchmarks/offdynamics/study.py --env hopper --shift gravity-0.5 --source work/source.hdf5 \
        --target work/target.hdf5 --work work/study --arms source_only target_only none tabb dynamics dara --seeds 0 \
        --settings landbridge --steps 4000 --compile

Source and target are HDF5 files in D4RL's layout, from `data.py` beside this file or from elsewhere. The arms are
landbridge's own agents and alignments, trained with equal steps and equal source rows per step, and scored on the same
episodes of the shifted environment by the deterministic policy. A score is 100 (J - J_random) / (J_expert - J_random)
with the references of `references.json`, unless others are given. What is complete in --work is not made again. Writes
`results/offdynamics_<env>_<shift>.json` and `.md`, with `_<label>` if there is one.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from data import read
from numpy.typing import NDArray
from rich.console import Console
from shifts import make_env
from task import Locomotion

from landbridge.errors import InputError
from landbridge.provenance import commit
from landbridge.training.agents.iql import IQLConfig
from landbridge.training.alignments import ALIGNMENTS
from landbridge.training.assembly import build
from landbridge.training.config import AgentName, AlignmentName, TrainConfig
from landbridge.training.dataset import Normaliser, Transitions
from landbridge.training.loop import run
from landbridge.training.policy import Actor
from landbridge.training.statistics import bootstrap, paired_difference

RESULTS = Path(__file__).parent.parent / "results"
REFERENCES = Path(__file__).parent / "references.json"
TESTS = 10_000  # first seed of the scored episodes
SETTINGS = {
    # Kostrikov et al. 2021 and ODRL's config/mujoco/iql: 2 x 256, 128 rows of either domain, rewards as they are.
    "literature": TrainConfig(
        rows=128,
        target_share=1.0,
        reward_scale=1.0,
        iql=IQLConfig(hidden=(256, 256), gamma=0.99, polyak=0.005, lr=3e-4, expectile=0.7, weight_temp=3.0),
    ),
    "landbridge": TrainConfig(),
}


@dataclass(frozen=True)
class Study:
    """What to train and how to score it.

    Attributes:
        source, target: HDF5 files in D4RL's layout.
        work: Folder of the runs.
        env: hopper, walker2d, halfcheetah or ant.
        shift: Of the target environment; see shifts.py.
        arms: Alignments.
        seeds: Of training; every arm has all of them.
        steps: Gradient steps.
        agent: Offline RL agent.
        settings: Of IQL: the literature's, or landbridge's default.
        compile: Compile the update: a slow start, then faster steps.
        target_rows: Transitions that are used of the target file, from its beginning.
        episodes: Scored per run.
        random, expert: Returns at which the score is 0 and 100, in place of ODRL's.
        label: Ends the names of the results.
    """

    source: Path
    target: Path
    work: Path
    env: str = "hopper"
    shift: str = "gravity-0.5"
    arms: tuple[AlignmentName, ...] = (
        "source_only", "target_only", "none", "dara", "igdf", "tabb", "dynamics", "corrected",
    )  # fmt: skip
    seeds: tuple[int, ...] = (0,)
    steps: int = 100_000
    agent: AgentName = "iql"
    settings: Literal["literature", "landbridge"] = "literature"
    compile: bool = False
    target_rows: int = 5_000
    episodes: int = 10
    random: float | None = None
    expert: float | None = None
    label: str = ""


def main(study: Study) -> None:
    """Train what is missing, score, print and record."""
    torch.set_num_threads(1)
    make_env(study.env, study.shift).close()  # before hours of training
    references = reference(study)
    data = {"source": read(study.source, study.env), "target": read(study.target, study.env)[: study.target_rows]}
    study.work.mkdir(parents=True, exist_ok=True)
    runs = {arm: [_run(study, data, arm, seed) for seed in study.seeds] for arm in study.arms}
    record = _record(study, data, runs, references)
    name = "_".join(["offdynamics", study.env, study.shift, *([study.label] if study.label else [])])
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    (RESULTS / f"{name}.md").write_text(table(record))
    Console().print(table(record))


def reference(study: Study) -> dict[str, Any]:
    """Returns of a random and of an expert policy, which of them the command gave, and whence the others are.

    Raises:
        InputError: ODRL has no expert for this shift, and none is given.
    """
    known = json.loads(REFERENCES.read_text())
    kind, *rest = study.shift.split("-")
    exact = f"{kind}-{float(rest[0])}" if kind in ("gravity", "friction") else kind
    expert = known["expert"][study.env].get(exact) if study.expert is None else study.expert
    if expert is None:
        raise InputError("--shift", f"ODRL has no reference for {study.shift!r}", "give the return of an --expert")
    random = known["random"][study.env] if study.random is None else study.random
    given = [name for name in ("random", "expert") if getattr(study, name) is not None]
    return {"random": random, "expert": expert, "given": given, "of": known["of"]}


def _run(study: Study, data: dict[str, Transitions], arm: AlignmentName, seed: int) -> dict[str, Any]:
    """Train and score one arm with one seed, or read what an earlier call made of it."""
    folder = study.work / f"{arm}_{seed}"
    config = replace(SETTINGS[study.settings], agent=study.agent, alignment=arm, steps=study.steps, seed=seed)
    config = replace(config, compile=study.compile)
    asked = {"train": config.to_json(), "data": {name: rows.digest() for name, rows in data.items()}}
    asked |= {"env": study.env, "shift": study.shift, "episodes": study.episodes}
    path = folder / "scores.json"
    if path.is_file():
        if (found := json.loads(path.read_text()))["asked"] != asked:
            raise InputError(folder, "is of other settings or other data", "choose another --work")
        return found
    folder.mkdir(exist_ok=True)
    task = Locomotion(study.env)
    used = {name: rows for name, rows in data.items() if name in ALIGNMENTS[arm].domains}
    normaliser = Normaliser.of(list(used.values()), task.observer.names)
    trainer = build(folder, used, normaliser, task, None, config)
    run([trainer], lambda trainer, metrics: None, lambda: False)
    returns = score(study, Actor([trainer.agent], normaliser))
    found = {"asked": asked, "returns": returns.tolist(), "diagnostics": trainer.alignment.diagnostics().figures}
    path.write_text(json.dumps(found))
    Console(stderr=True).print(f"{arm}, seed {seed}: {returns.mean():.0f}")
    return found


def score(study: Study, actor: Actor) -> NDArray[np.float64]:
    """Returns (episodes,) in the shifted environment, always from the same start states."""
    env, returns = make_env(study.env, study.shift), np.zeros(study.episodes)
    for episode in range(study.episodes):
        obs, ended = env.reset(seed=TESTS + episode)[0], False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(actor.numpy(obs[None].astype(np.float32))[0])
            returns[episode] += reward
            ended = terminated or truncated
    return returns


def _record(
    study: Study, data: dict[str, Transitions], runs: dict[str, list[dict[str, Any]]], references: dict[str, Any]
) -> dict[str, Any]:
    """Everything that the results say."""
    low, high = references["random"], references["expert"]
    scores = {
        arm: 100 * (np.array([run["returns"] for run in found]) - low) / (high - low) for arm, found in runs.items()
    }
    arms = {}
    for arm, of_arm in scores.items():
        arms[arm] = {
            "score": float(of_arm.mean()),
            "interval": bootstrap(of_arm, same_episodes=True),
            "by_seed": of_arm.mean(1).tolist(),
            "return": float(np.mean([run["returns"] for run in runs[arm]])),
            "diagnostics": [run["diagnostics"] for run in runs[arm]],
        }
        if arm != "none" and "none" in scores:
            arms[arm]["less_mix"] = paired_difference(of_arm, scores["none"], same_episodes=True)
    described = {name: _describe(rows) for name, rows in data.items()}
    settings = {k: [*map(str, v)] if isinstance(v, tuple) else str(v) for k, v in vars(study).items() if k != "work"}
    settings |= {"source": study.source.name, "target": study.target.name}  # where they lay is of this machine
    return {"commit": commit(), "settings": settings, "references": references, "data": described, "arms": arms}


def _describe(rows: Transitions) -> dict[str, float]:
    """Number of transitions, and the mean return of the episodes but for the last, which may be cut."""
    totals = np.bincount(rows.episode, weights=rows.reward)
    return {
        "rows": len(rows),
        "episodes": len(totals),
        "return": float((totals[:-1] if totals[1:].size else totals).mean()),
    }


def table(record: dict[str, Any]) -> str:
    """The results as Markdown."""
    s, r = record["settings"], record["references"]
    shown = ", ".join(
        f"{name} {of['rows']} rows in {of['episodes']} episodes of mean return {of['return']:.0f}"
        for name, of in record["data"].items()
    )
    size = f"{s['steps']} steps, seeds {', '.join(s['seeds'])}, {s['episodes']} episodes each"
    whence = f"{', '.join(r['given'])} as given, else of {r['of']}" if r["given"] else r["of"]
    covered = "the episodes' chance alone" if len(s["seeds"]) == 1 else "seeds and episodes"
    lines = [
        f"`{s['env']}`, `{s['shift']}`; {shown}.",
        f"{s['agent'].upper()}, settings of {s['settings']}; {size}. Intervals are of {covered}.",
        f"Score 0 is a return of {r['random']:.1f}, 100 one of {r['expert']:.1f}: {whence}.",
        "",
        "| arm | score (95 %) | by seed | return | less the naive mix |",
        "|---|---|---|---|---|",
    ]
    for arm, found in record["arms"].items():
        low, high = found["interval"]
        by_seed = ", ".join(f"{value:.1f}" for value in found["by_seed"])
        less = "{:+.1f} ({:+.1f} .. {:+.1f})".format(*found["less_mix"]) if "less_mix" in found else ""
        lines.append(
            f"| `{arm}` | {found['score']:.1f} ({low:.1f} .. {high:.1f}) | {by_seed} | {found['return']:.0f} | {less} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    try:
        main(tyro.cli(Study, description=__doc__))
    except InputError as error:
        sys.exit(str(error))
