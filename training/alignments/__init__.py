"""Ways to use source data for a target robot, by name. Each works with every agent."""

from __future__ import annotations

from landbridge.training.alignments.base import Alignment, SourceOnly, TargetOnly
from landbridge.training.alignments.corrected import Corrected
from landbridge.training.alignments.dara import DARA
from landbridge.training.alignments.density_ratio import DensityRatio
from landbridge.training.alignments.dynamics import Dynamics
from landbridge.training.alignments.igdf import IGDF
from landbridge.training.alignments.oracle import Oracle, OracleCorrected
from landbridge.training.alignments.otdf import OTDF
from landbridge.training.alignments.tabb import Shuffled, Tabb
from landbridge.training.alignments.vgdf import VGDF

ALIGNMENTS: dict[str, type[Alignment]] = {
    "none": Alignment,
    "source_only": SourceOnly,
    "target_only": TargetOnly,
    "dara": DARA,
    "igdf": IGDF,
    "otdf": OTDF,
    "vgdf": VGDF,
    "dynamics": Dynamics,
    "corrected": Corrected,
    "density_ratio": DensityRatio,
    "tabb": Tabb,
    "oracle": Oracle,
    "oracle_corrected": OracleCorrected,
    "shuffled": Shuffled,
}
