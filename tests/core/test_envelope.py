from __future__ import annotations

import numpy as np
import pytest

from landbridge.envelope import Envelope


def test_distance_by_hand() -> None:
    """Independent columns of standard deviation 1 and 2: sqrt(3^2 + (4 / 2)^2)."""
    envelope = Envelope(np.array([1.0, -1.0]), np.diag([1.0, 4.0]))
    assert envelope.distance(np.array([4.0, 3.0])) == pytest.approx(np.sqrt(13), rel=1e-5)
    np.testing.assert_allclose(envelope.distance(np.array([[1.0, -1.0], [1.0, 1.0]])), [0, 1], atol=1e-5)


def test_against_the_textbook_formula_and_its_mean_over_the_data() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5000, 4)) @ rng.normal(size=(4, 4)) + rng.normal(size=4)
    distance = Envelope.of(rows).distance(rows)
    away = rows - rows.mean(0)
    inverse = np.linalg.inv(np.cov(rows.T) + 1e-6 * np.eye(4))
    np.testing.assert_allclose(distance, np.sqrt(np.einsum("ni,ij,nj->n", away, inverse, away)), rtol=1e-6)
    assert np.square(distance).mean() == pytest.approx(4, rel=1e-3)  # the trace of the identity


def test_a_column_that_never_moved_counts_when_it_moves() -> None:
    rows = np.column_stack([np.random.default_rng(0).normal(size=100), np.full(100, 0.5)])
    envelope = Envelope.of(rows)
    assert envelope.distance(np.array([rows[:, 0].mean(), 0.5])) < 1e-6
    assert envelope.distance(np.array([rows[:, 0].mean(), 0.51])) == pytest.approx(10, rel=1e-6)
