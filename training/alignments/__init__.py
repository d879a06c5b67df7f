"""Ways to use source data for a target robot, by name. Each works with every agent."""

from __future__ import annotations

from landbridge.training.alignments.base import Alignment, Context
from landbridge.training.alignments.none import NoAlignment
from landbridge.training.alignments.source_only import SourceOnly
from landbridge.training.alignments.tabb import Tabb, TabbConfig
from landbridge.training.alignments.target_only import TargetOnly

DOMAINS = {
    "none": ("source", "target"),
    "source_only": ("source",),
    "target_only": ("target",),
    "tabb": ("source", "target"),
}


def make_alignment(name: str, tabb: TabbConfig, context: Context) -> Alignment:
    """The alignment called `name`, a key of DOMAINS."""
    if name == "tabb":
        return Tabb(tabb, context).to(context.device)
    return {"none": NoAlignment, "source_only": SourceOnly, "target_only": TargetOnly}[name](context)
