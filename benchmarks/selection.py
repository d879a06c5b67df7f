"""Whether a calibrated simulator foretells which policy does best on the robot.

    python benchmarks/sim2real.py --work /tmp/study --target-steps 1000 --seeds 0 1 2 3 4 5 6 7 --label main \
        --arms source_only target_only none tabb dynamics shuffled calibrated_mix calibrated_tabb
    python benchmarks/selection.py --work /tmp/study --target-steps 1000

Takes runs, their scores on the twin and calibrations that `benchmarks/sim2real.py` left in --work, where nothing is
written, and foretells what each run does, in its own seed's calibrated simulator (of the same robot time as its target
data), as `landbridge export --calibration` does. One of a seed's runs is then chosen, of those that never saw a
calibrated simulator and of all: by what is foretold, by what the nominal simulator says, by chance, and by the twin
itself, which is as well as can be. The mean of their actions, which `export` takes of several
seeds where it has no calibration, stands beside them, and is chosen too where it promises more. Writes
`results/selection_<robot>.json` and `.md`, with `_<rung>` if that is not `severe`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from of_study import Floats, OfStudy, cells, found_on, paired
from rich.progress import track
from scipy.stats import spearmanr
from sim2real import ARMS, Study, scores_file

from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.simulation.behaviour import Behaviour, Policy
from landbridge.simulation.calibrated import choose_scenario
from landbridge.simulation.scenario import NOMINAL, Scenario, load_scenario
from landbridge.training.evaluate import resolve
from landbridge.training.selection import Foretold, foretell


@dataclass(frozen=True)
class Options(OfStudy):
    """What to choose from.

    Attributes:
        seeds: Of the study.
        arms: Its ways to a policy.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)
    arms: tuple[str, ...] = (
        "source_only", "target_only", "none", "tabb", "dynamics", "shuffled", "calibrated_mix", "calibrated_tabb",
    )  # fmt: skip


def main(options: Options) -> None:
    """Foretell, choose, print and write."""
    study, places = options.study, options.places
    files = [scores_file(study, seed, arm, p) for p in places for seed in options.seeds for arm in options.arms]
    if missing := [file for file in files if not file.is_file()]:
        raise InputError(missing[0], "not there", "run benchmarks/sim2real.py with these seeds and arms first")
    success = np.array(  # (places, seeds, arms, episodes) on the twin
        [
            [[np.load(scores_file(study, seed, arm, place))[0] for arm in options.arms] for seed in options.seeds]
            for place in places
        ]
    )
    torch.set_num_threads(1)  # two would wait for each other on a busy machine
    nominal = load_scenario(load_robot(options.robot), NOMINAL)
    said: dict[str, list[list[Foretold]]] = {"calibrated": [], "nominal": []}
    for seed in track(options.seeds, "foretell"):
        for name, simulator in (("calibrated", _calibrated(study, seed)), ("nominal", nominal)):
            said[name].append([_foretell(study, seed, arm, simulator) for arm in options.arms])
    groups = {
        "nominal logs": [i for i, arm in enumerate(options.arms) if ARMS[arm].source == "source"],
        "all": [*range(len(options.arms))],
    }
    result = {
        "exactness": {
            name: [
                _exactness(np.array([[f.by_start[i] for f in row] for row in rows]), success[i].mean(-1))
                for i in range(len(places))
            ]
            for name, rows in said.items()
        },
        "chosen": {
            name: _chosen(success[:, :, group], said, group, _means(options, group)) for name, group in groups.items()
        },
        "places": [str(place) for place in places],
        "found_by_seed": success.mean(-1).tolist(),
        "foretold_by_seed": {name: [[f.by_start for f in row] for row in rows] for name, rows in said.items()},
    }
    options.write("selection", result, _markdown(options, result))


def _calibrated(study: Study, seed: int) -> Scenario:
    return choose_scenario(load_robot(study.robot), None, study.folder(seed) / "calibration.yaml")


def _foretell(study: Study, seed: int, arm: str, simulator: Scenario) -> Foretold:
    robot = load_robot(study.robot)
    return foretell(resolve(str(study.folder(seed) / "runs" / arm), robot), robot, simulator)


class Mean(NamedTuple):
    """What the mean of a group's actions does: success on the twin (places, seeds, episodes), and foretold by seed."""

    success: Floats
    foretold: list[Foretold]


def _means(options: Options, group: list[int]) -> Mean:
    study, robot, success, foretold = options.study, load_robot(options.robot), [], []
    for seed in track(options.seeds, f"mean of {len(group)}"):
        policy = mean_of([resolve(str(study.folder(seed) / "runs" / options.arms[i]), robot) for i in group])
        success.append([found_on(policy, robot, place, study.episodes, seed) for place in options.places])
        foretold.append(foretell(policy, robot, _calibrated(study, seed)))
    return Mean(np.swapaxes(np.array(success), 0, 1), foretold)


def mean_of(policies: Sequence[Behaviour]) -> Behaviour:
    """The policy whose action is the mean of theirs, as that of `Actor` is."""

    def start(batch: int, rng: np.random.Generator) -> Policy:
        started = [policy(batch, rng) for policy in policies]
        return lambda obs: np.mean([act(obs) for act in started], axis=0)

    return start


def _exactness(foretold: Floats, found: Floats) -> dict[str, float]:
    """Of success (seeds, arms), foretold and on the twin: mean error, and Spearman's rank correlation over all."""
    rank = spearmanr(foretold.ravel(), found.ravel()).statistic
    return {"error": float(np.abs(foretold - found).mean()), "rank_correlation": float(rank)}


def _chosen(
    success: Floats, said: dict[str, list[list[Foretold]]], group: list[int], mean: Mean
) -> list[dict[str, Any]]:
    """Per place, of success (places, seeds, arms, episodes), that of the runs that are chosen, by how they are."""
    seeds = np.arange(success.shape[1])
    of = {
        f"{name} simulator": success[:, seeds, [max(range(len(group)), key=lambda i: row[group[i]]) for row in rows]]
        for name, rows in said.items()
    }
    promising = [max(row[i] for i in group) for row in said["calibrated"]]
    takes_mean = np.array([a > b for a, b in zip(mean.foretold, promising, strict=True)])
    with_mean = np.where(takes_mean[:, None], mean.success, of["calibrated simulator"])
    twin = success.mean((0, 3)).argmax(1)
    of |= {"chance": success.mean(2), "the twin itself": success[:, seeds, twin]}
    of |= {"nobody: their mean": mean.success, "calibrated simulator, their mean among them": with_mean}
    return [{how: paired(chosen[i], of["chance"][i]) for how, chosen in of.items()} for i in range(len(success))]


def _markdown(options: Options, result: dict[str, Any]) -> str:
    lines = [
        f"Success on the twin of `{options.robot}` in `{options.rung}` of one of {len(options.arms)} policies per "
        f"recording of {options.target_steps} transitions, {len(options.seeds)} recordings, by who chooses it: mean, "
        "95 % interval over recordings and episodes, paired difference to the mean of the policies.",
        "",
        f"| of | chosen by | {' | '.join(f'{place} | less chance' for place in result['places'])} |",
        "|---|---|" + "---|---|" * len(result["places"]),
    ]
    for group, by_place in result["chosen"].items():
        for how in by_place[0]:
            row = [group, how, *(cell for found in by_place for cell in cells(found[how], how == "chance"))]
            lines.append(f"| {' | '.join(row)} |")
    lines.append("")
    for name, of in result["exactness"].items():
        for place, row in zip(result["places"], of, strict=True):
            line = f"What the {name} simulator says of {place}: off by {row['error']:.3f} on average, "
            lines.append(line + f"rank correlation {row['rank_correlation']:.2f}.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
