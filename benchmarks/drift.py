"""Whether the live monitors of a bundle tell a changed robot from a healthy one, on the twin.

    python benchmarks/drift.py --work /tmp/drift [--robot quadruped --scenarios none mild moderate]

For each scenario the whole way is gone once: source data (MuJoCo, nominal), 60 s of target data (Bullet), `tabb`,
export. Then the bundle's policy runs healthy and faulty robots in Bullet, a fault being there from the start of a
rollout, and each score of `landbridge.deploy.drift` watches with the limit that the bundle brought along. Beside them
stand two more scores of the same predictor, the error of its mean in units of its own uncertainty (as alignment
`dynamics` has it) and the disagreement of its members; their limits are set by the same rule from the same rollouts.
Of a robot that falls it is told how often the alarm came before. Seeds differ from those of the training data. Runs
that are complete in --work are not made again. Writes `results/drift.json`, or `results/drift_quadruped.json`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from landbridge.bundle import Bundle, read_bundle
from landbridge.deploy.drift import Alarm, Distance, TargetMismatch
from landbridge.episode import Episode
from landbridge.manifest import Drift, Threshold
from landbridge.provenance import commit, now
from landbridge.robot import Robot, load_robot
from landbridge.simulation.collect import collect
from landbridge.simulation.plant import opened
from landbridge.simulation.rollout import lockstep
from landbridge.simulation.scenario import Payload, Scenario, load_scenario
from landbridge.task import load_task
from landbridge.training.config import TrainConfig
from landbridge.training.dataset import load_domains
from landbridge.training.export import export
from landbridge.training.monitoring import MARGIN, QUANTILE, window_means
from landbridge.training.policy import load_policy
from landbridge.training.predictor import split_episodes
from landbridge.training.train import train

RESULTS = Path(__file__).parent / "results"
SEED = 21_000  # of the watched rollouts; 20_000 chose window and margin
TIP = Payload(mass=0.02, position=(0.0, 0.0, 0.3), size=0.02)  # half of the pendulum's own mass, at its end
PACK = Payload(mass=4.0, position=(-0.15, 0.0, 0.08))  # a third of the quadruped's own mass, on its rear
LOADS = {"furuta": ("pendulum_link", TIP), "quadruped": ("trunk", PACK)}
BROKEN = {"furuta": "pendulum_link", "quadruped": "FR_calf"}  # half of this link is gone

Score = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], float]


@dataclass(frozen=True)
class Study:
    """What to run.

    Attributes:
        work: Folder for data and runs.
        robot: Whose policies; one of LOADS.
        scenarios: The robots that policies are trained for.
        steps: Gradient steps per run.
        source_steps: Simulator transitions.
        target_steps: Robot transitions; 3000 are 60 s.
        rollouts: Watched rollouts per scenario and case.
    """

    work: Path
    robot: Literal["furuta", "quadruped"] = "furuta"
    scenarios: tuple[str, ...] = ("none", "moderate", "severe")
    steps: int = 5_000
    source_steps: int = 60_000
    target_steps: int = 3_000
    rollouts: int = 20


def main(study: Study) -> None:
    """Train what is missing, watch, print a table and write the results."""
    robot = load_robot(study.robot)
    rows = [row for scenario in study.scenarios for row in watch(study, robot, scenario)]
    pooled = pool(rows)
    table = Table(
        "case", "score", "rollouts", "alarms", "median delay [s]", "fell", "told before", title="live monitors"
    )
    for row in pooled:
        delay = "" if row["median_delay_s"] is None else f"{row['median_delay_s']:.2f}"
        counts = str(row["fell"]), str(row["told_before_the_fall"])
        table.add_row(row["case"], row["score"], str(row["rollouts"]), f"{row['alarms']:.2f}", delay, *counts)
    Console().print(table)
    config = {key: value for key, value in vars(study).items() if key != "work"}
    result = {"made": now(), "commit": commit(), "study": config, "pooled": pooled, "by_scenario": rows}
    name = "drift" if study.robot == "furuta" else f"drift_{study.robot}"
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")


def cases(robot: Robot, healthy: Scenario) -> dict[str, Scenario]:
    """The healthy robot and the same with one fault each; friction scales with all its terms."""
    rubbing = {
        joint: friction.model_copy(
            update={
                k: 3 * v for k in ("frictionloss", "stiction", "viscous") if (v := getattr(friction, k)) is not None
            }
        )
        for joint, friction in (healthy.friction or {j.name: j.friction for j in robot.spec.joints}).items()
    }
    (loaded, load), broken = LOADS[robot.spec.name], BROKEN[robot.spec.name]
    halves = {
        field: {**getattr(healthy, field), broken: getattr(healthy, field).get(broken, 1.0) / 2}
        for field in ("link_mass_scale", "link_length_scale")
    }
    return {
        "healthy": healthy,
        "friction x3": healthy.model_copy(update={"friction": rubbing}),
        "gain halved": healthy.model_copy(update={"actuator_gain": healthy.actuator_gain / 2}),
        "gain -20 %": healthy.model_copy(update={"actuator_gain": healthy.actuator_gain * 0.8}),
        f"payload {load.mass:g} kg": healthy.model_copy(update={"payload": healthy.payload | {loaded: load}}),
        "broken link": healthy.model_copy(update=halves),
    }


def watch(study: Study, robot: Robot, scenario: str) -> Iterator[dict[str, Any]]:
    """One row per case and score: how many rollouts raised the alarm, and how long after their start."""
    bundle, target = trained(study, scenario)
    scores, success = monitors(bundle, target, robot), load_task(robot).success
    for case, plant in cases(robot, load_scenario(robot, scenario)).items():
        groups: dict[str, list[Episode]] = {}
        for episode in rollouts(bundle.path, robot, plant, study.rollouts):
            done = f"{case}, task {'done' if success(episode.obs) else 'failed'}"
            groups.setdefault(done if case == "healthy" else case, []).append(episode)
        for (name, (score, threshold)), (group, episodes) in itertools.product(scores.items(), groups.items()):
            delays = [first_alarm(episode, score, bundle, threshold) for episode in episodes]
            fell = [delay for delay, episode in zip(delays, episodes, strict=True) if episode.terminated[-1]]
            yield {
                "scenario": scenario,
                "case": group,
                "score": name,
                "rollouts": len(delays),
                "alarms": sum(delay is not None for delay in delays) / len(delays),
                "delays_s": [delay for delay in delays if delay is not None],
                "fell": len(fell),
                "told_before_the_fall": sum(delay is not None for delay in fell),
            }


def trained(study: Study, scenario: str) -> tuple[Bundle, Path]:
    """The bundle of this scenario and its target data, made unless they are there."""
    robot, source, folder = study.robot, study.work / "source", study.work / scenario
    if not source.exists():
        collect(source, robot, steps=study.source_steps, seed=1)
    target, run, bundle = folder / "target", folder / "run", folder / "bundle"
    if not target.exists():
        about: dict[str, Any] = {"engine": "bullet", "domain": "target", "mix": {"excite": 1.0}, "batch": 10}
        collect(target, robot, steps=study.target_steps, scenario=scenario, seed=2, **about)
    if not run.exists():
        train(run, source, target, robot, config=TrainConfig(steps=study.steps, alignment="tabb"))
    if not bundle.exists():
        export(run, bundle)
    return read_bundle(bundle), target


def monitors(bundle: Bundle, target: Path, robot: Robot) -> dict[str, tuple[Score, Threshold]]:
    """The scores, as on the robot, with their thresholds."""
    drift = limits(bundle)
    assert drift.mismatch is not None
    mismatch, distance = TargetMismatch(bundle), Distance(bundle)
    std, measured = np.array(bundle.manifest.obs_std), load_task(robot).observer.measured

    def expected(obs: Any, action: Any, next_obs: Any) -> NDArray[np.float32]:
        mismatch(obs, action, next_obs)
        return mismatch.predicted

    def disagreement(obs: Any, action: Any, next_obs: Any) -> float:
        return float((expected(obs, action, next_obs).std(0) / std)[measured].mean())

    data = load_domains(robot, {"target": target})["target"]
    _, held = split_episodes(data, bundle.manifest.config["tabb"]["holdout"], bundle.manifest.config["seed"])
    rows = list(zip(held.obs, held.action, held.next_obs, strict=True))
    error = np.mean(
        [np.square(next_obs - expected(obs, action, next_obs).mean(0)) for obs, action, next_obs in rows], 0
    )

    def residual(obs: Any, action: Any, next_obs: Any) -> float:
        members = expected(obs, action, next_obs)
        z = np.square(next_obs - members.mean(0))[measured] / (error + members.var(0))[measured]
        return float(np.sqrt(z.mean()))

    def limited(score: Score) -> tuple[Score, Threshold]:
        values = np.array([score(*row) for row in rows])
        means = [window_means(values[held.episode == e], drift.window) for e in np.unique(held.episode)]
        limit = float(MARGIN * np.quantile(np.concatenate(means), QUANTILE))
        return score, Threshold(floor=float(np.median(values)), limit=limit)

    return {
        "target Bellman mismatch": (mismatch, drift.mismatch),
        "next-state error": limited(residual),
        "ensemble disagreement": limited(disagreement),
        "Mahalanobis distance": (lambda obs, action, next_obs: distance(obs, action), drift.envelope),
    }


def limits(bundle: Bundle) -> Drift:
    """The bundle's limits."""
    assert bundle.manifest.drift is not None
    return bundle.manifest.drift


def rollouts(policy: Path, robot: Robot, scenario: Scenario, count: int) -> list[Episode]:
    """Episodes of the bundle's policy in Bullet."""
    *noises, start = (np.random.default_rng(stream) for stream in np.random.SeedSequence(SEED).spawn(count + 1))
    acting = load_policy(policy, robot)(count, np.random.default_rng())  # a policy draws nothing
    with opened(robot, "bullet", [scenario] * count, noises) as plants:
        return lockstep(plants, load_task(robot), acting, start)


def first_alarm(episode: Episode, score: Score, bundle: Bundle, threshold: Threshold) -> float | None:
    """Time [s] from the start of the rollout to the alarm; None if it never comes."""
    alarm = Alarm(limits(bundle).window, threshold)
    for i, (obs, action, next_obs) in enumerate(zip(episode.obs, episode.actions, episode.obs[1:], strict=False)):
        if alarm.update(score(obs, action, next_obs)):
            return (i + 1) * bundle.robot.control_dt
    return None


def pool(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one case and score over all scenarios, each rollout counting alike."""
    pooled = []
    for case, score in dict.fromkeys((row["case"], row["score"]) for row in rows):
        mine = [row for row in rows if (row["case"], row["score"]) == (case, score)]
        delays = [delay for row in mine for delay in row["delays_s"]]
        count = sum(row["rollouts"] for row in mine)
        pooled.append(
            {
                "case": case,
                "score": score,
                "rollouts": count,
                "alarms": len(delays) / count,
                "median_delay_s": float(np.median(delays)) if delays else None,
                **{key: sum(row[key] for row in mine) for key in ("fell", "told_before_the_fall")},
            }
        )
    return pooled


if __name__ == "__main__":
    main(tyro.cli(Study))
