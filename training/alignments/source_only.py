"""Zero-shot transfer: the simulator's data alone."""

from __future__ import annotations

from landbridge.training.alignments.base import Alignment


class SourceOnly(Alignment):
    """Trains on source rows only."""
