"""The gate: may the challenger decide from now on?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from campaigns.errors import DataError
from campaigns.spec import Gate
from models.metrics.intervals import Interval, normal_interval


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        promote: The challenger becomes champion.
        gain: What it earns more, per unit and in the budget's unit, with its interval.
        reason: Why, in a sentence for people.
    """

    promote: bool
    gain: Interval
    reason: str


def decide(
    challenger: np.ndarray,
    champion: np.ndarray | None,
    gate: Gate,
    *,
    nobody: np.ndarray | None = None,
    challenger_name: str = "the challenger",
    champion_name: str = "the champion",
) -> Verdict:
    """Promote where the whole confidence interval of the gain lies above ``gate.min_gain``.

    The gain is that of :func:`paired_gain`.

    Args:
        challenger: Contributions on the held-out explored rows (``PolicyValue.contributions``), [N].
        champion: The champion's on the same rows, [N]; None where there is no champion yet.
        gate: The campaign's.
        nobody: Those of treating nobody, [N]: what counts where there is no champion.
        challenger_name, champion_name: What the reason calls them.

    Raises:
        DataError: The rows don't match, are fewer than two or hold what is no finite number; or there
            is neither a champion nor ``nobody``.
    """
    rival, rival_name = (
        (nobody, "treating nobody") if champion is None else (champion, champion_name)
    )
    if rival is None:
        raise DataError("gate: there is no champion; give the contributions of treating nobody")
    mine, theirs = np.asarray(challenger, np.float64), np.asarray(rival, np.float64)
    gain = paired_gain(mine, theirs, gate.confidence)
    promote = bool(gain.low > gate.min_gain)
    first = f"{challenger_name} {'becomes champion' if promote else 'stays challenger'}: "
    if np.array_equal(mine, theirs):
        rows = f"all {len(mine):,} held-out rows"
        return Verdict(promote, gain, f"{first}on {rows} it earns just what {rival_name} earns")
    low, high, estimate = _signed(gain.low, gain.high, gain.estimate)
    floor = f"{gate.min_gain:g}"
    lies = f"lies above {floor}" if promote else f"doesn't lie above {floor}"
    return Verdict(
        promote,
        gain,
        f"{first}its gain over {rival_name} is {estimate} per unit, "
        f"{gate.confidence * 100:g}% interval [{low}, {high}], which {lies}",
    )


def paired_gain(mine: np.ndarray, theirs: np.ndarray, confidence: float) -> Interval:
    """Mean of ``mine - theirs``, [N] each: contributions of two policies to their off-policy values.

    Paired row by row: where the two decide alike a row adds nothing, so the interval is far narrower
    than those of the two values. It is gain -+ z s / sqrt(N), two-sided, with s the standard deviation
    of the differences. Rows are taken as independent, clustered by nothing: rows with many decisions
    of the same units make it too narrow.

    Raises:
        DataError: The rows don't match, are fewer than two or hold what is no finite number.
    """
    _check(mine, theirs)
    difference = mine - theirs
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    return normal_interval(float(difference.mean()), error, confidence)


def _check(mine: np.ndarray, theirs: np.ndarray) -> None:
    if mine.ndim != 1 or mine.shape != theirs.shape:
        raise DataError(
            f"gate: contributions have shapes {mine.shape} and {theirs.shape}; "
            "give one number for each of the same held-out rows"
        )
    if len(mine) < 2:
        raise DataError(
            f"gate: {len(mine)} held-out explored rows; an interval needs at least two: explore more"
        )
    if bad := int((~np.isfinite(mine) | ~np.isfinite(theirs)).sum()):
        raise DataError(
            f"gate: {bad} of {len(mine)} rows have no finite contribution; "
            "leave out rows whose outcomes weren't observed"
        )


def _signed(low: float, high: float, estimate: float) -> list[str]:
    """Signed numbers with as many decimals as tell the interval's ends apart."""
    decimals = min(max(2 - math.floor(math.log10(high - low)), 0), 12) if high > low else 6
    return [f"{value:+,.{decimals}f}" for value in (low, high, estimate)]
