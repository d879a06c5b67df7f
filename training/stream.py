"""A source dataset larger than memory: read in chunks, and known as a whole by its sample and its moments."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import reduce

import numpy as np

from landbridge.episode import Dataset
from landbridge.progress import shown
from landbridge.robot import Robot
from landbridge.task import load_task
from landbridge.training import ranks
from landbridge.training.dataset import Moments, Normaliser, Transitions, read_chunks, read_whole

TRANSITIONS = 2**18  # transitions in memory at once; also those of the sample


class Stream:
    """Reads the source once: checks every transition, and keeps what training needs of the whole.

    Attributes:
        sample: About TRANSITIONS of them, of each chunk its share: what alignments are fitted to.
        moments: Of all observations.
        digest: SHA-256 of the SHA-256 of each chunk.

    Raises:
        InputError: As `dataset.load_domains`.
    """

    def __init__(self, robot: Robot, dataset: Dataset) -> None:
        self.dataset, self._task = dataset, load_task(robot)
        rng = np.random.default_rng(0)  # of the dataset, not of the run: every run is fitted to the same sample
        share = min(1.0, TRANSITIONS / self.dataset.transitions)
        sha, parts, moments = hashlib.sha256(), [], []
        for chunk in self._shown("read", read_chunks(self.dataset, self._task, TRANSITIONS)):
            sha.update(bytes.fromhex(chunk.digest()))
            moments.append(Moments.of(chunk.obs))
            parts.append(chunk[np.sort(rng.choice(len(chunk), round(share * len(chunk)), replace=False))])
        self.digest = sha.hexdigest()
        self.sample = Transitions.joined(parts)
        self.moments = reduce(Moments.joined, moments)

    def __len__(self) -> int:
        """Number of transitions."""
        return self.moments.count

    def normaliser(self, domains: dict[str, Transitions], names: list[str]) -> Normaliser:
        """Pooled over the stream and the other domains; see `Normaliser.of`."""
        others = [Moments.of(data.obs) for name, data in domains.items() if name != "source"]
        return Normaliser.of_moments(reduce(Moments.joined, others, self.moments), names)

    def shuffled(self, seed: int) -> Iterator[Transitions]:
        """All transitions in chunks: episodes in random order, then the rows of a chunk.

        A stretch of rows is then one of transitions drawn from all over the dataset, whatever its order was.
        """
        rng = np.random.default_rng(seed)
        chunks = read_chunks(self.dataset, self._task, TRANSITIONS, rng.permutation(len(self.dataset)))
        for chunk in self._shown("pack", chunks):
            yield chunk[rng.permutation(len(chunk))]

    def _shown(self, name: str, chunks: Iterator[Transitions]) -> Iterator[Transitions]:
        return shown(name, chunks, self.dataset.transitions, disable=not ranks.leads())


def read_domains(
    robot: Robot, datasets: dict[str, Dataset], streamed: bool
) -> tuple[dict[str, Transitions], Stream | None]:
    """The transitions of each of `dataset.open_domains`; with `streamed` a source is its sample, and all of it the
    stream.
    """
    whole = [name for name in datasets if not (streamed and name == "source")]
    domains = {name: read_whole(robot, name, datasets[name]) for name in whole}
    if len(whole) == len(datasets):
        return domains, None
    stream = Stream(robot, datasets["source"])
    return {"source": stream.sample, **domains}, stream


def digests(domains: dict[str, Transitions], stream: Stream | None) -> dict[str, str]:
    """SHA-256 of the transitions of each domain; of a stream that of all of them, not of its sample."""
    return {
        name: stream.digest if stream is not None and name == "source" else data.digest()
        for name, data in domains.items()
    }
