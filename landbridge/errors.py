"""The one exception a user is meant to read."""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """Bad input at a boundary: says where it is, what is wrong and how to mend it, in one line.

    Raised before anything is written or moved. The command line prints it and exits with code 2.

    Args:
        where: The file (or flag, or message) that holds the bad value.
        problem: What is wrong, with the offending value and the allowed ones.
        remedy: What the user can do about it.
    """

    def __init__(self, where: str | Path, problem: str, remedy: str) -> None:
        self.where, self.problem, self.remedy = str(where), problem, remedy
        super().__init__(f"{where}: {problem.rstrip('.')}. {remedy}.")
