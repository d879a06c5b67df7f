"""What every file of numbers shares: immutable models, unknown keys refused, bad fields named."""

from __future__ import annotations

import math
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from landbridge.errors import InputError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

OF_A_ROBOT = ("robot.yaml", "scenarios.yaml", "behaviour.yaml")  # every robot folder has an example of these


class Spec(BaseModel):
    """Base of every model read from disk: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=Spec)


def read_model(model: type[Model], path: Path) -> Model:
    """Parse a YAML file into `model`; raises InputError that names the first bad field and its value."""
    try:
        plain = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(path, f"not YAML: {' '.join(str(error).split())}", "correct the file's syntax") from error
    if not isinstance(plain, dict):
        found = "is empty" if plain is None else f"holds {plain!r:.80}, no fields by name"
        raise InputError(path, found, "name the right file, or write it again")
    example = f"; see robots/furuta/{path.name}" if path.name in OF_A_ROBOT else ""
    return validated(model, plain, path, f"correct that field{example}")


def require_new(path: Path) -> None:
    """Raise InputError unless there is no `path` yet and a file can be written there, as far as can be told."""
    if os.path.lexists(path):
        raise InputError(path, "already exists", "choose another --out or remove it")
    require_folder(path.parent)


def require_folder(path: Path) -> None:
    """Raise InputError unless files can be made in the folder `path`, or it itself where it is to be made.

    It is tried with a file without a name: who may write where is more than permissions tell, on some file systems.
    """
    folder = next(place for place in (path.absolute(), *path.absolute().parents) if os.path.lexists(place))
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        problem = f"cannot be written: nothing can be made in {folder} ({error.strerror})"
        raise InputError(path, problem, "choose another folder") from error


def write_atomic(path: Path, content: bytes | str, remedy: str = "free space, or choose another folder") -> None:
    """Replace the file `path` by `content`; a reader sees the old or the new one, never half of one.

    Folders that are missing are made.

    Raises:
        InputError: The disk is full, or the like; what was there before is still there, and nothing else.
    """
    made = [folder for folder in path.absolute().parents if not folder.exists()]
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
            for folder in made:
                folder.rmdir()
        raise not_written(path, error, remedy) from error


def not_written(path: Path, error: OSError, remedy: str) -> InputError:
    """What to tell of a file that cannot be written."""
    return InputError(path, f"cannot be written: {error.strerror}", remedy)


def require_seed(*seeds: int) -> None:
    """Raise InputError if a seed is negative: numpy takes none that is."""
    if negative := [seed for seed in seeds if seed < 0]:
        raise InputError("--seed", f"is {negative[0]}", "give 0 or more")


def require_positive(option: str, value: float) -> None:
    """Raise InputError unless `value`, of a command's `option`, is finite and above 0."""
    if not 0 < value < math.inf:
        raise InputError(option, f"is {value:g}", "ask for more than 0")


def validated(model: type[Model], plain: Any, path: Path, remedy: str) -> Model:
    """`plain`, the content of the file `path`, as a `model`; raises InputError that names the first bad field."""
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "value_error":  # of several fields together: its words name them and their values
            problem = first["msg"].removeprefix("Value error, ")
        else:
            problem = f"{first['msg']} (got {first['input']!r:.80})"
        raise InputError(path, f"{field}: {problem}" if field else problem, remedy) from error
