"""What a trial can see: effect, number of rows and power, each from the other two.

All three turn around one equation, of a two-sided test of two means (normal approximation; Cohen 1988,
"Statistical Power Analysis for the Behavioral Sciences", chapter 2):

    effect = (z_{1 - alpha/2} + z_power) * sqrt(variance / n_arm + variance / n_control)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from campaigns.errors import DataError
from models.metrics.checks import Array


def binary_variance(rate: ArrayLike) -> Array:
    """Variance of a binary outcome with this rate: p (1 - p)."""
    rates = _finite("rate", rate)
    if ((rates < 0) | (rates > 1)).any():
        raise DataError(f"rate must be from 0 to 1, but reaches {rates.min()} to {rates.max()}.")
    return rates * (1 - rates)


def detectable_effect(
    n_arm: ArrayLike,
    n_control: ArrayLike,
    variance: ArrayLike,
    alpha: float = 0.05,
    power: float = 0.8,
) -> Array:
    """The least difference of two means that the test finds with this power.

    Args:
        n_arm: Units that get the arm; broadcasts with the rest.
        n_control: Units that get control.
        variance: The outcome's variance within an arm (sd ** 2, or `binary_variance` of its rate).
            With CUPED it is what is left of it: times 1 - ``AdjustedEffect.variance_reduction``.
        alpha: Level of the test, in (0, 1).
        power: Probability of finding the effect, in (0, 1).

    Returns:
        The effect, in the outcome's unit; infinite where an arm has no unit.
    """
    _levels(alpha=alpha, power=power)
    return (ndtri(1 - alpha / 2) + ndtri(power)) * _error(n_arm, n_control, variance)


def needed_rows(
    effect: ArrayLike,
    variance: ArrayLike,
    *,
    share: float = 0.5,
    alpha: float = 0.05,
    power: float = 0.8,
) -> Array:
    """Rows of arm and control together that find this effect with this power.

    Args:
        effect: Difference of the means, of either sign, in the outcome's unit.
        variance: As in :func:`detectable_effect`.
        share: Share of the rows that get the arm, in (0, 1).
        alpha: Level of the test, in (0, 1).
        power: Probability of finding the effect, in (0, 1).

    Returns:
        Whole rows; infinite where the effect is 0.
    """
    _levels(alpha=alpha, power=power, share=share)
    wanted, spread = _finite("effect", effect), _amounts("variance", variance)
    z = ndtri(1 - alpha / 2) + ndtri(power)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = z**2 * spread * (1 / share + 1 / (1 - share)) / wanted**2
    return np.where(wanted == 0, np.inf, np.ceil(rows))


def achieved_power(
    effect: ArrayLike,
    n_arm: ArrayLike,
    n_control: ArrayLike,
    variance: ArrayLike,
    alpha: float = 0.05,
) -> Array:
    """Probability that the test finds this effect; alpha where there is none.

    Arguments as in :func:`detectable_effect` and :func:`needed_rows`.
    """
    _levels(alpha=alpha)
    error, size = _error(n_arm, n_control, variance), np.abs(_finite("effect", effect))
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(size == 0, 0.0, size / error)
    z = ndtri(1 - alpha / 2)
    return ndtr(shift - z) + ndtr(-shift - z)


def _error(n_arm: ArrayLike, n_control: ArrayLike, variance: ArrayLike) -> Array:
    treated, control = _amounts("n_arm", n_arm), _amounts("n_control", n_control)
    spread = _amounts("variance", variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        rarity = 1 / treated + 1 / control
        return np.where(np.isinf(rarity), np.inf, np.sqrt(spread * rarity))


def _levels(**given: float) -> None:
    for name, level in given.items():
        if not 0 < level < 1:
            raise DataError(f"{name} must be between 0 and 1, not {level!r}.")


def _amounts(name: str, values: ArrayLike) -> Array:
    array = _finite(name, values)
    if (array < 0).any():
        raise DataError(f"{name} must not be negative, but holds {array.min()}.")
    return array


def _finite(name: str, values: ArrayLike) -> Array:
    """Numbers of any shape."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must hold numbers: {error}.") from error
    if not np.isfinite(array).all():
        raise DataError(f"{name} must be finite, but holds {array[~np.isfinite(array)].flat[0]}.")
    return array
