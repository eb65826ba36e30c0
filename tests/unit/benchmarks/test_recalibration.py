"""The maps mend what they are made for, and the error that judges them is 0 for the truth."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.models.recalibration import MAPS, calibration, recalibrated
from benchmarks.models.worlds import case


@pytest.mark.parametrize("how", MAPS)
def test_effects_are_moved_towards_what_was_observed(how: str) -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 1, 5000)
    predicted = true + 0.5 if how == "shift" else 2 * true + 0.5
    through = MAPS[how](predicted, true + rng.normal(0, 0.3, 5000))
    assert np.sqrt(np.mean((through(predicted) - true) ** 2)) < 0.06
    assert np.all(np.diff(through(np.sort(predicted))) > 0)  # nobody's place is lost


def test_the_truth_has_no_error_and_a_doubled_one_does() -> None:
    true = np.random.default_rng(1).uniform(0, 1, (2000, 3))
    assert calibration(true, true) == 0
    assert calibration(2 * true, true) == pytest.approx(np.sqrt(1 / 3), abs=0.02)


def test_control_stays_and_doubled_effects_shrink() -> None:
    made = case("bonus", 8000, seed=0, units=1000)
    known = np.concatenate([made.truth] * 8)[:, :, :2]
    held = made.frame.assign(explored=True)
    rng = np.random.default_rng(2)
    drawn = known[np.arange(8000), held["arm"]]
    held[list(made.campaign.outcomes)] = (rng.random(drawn.shape) < drawn).astype(float)
    wrong = known + (known - known[:, :1])
    found = recalibrated(wrong[:1000], wrong, held, made, "linear")
    np.testing.assert_array_equal(found[:, 0], known[:1000, 0])
    error = np.abs(found - known[:1000])[:, 1:].mean()
    assert error < 0.3 * np.abs(wrong - known)[:, 1:].mean()
