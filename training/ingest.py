"""`landbridge ingest`: rollouts of the robot, or another project's data, become a dataset."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from landbridge.episode import Dataset, DatasetMetadata, Episode, write_dataset
from landbridge.errors import InputError
from landbridge.observation import Observer, command_to_action
from landbridge.robot import RobotSpec, load_robot
from landbridge.simulation.calibrated import read_calibration, recorded
from landbridge.simulation.rollout import label
from landbridge.spec import require_new
from landbridge.task import Task, load_task
from landbridge.training.bag import Bag, Segment, read_bag
from landbridge.training.d4rl import read_d4rl
from landbridge.training.dataset import Transitions
from landbridge.training.outcome import Outcome, warn_of_failures

RATE_TOLERANCE = 0.05
HISTOGRAM_MS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, np.inf)
ROUNDING = 1e-9  # of an action that a command is turned back into
HDF5 = (".hdf5", ".h5")


def ingest(
    path: Path,
    /,
    out: Path,
    robot: str = "furuta",
    domain: Literal["source", "target"] | None = None,
    calibration: Path | None = None,
) -> dict[str, Any]:
    """Turn a bag of `landbridge record`, or a D4RL-layout HDF5 file, into a dataset.

    A truncated bag is read up to its last complete record. Rewards and terminations are computed here, by the robot's
    task; none are recorded on board. Actions are what was written to the motors. In a compensated run so are the past
    actions in the observations, so that its transitions are those of the bare robot.

    Example: landbridge ingest bags/severe --out data/target

    Args:
        path: A bag folder, or a file ending in .hdf5 or .h5.
        out: Dataset folder to write; must not exist.
        robot: Name of a robot, or a folder with robot.yaml.
        domain: What the data stands for in training; by default target for a bag, source for an HDF5 file.
        calibration: Calibration file that holds for the robot as it was recorded. It does not change the data: its
            digest and its delay go into the metadata, and from there to the run and its bundle.
    """
    machine = load_robot(robot)
    spec, task = machine.spec, load_task(machine)
    require_new(out)
    facts = {} if calibration is None else recorded(calibration, read_calibration(calibration, machine))
    labels = {"task": task.name, "task_hash": task.digest()}
    about = partial(DatasetMetadata.of, spec, engine_version="", seed=None, **labels, **facts)
    if path.suffix in HDF5:
        found = read_d4rl(path, task.observer.size, task.observer.num_actions, spec.control_dt)
        metadata = about(
            domain=domain or "source",
            engine="d4rl",
            scenario="unknown",
            controllers={"d4rl": found.rows},
            measured_rate_hz=spec.control_rate_hz,
        )
        dataset = write_dataset(out, found.episodes, metadata)
        return _outcome(dataset, task) | found.repairs
    bag = read_bag(path, spec)
    _require_rate(path, bag, spec)
    segments = _as_written(path, task.observer, bag.segments) if "compensation" in bag.about else bag.segments
    episodes = [_episode(spec, task, segment) for segment in segments]
    metadata = about(
        domain=domain or "target",
        engine="ros2",
        scenario=bag.about["scenario"],
        controllers={bag.about["controller"]: sum(map(len, episodes))},
        measured_rate_hz=bag.rate_hz,
        stopped=sum(s.failed and not e.terminated[-1] for s, e in zip(segments, episodes, strict=True)),
    )
    dataset = write_dataset(out, episodes, metadata)
    left_out = {"left_out": sum(len(s.commands) for s in bag.segments) - sum(len(s.commands) for s in segments)}
    return _outcome(dataset, task) | _timing(bag, spec) | (left_out if segments is not bag.segments else {})


def _outcome(dataset: Dataset, task: Task) -> dict[str, Any]:
    """What was written, and of the robot's episodes how they ended; a warning if mostly badly."""
    written = {"path": str(dataset.path), "episodes": len(dataset), "transitions": dataset.transitions}
    if dataset.metadata.domain == "source":
        return written
    rows = Transitions.joined([Transitions.of(episode, i) for i, episode in enumerate(dataset)])
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


def _episode(spec: RobotSpec, task: Task, segment: Segment) -> Episode:
    """T measurements are T - 1 transitions; the task may end the episode before the last."""
    actions = np.clip(command_to_action(spec, segment.commands), -1, 1).astype(np.float32)
    return label(task, segment.obs, actions, segment.stamps)


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
            stamps, joint_pos, failed = segment.stamps[a : b + 1], segment.joint_pos[a : b + 1], segment.failed
            ends = failed and b == steps - 1
            found.append(Segment(stamps - stamps[0], joint_pos, obs[a : b + 1], segment.commands[a:b], ends))
    if not found:
        problem = "was compensated, and holds no transition whose commands a policy could ask for"
        raise InputError(path, problem, "record again, without --compensate")
    return found


def _timing(bag: Bag, spec: RobotSpec) -> dict[str, Any]:
    counts, _ = np.histogram(bag.latency_ms, HISTOGRAM_MS)
    # None where nothing was measured: JSON has no NaN
    p50, p99, top = np.percentile(bag.latency_ms, [50, 99, 100]).tolist() if bag.latency_ms else (None,) * 3
    return {
        "declared_rate_hz": spec.control_rate_hz,
        "measured_rate_hz": bag.rate_hz,
        "lost_ticks": bag.lost_ticks,
        "repaired": bag.repaired,
        "latency_p50_ms": p50,
        "latency_p99_ms": p99,
        "latency_max_ms": top,
        "latency": [
            {"latency_ms": f"{low:g} .. {high:g}", "ticks": int(n)}
            for low, high, n in zip(HISTOGRAM_MS[:-1], HISTOGRAM_MS[1:], counts, strict=True)
        ],
    }
