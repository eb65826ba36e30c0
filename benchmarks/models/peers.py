"""What users would take instead, called as their own documentation does: EconML and causalml.

All learn the effects on the realised value, the one number that decisions are made by, over LightGBM;
features are imputed by medians with flags, categories one-hot, as EconML asks for. The two X-learners
are tuned alike. causalml is no part of our environment (its wheel asks for CUDA's libraries by way of
xgboost): ``make peers`` adds it with what it really imports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from benchmarks.models.worlds import Case
from campaigns.errors import EnvironmentProblem
from campaigns.objective import realised

Effects: TypeAlias = Callable[[Any], np.ndarray]  # features of N units -> effects [N, A]


def causal_forest(made: Case, seed: int) -> Effects:
    """EconML's CausalForestDML with LightGBM nuisances, tuned by its own ``tune``."""
    from econml.dml import CausalForestDML

    encode, x, arm, value = _data(made)
    forest = CausalForestDML(
        model_y=regressor(seed),
        model_t=classifier(seed),
        discrete_treatment=True,
        n_estimators=500,
        min_samples_leaf=20,
        random_state=seed,
        n_jobs=1,
    )
    forest.tune(value, arm, X=x, params="auto")
    forest.fit(value, arm, X=x)
    return lambda units: _effects(forest, encode(units), int(arm.max()) + 1)


def x_learner(made: Case, seed: int) -> Effects:
    """EconML's XLearner over LightGBM, its leaves chosen by cross-validated error."""
    from econml.metalearners import XLearner

    encode, x, arm, value = _data(made)
    learner = XLearner(
        models=_tuned(x, value, seed),
        propensity_model=classifier(seed),
        cate_models=_tuned(x, value, seed),
    )
    learner.fit(value, arm, X=x)
    return lambda units: _effects(learner, encode(units), int(arm.max()) + 1)


def causalml_x_learner(made: Case, seed: int) -> Effects:
    """causalml's X-learner over LightGBM, tuned as EconML's; it is told the trial's propensities."""
    from causalml.inference.meta import BaseXRegressor

    encode, x, arm, value = _data(made)
    tuned = _tuned(x, value, seed)
    counts = np.bincount(arm)
    shares = {a: counts[a] / (counts[0] + counts[a]) for a in range(1, len(counts))}
    learner = BaseXRegressor(learner=tuned, control_name=0)
    learner.fit(X=x, treatment=arm, y=value, p=_each(shares, len(x)))

    def effects(units: Any) -> np.ndarray:
        found = learner.predict(encode(units), p=_each(shares, len(units)))
        return np.column_stack([np.zeros(len(units)), found])

    return effects


class _Peers(Mapping[str, Callable[[Case, int], Effects]]):
    """Peers by name: all can be asked for, the installed ones are gone through."""

    known = {
        "econml causal forest": ("econml", causal_forest),
        "econml x-learner": ("econml", x_learner),
        "causalml x-learner": ("causalml", causalml_x_learner),
    }

    def __getitem__(self, name: str) -> Callable[[Case, int], Effects]:
        library, peer = self.known[name]
        if find_spec(library) is None:
            raise EnvironmentProblem(f"{name}: {library} isn't installed; make peers adds it")
        return peer

    def __contains__(self, name: object) -> bool:
        return name in self.known

    def __iter__(self) -> Iterator[str]:
        return (name for name, (library, _) in self.known.items() if find_spec(library))

    def __len__(self) -> int:
        return len(list(iter(self)))


PEERS = _Peers()


def _each(shares: dict[int, float], rows: int) -> dict[int, np.ndarray]:
    return {arm: np.full(rows, share) for arm, share in shares.items()}


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


def regressor(seed: int, leaves: int = 31, trees: int = 100, rate: float = 0.05) -> Any:
    """LightGBM of a mean."""
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


def classifier(seed: int) -> Any:
    """The propensity: a trial's is constant, so a small model."""
    from lightgbm import LGBMClassifier

    return LGBMClassifier(
        num_leaves=7, n_estimators=30, learning_rate=0.05, random_state=seed, n_jobs=1, verbose=-1
    )


def _tuned(x: np.ndarray, value: np.ndarray, seed: int) -> Any:
    from sklearn.model_selection import GridSearchCV

    grid = {"num_leaves": [4, 8, 16], "n_estimators": [50, 100, 200]}
    search = GridSearchCV(
        regressor(seed), grid, cv=3, scoring="neg_mean_squared_error", refit=False
    )
    best = search.fit(x, value).best_params_
    return regressor(seed, best["num_leaves"], best["n_estimators"])
