"""Shapes, batches and the scaling of outcomes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from campaigns.errors import CampaignError, DataError
from models.data import Batch, OutcomeScaler, Shape

ARMS = ((0, 0), (1, 0), (0, 1), (1, 2))


def test_a_shape_knows_its_counts():
    shape = Shape(3, (4, 5), ARMS, ("binary", "count"))
    assert (shape.features, shape.arms, shape.factors, shape.outcome_count) == (5, 4, 2, 2)
    assert shape.factor_levels == (2, 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"numeric": 0, "categories": ()}, "no features"),
        ({"levels": ((0, 0),)}, r"1 arm\(s\)"),
        ({"levels": ((1, 0), (0, 0))}, "arm 0 must be level 0 of every factor"),
        ({"outcomes": ("binary", "happy")}, "'binary', 'count' or 'continuous'"),
        ({"sequence": (0, 2)}, "there are 2 outcomes"),
        ({"doses": ((0.0, 1.0),)}, "give each factor's, ascending from 0 to 1"),
        ({"doses": ((), (0.0, 0.5, 0.5))}, "ascending from 0 to 1"),
        ({"doses": ((), (0.1, 0.5, 1.0))}, "ascending from 0 to 1"),
        ({"doses": ((), (0.0, 1.0))}, r"there are \(2, 3\) levels"),
    ],
)
def test_an_impossible_shape_is_refused(wrong, message):
    right = {"numeric": 1, "categories": (2,), "levels": ARMS, "outcomes": ("binary", "count")}
    with pytest.raises(CampaignError, match=message):
        Shape(**{**right, **wrong})


def test_unobserved_outcomes_are_masked():
    batch = Batch.of(
        np.zeros((2, 1)), np.zeros((2, 0)), np.array([0, 1]), np.array([[1.0, np.nan], [np.nan, 2]])
    )
    assert batch.y.tolist() == [[1, 0], [0, 2]]
    assert batch.y_mask.tolist() == [[1, 0], [0, 1]]
    assert batch.weight.tolist() == batch.propensity.tolist() == [1, 1]
    second = batch.select(torch.tensor([1])).to("cpu")
    assert len(second) == 1
    assert second.arm.tolist() == [1]


def test_arrays_of_unequal_length_are_refused():
    with pytest.raises(DataError, match=r"\[2, 3\] rows"):
        Batch.of(np.zeros((3, 1)), np.zeros((3, 0)), np.zeros(3), np.zeros((2, 1)))


def test_scaling_standardises_and_effects_scale_back():
    rng = np.random.default_rng(0)
    y = np.column_stack([rng.random(500) < 0.3, rng.poisson(4, 500), rng.normal(90, 20, 500)])
    y[:50, 2] = np.nan
    scaler = OutcomeScaler.fit(y, ("binary", "count", "continuous"))
    scaled = scaler.apply(y)
    np.testing.assert_array_equal(scaled[:, 0], y[:, 0])
    np.testing.assert_allclose(np.nanmean(scaled[:, 1:], axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.nanstd(scaled[:, 1:], axis=0), 1)
    np.testing.assert_allclose(scaler.start, np.nanmean(scaled, axis=0), atol=1e-12)
    arms = np.stack([y, y + 3.0], axis=1)  # [N, A, K]
    restored = scaler.restore(scaler.apply(arms))
    np.testing.assert_allclose(restored[:, 1] - restored[:, 0], np.where(np.isnan(y), np.nan, 3.0))
    assert OutcomeScaler.from_dict(scaler.to_dict()) == scaler


def test_an_outcome_never_observed_is_refused():
    with pytest.raises(DataError, match="outcome 1 \\(count\\) was never observed in 4 rows"):
        OutcomeScaler.fit(np.array([[1.0, np.nan]] * 4), ("binary", "count"))
