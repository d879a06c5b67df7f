"""No transfer: the few target rows alone."""

from __future__ import annotations

from landbridge.training.alignments.base import Alignment


class TargetOnly(Alignment):
    """Trains on target rows only."""
