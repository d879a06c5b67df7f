"""What a run is trained on: the transitions that its alignment needs, their normaliser, and where they come from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from landbridge.episode import Dataset
from landbridge.manifest import CALIBRATION
from landbridge.robot import Robot, load_robot
from landbridge.task import load_task
from landbridge.training.alignments import ALIGNMENTS
from landbridge.training.config import AlignmentName
from landbridge.training.dataset import Normaliser, Transitions, open_domains
from landbridge.training.outcome import warn_of_failures
from landbridge.training.run import Inputs
from landbridge.training.stream import Stream, digests, read_domains


@dataclass(frozen=True)
class Data:
    """What a run is trained on.

    Attributes:
        domains: The transitions of each; of a stream its sample.
        stream: The source, where it is not in memory.
        normaliser: Of all rows of all domains.
        hashes: Of all rows of each domain, by the path of its dataset.
        calibrations: The digest of the calibration of each domain that has one.
        scenario: In which the target was recorded.
    """

    domains: dict[str, Transitions]
    stream: Stream | None
    normaliser: Normaliser
    hashes: dict[str, str]
    calibrations: dict[str, str]
    scenario: str | None


def read_data(inputs: Inputs, alignment: AlignmentName) -> Data:
    """Read what the alignment needs, and warn of what is odd about it."""
    robot = load_robot(inputs.robot)
    task, datasets = load_task(robot), open_domains(robot, inputs.needed(alignment))
    calibrations = _calibrations(datasets)
    domains, stream = read_domains(robot, datasets, streamed=inputs.scratch is not None)
    warn_of_failures(datasets, domains, task)
    names = task.observer.names
    normaliser = stream.normaliser(domains, names) if stream else Normaliser.of(list(domains.values()), names)
    scenario = datasets["target"].metadata.scenario if "target" in datasets else None
    return Data(domains, stream, normaliser, _hashes(datasets, domains, stream), calibrations, scenario)


def _hashes(datasets: dict[str, Dataset], domains: dict[str, Transitions], stream: Stream | None) -> dict[str, str]:
    return {str(datasets[name].path): digest for name, digest in digests(domains, stream).items()}


def unread_hashes(robot: Robot, inputs: Inputs, alignment: str) -> dict[str, str]:
    """The hashes of datasets that are given and not trained on: `export` makes the monitors from them."""
    paths = {name: path for name, path in inputs.given().items() if name not in ALIGNMENTS[alignment].domains}
    datasets = open_domains(robot, paths)
    return _hashes(datasets, *read_domains(robot, datasets, streamed=inputs.scratch is not None))


def _calibrations(datasets: dict[str, Dataset]) -> dict[str, str]:
    """The digest of the calibration of each domain that has one; a warning if they are two."""
    every = {name + CALIBRATION: dataset.metadata.calibration for name, dataset in datasets.items()}
    found = {name: digest for name, digest in every.items() if digest}
    if len({*found.values()}) > 1:
        shown = " and ".join(f"{name} {digest[:12]}" for name, digest in found.items())
        warnings.warn(f"{shown} differ: one of the datasets was made with another calibration.yaml", stacklevel=2)
    return found
