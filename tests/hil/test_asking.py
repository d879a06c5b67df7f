"""Questions whose answer lets a robot move."""

from __future__ import annotations

import os
import select
import sys
from typing import Any

import pytest
from rich.console import Console

from landbridge_nodes.asking import ask_a_person


def test_an_enter_that_was_typed_before_the_question_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = os.openpty()
    left: list[list[Any]] = []

    def answered(console: Console, words: str, markup: bool) -> str:
        left.append(select.select([sys.stdin], [], [], 0)[0])
        return ""

    monkeypatch.setattr(Console, "input", answered)
    with os.fdopen(far) as terminal, os.fdopen(near, "wb", 0) as keys:
        monkeypatch.setattr(sys, "stdin", terminal)
        keys.write(b"\n\n")
        assert select.select([terminal], [], [], 5)[0]
        ask_a_person("step back, then press Enter")
    assert left == [[]]
