"""Where files are written: asked before anything is done for them; then whole, or not there at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from landbridge.errors import InputError


def require_new(path: Path) -> None:
    """Raise InputError if `path` exists or, as far as can be told, could not be written."""
    if os.path.lexists(path):
        raise InputError(path, "already exists", "name another one, or remove it")
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
