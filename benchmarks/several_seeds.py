"""What several seeds of one training are worth: one of them, the mean of their actions, or what `export` chooses.

    python benchmarks/sim2real.py --work /tmp/study --target-steps 1000 --seeds 0 1 2 3 4 5 6 7 --label main \
        --arms none tabb calibrated_mix calibrated_tabb
    python benchmarks/several_seeds.py --work /tmp/study --target-steps 1000

Takes the data and calibrations that `benchmarks/sim2real.py` left in --work, trains `members` seeds on each recording
with `landbridge train --seeds`, and scores on the twin each of them, the mean of the first few, and of all of these
what `landbridge export --calibration` chooses. What is complete in --work is not made again. Writes
`results/several_seeds_<arm>_<robot>.json` and `.md`, with `_<rung>` if that is not `severe`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from of_study import Floats, OfStudy, cells, found_on, paired
from rich.progress import track
from selection import mean_of
from sim2real import ARMS

from landbridge.cli import main as landbridge
from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.training.evaluate import resolve
from landbridge.training.run import has_reached
from landbridge.training.selection import best

ONE = "one of them"


@dataclass(frozen=True)
class Options(OfStudy):
    """What to train, and on which data.

    Attributes:
        seeds: Of the study, each a recording.
        arm: Which of its ways to a policy.
        members: Seeds of training per recording.
        means: Of how many of them the mean is scored.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)
    arm: str = "calibrated_tabb"
    members: int = 5
    means: tuple[int, ...] = (2, 3, 5)


def main(options: Options) -> None:
    """Train what is missing, score, print and write."""
    if (arm := ARMS.get(options.arm)) is None or arm.pace != 1 or arm.options:
        raise InputError("--arm", options.arm, "choose one of sim2real's that differs in alignment, agent or logs only")
    if max(options.means) > options.members:
        raise InputError("--means", f"{options.means} of {options.members} members", "train as many")
    torch.set_num_threads(1)  # two would wait for each other on a busy machine
    by_recording = []
    for seed in track(options.seeds, "recordings"):
        _train(options, seed)
        by_recording.append(_scores(options, seed))
    success = {how: np.stack([found[how] for found in by_recording], axis=1) for how in by_recording[0]}
    rows = {how: [paired(*both) for both in zip(of, success[ONE], strict=True)] for how, of in success.items()}
    found = {"places": [str(place) for place in options.places], "found": rows}
    options.write(f"several_seeds_{options.arm}", found, _markdown(options, rows))


def _folder(options: Options, seed: int) -> Path:
    return options.study.folder(seed) / "several" / options.arm


def _train(options: Options, seed: int) -> None:
    """All members as one batch; one that was cut off is resumed."""
    study, out, arm = options.study, _folder(options, seed), ARMS[options.arm]
    data = study.folder(seed)
    if all(has_reached(out / f"seed{n}", study.steps) for n in range(options.members)):
        return
    words = (
        *("--robot", study.robot, "--agent", arm.agent, "--alignment", arm.alignment, "--compile"),
        *("--source", str(data / arm.source), "--target", str(data / "target")),
        *("--steps", str(study.steps), "--rows", str(arm.rows), "--target-share", str(study.target_share)),
        *("--seeds", *map(str, range(options.members))),
    )
    if landbridge(["train", "--out", str(out), *(("--resume",) if out.exists() else words)]) != 0:
        raise InputError(out, "the training failed", "see above")


def _scores(options: Options, seed: int) -> dict[str, Floats]:
    """Success (places, episodes) on the twin of one recording's policies, by how they come about."""
    study, robot, folder = options.study, load_robot(options.robot), _folder(options, seed)
    members = {n: resolve(str(folder / f"seed{n}"), robot) for n in range(options.members)}
    means = {n: mean_of([members[i] for i in range(n)]) for n in sorted({*options.means, options.members})}
    alone, together = (
        {
            n: np.array([found_on(policy, robot, place, study.episodes, seed) for place in options.places])
            for n, policy in policies.items()
        }
        for policies in (members, means)
    )
    chosen, *_ = best(folder, study.folder(seed) / "calibration.yaml")
    scored = {folder / f"seed{n}": success for n, success in alone.items()} | {folder: together[options.members]}
    return {
        ONE: np.mean([*alone.values()], axis=0),
        **{f"the mean of {n}": success for n, success in together.items()},
        "what `export --calibration` chooses": scored[chosen],
        "the best of them on the twin": max(alone.values(), key=np.mean),
    }


def _markdown(options: Options, rows: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        f"Success on the twin of `{options.robot}` in `{options.rung}`, {ARMS[options.arm].label}, {options.members} "
        f"seeds of training on each of {len(options.seeds)} recordings of {options.target_steps} transitions: mean, "
        "95 % interval over recordings and episodes, paired difference to one of them, whichever.",
        "",
        f"| policy | {' | '.join(f'{place} | less one' for place in options.places)} |",
        "|---|" + "---|---|" * len(options.places),
    ]
    for how, found in rows.items():
        row = [how, *(cell for place in found for cell in cells(place, how == ONE))]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
