"""Intervals for scores of several runs by several episodes.

scipy.stats is imported where it is used: that takes half as long as torch, at every start of a training.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]  # (runs, episodes)
RESAMPLES = 2000
TRIMMED = 4  # runs from which on an interquartile mean leaves some out


def mean(scores: Scores) -> float:
    """Over all runs and episodes."""
    return float(scores.mean())


def median(scores: Scores) -> float:
    """Over all runs and episodes."""
    return float(np.median(scores))


def interquartile_mean(scores: Scores) -> float:
    """Mean of the middle half of the runs' means (Agarwal et al. 2021, arXiv:2108.13264), of at least TRIMMED runs."""
    from scipy.stats import trim_mean

    return float(trim_mean(scores.mean(1), 0.25))


def bootstrap(
    scores: Scores, statistic: Callable[[Scores], float] = mean, same_episodes: bool = False
) -> tuple[float, float]:
    """95 % percentile interval of `statistic`, resampling runs and, within each, episodes.

    Runs that all had the `same_episodes`, with the same start states and noise, are resampled with the same ones: what
    is lucky in an episode is so for each of them, and does not average out over runs. With one run it covers the
    episodes' chance only, not that of training again; with fewer than about eight it covers less than 95 % of that.
    """
    rng = np.random.default_rng(0)
    runs, episodes = scores.shape
    values = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(runs, size=(runs, 1))
        drawn = rng.integers(episodes, size=(1 if same_episodes else runs, episodes))
        values.append(statistic(scores[chosen, drawn]))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def success_interval(
    success: Scores, statistic: Callable[[Scores], float] = mean, same_episodes: bool = False
) -> tuple[float, float]:
    """95 % interval of the success of one run by Wilson, of `statistic` of several by bootstrap.

    Where all episodes end alike, a bootstrap would be certain of it: several runs are then worth no more than one.
    """
    if success.min() < success.max() and len(success) > 1:
        return bootstrap(success, statistic, same_episodes=same_episodes)
    from scipy.stats import binomtest

    interval = binomtest(int(success[0].sum()), success.shape[1]).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def paired_difference(a: Scores, b: Scores, same_episodes: bool = False) -> tuple[float, float, float]:
    """(mean, low, high) of a - b: each run of `a` had the episodes of its pair in `b`, see `bootstrap`."""
    difference = a - b
    return (mean(difference), *bootstrap(difference, same_episodes=same_episodes))
