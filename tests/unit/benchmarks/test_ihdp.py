"""The IHDP benchmark: how it reads, splits and scores, and that a model's effects come in their own units."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.models.ihdp import (
    MEASURES,
    METHODS,
    Units,
    folder,
    load,
    ours,
    propensities,
    score,
    split,
)
from campaigns.errors import EnvironmentProblem


def units(rows: int = 600, seed: int = 0) -> Units:
    """As observational as IHDP: the first feature moves treatment, outcome and effect."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 25))
    treated = (rng.random(rows) < 1 / (1 + np.exp(-x[:, 0]))).astype(int)
    effect = 40.0 + 10.0 * x[:, 0]
    return Units(x, treated, 20.0 * x[:, 0] + treated * effect + rng.normal(size=rows), effect)


def test_a_file_is_read_by_its_columns(tmp_path):
    row = [1, 5.5, 4.3, 3.25, 6.75, *range(25)]
    other = [0, 1.0, 2.0, 1.5, 1.0, *range(25, 50)]
    np.savetxt(tmp_path / "one.csv", [row, other], delimiter=",")
    found = load(tmp_path / "one.csv")
    np.testing.assert_allclose(found.effect, [3.5, -0.5])
    np.testing.assert_array_equal(found.treated, [1, 0])
    np.testing.assert_allclose(found.y, [5.5, 1.0])
    np.testing.assert_allclose(found.x, np.arange(50).reshape(2, 25))


def test_a_replication_is_split_by_its_seed_alone():
    inside, out = split(747, seed=3)
    assert (len(inside), len(out)) == (672, 75)
    np.testing.assert_array_equal(np.sort(np.concatenate([inside, out])), np.arange(747))
    np.testing.assert_array_equal(split(747, seed=3)[1], out)
    assert not np.array_equal(split(747, seed=4)[1], out)


def test_errors_are_of_the_units_in_and_out_of_sample():
    known = units(10)
    inside, out = np.arange(8), np.arange(8, 10)
    wrong = known.effect.copy()
    wrong[8:] += [3.0, -1.0]
    found = score(wrong, known, inside, out)
    assert found == pytest.approx(
        {"pehe in": 0, "pehe out": 5**0.5, "ate in": 0, "ate out": 1.0}
    )  # fmt: skip
    assert set(found) == set(MEASURES)


def test_propensities_are_found():
    known = units(2000)
    true = 1 / (1 + np.exp(-known.x[:, 0]))
    assert np.abs(propensities(known) - true).mean() < 0.05


@pytest.mark.parametrize("name", ["dragonnet", "x_boost"])
def test_effects_come_in_the_outcomes_own_units(name, monkeypatch):
    monkeypatch.setitem(ours.__globals__["TRAINING"], "epochs", 40)
    known = units()
    found = ours(name, known, known.x, seed=0)
    assert abs(found.mean() - 40.0) < 5.0
    assert np.corrcoef(found, known.effect)[0, 1] > 0.6


def test_peers_answer_every_unit_asked_for():
    known = units()
    found = METHODS["econml x-learner"](known, known.x[:50], 0)
    assert found.shape == (50,)
    assert np.abs(found - known.effect[:50]).mean() < 6.0


def test_missing_data_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("UPDRAFT_SHARED_DATA", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="UPDRAFT_SHARED_DATA"):
        folder()
