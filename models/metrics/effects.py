"""Errors of estimated effects where the true ones are known: simulated and semi-simulated worlds.

Effects are [N, ...]: units first, then arms against control (and outcomes, where there are several);
each error is taken for every column and averaged over the columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from campaigns.errors import DataError
from models.metrics.checks import Array, numbers


def pehe(tau_true: ArrayLike, tau: ArrayLike) -> float:
    """Precision in estimating heterogeneous effects: root mean squared error over units, >= 0.

    Args:
        tau_true, tau: true and estimated effects [N, ...].

    Source: Hill, "Bayesian nonparametric modeling for causal inference", JCGS 2011 (the root of
    its PEHE, as has become usual).
    """
    true, estimated = _pair(tau_true, tau)
    return float(np.sqrt(((estimated - true) ** 2).mean(axis=0)).mean())


def tau_mae(tau_true: ArrayLike, tau: ArrayLike) -> float:
    """Mean absolute error of the effects, >= 0; arguments as in :func:`pehe`."""
    true, estimated = _pair(tau_true, tau)
    return float(np.abs(estimated - true).mean())


def ate_error(tau_true: ArrayLike, tau: ArrayLike) -> float:
    """Absolute error of the average effect, >= 0; arguments as in :func:`pehe`."""
    true, estimated = _pair(tau_true, tau)
    return float(np.abs(estimated.mean(axis=0) - true.mean(axis=0)).mean())


def ate_pearson(ate_true: ArrayLike, ate: ArrayLike) -> float:
    """Pearson correlation of true and estimated average effects, in [-1, 1].

    Args:
        ate_true, ate: average effects of the arms [E], at least two.

    Returns:
        The correlation; nan where one of the two doesn't vary.
    """
    true, estimated = numbers("ate_true", ate_true), numbers("ate", ate)
    _same(true, estimated, "ate_true", "ate")
    if len(true) < 2:
        raise DataError("metrics: ate_true has one effect; a correlation needs at least two.")
    a, b = true - true.mean(), estimated - estimated.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / size, -1.0, 1.0)) if size > 0 else float("nan")


def footrule(tau_true: ArrayLike, tau: ArrayLike, *, normalize: bool = True) -> float:
    """Spearman's footrule of the arms' ranking: sum over arms of |rank - true rank|.

    Args:
        tau_true, tau: effects [E] (of the arms, on average) or [N, E] (of the arms for each unit;
            the mean over units is returned). Equal effects share their mean rank.
        normalize: divide by the largest possible, floor(E^2 / 2): 0 the same order, 1 reversed.

    Source: Diaconis & Graham, "Spearman's footrule as a measure of disarray", JRSS B 1977.
    """
    true, estimated = _pair(tau_true, tau)
    moved = np.abs(rankdata(true, axis=-1) - rankdata(estimated, axis=-1)).sum(axis=-1).mean()
    return float(moved / max(true.shape[-1] ** 2 // 2, 1) if normalize else moved)


def _pair(tau_true: ArrayLike, tau: ArrayLike) -> tuple[Array, Array]:
    shape = (None,) * max(np.ndim(tau_true), 1)
    true = numbers("tau_true", tau_true, shape)
    estimated = numbers("tau", tau, (None,) * max(np.ndim(tau), 1))
    _same(true, estimated, "tau_true", "tau")
    return true, estimated


def _same(one: Array, two: Array, first: str, second: str) -> None:
    if one.shape != two.shape:
        raise DataError(
            f"metrics: {first} has shape {one.shape} and {second} {two.shape}; they must agree."
        )
