"""The folder of one training run: what its files are called, and reading its configuration."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from landbridge.errors import InputError
from landbridge.robot import robots
from landbridge.training.alignments import ALIGNMENTS
from landbridge.training.config import TrainConfig

CONFIG = "config.json"
METRICS = "metrics.csv"
SEED = "seed"  # what the name of a run's folder begins with where there are several in one
DIAGNOSTICS = "diagnostics.json"
RESUMED = "mend that; a run then goes on with --resume"  # remedy for a file of a run that cannot be written


@dataclass(frozen=True)
class Inputs:
    """What a run is made of besides its configuration: the arguments of `landbridge.training.train.train`."""

    robot: str = "furuta"
    source: Path | None = None
    target: Path | None = None
    scratch: Path | None = None
    score: str | None = None

    @classmethod
    def of(cls, run: dict[str, Any], out: Path, asked: Inputs) -> Inputs:
        """Those that a run began with; its datasets and its `scratch` may be in other folders than before.

        Raises:
            InputError: Its rows were in memory, or it began without a dataset that is asked for.
        """
        scratch = Path(run["scratch"]) if run.get("scratch") else None
        if asked.scratch is not None and scratch is None:
            raise InputError("--scratch", f"{out} began with its rows in memory", "resume it without, or train anew")
        places = located(run, asked.given())
        return cls(robot=run["robot"], score=run["score"], scratch=asked.scratch or scratch, **places)

    def given(self) -> dict[str, Path]:
        """The datasets that are there, by domain."""
        return {name: path for name, path in (("source", self.source), ("target", self.target)) if path is not None}

    def needed(self, alignment: str) -> dict[str, Path]:
        """The datasets that an alignment reads, by domain.

        Raises:
            InputError: One is not given, or the source may not go to `scratch`.
        """
        given = self.given()
        for name in ALIGNMENTS[alignment].domains:
            if name not in given:
                raise InputError(f"--{name}", f"alignment {alignment!r} needs a {name} dataset", f"add --{name} PATH")
        if self.scratch is not None and not self.scratch.is_dir():
            raise InputError("--scratch", f"{self.scratch} is not a folder", "name an existing one, on a disk")
        if self.scratch is not None and ALIGNMENTS[alignment].whole_source:
            problem = f"alignment {alignment!r} weighs every source row against all others at once"
            raise InputError("--scratch", problem, "keep the source in memory, or choose another alignment")
        return {name: given[name] for name in ALIGNMENTS[alignment].domains}

    def to_json(self) -> dict[str, str | None]:
        """Names, and absolute paths: a run is gone on with from anywhere."""
        paths = {name: str(v.resolve()) if isinstance(v, Path) else v for name, v in vars(self).items()}
        return paths | {"robot": self.robot if self.robot in robots() else str(Path(self.robot).resolve())}


NEEDED = ("robot", "source", "target", "score", "dataset_hashes", "obs_mean", "obs_std")  # of every CONFIG


def seed_folder(out: Path, seed: int) -> Path:
    """Where `train --seeds` puts the run of one of them."""
    return out / f"{SEED}{seed}"


def runs_of(folder: Path) -> list[Path]:
    """The runs of a folder of `train --seeds`, by seed; of any other, itself."""
    named = [path.parent.name.removeprefix(SEED) for path in folder.glob(f"{SEED}*/{CONFIG}")]
    seeds = sorted(int(name) for name in named if name.isdecimal())
    return [folder] if (folder / CONFIG).is_file() or not seeds else [seed_folder(folder, seed) for seed in seeds]


def read_run(folder: Path) -> dict[str, Any]:
    """The `config.json` of a run folder.

    Raises:
        InputError: There is none, it is not readable, or has other options than this version.
    """
    try:
        run: dict[str, Any] = json.loads((folder / CONFIG).read_text())
        run["train"].setdefault("target_share", 1.0)  # what runs had before there was a choice
        TrainConfig.from_json(run["train"])
        for name in NEEDED:
            run[name]
    except (OSError, ValueError) as error:
        problem = f"is no readable run: {getattr(error, 'strerror', None) or error}"
        raise InputError(folder / CONFIG, problem, "name the --out of `landbridge train`") from error
    except (KeyError, TypeError) as error:
        raise InputError(folder / CONFIG, f"of another version of landbridge: {error}", "train again") from error
    return run


def located(run: dict[str, Any], moved: dict[str, Path]) -> dict[str, Path]:
    """The datasets that a run was given, by domain: where they were then, or where they have `moved` to.

    Raises:
        InputError: One has moved that it was not given.
    """
    began = {name: Path(run[name]) for name in ("source", "target") if run[name]}
    if others := [name for name in moved if name not in began]:
        raise InputError(f"--{others[0]}", f"the run was given no {others[0]} dataset", "leave it out")
    return began | moved


def refuse_others(out: Path, run: dict[str, Any], config: TrainConfig, asked: Inputs) -> None:
    """Raise InputError if an option was given that the run did not begin with; the defaults count as not given.

    Its datasets may have moved: their hashes tell.
    """
    given, default = (_flat({**asdict(c), **i.to_json()}) for c, i in ((config, asked), (TrainConfig(), Inputs())))
    began = _flat({**run["train"], **{name: run.get(name) for name in ("robot", "score")}})
    if differ := [name for name, value in began.items() if given[name] not in (value, default[name])]:
        shown = ", ".join(f"{name.replace('_', '-')} {began[name]}, not {given[name]}" for name in differ)
        raise InputError(out, f"began with --{shown}", "resume it as it is, or train anew with another --out")


def _flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested values by dotted names, tuples as lists."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[above + name] = list(value) if isinstance(value, tuple) else value
    return flat


def has_reached(folder: Path, step: int) -> bool:
    """Whether the run came to its end at this step; its diagnostics are what it writes last."""
    path = folder / DIAGNOSTICS
    return path.is_file() and bool(json.loads(path.read_text())["step"] == step)
