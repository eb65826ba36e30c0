"""The uplift benchmark: what it scores, on which rows, and that models which can't learn are left out."""

from __future__ import annotations

import io
from dataclasses import replace
from zlib import crc32

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from benchmarks.models import uplift
from benchmarks.models.uplift import ABLATIONS, METRICS, Log, bonus, emails, score, show
from campaigns.errors import EnvironmentProblem
from models.catalog import entry
from models.metrics import auuc, lift_at, qini
from models.space import configure
from models.split import TEST, folds


@pytest.fixture(scope="module")
def log() -> Log:
    return bonus(4000, seed=0)


def in_test_fold(log: Log) -> np.ndarray:
    return folds(log.frame["unit_id"], log.campaign.name) == TEST


def clairvoyant(rows: pd.DataFrame) -> np.ndarray:
    """Treated who responded and controls who didn't first: the best order in hindsight."""
    outcomes = rows[["login_next_day", "plays_more_7d"]].to_numpy(float)
    gain = np.where(rows["arm"].to_numpy()[:, None] > 0, outcomes, -outcomes)
    return np.stack([np.zeros_like(gain), gain, gain], axis=1)


def blind(rows: pd.DataFrame) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(len(rows), 3, 2))


def number(unit: str) -> float:
    return float(crc32(unit.encode()))


def test_every_arm_and_outcome_is_scored(log):
    found = score(blind, log)
    assert [(one["arm"], one["outcome"]) for one in found] == [
        (arm, outcome)
        for arm in ("coins", "skin")
        for outcome in ("login_next_day", "plays_more_7d")
    ]
    assert all(set(METRICS.values()) < set(one) for one in found)


def test_the_best_order_has_a_qini_of_one_and_beats_a_random_one(log):
    for best, random in zip(score(clairvoyant, log), score(blind, log)):
        assert best["Qini"] == pytest.approx(1.0)
        assert abs(random["Qini"]) < 0.3
        assert best["AUUC"] > random["AUUC"]


def test_true_effects_are_known_and_rank_better_than_chance():
    log = bonus(20_000, seed=1)
    assert log.truth is not None
    true, random = (pd.DataFrame(score(answer, log)) for answer in (log.truth, blind))
    for metric in METRICS.values():
        assert true[metric].mean() > random[metric].mean() + 0.01
    assert true["Qini"].mean() > 0.05


def test_numbers_are_those_of_the_metrics_on_the_test_fold(log):
    rows = log.frame[in_test_fold(log)]
    rows = rows[rows["arm"].isin([0, 2])]
    y, treated = rows["plays_more_7d"].to_numpy(), (rows["arm"] == 2).to_numpy()
    ranks = rows["unit_id"].map(number).to_numpy()

    def by_id(asked: pd.DataFrame) -> np.ndarray:
        outcomes = np.zeros((len(asked), 3, 2))
        outcomes[:, 2, 1] = asked["unit_id"].map(number)
        return outcomes

    (found,) = (
        one
        for one in score(by_id, log)
        if (one["arm"], one["outcome"]) == ("skin", "plays_more_7d")
    )
    given = {"propensity": rows["explored_propensity"].to_numpy()}
    assert found["Qini"] == pytest.approx(qini(y, ranks, treated, normalize="perfect", **given))
    assert found["AUUC"] == pytest.approx(auuc(y, ranks, treated, **given))
    assert found["LIFT@30"] == pytest.approx(lift_at(y, ranks, treated, **given))


def test_only_the_trials_rows_of_the_test_fold_count(log):
    frame, asked = log.frame.copy(), []
    frame.loc[~in_test_fold(log), ["login_next_day", "plays_more_7d"]] = 1.0
    chosen = np.flatnonzero(in_test_fold(log))[:50]
    more = frame.iloc[chosen].assign(explored=False, explored_propensity=np.nan)
    frame = pd.concat([frame, more, frame.iloc[chosen].assign(holdout=True)], ignore_index=True)

    def noting(rows: pd.DataFrame) -> np.ndarray:
        asked.extend(rows["unit_id"])
        return blind(rows)

    assert score(noting, replace(log, frame=frame)) == score(blind, log)
    assert asked == log.frame["unit_id"][in_test_fold(log)].tolist()


def test_a_model_that_cannot_learn_a_log_is_left_out_and_said_so(log, monkeypatch):
    def trained(log, name, config, seed):
        if name == "efin":
            raise EnvironmentProblem("no library")
        return blind

    monkeypatch.setattr(uplift, "trained", trained)
    console = Console(file=io.StringIO(), width=120)
    found = uplift.measured(log, ["efin", "mtmt"], 0, console)
    assert {one["model"] for one in found} == {"mtmt", "truth"}
    assert "efin: left out, no library" in console.file.getvalue()


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_mtmt_with_one_setting_changed(name):
    model, changed = ABLATIONS[name]
    config = entry(model).config
    default, ablated = config(), configure(config, changed, name)
    assert [key for key in vars(default) if vars(default)[key] != vars(ablated)[key]] == [*changed]


def test_tables_show_means_over_seeds(log):
    found = score(blind, log)
    results = [
        {"data": "bonus", "seed": seed, "model": "mtmt", **one, "AUUC": float(seed), "seconds": 1.0}
        for seed in range(3)
        for one in found
    ]
    console = Console(file=io.StringIO(), width=120)
    show(results, console)
    told = console.file.getvalue()
    assert told.count("1.0000 ± 2.4841") == 4
    assert "bonus, skin: plays_more_7d" in told


def test_a_seed_draws_the_rows_of_the_real_trial_and_their_folds(shared_data, monkeypatch):
    monkeypatch.setenv("UPDRAFT_SHARED_DATA", str(shared_data))
    one, same, other = emails(2000, 0), emails(2000, 0), emails(2000, 1)
    assert len(one.frame) == 2000
    assert set(one.frame["arm"]) == {0, 1, 2}
    assert one.frame["unit_id"].tolist() == same.frame["unit_id"].tolist()
    assert one.frame["unit_id"].tolist() != other.frame["unit_id"].tolist()
    units = one.frame["unit_id"]
    assert (folds(units, one.campaign.name) != folds(units, other.campaign.name)).any()


def test_a_missing_file_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("UPDRAFT_SHARED_DATA", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="UPDRAFT_SHARED_DATA"):
        emails(100, 0)
