"""A short run of the guard's fuzz; `benchmarks/guard_fuzz.py` runs the long one."""

from __future__ import annotations

from collections import Counter

import guard_fuzz
import pytest

from landbridge.verdict import Reason

STEPS = 7_000  # of each kind of robot


@pytest.mark.parametrize("kind", guard_fuzz.KINDS)
def test_nothing_outside_the_limits_is_ever_emitted_and_every_refusal_has_its_name(kind: str) -> None:
    run = guard_fuzz.fuzz(kind, STEPS, seed=1)
    assert run.broken == []
    assert (run.counts["outside"], run.counts["broken"], run.counts["exceptions"]) == (0, 0, 0)
    assert run.counts["refused"] + run.counts["written"] == sum(run.reasons.values())
    assert run.counts["written"] > STEPS / 40
    assert run.counts["released"] > 0


def test_the_fuzz_finds_its_way_to_every_verdict_and_fault() -> None:
    """An oracle that never sees a state proves nothing about it."""
    runs = [guard_fuzz.fuzz(kind, 20_000, seed=1) for kind in guard_fuzz.KINDS]
    seen = sum((run.reasons + Counter(run.guard.counters) for run in runs), Counter())
    unseen = {reason for reason in Reason if not seen[reason.value] and not seen[f"fault.{reason.value}"]}
    assert unseen == {Reason.PARKED}  # which is no verdict on a command; the test above counts its releases
    assert all(run.broken == [] for run in runs)


def test_the_oracle_sees_what_a_broken_guard_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("landbridge.deploy.guard.Guard._refuse", lambda *_: None)
    run = guard_fuzz.fuzz("effort", 300, seed=1)
    assert run.counts["broken"] > 0
    monkeypatch.undo()
    monkeypatch.setattr("landbridge.deploy.limits.Limits.apply", lambda self, wanted, *_: tuple(wanted))
    run = guard_fuzz.fuzz("effort", 3000, seed=1)
    assert run.counts["outside"] > 0
