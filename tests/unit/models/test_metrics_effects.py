"""Errors of effects, by hand."""

import numpy as np
import pytest

from campaigns.errors import DataError
from models.metrics import ate_error, ate_pearson, footrule, pehe, tau_mae


def test_errors_by_hand() -> None:
    true, estimated = [1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 5.0]
    assert pehe(true, estimated) == 1.0
    assert tau_mae(true, estimated) == 1.0
    assert ate_error(true, estimated) == 0.5


def test_several_arms_are_averaged() -> None:
    true = np.zeros((4, 2))
    estimated = np.array([[1.0, 3.0]] * 4)
    assert pehe(true, estimated) == tau_mae(true, estimated) == ate_error(true, estimated) == 2.0
    assert pehe(true[:, :, None], estimated[:, :, None]) == 2.0


def test_perfect_estimates_have_no_error() -> None:
    tau = np.random.default_rng(0).normal(size=(100, 3))
    assert pehe(tau, tau) == tau_mae(tau, tau) == ate_error(tau, tau) == footrule(tau, tau) == 0
    assert ate_pearson(tau.mean(axis=0), tau.mean(axis=0)) == pytest.approx(1)


def test_pearson_of_the_average_effects() -> None:
    assert ate_pearson([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert ate_pearson([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert np.isnan(ate_pearson([1, 2, 3], [5, 5, 5]))
    with pytest.raises(DataError, match="at least two"):
        ate_pearson([1], [1])


def test_footrule_of_the_arm_ranking() -> None:
    assert footrule([1, 2, 3, 4], [4, 3, 2, 1]) == 1
    assert footrule([1, 2, 3, 4], [4, 3, 2, 1], normalize=False) == 8
    assert footrule([1, 2, 3, 4], [2, 1, 3, 4], normalize=False) == 2
    assert footrule([[1, 2, 3], [1, 2, 3]], [[1, 2, 3], [3, 2, 1]]) == 0.5
    assert footrule([1.0], [2.0]) == 0


def test_shapes_must_agree() -> None:
    with pytest.raises(DataError, match=r"tau_true has shape \(2,\) and tau \(3,\)"):
        pehe([1, 2], [1, 2, 3])
    with pytest.raises(DataError, match="tau has 1 NaN"):
        pehe([1, 2], [1, np.nan])
