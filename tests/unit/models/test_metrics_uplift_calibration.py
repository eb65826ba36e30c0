"""Calibration of predicted uplift, in a world where the true effects are known."""

import numpy as np
import pytest

from campaigns.errors import DataError
from models.metrics.uplift_calibration import (
    IsotonicUplift,
    pseudo_effects,
    uplift_calibration_error,
)


def world(rows: int, seed: int):
    """True effect tau = x in [0, 1] of arm 1; propensities depend on x; arm 2 is a distraction."""
    rng = np.random.default_rng(seed)
    x = rng.random(rows)
    chance = np.stack([0.5 - 0.2 * x, 0.3 + 0.2 * x, np.full(rows, 0.2)], axis=1)
    arm = (rng.random((rows, 1)) > chance.cumsum(axis=1)).sum(axis=1)
    q = np.stack([1 + x, 1 + 2 * x, np.zeros(rows)], axis=1)
    outcome = q[np.arange(rows), arm] + rng.normal(0, 0.5, rows)
    return x, q, outcome, arm, chance[np.arange(rows), arm]


@pytest.mark.parametrize("known", [None, "right", "wrong"])
def test_pseudo_effects_are_right_on_average_whatever_the_predictions(known: str | None) -> None:
    x, q, outcome, arm, propensity = world(60_000, 0)
    q_hat = {None: None, "right": q, "wrong": np.zeros_like(q)}[known]
    psi = pseudo_effects(outcome, arm, propensity, q_hat=q_hat)
    for part in (x < 0.5, x >= 0.5):
        assert psi[part].mean() == pytest.approx(x[part].mean(), abs=0.07)


def test_good_predictions_make_them_less_noisy() -> None:
    _, q, outcome, arm, propensity = world(5000, 1)
    plain = pseudo_effects(outcome, arm, propensity)
    assert pseudo_effects(outcome, arm, propensity, q_hat=q).std() < 0.8 * plain.std()


def test_the_error_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(2)
    predicted, effect, weight = rng.normal(0, 1, (3, 30))
    weight = np.abs(weight)
    found = uplift_calibration_error(predicted, effect, weight=weight, bins=3, replicates=0)
    expected = 0.0
    for part in np.array_split(np.argsort(predicted), 3):
        pairs = [(i, j) for i in part for j in part if i != j]
        d = effect - predicted
        top = sum(weight[i] * weight[j] * d[i] * d[j] for i, j in pairs)
        below = sum(weight[i] * weight[j] for i, j in pairs)
        expected += weight[part].sum() / weight.sum() * top / below
    assert found.estimate == pytest.approx(expected)


def test_the_error_of_right_and_of_scaled_predictions() -> None:
    """Doubled predictions err by x: E[x^2] = 1/3."""
    right, doubled = [], []
    for seed in range(60):
        x, q, outcome, arm, propensity = world(2000, seed)
        psi = pseudo_effects(outcome, arm, propensity, q_hat=q)
        right.append(uplift_calibration_error(x, psi, seed=seed, replicates=100))
        doubled.append(uplift_calibration_error(2 * x, psi, seed=seed, replicates=100))
    assert np.mean([0 in each for each in right]) >= 0.9
    assert np.mean([each.estimate for each in right]) == pytest.approx(0, abs=0.002)
    assert np.mean([1 / 3 in each for each in doubled]) >= 0.85
    assert np.mean([each.estimate for each in doubled]) == pytest.approx(1 / 3, abs=0.02)


def test_the_error_does_not_depend_on_the_rows_order_and_takes_ties() -> None:
    x, _, outcome, arm, propensity = world(500, 3)
    psi, rounded = pseudo_effects(outcome, arm, propensity), np.round(x, 1)
    order = np.random.default_rng(0).permutation(500)
    found = uplift_calibration_error(rounded, psi)
    assert uplift_calibration_error(rounded[order], psi[order]) == found
    assert found.low < found.estimate < found.high
    one = uplift_calibration_error(np.full(500, 0.5), psi, replicates=0)
    assert one == uplift_calibration_error(np.full(500, 0.5), psi, bins=1, replicates=0)


@pytest.mark.parametrize("seed", range(3))
def test_isotonic_is_the_best_rising_fit_and_keeps_the_mean(seed: int) -> None:
    x, _, outcome, arm, propensity = world(400, seed)
    predicted, psi = np.round(x, 2), pseudo_effects(outcome, arm, propensity)
    weight = np.random.default_rng(seed).integers(0, 3, 400).astype(float)
    fitted = IsotonicUplift.fit(predicted, psi, weight=weight)
    calibrated = fitted.apply(predicted)
    assert (np.diff(fitted.apply(np.linspace(-1, 2, 500))) >= 0).all()
    assert weight @ calibrated == pytest.approx(weight @ psi)
    # Of a projection on a cone: orthogonal to the residual, and no rising map is better.
    assert weight @ (calibrated * (psi - calibrated)) == pytest.approx(0, abs=1e-8)
    for other in (predicted, predicted**2, np.exp(predicted), (predicted > 0.3).astype(float)):
        assert weight @ (other * (psi - calibrated)) <= 1e-8
    repeated = IsotonicUplift.fit(*(np.repeat(v, weight.astype(int)) for v in (predicted, psi)))
    assert repeated.apply(predicted) == pytest.approx(calibrated)


def test_a_second_fit_changes_nothing() -> None:
    x, _, outcome, arm, propensity = world(400, 5)
    psi = pseudo_effects(outcome, arm, propensity)
    once = IsotonicUplift.fit(x, psi).apply(x)
    assert IsotonicUplift.fit(once, psi).apply(once) == pytest.approx(once)


def test_it_repairs_scaled_up_predictions_on_rows_it_never_saw() -> None:
    x, q, outcome, arm, propensity = world(6000, 6)
    fitted = IsotonicUplift.fit(3 * x, pseudo_effects(outcome, arm, propensity, q_hat=q))
    new, q, outcome, arm, propensity = world(6000, 7)
    calibrated = fitted.apply(3 * new)
    assert np.sqrt(((calibrated - new) ** 2).mean()) < 0.15  # 3 x is off by 1.15
    psi = pseudo_effects(outcome, arm, propensity, q_hat=q)
    before, after = (uplift_calibration_error(each, psi) for each in (3 * new, calibrated))
    assert after.high < 0.05 < 1 < before.low


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="bins=3 of 4 rows"):
        uplift_calibration_error([1, 2, 3, 4], [1, 2, 3, 4], bins=3)
    with pytest.raises(DataError, match="effect has shape"):
        IsotonicUplift.fit([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="both 1"):
        pseudo_effects([1.0, 2.0], [0, 1], [0.5, 0.5], control=1)
    with pytest.raises(DataError, match="0 treated"):
        pseudo_effects([1.0, 2.0], [0, 1], [0.5, 0.5], treated=2)
    with pytest.raises(DataError, match="propensity is missing"):
        pseudo_effects([1.0, 2.0], [0, 1], None)


def test_a_bin_of_one_row_joins_its_neighbour() -> None:
    def error(predicted: list[float], bins: int) -> float:
        effect = [1.0, 2.0, 4.0, 3.0, 5.0, 0.0]
        return uplift_calibration_error(predicted, effect, bins=bins, replicates=0).estimate

    lone = [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]  # cut at 0 and 1: the first would hold one row
    assert error(lone, 2) == pytest.approx(error(lone, 1))
    assert error([0.0, 0.0, 0.0, 1.0, 1.0, 1.0], 2) != pytest.approx(error(lone, 1))
