"""The naive mix: source and target rows count the same."""

from __future__ import annotations

from landbridge.training.alignments.base import Alignment


class NoAlignment(Alignment):
    """Weight 1 for every source row."""
