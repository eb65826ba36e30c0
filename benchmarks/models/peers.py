"""What users would take instead, called as their own documentation does: EconML over LightGBM.

Both learn the effects on the realised value, the one number that decisions are made by; features are
imputed by medians with flags, categories one-hot, as EconML asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.models.worlds import Case
from campaigns.objective import realised


def causal_forest(made: Case, seed: int) -> Callable[[Any], np.ndarray]:
    """EconML's CausalForestDML with LightGBM nuisances, tuned by its own ``tune``."""
    from econml.dml import CausalForestDML

    encode, x, arm, value = _data(made)
    forest = CausalForestDML(
        model_y=_regressor(seed),
        model_t=_classifier(seed),
        discrete_treatment=True,
        n_estimators=500,
        min_samples_leaf=20,
        random_state=seed,
        n_jobs=1,
    )
    forest.tune(value, arm, X=x, params="auto")
    forest.fit(value, arm, X=x)
    return lambda units: _effects(forest, encode(units), int(arm.max()) + 1)


def x_learner(made: Case, seed: int) -> Callable[[Any], np.ndarray]:
    """EconML's XLearner over LightGBM, its leaves chosen by cross-validated error."""
    from econml.metalearners import XLearner

    encode, x, arm, value = _data(made)
    learner = XLearner(
        models=_tuned(x, value, seed),
        propensity_model=_classifier(seed),
        cate_models=_tuned(x, value, seed),
    )
    learner.fit(value, arm, X=x)
    return lambda units: _effects(learner, encode(units), int(arm.max()) + 1)


PEERS = {"econml causal forest": causal_forest, "econml x-learner": x_learner}


def _effects(model: Any, x: np.ndarray, arms: int) -> np.ndarray:
    """Effects on the value of every arm, [N, A]."""
    effects = [np.zeros(len(x))]
    effects += [np.asarray(model.effect(x, T0=0, T1=a)).ravel() for a in range(1, arms)]
    return np.column_stack(effects)


def _data(made: Case) -> tuple[Callable[[Any], np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    frame, features = made.frame, made.campaign.features
    numeric, categorical = list(features.numeric), list(features.categorical)
    medians = frame[numeric].median()
    holed = [name for name in numeric if frame[name].isna().any()]
    levels = {name: frame[name].dropna().unique() for name in categorical}

    def encode(units: pd.DataFrame) -> np.ndarray:
        numbers = units[numeric]
        parts = [numbers.fillna(medians).to_numpy(float), numbers[holed].isna().to_numpy(float)]
        parts += [(units[[name]].to_numpy() == levels[name]).astype(float) for name in levels]
        return np.concatenate(parts, axis=1)

    outcomes = frame[list(made.campaign.outcomes)].to_numpy(np.float64)
    arm = frame["arm"].to_numpy()
    value, _ = realised(outcomes, arm, made.campaign)
    return encode, encode(frame), arm, value


def _regressor(seed: int, leaves: int = 31, trees: int = 100, rate: float = 0.05) -> Any:
    from lightgbm import LGBMRegressor

    return LGBMRegressor(
        num_leaves=leaves,
        n_estimators=trees,
        learning_rate=rate,
        min_child_samples=50,
        random_state=seed,
        n_jobs=1,
        verbose=-1,
    )


def _classifier(seed: int) -> Any:
    """The propensity: a trial's is constant, so a small model."""
    from lightgbm import LGBMClassifier

    return LGBMClassifier(
        num_leaves=7, n_estimators=30, learning_rate=0.05, random_state=seed, n_jobs=1, verbose=-1
    )


def _tuned(x: np.ndarray, value: np.ndarray, seed: int) -> Any:
    from sklearn.model_selection import GridSearchCV

    grid = {"num_leaves": [4, 8, 16], "n_estimators": [50, 100, 200]}
    search = GridSearchCV(
        _regressor(seed), grid, cv=3, scoring="neg_mean_squared_error", refit=False
    )
    best = search.fit(x, value).best_params_
    return _regressor(seed, best["num_leaves"], best["n_estimators"])
