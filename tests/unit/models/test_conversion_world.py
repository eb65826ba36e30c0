"""The world that conversion nets are compared on: its truth, and the calibration error."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.models.conversion import calibration_error, draw, score


@pytest.fixture(scope="module")
def log():
    return draw(100_000, seed=3, part=0)


def test_a_step_needs_the_one_before(log):
    y = log.rows.y.numpy()
    assert (np.diff(y, axis=1) <= 0).all()
    assert (np.diff(log.truth, axis=2) <= 0).all()


def test_the_truth_is_calibrated_and_orders_best(log):
    found = score(log.truth, log)
    noisy = log.truth * np.exp(np.random.default_rng(0).normal(0, 0.5, log.truth.shape))
    worse = score(noisy, log)
    for step in ("visit", "cart", "buy"):
        assert found[f"ece {step}"] < 0.006
        assert found[f"pehe {step}"] == 0.0
        assert found[f"auc {step}"] > worse[f"auc {step}"] + 0.01


def test_features_select_who_reaches_the_next_step(log):
    """Who visits is less willing to fill a cart than who doesn't: visitors alone mislead."""
    visit, cart = log.truth[:, 0, 0], log.truth[:, 0, 1] / log.truth[:, 0, 0]
    assert np.average(cart, weights=visit) < cart.mean() - 0.02


def test_another_part_is_other_units_of_the_same_world(log):
    other = draw(100_000, seed=3, part=1)
    assert not np.array_equal(other.rows.x_num[:100], log.rows.x_num[:100])
    np.testing.assert_allclose(other.truth.mean((0, 1)), log.truth.mean((0, 1)), rtol=0.05)


def test_calibration_error_is_the_mean_gap_of_the_bins():
    chances = np.repeat([0.1, 0.6], 50)
    y = np.concatenate([np.zeros(50), np.ones(50)])
    assert calibration_error(chances, y, bins=2) == pytest.approx((0.1 + 0.4) / 2)
