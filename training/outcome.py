"""How a recording's episodes end. A policy that is trained on one that mostly fails may imitate that
(docs/RESULTS.md, "How many of the robot's rows").
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from landbridge.episode import Dataset
from landbridge.task import Task
from landbridge.training.dataset import Transitions

FAR_BELOW = 0.5  # of the source's reward, below it
REMEDY = (
    "Record more with a better behaviour, calibrate and collect again, or train with a smaller --target-share or "
    "--alignment source_only"
)


@dataclass(frozen=True)
class Outcome:
    """How the episodes of a dataset ended.

    An episode counts as failed if the task terminated it, or the guard stopped it because of what the robot did; one
    cut short by the clock, the operator or a lost tick does not.

    Attributes:
        episodes: Their number.
        failed: How many of them failed.
        seconds: Of all together.
        reward: Mean per second.
        whole: What an episode of the task lasts [s].
    """

    episodes: int
    failed: int
    seconds: float
    reward: float
    whole: float

    @classmethod
    def of(cls, dataset: Dataset, rows: Transitions, task: Task) -> Outcome:
        """Of a dataset of the task's robot, by its rows or some of them."""
        dt = task.observer.spec.control_dt
        failed = round(rows.terminated.mean() * dataset.transitions) + dataset.metadata.stopped
        reward = float(rows.reward.mean()) / dt
        return cls(len(dataset), failed, dataset.transitions * dt, reward, task.episode_seconds)

    @property
    def length(self) -> float:
        """Of an episode in the mean [s]."""
        return self.seconds / self.episodes

    @property
    def rate(self) -> float:
        """Failures per second: does not depend on where lost ticks or the operator cut the recording."""
        return self.failed / self.seconds

    @property
    def mostly_failed(self) -> bool:
        """Whether at this rate fewer than half of the task's episodes would reach their end."""
        return self.rate * self.whole > math.log(2)

    def worse_than(self, source: Outcome) -> bool:
        """Whether the simulator's logs, of which half begin anywhere by default, fail less often or earn far more."""
        return self.rate > source.rate or self.reward < source.reward - FAR_BELOW * abs(source.reward)

    def __str__(self) -> str:
        ended = f"{self.failed} of {self.episodes} episodes ended in a failure"
        return f"{ended}, mean length {self.length:.1f} s of {self.whole:g} s"


def warn_of_failures(datasets: Mapping[str, Dataset], domains: Mapping[str, Transitions], task: Task) -> None:
    """Warn if the robot mostly failed in the `target`, and does worse there than the `source` if that is at hand."""
    found = {name: Outcome.of(datasets[name], rows, task) for name, rows in domains.items()}
    target, source = found.get("target"), found.get("source")
    if target is None or not target.mostly_failed or (source and not target.worse_than(source)):
        return
    shown = f" (simulator: {source.failed} of {source.episodes}, {source.length:.1f} s)" if source else ""
    problem = f"{datasets['target'].path}: {target}{shown}; a policy trained on it may imitate that"
    warnings.warn(f"{problem}. {REMEDY}", stacklevel=2)
