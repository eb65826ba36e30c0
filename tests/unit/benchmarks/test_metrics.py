"""The benchmarks of the metrics compare like with like, and know the truth that they test against."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from benchmarks import metrics, metrics_coverage
from models.metrics import evaluate


def test_updraft_and_scikit_uplift_give_the_same_numbers():
    pytest.importorskip("sklift")
    data = metrics.draw(5000)
    works = {"updraft": partial(metrics.ours, data), "peer": partial(metrics.sklift, data)}
    found = metrics.measure(works, turns=2)
    assert metrics.agree(found, {"updraft": "peer"}) < 1e-9
    assert all(each["cpu"] > 0 and each["peak"] > 0 for each in found)


def test_numbers_that_differ_are_refused():
    found = [{"work": name, "values": [value]} for name, value in (("a", 1.0), ("b", 1.1))]
    with pytest.raises(SystemExit, match="differ by 0.1"):
        metrics.agree(found, {"a": "b"})


def test_bootstrap_makes_an_interval_of_each_metric():
    bounds = metrics.bootstrap(metrics.draw(3000), 20)
    assert len(bounds) == 2 * len(metrics.NAMES)
    assert (np.diff(np.reshape(bounds, (-1, 2)), axis=1) > 0).all()


def test_the_truth_of_the_coverage_world():
    rows = 500_000
    y, x, other, t, p = metrics_coverage.draw(rows, 0)
    for column, score in enumerate((x, other)):
        found = evaluate(list(metrics_coverage.TRUTH), y, score, t, propensity=p)
        for name, truth in metrics_coverage.TRUTH.items():
            value = found[name] / (rows if name == "qini" else 1)
            assert value == pytest.approx(truth[column], abs=0.006), name


@pytest.mark.slow
def test_coverage_of_95_percent_intervals():
    """At 300 replications a share of 95% is known to -+ 3.8% (three standard errors)."""
    for key, share in metrics_coverage.coverage(rows=1000, replications=300).items():
        # The bootstrap's difference of AUTOC holds the truth in 92 to 93%; see docs/benchmarks.md.
        least = 0.88 if key == ("autoc", "bootstrap", "difference") else 0.912
        assert least <= share <= 0.988, key
