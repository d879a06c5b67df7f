"""`landbridge diagnose`: what kind of gap lies between simulator and robot, and what to do about it.

A model of one step is fitted to the source. Three questions follow, each with an effect and a p-value:

- *distributional*: does the robot go where the simulator's logs never were?
- *dynamical*: where both have been, does a correction of the source model, learned from the robot, make it predict the
  robot's held-out rows better? White sensor noise cannot be learned, and so is no gap.
- *structural*: do the actions still in flight explain what is left after a correction by state and action? Then the
  robot has memory (delay) that the simulator has not. Play in a gear shows as such only where it takes a control
  period or more to cross; crossed faster it looks dynamical, and a calibration finds it.

The source model errs too. So the last two are asked again of held-out source rows, each the nearest neighbour of one
of the robot's, and only what the robot has beyond them counts. Where too few rows are left for that, they are not
asked, and the gap is *unknown*, never none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.spec import require_seed
from landbridge.task import Task, load_task
from landbridge.training.dataset import Normaliser, Transitions, open_domains, read_whole
from landbridge.training.outcome import warn_of_failures
from landbridge.training.predictor import Predictor, PredictorConfig, split_episodes

Array = NDArray[np.float64]
Gap = Literal["none", "distributional", "dynamical", "structural"]
Finding = Gap | Literal["unknown"]

NEIGHBOUR = 5  # the distance to the source is that to its fifth nearest row: one stray row is no coverage
OUTSIDE = 0.95  # quantile of held-out source rows' distances beyond which a row counts as outside
CANDIDATES = 20_000  # source rows that neighbours are looked for among
BLOCK_ROWS = 100  # consecutive rows that are drawn, held out and permuted together: neighbours are not independent
FEATURES = 200  # random Fourier features (Rahimi and Recht 2007) of a correction
RIDGE = 1.0
FOLDS = 5
PERMUTATIONS = 2000
SOURCE_MODEL = PredictorConfig(steps=0)
LEVEL = 0.01  # of a test
EFFECTS = {"distributional": 0.20, "dynamical": 0.25, "structural": 0.25}  # least that matters, see `Evidence`
HOLDOUT = 0.2  # share of the source kept from its model
MIN_ROWS = 9 * BLOCK_ROWS  # of 20 s at 50 Hz a recording loses some at the ends of its episodes
MIN_BLOCKS = 8  # the signs of fewer cannot reach the level: 2^-7 is just below it

ADVICE: dict[Finding, str] = {
    "unknown": "record longer, or collect source data where the robot goes (--mix, --exploring): too few of its rows "
    "lie where the source has been to ask whether both move alike; until then take it that they do not, and calibrate "
    "the simulator (landbridge calibrate all)",
    "none": "train on the source alone (--alignment source_only); alignment has nothing to remove",
    "distributional": "collect source data where the robot goes (--mix, --exploring) or record more there; weights on "
    "source rows cannot make up for rows that are missing",
    "dynamical": "calibrate the simulator (landbridge calibrate all; it finds a gear's play where robot.yaml gives the "
    "joint a transmission), collect again (collect --calibration FILE --retune 20), and train on that and the robot's "
    "rows as a naive mix (--alignment none)",
    "structural": "put the delay into the simulator (landbridge calibrate all, collect --calibration) and keep the "
    "actions in flight in the observation; then train on that and the robot's rows (--alignment none)",
}

WITHOUT_HISTORY = (
    "ask for the delay itself (landbridge calibrate delay): without past actions in the observation (action_history in "
    "robot.yaml) nothing here shows one, and a policy could not make up for it"
)


@dataclass(frozen=True)
class Evidence:
    """The answer to one of the questions.

    Attributes:
        gap: What holds if the answer is yes.
        effect: distributional: share of the robot's rows outside the source. Else: mean log ratio of the held-out
            squared error without and with what is asked about, beyond that of source rows; None with too few rows to
            tell from, or without past actions in the observation.
        p_value: One-sided, by permutation of blocks of rows.
    """

    gap: Gap
    effect: float | None
    p_value: float

    @property
    def holds(self) -> bool:
        """Whether the effect matters and is no accident."""
        return self.effect is not None and self.effect >= EFFECTS[self.gap] and self.p_value <= LEVEL


def diagnose(source: Path, target: Path, robot: str = "furuta", seed: int = 0) -> dict[str, Any]:
    """Say what kind of gap lies between a source and a target dataset, with evidence and a recommendation.

    Example: landbridge diagnose --source data/source --target data/target

    Args:
        source: Dataset folder of simulator transitions.
        target: Dataset folder of the robot's transitions; a minute of well excited motion is enough.
        robot: Name of a robot, or a folder with robot.yaml.
        seed: Of the source model, the features and the permutations.

    Returns:
        `gap`, the most telling that holds, or unknown where none does and a question could not be asked; `advice`;
        `evidence`, a row per question.

    Raises:
        InputError: The datasets do not fit the robot, or the target is too short to tell.
    """
    require_seed(seed)
    torch.set_num_threads(1)  # see train
    machine = load_robot(robot)
    task, datasets = load_task(machine), open_domains(machine, {"source": source, "target": target})
    domains = {name: read_whole(machine, name, dataset) for name, dataset in datasets.items()}
    found = compare(domains["source"], domains["target"], task, seed, target)
    warn_of_failures(datasets, domains, task)
    rows = [
        {"gap": e.gap, "effect": e.effect, "matters_from": EFFECTS[e.gap], "p_value": e.p_value, "holds": e.holds}
        for e in found
    ]
    return {"gap": findings_of(found)[0], "advice": advice_of(found), "evidence": rows}


def findings_of(found: Sequence[Evidence]) -> list[Finding]:
    """The gaps that hold, the most telling first, then unknown if a question could not be asked; or none."""
    holding: list[Finding] = [evidence.gap for evidence in found[::-1] if evidence.holds]
    unasked: list[Finding] = ["unknown"] if any(evidence.effect is None for evidence in found) else []
    return holding + unasked or ["none"]


def advice_of(found: Sequence[Evidence]) -> list[str]:
    """What to do about each of the findings; advice on a structural gap covers a dynamical one."""
    few = any(evidence.gap == "dynamical" and evidence.effect is None for evidence in found)
    told = ADVICE if few else ADVICE | {"unknown": WITHOUT_HISTORY}
    findings = findings_of(found)
    return [told[name] for name in findings if name != "dynamical" or "structural" not in findings]


def compare(source: Transitions, target: Transitions, task: Task, seed: int, where: Path) -> list[Evidence]:
    """Evidence for a distributional, a dynamical and a structural gap, in this order.

    Raises:
        InputError: `target`, read from `where`, has fewer than 900 rows, or the source too few.
    """
    if len(target) < MIN_ROWS:
        raise InputError(where, f"only {len(target)} transitions", f"at least {MIN_ROWS} are needed: record longer")
    return Comparison(*fit_source_model(source, task, seed), seed).evidence(target)


@dataclass(frozen=True)
class SourceModel:
    """One-step predictions as the source has them."""

    predictor: Predictor
    normaliser: Normaliser
    task: Task

    def residual(self, data: Transitions) -> Array:
        """Measured minus predicted change (N, measured columns), in the observation's units."""
        predicted = self.predictor.predict(data, self.normaliser, self.task).mean(0)
        columns = self.task.observer.measured
        return np.asarray(data.next_obs[:, columns] - predicted[:, columns], np.float64)


def fit_source_model(source: Transitions, task: Task, seed: int) -> tuple[SourceModel, Transitions, Transitions]:
    """The model, the source rows that it was fitted to, and those held out from it.

    Raises:
        InputError: Those are fewer than 900.
    """
    training, held = split_episodes(source, HOLDOUT, seed)
    if len(held) < MIN_ROWS:
        problem = f"only {len(source)} transitions, {len(held)} of them to be held out"
        raise InputError("--source", problem, f"collect {round(2 * MIN_ROWS / HOLDOUT)} or more")
    observer = task.observer
    normaliser = Normaliser.of([training], observer.names)
    predictor = Predictor.seeded(observer, SOURCE_MODEL, seed)
    predictor.fit(training, training, normaliser, observer.measured, seed)
    return SourceModel(predictor, normaliser, task), training, held


class Comparison:
    """A source, ready to be compared with targets.

    Args:
        model: Fitted to a part of the source.
        fitted: That part; where the source has been is told by it alone, for a held-out row is no neighbour of itself.
        held: The other part.
        seed: Of candidates, features and permutations.
    """

    def __init__(self, model: SourceModel, fitted: Transitions, held: Transitions, seed: int) -> None:
        self.model, self._task, self._seed = model, model.task, seed
        rng = np.random.default_rng(seed)
        self._held = _thinned(held, rng)
        seen = fitted[np.sort(rng.permutation(len(fitted))[:CANDIDATES])]
        self._seen = cKDTree(self._place(seen))
        self._matches = cKDTree(self._place(self._held))
        self._distances = self._distance(self._held)
        self._edge = float(np.quantile(self._distances, OUTSIDE))
        self._held_residual = model.residual(self._held)

    def evidence(self, target: Transitions) -> list[Evidence]:
        """See `compare`."""
        rng = np.random.default_rng(self._seed)
        outside = self._distance(target) > self._edge
        coverage = self._coverage(target, outside, rng)
        inside = target[~outside]
        blocks = _blocks(inside)
        if len(np.unique(blocks)) < MIN_BLOCKS:
            return [coverage, Evidence("dynamical", None, 1.0), Evidence("structural", None, 1.0)]
        _, nearest = self._matches.query(self._place(inside))
        scale = self._held_residual[nearest].std(0) + 1e-9
        gains = [
            self._gains(data, residual / scale, blocks)
            for data, residual in (
                (inside, self.model.residual(inside)),
                (self._held[nearest], self._held_residual[nearest]),
            )
        ]
        beyond, rows = [ours - theirs for ours, theirs in zip(*gains, strict=True)], np.bincount(blocks)
        dynamical = Evidence("dynamical", *sign_flip(beyond[0], rows, rng))
        if not self._history().any():  # without past actions nothing shows a delay
            return [coverage, dynamical, Evidence("structural", None, 1.0)]
        return [coverage, dynamical, Evidence("structural", *sign_flip(beyond[1], rows, rng))]

    def _place(self, data: Transitions) -> Array:
        """Where a row is (N, measured + actions): normalised measured observation, and action."""
        measured = self._task.observer.measured
        return np.concatenate([self.model.normaliser(data.obs)[:, measured], data.action], axis=1).astype(np.float64)

    def _distance(self, data: Transitions) -> Array:
        return np.asarray(self._seen.query(self._place(data), k=NEIGHBOUR)[0][:, -1])

    def _coverage(self, target: Transitions, outside: NDArray[np.bool_], rng: np.random.Generator) -> Evidence:
        """Share outside, against that of as many blocks of held-out source rows."""
        rows = np.bincount(_blocks(target))
        theirs = _block_means(self._distances > self._edge, _blocks(self._held))
        share = float(outside.mean())
        null = np.average(rng.choice(theirs, (PERMUTATIONS, len(rows))), 1, rows)
        return Evidence("distributional", share, _p_value(null, share))

    def _gains(self, data: Transitions, residual: Array, blocks: NDArray[np.int64]) -> tuple[Array, Array]:
        """Log ratios (blocks,) of held-out squared error: plain over corrected, corrected over that with memory."""
        place = self._place(data)
        rng = np.random.default_rng(self._seed)
        frequencies = rng.standard_normal((place.shape[1], FEATURES)) / np.sqrt(place.shape[1])
        phases = rng.uniform(0, 2 * np.pi, FEATURES)
        now = np.concatenate([place, np.cos(place @ frequencies + phases)], axis=1)
        memory = self.model.normaliser(data.obs)[:, self._history()]
        errors = [
            _block_means(np.square(left).mean(1), blocks)
            for left in (
                residual,
                held_out(now, residual, blocks),
                held_out(np.hstack([now, memory]), residual, blocks),
            )
        ]
        plain, corrected, remembering = (np.log(error + 1e-12) for error in errors)
        return plain - corrected, corrected - remembering

    def _history(self) -> NDArray[np.bool_]:
        return np.array([column.kind == "action_history" for column in self._task.observer.columns])


def held_out(features: Array, residual: Array, blocks: NDArray[np.int64]) -> Array:
    """What is left of `residual` (N, c) after a ridge regression on `features` (N, f) fitted to the other folds.

    Of the source a row that is the nearest to several of the robot's stands in several folds. To leave such rows out of
    the fits was tried: where the source is thin it takes nearly all of them, and coverage passes for dynamics.
    """
    left = np.empty_like(residual)
    for fold in range(FOLDS):
        out = blocks % FOLDS == fold
        mean, std = features[~out].mean(0), features[~out].std(0) + 1e-9
        x, offset = (features[~out] - mean) / std, residual[~out].mean(0)
        slope = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (residual[~out] - offset))
        left[out] = residual[out] - offset - (features[out] - mean) / std @ slope
    return left


def sign_flip(differences: Array, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[float, float]:
    """Mean of `differences` (B,) of blocks of so many `rows`, and the p-value that it is positive, by flipping signs.

    A block is worth its rows: lost ticks leave scraps of episodes.
    """
    signs, mean = rng.choice([-1.0, 1.0], (PERMUTATIONS, len(differences))), float(np.average(differences, 0, rows))
    return mean, _p_value(np.average(signs * differences, 1, rows), mean)


def _p_value(null: Array, observed: float) -> float:
    """Share of `null` at or above `observed`, which counts as one of them: never zero."""
    return float((1 + (null >= observed).sum()) / (1 + len(null)))


def _blocks(data: Transitions) -> NDArray[np.int64]:
    """Number (N,) of the block of each row: at most BLOCK_ROWS rows of one episode."""
    _, starts = np.unique(data.episode, return_index=True)
    pieces = [np.arange(rows) // BLOCK_ROWS for rows in np.diff([*np.sort(starts), len(data)])]
    offsets = np.cumsum([0, *(piece[-1] + 1 for piece in pieces)])
    return np.concatenate([np.zeros(0, np.int64), *(p + offset for p, offset in zip(pieces, offsets, strict=False))])


def _thinned(data: Transitions, rng: np.random.Generator) -> Transitions:
    """At most CANDIDATES rows, in whole blocks: neighbours are alike, and blocks are compared with the robot's."""
    blocks = _blocks(data)
    order = rng.permutation(blocks[-1] + 1)
    rows = np.cumsum(np.bincount(blocks)[order])
    return data[np.isin(blocks, order[rows <= CANDIDATES])]


def _block_means(values: Array | NDArray[np.bool_], blocks: NDArray[np.int64]) -> Array:
    return np.bincount(blocks, values) / np.bincount(blocks)
