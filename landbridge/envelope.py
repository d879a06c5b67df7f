"""What a robot's data looked like: mean and covariance of [obs | action], and how far a new row is from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESOLUTION = 1e-3  # standard deviation below which a column counts as constant; 1e-3 off is then one sigma

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Envelope:
    """Mean (d,) and covariance (d, d) of rows [obs | action], d = n + m."""

    mean: Array
    cov: Array

    def __post_init__(self) -> None:
        cov = self.cov + RESOLUTION**2 * np.eye(len(self.mean))
        object.__setattr__(self, "_whiten", np.linalg.inv(np.linalg.cholesky(cov)))

    @classmethod
    def of(cls, rows: NDArray[np.floating]) -> Envelope:
        """The envelope of rows (N, d)."""
        return cls(rows.mean(0, np.float64), np.cov(rows.T.astype(np.float64)).reshape(rows.shape[1], -1))

    def distance(self, rows: NDArray[np.floating]) -> Array:
        """Mahalanobis distance (...,) of rows (..., d): sqrt(d) for a typical row of the data itself."""
        whiten: Array = self._whiten  # type: ignore[attr-defined]
        return np.sqrt(np.square((rows - self.mean) @ whiten.T).sum(-1))
