"""The estimators of an off-policy value: one contribution a row, whose mean is the estimate.

With pi the policy, p the probability of the arm that was given, rho_i = pi(a_i | x_i) / p_i, q(x, a)
the predicted reward and m(x) = sum_a pi(a | x) q(x, a):

* ``dm``, direct method (Beygelzimer & Langford 2009, as a baseline):   psi_i = m(x_i)
* ``ips`` (Horvitz & Thompson 1952):   psi_i = rho_i r_i
* ``clipped_ips`` (Ionides 2008; Bottou et al. 2013):   psi_i = min(rho_i, M) r_i
* ``snips`` (Swaminathan & Joachims 2015):   sum rho_i r_i / sum rho_i, linearized
* ``dr`` (Dudik, Langford & Li 2011):   psi_i = m(x_i) + rho_i (r_i - q(x_i, a_i))
* ``switch_dr`` (Wang, Agarwal & Dudik 2017):   psi_i = m(x_i) + 1[rho_i <= M] rho_i (r_i - q(x_i, a_i))

M is the threshold, sqrt(N) where none is given: Ionides' rate, at which the bias vanishes and the variance
stays finite. (The paper on switching picks M from the propensities of all arms, which a log doesn't hold.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from campaigns.errors import DataError
from models.metrics.checks import Array, Index, one_of
from models.metrics.logged import Log

Estimator = Literal["dm", "ips", "clipped_ips", "snips", "dr", "switch_dr"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)

_MODELLED = ("dm", "dr", "switch_dr")  # need q_hat
_CUT = ("clipped_ips", "switch_dr")  # have a threshold
_LOST = 0.05  # share of the importance weight beyond the threshold above which bias is warned of


@dataclass(frozen=True)
class Terms:
    """psi and rho [N], and a sentence on the bias that this estimator may have here, or None."""

    psi: Array
    rho: Array
    bias: str | None = None


def choose(estimator: Estimator | None, threshold: float | None, log: Log) -> Estimator:
    """The estimator; a DataError where it can't be, or where it takes no threshold."""
    one_of("estimator", estimator, (None, *ESTIMATORS))
    if estimator in _MODELLED and log.q_hat is None:
        raise DataError(f"metrics: estimator='{estimator}' needs q_hat; give it, or use 'snips'.")
    chosen: Estimator = estimator or ("snips" if log.q_hat is None else "dr")
    if threshold is not None and chosen not in _CUT:
        raise DataError(
            f"metrics: threshold={threshold:g} with estimator='{chosen}', which has none;"
            f" leave it out, or use one of {list(_CUT)}."
        )
    if threshold is not None and not threshold > 0:
        raise DataError(f"metrics: threshold={threshold:g} of the ratios; it must be above 0.")
    return chosen


def contributions(
    policy: Array | Index, log: Log, estimator: Estimator, threshold: float | None = None
) -> Terms:
    """The estimator's terms; ``policy`` is arms [N] or probabilities [N, A]."""
    rows = np.arange(len(log.arm))
    rho = (policy == log.arm if policy.ndim == 1 else policy[rows, log.arm]) * log.inverse
    if log.q_hat is None or estimator not in _MODELLED:
        return _weighted(rho, log, estimator, threshold)
    q = log.q_hat
    direct = q[rows, policy] if policy.ndim == 1 else (policy * q).sum(axis=1)
    residual = log.reward - q[rows, log.arm]
    if estimator == "dm":
        return Terms(direct, rho, _model_bias(rho * residual, log.weight))
    if estimator == "dr":
        return Terms(direct + rho * residual, rho)
    kept = np.where(rho <= _most(threshold, rho), rho, 0.0)
    return Terms(direct + kept * residual, rho, _cut_bias(kept, rho, log.weight, "q_hat"))


def _weighted(rho: Array, log: Log, estimator: Estimator, threshold: float | None) -> Terms:
    if estimator == "ips":
        return Terms(rho * log.reward, rho)
    if estimator == "clipped_ips":
        kept = np.minimum(rho, _most(threshold, rho))
        return Terms(kept * log.reward, rho, _cut_bias(kept, rho, log.weight, "0"))
    mass = float(log.weight @ rho)
    if mass == 0:
        return Terms(np.full(len(rho), np.nan), rho)
    estimate = float(log.weight @ (rho * log.reward)) / mass
    psi = estimate + rho * (log.reward - estimate) * log.weight.sum() / mass
    return Terms(psi, rho)


def _most(threshold: float | None, rho: Array) -> float:
    return float(np.sqrt(len(rho))) if threshold is None else threshold


def _cut_bias(kept: Array, rho: Array, weight: Array, towards: str) -> str | None:
    mass = float(weight @ rho)
    lost = 1 - float(weight @ kept) / mass if mass > 0 else 0.0
    if lost <= _LOST:
        return None
    return (
        f"The threshold takes {lost:.0%} of the importance weight away: the estimate leans towards"
        f" {towards}, which the interval doesn't know; raise the threshold, or use 'dr'."
    )


def _model_bias(correction: Array, weight: Array) -> str | None:
    """What the model's own interval leaves out: the mean that DR would add, with its error."""
    share = weight / weight.sum()
    mean = float(share @ correction)
    error = float(np.sqrt((share**2) @ (correction - mean) ** 2))
    if mean == error == 0:
        return None
    return (
        f"As far as the log can tell, the truth lies {mean - 2 * error:+.2g} to"
        f" {mean + 2 * error:+.2g} from the model's answer, which the direct method's interval leaves"
        " out; use 'dr'."
    )
