"""`landbridge ingest`: rollouts of the robot, or another project's data, become a dataset."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from landbridge.bag import Bag, Segment, read_bag
from landbridge.episode import Dataset, DatasetMetadata, Episode, write_dataset
from landbridge.errors import InputError
from landbridge.files import require_new
from landbridge.observation import Observer, command_to_action
from landbridge.robot import Robot, RobotSpec, load_robot
from landbridge.simulation.calibrated import read_calibration, recorded
from landbridge.simulation.rollout import label
from landbridge.simulation.scenario import load_scenarios
from landbridge.spec import require_distinct
from landbridge.task import Task, load_task
from landbridge.training.d4rl import read_d4rl
from landbridge.training.dataset import Transitions
from landbridge.training.outcome import Outcome, warn_of_failures

RATE_TOLERANCE = 0.05
ALIKE = 1e-3  # of a reward, absolute and relative: files have float32
HISTOGRAM_MS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, np.inf)
ROUNDING = 1e-9  # of an action that a command is turned back into
HDF5 = (".hdf5", ".h5")


@dataclass(frozen=True)
class Recording:
    """What one bag or HDF5 file gives.

    Attributes:
        about: What it has to say of itself in `DatasetMetadata`; `controller` is one of `controllers`.
        rate_hz: Median rate of its rows.
        lost: What could not be used of it, or was mended.
        stopped: Episodes that the guard ended before the task would.
        seen: Stamps of all of a bag's observations [ns, wall clock].
    """

    path: Path
    episodes: list[Episode]
    about: dict[str, Any]
    controller: str
    rate_hz: float
    lost: dict[str, Any]
    stopped: int = 0
    seen: frozenset[int] = frozenset()

    def __len__(self) -> int:
        """Number of transitions."""
        return sum(map(len, self.episodes))


def ingest(
    recordings: tuple[Path, ...],
    /,
    out: Path,
    robot: str = "furuta",
    domain: Literal["source", "target"] | None = None,
    calibration: Path | None = None,
) -> dict[str, Any]:
    """Turn bags of `landbridge record`, or HDF5 files in D4RL's layout, into one dataset.

    A truncated bag is read up to its last complete record. Rewards and terminations are computed here, by the robot's
    task; none are recorded on board. Actions are what was written to the motors. In a compensated run so are the past
    actions in the observations, so that its transitions are those of the bare robot.

    Example: landbridge ingest bags/monday bags/tuesday --out data/target

    Args:
        recordings: Bag folders, or files ending in .hdf5 or .h5, of one robot in one scenario.
        out: Dataset folder to write; must not exist.
        robot: Name of a robot, or a folder with robot.yaml.
        domain: What the data stands for in training; by default target for bags, source for HDF5 files.
        calibration: Calibration file that holds for the robot as it was recorded. It does not change the data: its
            digest and its delay go into the metadata, and from there to the run and its bundle.
    """
    machine = load_robot(robot)
    task = load_task(machine)
    require_new(out)
    if not recordings:
        raise InputError("ingest", "names no recording", "name one or several bags, or HDF5 files in D4RL's layout")
    places = [path.resolve() for path in recordings]
    require_distinct("ingest", recordings, places)  # the same rows twice would be fitted and held out at once
    facts = {} if calibration is None else recorded(calibration, read_calibration(calibration, machine))
    found, seen = [], set[int]()
    for path in recordings:
        found.append(_read(path, machine, task, seen))
        seen |= found[-1].seen
    _require_alike(found)
    controllers: Counter[str] = Counter()
    for recording in found:
        controllers[recording.controller] += len(recording)
    asked = {} if domain is None else {"domain": domain}
    metadata = DatasetMetadata.of(
        machine.spec,
        engine_version="",
        seed=None,
        task=task.name,
        task_hash=task.digest(),
        controllers=dict(controllers),
        measured_rate_hz=float(np.median([recording.rate_hz for recording in found])),
        stopped=sum(recording.stopped for recording in found),
        **facts,
        **found[0].about | asked,
    )
    dataset = write_dataset(out, [episode for recording in found for episode in recording.episodes], metadata)
    return _outcome(dataset, task) | _figures(found, machine.spec)


def _require_alike(found: list[Recording]) -> None:
    first = found[0]
    for other in found[1:]:
        if differing := [key for key, value in first.about.items() if other.about[key] != value]:
            key = differing[0]
            problem = f"its {key} is {other.about[key]!r}, that of {first.path} {first.about[key]!r}"
            raise InputError(other.path, problem, "a dataset is of one robot in one scenario: ingest them apart")


def _read(path: Path, robot: Robot, task: Task, seen: Set[int]) -> Recording:
    """One recording; what others have `seen`, as black boxes do of a whole recording, is not read again."""
    spec = robot.spec
    if path.suffix in HDF5:
        found = read_d4rl(path, task.observer.size, task.observer.num_actions, spec.control_dt)
        about = {"domain": "source", "engine": "d4rl", "scenario": "unknown"}
        _warn_of_other_labels(path, found.episodes, task)
        return Recording(path, found.episodes, about, "d4rl", spec.control_rate_hz, {**found.repairs})
    bag = read_bag(path, spec, seen)
    _require_rate(path, bag, spec)
    segments = _as_written(path, task.observer, bag.segments) if "compensation" in bag.about else bag.segments
    twin = bag.about.get("hardware", "twin") == "twin" and bag.about["scenario"] in load_scenarios(robot)
    episodes = [_episode(spec, task, segment, twin) for segment in segments]
    left_out = sum(len(s.commands) for s in bag.segments) - sum(len(s.commands) for s in segments)
    lost = {"lost_ticks": bag.lost_ticks, "left_out": left_out, "repaired": bag.repaired}
    lost |= {"in_others": bag.known} if bag.known else {}
    stopped = sum(s.failed and not e.terminated[-1] for s, e in zip(segments, episodes, strict=True))
    about = {"domain": "target", "engine": "ros2", "scenario": bag.about["scenario"]}
    return Recording(path, episodes, about, bag.about["controller"], bag.rate_hz, lost, stopped, bag.seen)


def _warn_of_other_labels(path: Path, episodes: list[Episode], task: Task) -> None:
    """Rewards and ends of a file are kept as they are; a weight that compares them with the task's must be told."""
    rows = Transitions.of_episodes(episodes)
    moves = rows.obs, rows.action, rows.next_obs
    rewards = ~np.isclose(task.reward(*moves), rows.reward, rtol=ALIKE, atol=ALIKE)
    ends = task.terminated(*moves) != rows.terminated
    if rewards.any() or ends.any():
        warnings.warn(
            f"{path}: {rewards.mean():.1%} of its rewards and {ends.mean():.1%} of its ends are not those of task "
            f"{task.name!r}, and are kept: label them as the task does, or train with an alignment without a model of "
            "the robot (none, dara, igdf, otdf, density_ratio)",
            stacklevel=2,
        )


def _outcome(dataset: Dataset, task: Task) -> dict[str, Any]:
    """What was written, and of the robot's episodes how they ended; a warning if mostly badly."""
    written = {"path": str(dataset.path), "episodes": len(dataset), "transitions": dataset.transitions}
    if dataset.metadata.domain == "source":
        return written
    rows = Transitions.of_episodes(dataset)
    outcome = Outcome.of(dataset, rows, task)
    warn_of_failures({"target": dataset}, {"target": rows}, task)
    return written | {"ended_in_failure": outcome.failed, "mean_episode_s": outcome.length}


def _require_rate(path: Path, bag: Bag, spec: RobotSpec) -> None:
    if not abs(bag.rate_hz / spec.control_rate_hz - 1) <= RATE_TOLERANCE:
        raise InputError(
            path,
            f"measured rate {bag.rate_hz:.1f} Hz, {spec.name} declares {spec.control_rate_hz:g} Hz",
            "record again on a machine that keeps the rate, or correct control_rate_hz",
        )


def _episode(spec: RobotSpec, task: Task, segment: Segment, twin: bool) -> Episode:
    """T measurements are T - 1 transitions; the task may end the episode before the last.

    A `twin` moves by a control period from one measurement to the next, whenever that comes.
    """
    actions = np.clip(command_to_action(spec, segment.commands), -1, 1).astype(np.float32)
    stamps = segment.stamps
    if twin:
        stamps = spec.control_dt * np.arange(len(stamps), dtype=np.float64)
    return label(task, segment.obs, actions, stamps, segment.written)


def _as_written(path: Path, observer: Observer, segments: list[Segment]) -> list[Segment]:
    """The segments of a compensated run, past actions in `obs` as they were written and not as the policy asked.

    Left out are transitions whose command is more than an action can ask for, and, where a segment begins inside an
    episode, those whose past actions were sent before it.
    """
    found = []
    for segment in segments:
        actions, steps = command_to_action(observer.spec, segment.commands), len(segment.obs)
        padded = np.concatenate([np.zeros((observer.history, observer.num_actions)), actions])
        sent = [padded[observer.history - 1 - age :][:steps] for age in range(observer.history)]
        obs = observer.with_sent(segment.obs, np.stack(sent, axis=1)) if sent else segment.obs
        unknown = observer.history if observer.sent(segment.obs[:1]).any() else 0
        exact = (np.abs(actions) <= 1 + ROUNDING).all(1) & (np.arange(steps - 1) >= unknown)
        edges = np.flatnonzero(np.diff(exact, prepend=False, append=False))
        for a, b in zip(edges[::2], edges[1::2], strict=True):
            stamps = segment.stamps[a : b + 1]
            found.append(
                Segment(
                    stamps=stamps - stamps[0],
                    joint_pos=segment.joint_pos[a : b + 1],
                    obs=obs[a : b + 1],
                    commands=segment.commands[a:b],
                    written=segment.written[a:b],
                    failed=segment.failed and b == steps - 1,
                )
            )
    if not found:
        problem = "was compensated, and holds no transition whose commands a policy could ask for"
        raise InputError(path, problem, "record again, without --compensate")
    return found


def _figures(found: list[Recording], spec: RobotSpec) -> dict[str, Any]:
    """Of each recording what was lost of it, and how late the commands of all were."""
    rows = [
        {
            "recording": str(recording.path),
            "episodes": len(recording.episodes),
            "transitions": len(recording),
            "measured_rate_hz": recording.rate_hz,
            **recording.lost,
        }
        for recording in found
    ]
    written = np.concatenate([episode.written for recording in found for episode in recording.episodes])
    latency_ms = 1000 * written[np.isfinite(written)]
    if not len(latency_ms):
        return {"recordings": rows}
    counts, _ = np.histogram(latency_ms, HISTOGRAM_MS)
    p50, p99, top = np.percentile(latency_ms, [50, 99, 100]).tolist()
    return {
        "declared_rate_hz": spec.control_rate_hz,
        "latency_p50_ms": p50,
        "latency_p99_ms": p99,
        "latency_max_ms": top,
        "recordings": rows,
        "latency": [
            {"latency_ms": f"{low:g} .. {high:g}", "ticks": int(n)}
            for low, high, n in zip(HISTOGRAM_MS[:-1], HISTOGRAM_MS[1:], counts, strict=True)
        ],
    }
