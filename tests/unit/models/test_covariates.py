"""Covariate check of decision frames: quiet on true draws, loud where an arm lost other units."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from campaigns.errors import DataError
from campaigns.spec import Campaign
from models.checks.covariates import CovariateCheck, check_covariates
from models.checks.srm import SampleRatio, sample_ratio
from models.report import CampaignFacts, RunReport, render
from models.report.data import read_as

MAIL = Campaign.model_validate(
    {
        "name": "mail",
        "unit": "user",
        "source": {"kind": "events"},
        "timestamp": "at",
        "features": {"numeric": ["recency", "spend"], "categorical": ["channel"]},
        "treatments": {
            "mail": {"column": "segment", "control": "none", "levels": ["none", "mens", "womens"]}
        },
        "outcomes": {"visit": {"kind": "binary", "value": 1.0}},
        "budget": {"amount": 10.0},
    }
)


def frame(rng: np.random.Generator, rows: int, menus: bool = False) -> pd.DataFrame:
    """A log of its own units; ``menus``: who spends much may not get the last arm."""
    spend = rng.lognormal(size=rows)
    may = np.ones((rows, 3), dtype=bool)
    if menus:
        may[:, 2] = spend < 1
    p = may / may.sum(axis=1, keepdims=True)
    arm = (rng.random((rows, 1)) > p.cumsum(axis=1)).sum(axis=1)
    return pd.DataFrame(
        {
            "unit_id": np.arange(rows),
            "decided_at": pd.Timestamp("2026-01-01", tz="UTC")
            + pd.to_timedelta(np.arange(rows), unit="min"),
            "arm": arm,
            "explored": True,
            "holdout": False,
            "explored_propensity": p[np.arange(rows), arm],
            "recency": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)),
            "spend": spend,
            "channel": rng.choice(["web", "phone", None], rows),
        }
    )


@pytest.mark.parametrize("menus", [False, True])
def test_p_values_of_true_draws_are_uniform(menus: bool) -> None:
    p_values = [
        check_covariates(frame(np.random.default_rng(seed), 800, menus), MAIL).p_value
        for seed in range(300)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_units_that_one_arm_lost_are_found_and_the_feature_is_named() -> None:
    rng = np.random.default_rng(1)
    log = frame(rng, 6000)
    heavy = (log["arm"] == 2) & (log["spend"] > 1.5) & (rng.random(len(log)) < 0.5)
    light = (log["arm"] == 2) & (log["spend"] < 0.3) & ~heavy
    again = log[light].sample(int(heavy.sum()), replace=True, random_state=0)
    swapped = pd.concat([log[~heavy], again.assign(unit_id=np.arange(len(again)) + 10_000)])
    assert sample_ratio(swapped, MAIL).ok  # the counts agree
    found = check_covariates(swapped, MAIL)
    assert not found.ok
    assert "spend" in found.summary
    assert max(found.differences, key=lambda name: found.differences[name]) == "spend"


@pytest.mark.parametrize(("feature", "lost"), [("recency", np.nan), ("channel", None)])
def test_values_that_one_arm_lost_are_found(feature: str, lost: object) -> None:
    log = frame(np.random.default_rng(2), 6000)
    log.loc[(log["arm"] == 1) & (log["unit_id"] % 4 == 0), feature] = lost
    found = check_covariates(log, MAIL)
    assert not found.ok
    assert found.differences[feature] > 0.2


def test_a_unit_counts_once_and_only_in_the_trial() -> None:
    log = frame(np.random.default_rng(3), 900)
    later = log.assign(decided_at=log["decided_at"] + pd.Timedelta(days=9), spend=0.0)
    chosen = log.assign(unit_id=-1, arm=2, explored=False, explored_propensity=np.nan, spend=99.0)
    once = check_covariates(log, MAIL)
    assert check_covariates(pd.concat([later, chosen, log]), MAIL) == once
    assert once.rows == 900


def test_too_few_units_are_said_and_stop_nothing() -> None:
    log = frame(np.random.default_rng(4), 200)
    alone = check_covariates(log[log["arm"] == 0], MAIL)
    assert (alone.ok, alone.p_value, alone.differences) == (True, None, {})
    assert alone.summary.startswith("too few units of each arm")
    ten = check_covariates(log.iloc[:10], MAIL)
    assert ten.ok
    assert ten.differences
    flat = log.assign(recency=1.0, spend=1.0, channel="web")
    assert check_covariates(flat, MAIL).p_value is None
    with pytest.raises(DataError, match="none of 200 rows was drawn at random"):
        check_covariates(log.assign(explored=False), MAIL)


def test_it_travels_with_the_sample_ratio_through_json() -> None:
    log = frame(np.random.default_rng(5), 900)
    ratio, found = sample_ratio(log, MAIL), check_covariates(log, MAIL)
    text = json.dumps(asdict(ratio) | {"covariates": asdict(found)})
    saved = json.loads(text)
    assert read_as(SampleRatio, saved) == ratio
    assert read_as(CovariateCheck, saved["covariates"]) == found


def test_many_arms_and_levels_are_cut_to_what_can_be_tested() -> None:
    rng = np.random.default_rng(6)
    log = frame(rng, 3000)
    log["channel"] = rng.integers(0, 2000, len(log)).astype(str)
    found = check_covariates(log, MAIL)
    assert found.ok
    assert set(found.differences) == {"recency", "spend", "channel"}
    assert replace(found, ok=False).summary.count("more than a random draw allows") == 1


def test_the_page_of_a_run_tells_both(tmp_path) -> None:
    log = frame(np.random.default_rng(7), 900)
    ratio = replace(
        sample_ratio(log, MAIL), sequential_p=0.00042, broken_since="2026-01-03T04:05:06"
    )
    bad = replace(check_covariates(log, MAIL), ok=False)
    report = RunReport(CampaignFacts.of(MAIL), sample_ratio=ratio, covariates=bad)
    assert RunReport.from_json(report.to_json()) == report
    render(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "below 0.001 since 2026-01-03T04:05" in page
    assert "other units" in page
    assert bad.summary[1:].replace("'", "&#39;") in page
