"""The gate promotes what is clearly better, refuses the rest, and says why."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from campaigns.errors import DataError
from campaigns.spec import Gate
from models.gate import decide

GATE = Gate()
CONTRIBUTIONS = arrays(np.float64, 40, elements=st.floats(-1e3, 1e3))


def logged(gain: float, rows: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Contributions of a challenger that earns ``gain`` more; most of the noise is shared."""
    rng = np.random.default_rng(seed)
    champion = rng.exponential(3.0, rows) * rng.choice([0, 3], rows)
    return champion + rng.normal(gain, 0.5, rows) * (rng.random(rows) < 0.3), champion


def test_promotes_the_clearly_better() -> None:
    verdict = decide(
        *logged(0.2), GATE, challenger_name="challenger v3", champion_name="champion v2"
    )
    assert verdict.promote
    assert verdict.gain.low > 0
    assert verdict.reason.startswith(
        "challenger v3 becomes champion: its gain over champion v2 is +0.06"
    )
    assert verdict.reason.endswith("which lies above 0")


@pytest.mark.parametrize("gain", [-0.2, 0.0, 0.005])
def test_refuses_the_worse_and_the_undecided(gain: float) -> None:
    verdict = decide(*logged(gain, seed=1), GATE)
    assert not verdict.promote
    assert "stays challenger" in verdict.reason
    assert verdict.reason.endswith("which doesn't lie above 0")


def test_pairing_finds_what_two_separate_intervals_can_not() -> None:
    challenger, champion = logged(0.2)
    separate = np.sqrt((challenger.var() + champion.var()) / len(champion))
    verdict = decide(challenger, champion, GATE)
    assert verdict.promote
    assert verdict.gain.estimate < 1.96 * separate


def test_the_same_model_gains_exactly_nothing_and_is_refused() -> None:
    _, champion = logged(0.0)
    verdict = decide(champion.copy(), champion, GATE)
    assert (verdict.gain.estimate, verdict.gain.low, verdict.gain.high) == (0.0, 0.0, 0.0)
    assert not verdict.promote
    assert "all 4,000 held-out rows it earns just what the champion earns" in verdict.reason


def test_min_gain_raises_the_bar() -> None:
    challenger, champion = logged(0.2)
    verdict = decide(challenger, champion, Gate(min_gain=0.1))
    assert not verdict.promote
    assert verdict.reason.endswith("which doesn't lie above 0.1")


def test_without_a_champion_treating_nobody_is_the_bar() -> None:
    challenger, nobody = logged(0.2)
    verdict = decide(challenger, None, GATE, nobody=nobody)
    assert verdict.promote
    assert "over treating nobody" in verdict.reason
    with pytest.raises(DataError, match="treating nobody"):
        decide(challenger, None, GATE)


@given(CONTRIBUTIONS, CONTRIBUTIONS)
def test_swapping_the_two_flips_the_gain(a: np.ndarray, b: np.ndarray) -> None:
    one, other = decide(a, b, GATE).gain, decide(b, a, GATE).gain
    assert (one.estimate, one.low, one.high) == pytest.approx(
        (-other.estimate, -other.high, -other.low), abs=1e-9
    )
    assert not (decide(a, b, GATE).promote and decide(b, a, GATE).promote)


@given(CONTRIBUTIONS, CONTRIBUTIONS, st.permutations(range(40)))
def test_the_order_of_rows_does_not_matter(a: np.ndarray, b: np.ndarray, order: list[int]) -> None:
    assert decide(a[order], b[order], GATE).gain.low == pytest.approx(
        decide(a, b, GATE).gain.low, abs=1e-9
    )


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_intervals_cover_the_truth_as_often_as_they_say(confidence: float) -> None:
    gate = Gate(confidence=confidence)
    gains = [decide(*logged(0.2, rows=800, seed=seed), gate).gain for seed in range(800)]
    assert np.mean([0.06 in gain for gain in gains]) == pytest.approx(confidence, abs=0.035)


def test_no_better_challenger_is_promoted_by_luck_as_seldom_as_promised() -> None:
    wins = [decide(*logged(0.0, rows=800, seed=seed), GATE).promote for seed in range(1000)]
    assert np.mean(wins) == pytest.approx(0.025, abs=0.015)


def test_bad_rows_are_refused_clearly() -> None:
    a, b = logged(0.1)
    with pytest.raises(DataError, match="same held-out rows"):
        decide(a[:-1], b, GATE)
    with pytest.raises(DataError, match="1 held-out explored rows"):
        decide(a[:1], b[:1], GATE)
    with pytest.raises(DataError, match="1 of 4000 rows have no finite contribution"):
        decide(np.where(np.arange(4000) == 3, np.nan, a), b, GATE)
