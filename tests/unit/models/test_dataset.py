"""Frames to tensors: which rows are learned from, with what weight, and what is fit on which rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from campaigns.errors import DataError
from campaigns.loading import parse_campaign
from campaigns.spec import Campaign
from models.dataset import WEIGHTS, fit_recipe, fits_in_memory, load, prepare
from models.split import TEST, TRAIN, VALIDATION, folds

CAMPAIGN = parse_campaign("""
name: letters
unit: reader
source: {kind: events}
timestamp: sent_at
features: {numeric: [age], categorical: [city]}
treatments:
  letter: {column: letter, control: none, levels: {none: , short: {cost: 0.1}, long: {cost: 0.3}}}
outcomes:
  visit: {kind: binary, value: 1.0}
  spend: {kind: continuous, value: 0.5}
budget: {amount: 10}
""")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """3,000 decisions: half a uniform trial, half chosen by an epsilon-greedy policy, some held out."""
    rng, rows = np.random.default_rng(0), 3_000
    explored = rng.random(rows) < 0.5
    greedy = rng.integers(0, 3, rows)
    arm = np.where(explored, rng.integers(0, 3, rows), greedy)
    holdout = rng.random(rows) < 0.1
    age = rng.normal(40, 10, rows)
    age[:50] = np.nan
    spend = rng.normal(20, 5, rows)
    spend[rng.random(rows) < 0.3] = np.nan
    return pd.DataFrame(
        {
            "unit_id": [f"u{i}" for i in rng.integers(0, 900, rows)],
            "arm": np.where(holdout, 0, arm),
            "propensity": np.where(arm == greedy, 0.5 + 0.5 / 3, 0.5 / 3),
            "explored": explored & ~holdout,
            "explored_propensity": np.where(explored & ~holdout, 1 / 3, np.nan),
            "holdout": holdout,
            "age": age,
            "city": np.where(rng.random(rows) < 0.5, "Oslo", "Bergen"),
            "visit": rng.integers(0, 2, rows).astype(float),
            "spend": spend,
        }
    )


def test_every_unit_is_in_one_fold_and_nobody_of_the_holdout_is_learned_from(
    frame: pd.DataFrame,
) -> None:
    prepared = prepare(frame, CAMPAIGN)
    fold = folds(frame["unit_id"], CAMPAIGN.name)
    free = ~frame["holdout"]
    assert len(prepared.train) == int((free & (fold == TRAIN)).sum())
    assert len(prepared.validation) == int((free & (fold == VALIDATION)).sum())
    assert int((fold == TEST).sum()) > 0


def test_trial_rows_weigh_one_and_exploited_rows_their_inverse_propensity(
    frame: pd.DataFrame,
) -> None:
    prepared = prepare(frame, CAMPAIGN)
    rows = frame[(folds(frame["unit_id"], CAMPAIGN.name) == VALIDATION) & ~frame["holdout"]]
    weight, explored = prepared.validation.weight.numpy(), rows["explored"].to_numpy()
    np.testing.assert_array_equal(prepared.trial.numpy(), explored)
    np.testing.assert_array_equal(weight[explored], 1.0)
    expected = np.clip(1 / (3 * rows["propensity"].to_numpy()), *WEIGHTS)[~explored]
    np.testing.assert_allclose(weight[~explored], expected, rtol=1e-6)
    given = np.where(explored, rows["explored_propensity"], rows["propensity"])
    np.testing.assert_allclose(prepared.validation.propensity.numpy(), given, rtol=1e-6)


def test_an_extreme_propensity_neither_decides_nor_vanishes(frame: pd.DataFrame) -> None:
    extreme = frame.assign(explored=False, propensity=np.where(frame["arm"] == 0, 1e-6, 1.0))
    weight = prepare(extreme, CAMPAIGN).train.weight
    assert float(weight.max()) == WEIGHTS[1]
    assert float(weight.min()) == pytest.approx(1 / 3)


def test_outcomes_come_back_in_their_own_units_and_unseen_ones_are_masked(
    frame: pd.DataFrame,
) -> None:
    prepared = prepare(frame, CAMPAIGN)
    rows = frame[(folds(frame["unit_id"], CAMPAIGN.name) == TRAIN) & ~frame["holdout"]]
    seen = prepared.train.y_mask.numpy() > 0
    np.testing.assert_array_equal(seen[:, 1], rows["spend"].notna())
    assert seen[:, 0].all()
    spend = prepared.recipe.scaler.restore(prepared.train.y.numpy())[seen[:, 1], 1]
    np.testing.assert_allclose(spend, rows["spend"].dropna(), rtol=1e-5)


def test_the_encoder_learns_from_training_rows_alone(frame: pd.DataFrame) -> None:
    fold = folds(frame["unit_id"], CAMPAIGN.name)
    elsewhere = (fold != TRAIN) | frame["holdout"]
    changed = frame.assign(
        age=frame["age"].where(~elsewhere, 1e6), city=frame["city"].where(~elsewhere, "Rome")
    )
    ours, theirs = fit_recipe(frame, CAMPAIGN), fit_recipe(changed, CAMPAIGN)
    assert ours.encoder.to_dict() == theirs.encoder.to_dict()
    assert ours.shape == theirs.shape


def test_shape_says_what_the_campaign_is(frame: pd.DataFrame) -> None:
    shape = fit_recipe(frame, CAMPAIGN).shape
    assert shape.levels == ((0,), (1,), (2,))
    assert shape.outcomes == ("binary", "continuous")
    assert shape.numeric == 2  # age, and whether it is missing
    assert shape.categories == (3,)


def test_a_file_gives_the_same_rows_as_the_frame_whatever_its_chunks(
    frame: pd.DataFrame, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "frame"
    frame.to_parquet(path, row_group_size=700)
    whole = prepare(frame, CAMPAIGN)
    monkeypatch.setattr("models.dataset.piece_rows", lambda columns: 256)
    chunked = prepare(path, CAMPAIGN)
    for name in vars(whole.train):
        assert torch.equal(getattr(whole.train, name), getattr(chunked.train, name)), name
    assert torch.equal(whole.trial, chunked.trial)
    assert whole.recipe == chunked.recipe


def test_a_sample_is_about_as_large_as_asked_and_follows_the_seed(frame: pd.DataFrame) -> None:
    recipe = fit_recipe(frame, CAMPAIGN)
    first, again, other = (load(frame, recipe, rows=600, seed=seed) for seed in (1, 1, 2))
    assert len(first.train) + len(first.validation) == pytest.approx(540, rel=0.2)
    assert torch.equal(first.train.x_num, again.train.x_num)
    assert not torch.equal(first.train.arm[:300], other.train.arm[:300])


def test_without_training_rows_only_the_validation_fold_is_read(frame: pd.DataFrame) -> None:
    recipe = fit_recipe(frame, CAMPAIGN)
    only = load(frame, recipe, training=False)
    assert len(only.train) == 0
    assert torch.equal(only.validation.arm, load(frame, recipe).validation.arm)


def test_size_decides_about_streaming(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = fit_recipe(frame, CAMPAIGN)
    assert fits_in_memory(frame, recipe)
    batch = load(frame, recipe).train
    held = sum(value.element_size() * value[0].numel() for value in vars(batch).values())
    assert recipe.row_bytes == held
    monkeypatch.setattr("models.dataset.STREAM_BYTES", 1000)
    assert not fits_in_memory(frame, recipe)


def test_a_frame_without_a_column_is_refused_by_name(frame: pd.DataFrame, tmp_path) -> None:
    path = tmp_path / "frame.parquet"
    frame.drop(columns="age").to_parquet(path)
    with pytest.raises(DataError, match=r"frame.parquet: lacks column 'age'"):
        prepare(path, CAMPAIGN)


def test_a_missing_or_broken_file_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="nowhere.parquet: is missing"):
        prepare(tmp_path / "nowhere.parquet", CAMPAIGN)
    broken = tmp_path / "broken.parquet"
    broken.write_text("not Parquet")
    with pytest.raises(DataError, match="can't be read as Parquet"):
        prepare(broken, CAMPAIGN)


def test_a_frame_with_nobody_to_learn_from_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="no row to train on"):
        prepare(frame.assign(holdout=True), CAMPAIGN)


DOSED = Campaign.model_validate(
    {
        **CAMPAIGN.model_dump(),
        "treatments": {
            **CAMPAIGN.model_dump()["treatments"],
            "off": {"column": "off", "dose": {"min": 10, "max": 30, "steps": 3}},
        },
    }
)


def test_doses_reach_the_net_as_they_were_given(frame: pd.DataFrame) -> None:
    doses = np.linspace(10, 30, len(frame))
    prepared = prepare(frame.assign(off=doses), DOSED)
    rows = (folds(frame["unit_id"], CAMPAIGN.name) == TRAIN) & ~frame["holdout"].to_numpy()
    assert prepared.recipe.shape.doses == ((), (0.0, 0.5, 1.0))
    dose = prepared.train.dose.numpy()
    assert (dose[:, 0] == -1).all(), "a factor without an order has none"
    np.testing.assert_allclose(dose[:, 1], (doses[rows] - 10) / 20, rtol=1e-6)
    plain = prepare(frame, CAMPAIGN)
    assert plain.recipe.shape.doses == ((),)
    assert (plain.train.dose == -1).all()
    assert plain.train.dose.shape[1] == 1
    with pytest.raises(DataError, match="lacks column 'off'"):
        prepare(frame, DOSED)


@pytest.mark.parametrize("strategy", ["directed", "thompson"])
def test_rows_weigh_the_same_where_draws_are_directed(frame: pd.DataFrame, strategy: str) -> None:
    rules = CAMPAIGN.exploration.model_copy(update={"strategy": strategy})
    directed = CAMPAIGN.model_copy(update={"exploration": rules})
    chosen = frame.assign(explored=False, explored_propensity=np.nan, propensity=0.01)
    assert float(prepare(chosen, CAMPAIGN).train.weight.max()) == WEIGHTS[1]
    assert prepare(chosen, directed).train.weight.unique().tolist() == [1.0]
