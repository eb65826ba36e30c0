"""Each convention is its library's own number, to 1e-9 on scores without ties.

The libraries run where they are installed. causalml and upliftml want a whole stack (xgboost, Spark), so
their formulas are also written out here a second time, the slow way.
"""

import importlib
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from campaigns.errors import DataError
from models.metrics import CONVENTIONS, evaluate, in_convention

SEEDS = range(5)


def trial(seed: int, rows: int = 700, continuous: bool = False):
    """y, score, treatment: no two scores are equal; half of the trials begin with one group alone."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=rows)
    t = (rng.random(rows) < 0.35).astype(int)
    if seed % 2:
        t[np.argsort(-score)[:6]] = seed % 4 // 2
    y = rng.normal(1 + score * t) if continuous else rng.random(rows) < 0.2 + 0.2 * t * (score > 0)
    return np.asarray(y, dtype=float), score, t


def library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as problem:
        pytest.skip(f"{name.partition('.')[0]} isn't installed whole ({problem})")


def frame(y, score, t) -> pd.DataFrame:
    return pd.DataFrame({"y": y, "w": t, "model": score})


@pytest.mark.parametrize("seed", SEEDS)
def test_sklift(seed: int) -> None:
    peer = library("sklift.metrics")
    y, score, t = trial(seed)
    known = {
        "qini": peer.qini_auc_score(y, score, t),
        "qini_positive": peer.qini_auc_score(y, score, t, negative_effect=False),
        "auuc": peer.uplift_auc_score(y, score, t),
        "lift@30": peer.uplift_at_k(y, score, t, strategy="overall", k=0.3),
        "lift@29": peer.uplift_at_k(y[:100], score[:100], t[:100], strategy="overall", k=0.29),
        "lift@30_by_group": peer.uplift_at_k(y, score, t, strategy="by_group", k=0.3),
    }
    for metric, value in known.items():
        rows = 100 if metric == "lift@29" else None  # 0.29 * 100 is 28.999...: 28 rows there
        ours = in_convention("sklift", metric, y[:rows], score[:rows], t[:rows])
        assert ours == pytest.approx(value, rel=0, abs=1e-9), metric


def causalml_by_hand(y, score, t) -> dict[str, float]:
    """Its loops over rows, from ``get_cumlift``, ``get_qini`` and ``get_toc`` of version 0.18."""
    order = np.argsort(-score)
    y, t, n = y[order], t[order], len(y)
    lift, extra, toc = [0.0], [0.0], [0.0]
    ate = y[t == 1].mean() - y[t == 0].mean()
    for row in range(1, n + 1):
        n_t, n_c = (t[:row] == 1).sum(), (t[:row] == 0).sum()
        y_t, y_c = y[:row][t[:row] == 1].sum(), y[:row][t[:row] == 0].sum()
        both = n_t > 0 and n_c > 0
        lift.append(y_t / n_t - y_c / n_c if both else np.nan)
        extra.append(y_t - y_c * n_t / n_c if n_c else np.nan)
        toc.append(lift[-1] - ate if both else 0.0)
    gain = pd.Series(lift).interpolate() * np.arange(n + 1)
    curve = pd.Series(extra).interpolate()
    gain, curve = gain / abs(gain[n]), curve / abs(curve[n])
    q = np.linspace(0, 1, n + 1)
    middle, height = (q[1:] + q[:-1]) / 2, (np.array(toc)[1:] + np.array(toc)[:-1]) / 2
    return {
        "auuc": gain.sum() / (n + 1),
        "qini": (curve.sum() - np.linspace(0, curve[n], n + 1).sum()) / (n + 1),
        "lift@30": pd.Series(lift).interpolate()[int(0.3 * n)],
        "autoc": (height / middle).sum() / (1 / middle).sum(),
        "rate_qini": (height * middle).sum() / middle.sum(),
    }


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_causalml_by_hand(seed: int, continuous: bool) -> None:
    data = trial(seed, continuous=continuous)
    for metric, value in causalml_by_hand(*data).items():
        assert in_convention("causalml", metric, *data) == pytest.approx(value, abs=1e-9), metric


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_causalml(seed: int, continuous: bool) -> None:
    peer = library("causalml.metrics")
    data = trial(seed, continuous=continuous)
    table = frame(*data)
    known = {
        "auuc": peer.auuc_score(table)["model"],
        "qini": peer.qini_score(table)["model"],
        "lift@30": peer.get_cumlift(table)["model"][210],
        "autoc": peer.rate_score(table, weighting="autoc")["model"],
        "rate_qini": peer.rate_score(table, weighting="qini")["model"],
    }
    for metric, value in known.items():
        assert in_convention("causalml", metric, *data) == pytest.approx(value, abs=1e-9), metric


def upliftml_by_hand(y, score, t, buckets: int = 30) -> dict[str, float]:
    """Buckets from each quantile (the ceil(p n)-th score from below) up to the next; cumulative."""
    rising = np.sort(score)
    splits = [rising[int(np.ceil(k / buckets * len(y))) - 1] for k in range(1, buckets)]
    bucket = np.digitize(score, splits)
    points = [(0.0, 0.0)]
    for k in range(buckets - 1, -1, -1):
        top = bucket >= k
        ate = y[top & (t == 1)].mean() - y[top & (t == 0)].mean()
        points.append((top.mean(), ate * top.mean()))
    x, height = np.array(points).T
    return {
        "auuc": np.trapezoid(height, x),
        "qini": np.trapezoid(height, x) - np.trapezoid(height[[0, -1]], x[[0, -1]]),
    }


@pytest.mark.parametrize("rows", [700, 901, 1009])
def test_upliftml_by_hand(rows: int) -> None:
    y, score, t = trial(0, rows)
    t[np.argsort(-score)[:2]] = 0, 1  # both groups in the first bucket
    for metric, value in upliftml_by_hand(y, score, t).items():
        found = in_convention("upliftml", metric, y, score, t)
        assert found == pytest.approx(value, abs=1e-9), metric


@pytest.mark.slow
def test_upliftml() -> None:
    peer = library("upliftml.evaluation")
    sql = library("pyspark.sql")
    spark = sql.SparkSession.builder.master("local[1]").appName("metrics").getOrCreate()
    try:
        for rows in (700, 901, 1009):
            y, score, t = trial(0, rows)
            table = pd.DataFrame({"outcome": y, "treatment": t, "cate_outcome": score})
            curve = peer.estimate_qini(spark.createDataFrame(table))
            known = {
                "auuc": peer.compute_auuc(curve),
                "qini": peer.compute_qini_coefficient(curve),
            }
            for metric, value in known.items():
                found = in_convention("upliftml", metric, y, score, t)
                assert found == pytest.approx(value, abs=1e-9), (metric, rows)
    finally:
        spark.stop()


@pytest.mark.parametrize("known_outcomes", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_econml(seed: int, known_outcomes: bool) -> None:
    peer = library("econml.validate.utils")
    y, score, t = trial(seed, continuous=True)
    rng = np.random.default_rng(seed)
    chance = rng.uniform(0.0005, 0.9, len(y))  # it clips at 0.01
    q_hat = np.column_stack([np.ones(len(y)), 1 + score])
    train = rng.normal(size=900)
    effect = peer.calculate_dr_outcomes(
        t, y, q_hat if known_outcomes else 0 * q_hat, np.column_stack([1 - chance, chance])
    )
    for metric, name in (("qini", "qini"), ("autoc", "toc")):
        value, *_ = peer.calc_uplift(
            train[:, None], score[:, None], effect, np.linspace(5, 95, 50), name, 10
        )
        found = in_convention(
            "econml", metric, y, score, t,
            propensity=np.where(t == 1, chance, 1 - chance),
            q_hat=q_hat if known_outcomes else None,
            train_score=train,
        )  # fmt: skip
        assert found == pytest.approx(value, rel=1e-9, abs=1e-9), metric


def test_updraft_is_the_registry() -> None:
    data = trial(0)
    for metric in ("qini", "auuc", "lift@30", "qini_perfect"):
        assert in_convention("updraft", metric, *data) == evaluate([metric], *data)[metric]


@pytest.mark.parametrize("convention", ["sklift", "causalml", "upliftml"])
def test_with_ties_the_order_of_the_rows_does_not_matter(convention: str) -> None:
    y, score, t = trial(2)
    score = np.round(score, 1)
    order = np.random.default_rng(0).permutation(len(y))
    for metric in ("qini", "auuc"):
        found = in_convention(convention, metric, y, score, t)
        shuffled = in_convention(convention, metric, y[order], score[order], t[order])
        assert found == pytest.approx(shuffled, abs=1e-9)


def test_what_a_convention_lacks_is_said() -> None:
    data = trial(0)
    with pytest.raises(DataError, match="no convention 'grf'; use 'updraft', 'sklift'"):
        in_convention("grf", "qini", *data)
    with pytest.raises(DataError, match="'upliftml' has no 'lift@30'; use 'qini' or 'auuc'"):
        in_convention("upliftml", "lift@30", *data)
    with pytest.raises(DataError, match="'econml' has no 'auuc'"):
        in_convention("econml", "auuc", *data, propensity=np.full(700, 0.5))
    with pytest.raises(DataError, match="propensity is missing"):
        in_convention("econml", "qini", *data)
    with pytest.raises(DataError, match="sklift knows no propensity"):
        in_convention("sklift", "qini", *data, propensity=np.full(700, 0.5))
    assert CONVENTIONS[0] == "updraft"
