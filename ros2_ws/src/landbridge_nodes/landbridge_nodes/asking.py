"""Questions to a person beside the robot, whose answer lets it move."""

from __future__ import annotations

import sys
import termios

from rich.console import Console


def ask_a_person(words: str) -> None:
    """Say what to do on the terminal, and wait for an Enter that comes after the words: none typed before is heard.

    Raises:
        EOFError: Nobody can answer.
    """
    if sys.stdin.isatty():
        termios.tcflush(sys.stdin, termios.TCIFLUSH)
    Console(stderr=True).input(f"\n{words} ", markup=False)
