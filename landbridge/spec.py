"""What every file of numbers shares: immutable models, unknown keys refused, bad fields named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from landbridge.errors import InputError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Spec(BaseModel):
    """Base of every model read from disk: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=Spec)


def read_model(model: type[Model], path: Path) -> Model:
    """Parse a YAML file into `model`; raises InputError that names the first bad field and its value."""
    try:
        plain = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise InputError(path, f"not YAML: {' '.join(str(error).split())}", "correct the file's syntax") from error
    return validated(model, plain, path, f"correct that field; see robots/furuta/{path.name}")


def validated(model: type[Model], plain: Any, path: Path, remedy: str) -> Model:
    """`plain`, the content of the file `path`, as a `model`; raises InputError that names the first bad field."""
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        raise InputError(path, f"{field}: {first['msg']} (got {first['input']!r:.80})", remedy) from error
