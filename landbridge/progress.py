"""A bar on the terminal for what comes in pieces, some longer than others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

Piece = TypeVar("Piece", bound=Sized)


def shown(name: str, pieces: Iterable[Piece], total: int, disable: bool = False) -> Iterator[Piece]:
    """`pieces` as they come, whose lengths sum to `total`, with a bar on standard error unless that is disabled."""
    with Progress(console=Console(stderr=True), disable=disable) as progress:
        bar = progress.add_task(name, total=total)
        for piece in pieces:
            yield piece
            progress.advance(bar, len(piece))
