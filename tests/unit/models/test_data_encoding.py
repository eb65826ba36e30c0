"""Features in, tensors out: the same in training and in serving, whatever the columns look like."""

from __future__ import annotations

import json
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from campaigns.errors import DataError
from models.data import Encoder

ROWS = 2000


@pytest.fixture
def table() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    spend = np.where(rng.random(ROWS) < 0.6, 0.0, np.exp(3 * rng.normal(size=ROWS)))
    age = rng.normal(40, 9, ROWS)
    age[rng.random(ROWS) < 0.1] = np.nan
    device = np.array(["ios", "android", None, "web"], dtype=object)[
        rng.choice(4, ROWS, p=[0.5, 0.399, 0.1, 0.001])
    ]
    return {"spend": spend, "age": age, "device": device, "unused": np.arange(ROWS)}


@pytest.fixture
def encoder(table: dict[str, np.ndarray]) -> Encoder:
    return Encoder.fit(table, ["spend", "age"], ["device"])


def test_skewed_features_become_tame_and_keep_their_order(encoder, table):
    x_num, _ = encoder.encode(table)
    score = x_num[:, 0]
    assert np.abs(score).max() < 5
    order = np.argsort(table["spend"], kind="stable")
    assert (np.diff(score[order]) >= 0).all()
    positive = table["spend"] > 0
    assert len(np.unique(score[~positive])) == 1, "the spike at 0 is one value"
    assert np.std(score[positive]) > 0.2, "the tail is spread out"


def test_missing_values_score_the_median_and_are_flagged(encoder, table):
    x_num, _ = encoder.encode(table)
    missing = np.isnan(table["age"])
    assert encoder.numeric_names == ["spend", "age", "age is missing"]
    assert (x_num[missing, 1] == 0).all()
    np.testing.assert_array_equal(x_num[:, 2], missing)
    middle = encoder.encode({**table, "age": np.full(ROWS, np.nanmedian(table["age"]))})[0]
    assert abs(middle[0, 1]) < 0.02


def test_missing_in_serving_alone_needs_no_flag(encoder, table):
    x_num, _ = encoder.encode({**table, "spend": np.array([None] * ROWS, dtype=object)})
    assert x_num.shape == (ROWS, 3)
    assert (x_num[:, 0] == 0).all()


def test_missing_unseen_and_rare_categories_share_id_0(encoder, table):
    _, x_cat = encoder.encode(table)
    by_value = {value: set(x_cat[table["device"] == value, 0]) for value in ("ios", "android")}
    assert by_value == {"ios": {1}, "android": {2}}, "ids by falling frequency"
    odd = np.array([None, np.nan, "web", "fridge", pd.NA, 7], dtype=object)
    for copies in (1, 100):  # few values and many take different ways
        columns = {
            name: np.resize(value, 6 * copies) for name, value in table.items() if name != "device"
        }
        ids = encoder.encode({**columns, "device": np.tile(odd, copies)})[1]
        assert (ids == 0).all()
    assert encoder.categories == (3,)


def test_integers_keep_their_ids_when_a_missing_value_makes_them_floats():
    fitted = Encoder.fit({"shop": np.repeat([3.0, np.nan, 5.0], 20)}, [], ["shop"])
    ids = fitted.encode({"shop": np.array([3, 5, 9])})[1][:, 0]
    assert ids.tolist() == [1, 2, 0]
    assert fitted.encode({"shop": ["5"]})[1].tolist() == [[2]]


def test_values_beyond_those_seen_stay_at_the_ends(encoder):
    low, high, top = encoder.encode(
        {"spend": [-5.0, 1e12, 1e300], "age": [40, 40, 40], "device": ["ios"] * 3}
    )[0][:, 0]
    assert low < high == top


def test_a_json_round_trip_encodes_alike(encoder, table):
    again = Encoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert again == encoder
    for one, other in zip(encoder.encode(table), again.encode(table)):
        np.testing.assert_array_equal(one, other)


def test_a_frame_and_single_rows_encode_alike(encoder, table):
    frame = pd.DataFrame(table)
    whole = encoder.encode(frame)
    for row in range(20):
        single = encoder.encode({name: frame[name].to_numpy()[row : row + 1] for name in frame})
        np.testing.assert_array_equal(single[0][0], whole[0][row])
        np.testing.assert_array_equal(single[1][0], whole[1][row])


def test_constant_and_empty_columns_are_harmless():
    fitted = Encoder.fit({"same": np.ones(50), "none": np.full(50, np.nan)}, ["same", "none"], [])
    x_num, x_cat = fitted.encode({"same": np.array([1.0, 2.0]), "none": np.array([np.nan, 4.0])})
    np.testing.assert_array_equal(x_num, [[0, 0, 1], [0, 0, 0]])
    assert x_cat.shape == (2, 0)


def test_no_rows_at_all(encoder):
    x_num, x_cat = encoder.encode({"spend": [], "age": [], "device": []})
    assert (x_num.shape, x_cat.shape) == ((0, 3), (0, 1))


def test_a_missing_column_is_named(encoder, table):
    del table["age"]
    with pytest.raises(DataError, match="no column 'age'; the columns are: device, spend, unused"):
        encoder.encode(table)


def test_text_in_a_numeric_column_is_shown(encoder, table):
    table["age"] = table["age"].astype(object)
    table["age"][3] = "forty"
    with pytest.raises(DataError, match="column 'age', row 3: 'forty' is not a number"):
        encoder.encode(table)


def test_columns_of_unequal_length_are_refused(encoder, table):
    table["age"] = table["age"][:-1]
    with pytest.raises(DataError, match=f"'age' has {ROWS - 1} rows, 'spend' has {ROWS}"):
        encoder.encode(table)


def test_one_row_is_fast_enough_to_serve():
    rng = np.random.default_rng(1)
    columns = {f"n{i}": rng.normal(size=500) for i in range(8)}
    columns |= {f"c{i}": rng.choice(["a", "b"], 500).astype(object) for i in range(2)}
    fitted = Encoder.fit(columns, [f"n{i}" for i in range(8)], ["c0", "c1"])
    row = {name: values[:1] for name, values in columns.items()}
    seconds = []
    for _ in range(50):
        start = time.perf_counter()
        fitted.encode(row)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.0005


@given(
    arrays.arrays(
        np.float64,
        st.integers(1, 60),
        elements=st.floats(-1e9, 1e9) | st.just(float("nan")) | st.sampled_from([0.0, 1.0]),
    )
)
def test_scores_are_finite_monotone_and_bounded(values):
    fitted = Encoder.fit({"x": values}, ["x"], [])
    score = fitted.encode({"x": values})[0][:, 0]
    assert np.isfinite(score).all()
    assert np.abs(score).max() < 5
    seen = ~np.isnan(values)
    order = np.argsort(values[seen])
    assert (np.diff(score[seen][order]) >= -1e-6).all()
