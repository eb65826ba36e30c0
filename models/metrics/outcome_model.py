"""Cross-fitted reward predictions for the doubly robust off-policy value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError
from models.metrics.checks import Array, Index, arm_indices, inverse_propensities, numbers, one_of


def cross_fit_outcome_model(
    x: ArrayLike,
    arm: ArrayLike,
    y: ArrayLike,
    propensity: ArrayLike | None = None,
    *,
    arms: int,
    folds: int = 5,
    seed: int = 0,
    model: Any = "boosting",
    min_rows: int = 20,
) -> Array:
    """Predicted reward of every arm for every row, by models that never saw the row.

    One regressor an arm and fold (a T-learner). An arm with fewer than ``min_rows`` rows outside a
    fold gets their mean, and one without any the mean of all rows: DR stays right and gets noisier.

    Args:
        x: features [N, F]; NaN is a missing value.
        arm: arm given [N].
        y: reward [N]; rows with NaN train nothing and are predicted.
        propensity: probability of the arm that was given [N]; its inverse weighs the training rows,
            so that each arm's model is made for the whole population.
        arms: A.
        folds: at least 2, at most N.
        seed: of the folds and the regressors.
        model: "boosting" (gradient-boosted trees), "ridge" (fast, linear), or a scikit-learn
            regressor whose ``fit`` takes ``sample_weight``.
        min_rows: see above.

    Returns:
        q_hat [N, A]

    Source: Chernozhukov et al., "Double/debiased machine learning", 2018 (cross-fitting).
    """
    from sklearn.base import clone  # half a second to import: only who cross-fits pays it

    features = numbers("x", x, (None, None), missing=True)
    rows = len(features)
    given = arm_indices("arm", arm, rows, arms)
    reward = numbers("y", y, (rows,), missing=True)
    inverse = inverse_propensities(propensity, rows)
    weight = np.ones(rows) if inverse is None else inverse
    seen = ~np.isnan(reward)
    if not 2 <= folds <= rows:
        raise DataError(f"metrics: folds={folds} of {rows} rows; use 2 to {rows}.")
    if not seen.any():
        raise DataError("metrics: y is NaN in every row; nothing can be learned from it.")
    regressor = _regressor(model, seed)
    if isinstance(model, str) and model == "ridge":
        features = _standardized(features)  # of x alone, so no row's reward leaks

    q_hat = np.empty((rows, arms))
    fold = _folds(given, folds, seed)
    for f in range(folds):
        inside = fold == f
        for a in range(arms):
            train = seen & ~inside & (given == a)
            if train.sum() >= max(min_rows, 2):
                fitted = clone(regressor).fit(
                    features[train], reward[train], sample_weight=weight[train]
                )
                q_hat[inside, a] = fitted.predict(features[inside])
            else:
                known = next(some for some in (train, seen & ~inside, seen) if some.any())
                q_hat[inside, a] = np.average(reward[known], weights=weight[known])
    return q_hat


def _folds(arm: Index, folds: int, seed: int) -> Index:
    """Folds [N] of nearly equal size within each arm, at random."""
    order = np.random.default_rng(seed).permutation(len(arm))
    order = order[np.argsort(arm[order], kind="stable")]
    fold = np.empty(len(arm), dtype=np.int64)
    fold[order] = np.arange(len(arm)) % folds
    return fold


def _regressor(model: Any, seed: int) -> Any:
    if not isinstance(model, str):
        return model
    one_of("model", model, ("boosting", "ridge"))
    if model == "boosting":
        from sklearn.ensemble import HistGradientBoostingRegressor

        return HistGradientBoostingRegressor(
            max_iter=60, max_leaf_nodes=15, min_samples_leaf=30, l2_regularization=1.0,
            early_stopping=False, random_state=seed,
        )  # fmt: skip
    from sklearn.linear_model import Ridge

    return Ridge(alpha=1.0)


def _standardized(x: Array) -> Array:
    """Columns with mean 0 and spread 1, missing values at the mean: what a linear model needs."""
    known = ~np.isnan(x)
    mean = np.where(known, x, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, x - mean, 0.0)
    spread = centred.std(axis=0)
    return centred / np.where(spread > 0, spread, 1.0)
