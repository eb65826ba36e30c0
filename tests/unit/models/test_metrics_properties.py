"""What every ranking metric promises, held against all of them."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.errors import DataError
from models.metrics import METRICS, Metric, evaluate, get_metric, qini_curve

ALL = [
    *METRICS.values(),
    get_metric("lift@30"),
    get_metric("lift@30_by_group"),
    get_metric("lift@100"),
]
every_metric = pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)


@dataclass
class World:
    y: np.ndarray
    score: np.ndarray
    treated: np.ndarray
    extras: dict[str, np.ndarray]

    def measure(self, metric: Metric, **changes: np.ndarray) -> float:
        kept = {"y": self.y, "score": self.score, "treated": self.treated, **self.extras, **changes}
        return metric(kept.pop("y"), kept.pop("score"), kept.pop("treated"), **kept)

    def take(self, rows: np.ndarray) -> "World":
        extras = {name: column[rows] for name, column in self.extras.items()}
        return World(self.y[rows], self.score[rows], self.treated[rows], extras)


def make(rows: int = 400, seed: int = 0, weighted: bool = True, levels: int = 25) -> World:
    """A trial with unequal propensities, whole weights, tied scores and a positive effect."""
    rng = np.random.default_rng(seed)
    score = rng.integers(0, levels, rows) / levels
    chance = rng.uniform(0.3, 0.7, rows)
    treated = (rng.random(rows) < chance).astype(int)
    treated[:4] = [1, 0, 1, 0]
    y = (rng.random(rows) < 0.2 + treated * (0.1 + 0.4 * score)).astype(float)
    extras = {}
    if weighted:
        extras = {
            "propensity": np.where(treated == 1, chance, 1 - chance),
            "weight": rng.integers(0, 4, rows).astype(float),
        }
        extras["weight"][:4] = 1.0
    return World(y, score, treated, extras)


@every_metric
@pytest.mark.parametrize("weighted", [False, True])
def test_row_order_does_not_matter(metric: Metric, weighted: bool) -> None:
    world = make(weighted=weighted)
    shuffled = world.take(np.random.default_rng(1).permutation(len(world.y)))
    assert shuffled.measure(metric) == pytest.approx(world.measure(metric), rel=1e-9, abs=1e-12)


@every_metric
@pytest.mark.parametrize("name", ["weight", "weight and propensity"])
def test_a_weight_is_a_repetition(metric: Metric, name: str) -> None:
    world = make()
    if "propensity" not in name:
        del world.extras["propensity"]
    repeated = world.take(np.repeat(np.arange(len(world.y)), world.extras["weight"].astype(int)))
    del repeated.extras["weight"]
    assert repeated.measure(metric) == pytest.approx(world.measure(metric), rel=1e-9, abs=1e-12)


@every_metric
def test_scaling_the_weights(metric: Metric) -> None:
    world = make()
    del world.extras["weight"]
    ones = np.ones(len(world.y))
    factor = 1.0 if metric.scale_free else 7.0
    assert world.measure(metric, weight=7 * ones) == pytest.approx(
        factor * world.measure(metric), rel=0.05
    )


@every_metric
@pytest.mark.parametrize("weighted", [False, True])
def test_swapping_the_groups_flips_the_sign(metric: Metric, weighted: bool) -> None:
    world = make(weighted=weighted)
    swapped = world.measure(metric, treated=1 - world.treated)
    if metric.antisymmetric:
        assert swapped == pytest.approx(-world.measure(metric), rel=1e-9)
    elif metric.name == "qini":  # per head of the group, at full depth
        ends = [
            qini_curve(world.y, world.score, t).y[-1] for t in (world.treated, 1 - world.treated)
        ]
        heads = world.treated.sum(), (1 - world.treated).sum()
        assert ends[0] / heads[0] == pytest.approx(-ends[1] / heads[1], rel=1e-9)


@every_metric
@pytest.mark.parametrize("change", [lambda s: 3 * s - 7, np.exp, lambda s: s**3], ids="axc")
def test_monotone_changes_of_the_score_do_not_matter(metric: Metric, change) -> None:
    world = make()
    assert world.measure(metric, score=change(world.score)) == pytest.approx(
        world.measure(metric), rel=1e-12
    )


@every_metric
def test_random_scores_are_worth_what_a_constant_one_is(metric: Metric) -> None:
    world = make(rows=3000, weighted=False)
    reference = world.measure(metric, score=np.zeros(len(world.y)))
    rng = np.random.default_rng(2)
    values = np.array([world.measure(metric, score=rng.random(len(world.y))) for _ in range(60)])
    assert abs(values.mean() - reference) <= 4 * values.std() / np.sqrt(60) + 1e-9


@every_metric
def test_a_constant_score_has_the_reference_value(metric: Metric) -> None:
    world = make(weighted=False)
    effect = world.y[world.treated == 1].mean() - world.y[world.treated == 0].mean()
    expected = {"ate": effect, "auuc": effect / 2, "auuc_final": 0.5, "aucc": 0.5}
    wanted = effect if metric.name.startswith("lift") else expected.get(metric.name, 0.0)
    constant = world.measure(metric, score=np.full(len(world.y), 0.3))
    assert constant == pytest.approx(wanted, abs=1e-12)


@every_metric
def test_a_better_score_has_more(metric: Metric) -> None:
    world = make(rows=4000)
    if metric.name not in ("ate", "lift@100"):
        assert world.measure(metric) > world.measure(metric, score=-world.score)


@every_metric
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_ten_units_of_any_kind(metric: Metric, data: st.DataObject) -> None:
    bits = st.lists(st.sampled_from([0.0, 1.0]), min_size=10, max_size=10)
    y, treated = data.draw(bits), data.draw(bits)
    score = data.draw(st.lists(st.integers(0, 4), min_size=10, max_size=10))
    if 0 < sum(treated) < 10:
        value = metric(y, score, treated)
        assert value == pytest.approx(
            metric(y[::-1], score[::-1], treated[::-1]), abs=1e-9, nan_ok=True
        )
        assert np.isnan(value) or abs(value) < 200
    else:
        with pytest.raises(DataError, match="at least one of each"):
            metric(y, score, treated)


@every_metric
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score": np.full(400, np.nan)}, "score has 400 NaN of 400"),
        ({"score": np.zeros(399)}, r"score has shape \(399,\); it must be \[400\]"),
        ({"y": np.full(400, np.inf)}, "y_true has 400 infinite"),
        ({"y": np.array(["a"] * 400)}, "y_true holds something that isn't a number"),
        ({"treated": np.full(400, 2)}, "treatment runs from 2 to 2"),
        ({"treated": np.ones(400)}, "400 treated and 0 control"),
        ({"propensity": np.full(400, 0.0)}, "propensity runs from 0 to 0"),
        ({"propensity": np.full(400, 1.5)}, "above 0 and at most 1"),
        ({"weight": np.full(400, -1.0)}, "weight runs from -1"),
        ({"weight": np.zeros(400)}, "above 0 somewhere"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(metric: Metric, changes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        make(weighted=False).measure(metric, **changes)


@every_metric
def test_outcomes_without_any_success(metric: Metric) -> None:
    world = make(weighted=False)
    value = world.measure(metric, y=np.zeros(400))
    assert value == 0 or np.isnan(value)


def test_evaluate_sorts_once_and_agrees() -> None:
    world = make()
    names = [metric.name for metric in ALL]
    together = evaluate(names, world.y, world.score, world.treated, **world.extras)
    assert together == {metric.name: world.measure(metric) for metric in ALL}


def test_unknown_metric_lists_the_others() -> None:
    with pytest.raises(DataError, match="no metric 'gini'; use 'ate', .*'lift@30'"):
        get_metric("gini")
    with pytest.raises(DataError, match="no metric 'lift@0'"):
        get_metric("lift@0")
