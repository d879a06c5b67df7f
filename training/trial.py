"""One trial of a sweep: a training run and its scores, gone on with from wherever a process before this one ended."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landbridge.errors import InputError
from landbridge.robot import load_robot
from landbridge.simulation.plant import Engine
from landbridge.simulation.scenario import load_scenario
from landbridge.training.config import TrainConfig
from landbridge.training.evaluate import resolve
from landbridge.training.run import CONFIG, Inputs, has_reached, read_run
from landbridge.training.scoring import score, write_scores
from landbridge.training.train import train
from landbridge.training.trainer import CHECKPOINT


@dataclass(frozen=True)
class Trial:
    """What to train, and where to score it.

    Attributes:
        run: Run folder; what the trial says goes to `<run>.log`.
        setting: The options that the sweep varies, by name.
        config, inputs: Of `landbridge train`.
        engine, scenarios, episodes: Of `landbridge evaluate`; the seed is the run's.
    """

    run: Path
    setting: tuple[tuple[str, str], ...]
    config: TrainConfig
    inputs: Inputs
    engine: Engine
    scenarios: tuple[str, ...]
    episodes: int

    @property
    def trained(self) -> bool:
        """Whether the run has come to its end."""
        return has_reached(self.run, self.config.steps)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.trained and all(self._file(scenario).is_file() for scenario in self.scenarios)

    def refuse_another(self) -> None:
        """Raise InputError if the run folder holds a run of another configuration."""
        if not (self.run / CONFIG).is_file():
            return
        before, now = read_run(self.run)["train"], self.config.to_json()
        if differ := [name for name in before | now if before.get(name) != now.get(name)]:
            raise InputError(
                self.run, f"was trained with another {', '.join(differ)}: of another version?", "choose another --out"
            )

    def scores(self, scenario: str) -> NDArray[np.float64]:
        """Success and return (2, episodes) of a complete trial."""
        found: NDArray[np.float64] = np.load(self._file(scenario))
        return found

    def work(self) -> int:
        """Do what is left, for as long as it takes; returns an exit code. Two processes never do so at once."""
        self.run.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            fcntl.flock(log, fcntl.LOCK_EX)  # a sweep that was killed may have left one who still works on it
            try:
                if not self.trained:
                    self._train()
                self._score()
            except InputError as error:
                print(error, file=log)
                return 2
            except Exception:
                traceback.print_exc(file=log)
                return 1
        return 0

    def note(self, line: str) -> None:
        """Add a line to the log."""
        with self._log.open("a") as log:
            print(line, file=log)

    def last_words(self) -> str:
        """The last line of the log, which says why a trial failed."""
        lines = self._log.read_text().split("\n") if self._log.is_file() else []
        return next((line for line in reversed(lines) if line.strip()), "")

    @property
    def _log(self) -> Path:
        return self.run.with_name(self.run.name + ".log")

    def _train(self) -> None:
        resume = (self.run / CHECKPOINT).is_file()
        if not resume:
            shutil.rmtree(self.run, ignore_errors=True)  # killed before its first checkpoint
        train(self.run, **vars(self.inputs), config=self.config, resume=resume)

    def _score(self) -> None:
        robot = load_robot(self.inputs.robot)
        policy = resolve(str(self.run), robot)
        for scenario in self.scenarios:
            if not self._file(scenario).is_file():
                rung = load_scenario(robot, scenario)
                found = score(policy, robot, self.engine, rung, self.episodes, self.config.seed)
                write_scores(self._file(scenario), found)

    def _file(self, scenario: str) -> Path:
        return self.run / f"scores_{self.engine}_{scenario}_{self.episodes}.npy"
