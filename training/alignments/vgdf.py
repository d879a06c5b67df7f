"""Value-guided data filtering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from landbridge.errors import InputError
from landbridge.spec import Share
from landbridge.training.alignments.base import Context, Value
from landbridge.training.alignments.modelled import ModelledConfig
from landbridge.training.alignments.tabb import Backups
from landbridge.training.dataset import Batch


@dataclass(frozen=True)
class VGDFConfig(ModelledConfig):
    """Hyperparameters, named as in the paper.

    Attributes:
        xi: Share of the source rows weighed at once that is kept.
    """

    xi: Annotated[Share, Field(gt=0)] = 0.25


class VGDF(Backups):
    """Keeps source rows whose backup is likely under the ensemble's (Xu et al. 2023, arXiv:2305.17625, eq. 7).

    With mu and sigma the mean and deviation over members of r^_k + gamma V(s^_k), the fictitious value proximity is
    log N(r + gamma V(s'); mu, sigma), and the mismatch its negative but for a constant; the best `xi` of the rows
    weighed at once weigh 1 / xi, the others 0. Against `tabb`: a hard filter of ranks, which need neither temperature
    nor floor nor warm-up, where `tabb` has a soft one of distances. The paper's exploration policy has no place
    offline.
    """

    config: VGDFConfig

    def __init__(self, config: VGDFConfig, context: Context) -> None:
        if config.predictor.members < 2:
            raise InputError("--vgdf.predictor.members", "one member has no deviation", "give at least 2")
        super().__init__(config, context)

    def mismatch(self, batch: Batch, value: Value) -> Tensor:
        """The negative proximity (N,), of all members."""
        own, fictitious = self.backups(batch, self.predictions(batch), value)
        mean, std = fictitious.mean(1), fictitious.std(1).clamp(min=1e-4)
        return 0.5 * ((own - mean) / std).square() + std.log()

    def weigh(self, mismatch: Tensor) -> Tensor:
        """1 / xi or 0, (N,): a mean of 1."""
        return keep_top(-mismatch, self.config.xi) / self.config.xi


def keep_top(score: Tensor, share: float) -> Tensor:
    """1 for the best `share` of the rows (N,), else 0; at least one row is kept."""
    count = max(1, round(share * len(score)))
    kept = torch.zeros_like(score)
    kept[score.topk(count).indices] = 1.0
    return kept
