"""The world of many factors: its arms, the truth of its interactions, its log, and the measures."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.models.factors import FEATURES, World, score


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(400, FEATURES))


@pytest.mark.parametrize(("factors", "count"), [(2, 9), (3, 27), (4, 81), (5, 40), (10, 80)])
def test_arms_are_distinct_and_every_level_is_given_alone(factors, count):
    levels = World.of(factors, seed=1).levels
    assert levels.shape == (count, factors)
    assert len(np.unique(levels, axis=0)) == count
    assert not levels[0].any()
    alone = levels[(levels > 0).sum(axis=1) == 1]
    assert len(alone) == 2 * factors


@pytest.mark.parametrize("factors", [2, 3])
def test_levels_add_up_but_for_the_pairs_that_act_on_each_other(factors, x):
    world = World.of(factors, seed=2)
    effects = world.effects(x)
    place = {tuple(arm): index for index, arm in enumerate(world.levels.tolist())}
    known = {tuple(pair) for pair in world.pairs.tolist()}
    np.testing.assert_array_equal(effects[:, 0], 0.0)
    for one in range(factors):
        for other in range(one + 1, factors):
            for pair in np.ndindex(2, 2):
                both = np.zeros(factors, int)
                both[[one, other]] = np.array(pair) + 1
                first, second = both.copy(), both.copy()
                first[other] = second[one] = 0
                more = effects[:, place[tuple(both)]]
                more = more - effects[:, place[tuple(first)]] - effects[:, place[tuple(second)]]
                if (one, other) in known:
                    gain = world.together[world.pairs.tolist().index([one, other])][pair]
                    assert (np.sign(more) == np.sign(gain)).all()
                    assert np.abs(more).min() > 0.04
                else:
                    np.testing.assert_allclose(more, 0.0, atol=1e-12)


def test_a_log_has_the_means_and_the_shares_that_the_world_states():
    world = World.of(2, seed=3)
    x, arm, y, chance = world.log(60_000, seed=0)
    chances = world.chances(x)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0)
    assert chances.min() > 0.3 / 9 - 1e-9
    np.testing.assert_array_equal(chance, chances[np.arange(len(arm)), arm])
    shares = np.bincount(arm, minlength=9) / len(arm)
    np.testing.assert_allclose(shares, chances.mean(axis=0), atol=0.01)
    left = y - x[:, 0] - 0.5 * np.sin(2 * x[:, 1])
    seen = np.array([(left * (arm == a) / chance).mean() for a in range(9)])
    np.testing.assert_allclose(seen, world.effects(x).mean(axis=0), atol=0.06)


def test_who_was_given_what_depends_on_the_features(x):
    chances = World.of(3, seed=4).chances(x)
    assert (chances.std(axis=0) > 0.15 * chances.mean(axis=0)).all()


def test_the_truth_scores_best_whatever_its_scale(x):
    world = World.of(3, seed=5)
    true = world.effects(x)
    best = score(true, true, world.costs)
    assert (best["footrule"], best["value"]) == (0.0, 1.0)
    assert best["pearson"] == pytest.approx(1.0)
    scaled = score(3.0 * true, true, world.costs)
    assert scaled == pytest.approx(best)
    noise = np.random.default_rng(1).normal(size=true.shape)
    noise[:, 0] = 0.0
    worse = score(noise, true, world.costs)
    assert worse["value"] < 0.7
    assert worse["footrule"] > 0.3


def test_the_area_falls_where_the_same_arms_come_in_a_worse_order(x):
    world = World.of(3, seed=5)
    true = world.effects(x)
    shuffled = true * np.exp(np.random.default_rng(1).normal(0.0, 3.0, (len(true), 1)))
    found = score(shuffled, true, world.costs)["mcmv_aucc"]
    assert found < score(true, true, world.costs)["mcmv_aucc"] - 0.03
