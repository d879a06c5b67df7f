"""What every file of numbers shares: immutable models, unknown keys refused, bad fields named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from landbridge.errors import InputError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

EXAMPLE = Path(__file__).parent / "robots" / "furuta"  # of a robot folder
OF_A_ROBOT = ("robot.yaml", "scenarios.yaml", "behaviour.yaml")  # that are read as models

MAX_SEED = 2**32 - 3  # of 32 bits; CMA-ES begins with the next one


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
    example = f"; see {EXAMPLE / path.name}" if path.name in OF_A_ROBOT else ""
    return validated(model, plain, path, f"correct that field{example}")


def require_seed(*seeds: int) -> None:
    """Raise InputError if a seed is negative, which numpy does not take, or longer than CMA-ES takes."""
    for seed in seeds:
        require_at_least("--seed", seed, 0)
        if seed > MAX_SEED:
            raise InputError("--seed", f"is {seed}", f"give {MAX_SEED} or less")


def require_positive(option: str, value: float) -> None:
    """Raise InputError unless `value`, of a command's `option`, is finite and above 0."""
    if not 0 < value < math.inf:
        raise InputError(option, f"is {value:g}", "give a finite number above 0")


def require_at_least(option: str, value: float, least: float) -> None:
    """Raise InputError unless `value`, of a command's `option`, is finite and `least` or more."""
    if not least <= value < math.inf:
        raise InputError(option, f"is {value:g}", f"give {least:g} or more")


def require_distinct(option: str, given: Sequence[object], places: Sequence[object] | None = None) -> None:
    """Raise InputError if a command's `option` names something twice; `places` tell what is the same, if not names."""
    places = given if places is None else places
    if repeated := [name for name, place in zip(given, places, strict=True) if places.count(place) > 1]:
        raise InputError(option, f"names {repeated[0]} twice", "name each once")


def validated(model: type[Model], plain: Any, path: Path, remedy: str) -> Model:
    """`plain`, the content of the file `path`, as a `model`; raises InputError that names the first bad field."""
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if field == "schema_version" and first["type"] == "literal_error":
            problem = f"schema_version: {first['input']!r}, this landbridge reads {first['ctx']['expected']}"
            remedy = "name a file of the right kind; else update landbridge, or make that file anew with this version"
            raise InputError(path, problem, remedy) from error
        if first["type"] == "value_error":  # of several fields together: its words name them and their values
            problem = first["msg"].removeprefix("Value error, ")
        else:
            problem = f"{first['msg']} (got {first['input']!r:.80})"
        raise InputError(path, f"{field}: {problem}" if field else problem, remedy) from error
