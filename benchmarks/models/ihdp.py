"""IHDP: effects of a programme whose units were not drawn at random, on 747 units whose truth is known.

Replications 1-10 of Hill's semi-simulated data (2011; NPCI, setting A) as CFR and Dragonnet use them:
features and treatment are real, a non-random part of the treated is left out, outcomes are simulated.
For each replication 10% of the units, drawn by its seed, are out of sample. Measured are sqrt PEHE and
the absolute error of the average effect, on the units learned from and on the others, against mu1 - mu0.

The data are observational, and nobody logged a propensity. Of two ways, learned inside the net or
estimated before, each model gets the one it was made for:

* Dragonnet learns its own (``propensity="learned"``): its propensity head is what the method is, shares
  the representation, and costs no rows. Its weight is the paper's 1, where our default for trials is
  0.1: here what moves the treatment confounds, and is what the trunk has to keep.
* All others get a logistic regression's, cross-fitted in ten parts. With 672 rows, and 125 treated,
  more flexible models overfit it. TARNet, CFR, FlexTENet, CEVAE, S- and T-learner don't look at it: they
  adjust by the features alone, and are right if their outcome models are. Our boosted learners and the
  forest see by it that the log isn't uniform, and fit a classifier of their own, as in production.
* CFR balances what is not balanced by design: alpha 0.1, ten times our default for trials. CEVAE's
  bound is the paper's (kl 1), for the same reason.

Training, chosen once for all nets and for none in particular: 300 epochs at most in batches of 64,
AdamW at 1e-3 with a cosine, 30% of the training units to pick the best epoch by factual error (63/27/10
is CFR's split), patience 60. Our boosted trees have leaves of 10 rows (the default of 50 is for logs, and
125 treated units leave nothing to split), effects of 20, and stop by the same 30%. Peers take all units:
EconML's XLearner over 100 LightGBM trees with leaves of 10, its CausalForestDML with its own leaves of 5;
CausalML's X-learner as EconML's, where it is installed.

The rows marked published are means over 1000 replications, hyperparameters searched: Shalit, Johansson &
Sontag 2017, table 1; Shi, Blei & Veitch 2019, table 1 (Dragonnet with targeted regularization). Errors
are skewed (few replications have large effects), so a mean of ten says little about one of 1000:
compare models with each other first.

Run: ``python -m benchmarks.models.ihdp [--full] [--models "tarnet;dragonnet"] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine, wide_console
from benchmarks.models.tables import interval
from campaigns.errors import EnvironmentProblem
from models.catalog import build, build_learner, entry
from models.data import Batch, Encoder, OutcomeScaler, Shape
from models.inference import predict
from models.learners.base import Learner
from models.metrics import ate_error, pehe
from models.training import InMemoryBatches, TrainConfig, fit

FEATURES = [f"x{place}" for place in range(1, 26)]
CONTINUOUS = 6  # the first so many
OUT_OF_SAMPLE, VALIDATION = 0.1, 0.3
TRAINING: dict[str, Any] = {
    "epochs": 300,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "patience": 60,
    "device": "cpu",
}
LEAF, EFFECT_LEAF = 10, 20
SMALL = {"leaf_rows": LEAF, "effect_rows": EFFECT_LEAF}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "tarnet": ("tarnet", {}),
    "cfr, wasserstein": ("cfr", {"penalty": "wasserstein", "alpha": 0.1}),
    "cfr, mmd": ("cfr", {"penalty": "mmd", "alpha": 0.1}),
    "dragonnet": ("dragonnet", {"propensity": "learned", "alpha": 1.0}),
    "cevae": ("cevae", {"kl": 1.0}),
    "flextenet": ("flextenet", {}),
    "s_learner": ("s_learner", {}),
    "t_learner": ("t_learner", {}),
    "x_boost": ("x_boost", SMALL),
    "dr_boost": ("dr_boost", SMALL),
    "causal_forest": ("causal_forest", SMALL),
}
MEASURES = ("pehe in", "pehe out", "ate in", "ate out")
PUBLISHED = {
    "CFR-Wass. (published)": {"pehe in": 0.71, "pehe out": 0.76},
    "Dragonnet (published)": {"ate in": 0.14, "ate out": 0.20},
}


@dataclass(frozen=True)
class Units:
    """Units of a replication.

    Attributes:
        x: Features, [N, 25].
        treated: [N] of 0 and 1.
        y: What was observed, [N].
        effect: The true effect mu1 - mu0, [N].
    """

    x: np.ndarray
    treated: np.ndarray
    y: np.ndarray
    effect: np.ndarray

    def part(self, rows: np.ndarray) -> Units:
        """Some of the units."""
        return Units(self.x[rows], self.treated[rows], self.y[rows], self.effect[rows])


def folder() -> Path:
    """Where the replications are.

    Raises:
        EnvironmentProblem: Nowhere; what to do.
    """
    data = os.environ.get("UPDRAFT_SHARED_DATA")
    home = Path(data) if data else Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (home / "ihdp" / "ihdp_npci_1.csv").exists():
        raise EnvironmentProblem(
            f"there is no {home / 'ihdp' / 'ihdp_npci_1.csv'}: put the ten files ihdp_npci_N.csv into a "
            "folder 'ihdp', and give the folder that holds it as UPDRAFT_SHARED_DATA"
        )
    return home / "ihdp"


def load(file: Path) -> Units:
    """A replication: treatment, y_factual, y_cfactual, mu0, mu1, x1..x25, without a header."""
    table = np.loadtxt(file, delimiter=",")
    return Units(table[:, 5:], table[:, 0].astype(int), table[:, 1], table[:, 4] - table[:, 3])


def split(units: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from and rows that are out of sample."""
    drawn = np.random.default_rng([seed, 9010]).permutation(units)
    out = round(OUT_OF_SAMPLE * units)
    return np.sort(drawn[out:]), np.sort(drawn[:out])


def propensities(learn: Units) -> np.ndarray:
    """Estimated probability of treatment, [N]; each unit's by a model of the others."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression())
    found = cross_val_predict(model, learn.x, learn.treated, cv=10, method="predict_proba")
    return np.clip(found[:, 1], 0.02, 0.98)


def ours(name: str, learn: Units, x: np.ndarray, seed: int) -> np.ndarray:
    """Effects that a model of the catalogue answers for the units x [M, 25]: [M]."""
    columns = dict(zip(FEATURES, learn.x.T))
    encoder = Encoder.fit(columns, FEATURES, [])
    scaler = OutcomeScaler.fit(learn.y[:, None], ("continuous",))
    chance = propensities(learn)
    given = np.where(learn.treated == 1, chance, 1.0 - chance)
    outcome = scaler.apply(learn.y[:, None])
    rows = Batch.of(*encoder.encode(columns), learn.treated, outcome, given)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    cut = round(VALIDATION * len(rows))
    held_out, inside = rows.select(order[:cut]), rows.select(order[cut:])
    model, settings = MODELS[name]
    shape = Shape(len(encoder.numeric_names), (), ((0,), (1,)), ("continuous",))
    answering: torch.nn.Module | Learner
    if entry(model).learner:
        learner = build_learner(model, shape, settings)
        answering = learner.fit(inside, validation=held_out, seed=seed)
    else:
        answering = build(model, shape, settings, seed=seed)
        config = TrainConfig(**TRAINING, seed=seed)
        batches = InMemoryBatches(inside, config.batch_size, seed)
        fit(answering, batches, lambda net: {"loss": factual_error(net, held_out)}, config)
    found = predict(answering, *encoder.encode(dict(zip(FEATURES, x.T)))).astype(np.float64)
    return (found[:, 1, 0] - found[:, 0, 0]) * scaler.scale[0]


def factual_error(net: Any, rows: Batch) -> float:
    """Squared error of what the given arm was predicted to do: the same yardstick for all nets."""
    found = net.potential_outcomes(rows.x_num, rows.x_cat)
    return float((found[torch.arange(len(rows)), rows.arm] - rows.y).square().mean())


def econml_x_learner(learn: Units, x: np.ndarray, seed: int) -> np.ndarray:
    """EconML's XLearner over LightGBM, [M]."""
    from econml.metalearners import XLearner

    peer = XLearner(
        models=_regressor(seed), propensity_model=_logistic(), cate_models=_regressor(seed)
    )
    peer.fit(learn.y, learn.treated, X=learn.x)
    return np.asarray(peer.effect(x)).ravel()


def econml_forest(learn: Units, x: np.ndarray, seed: int) -> np.ndarray:
    """EconML's CausalForestDML with LightGBM for outcomes and its default leaves, [M]."""
    from econml.dml import CausalForestDML

    peer = CausalForestDML(
        model_y=_regressor(seed),
        model_t=_logistic(),
        discrete_treatment=True,
        n_estimators=500,
        random_state=seed,
        n_jobs=1,
    )
    peer.fit(learn.y, learn.treated, X=learn.x)
    return np.asarray(peer.effect(x)).ravel()


def causalml_x_learner(learn: Units, x: np.ndarray, seed: int) -> np.ndarray:
    """CausalML's X-learner over LightGBM, [M]; its g is a logistic regression's."""
    peer = import_module("causalml.inference.meta").BaseXRegressor(learner=_regressor(seed))
    peer.fit(learn.x, treatment=learn.treated, y=learn.y, p=propensities(learn))
    chance = _logistic().fit(learn.x, learn.treated).predict_proba(x)[:, 1]
    return np.asarray(peer.predict(x, p=chance, verbose=False)).ravel()


def _regressor(seed: int) -> Any:
    from lightgbm import LGBMRegressor

    return LGBMRegressor(
        num_leaves=15, learning_rate=0.05, min_child_samples=LEAF, random_state=seed,
        n_jobs=1, verbose=-1,
    )  # fmt: skip


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000)


Method = Callable[[Units, np.ndarray, int], np.ndarray]
METHODS: dict[str, Method] = {
    name: lambda learn, x, seed, name=name: ours(name, learn, x, seed) for name in MODELS
} | {"econml x-learner": econml_x_learner, "econml causal forest": econml_forest}
if find_spec("causalml"):
    METHODS["causalml x-learner"] = causalml_x_learner


def score(
    effects: np.ndarray, units: Units, inside: np.ndarray, out: np.ndarray
) -> dict[str, float]:
    """sqrt PEHE and the error of the average effect, in sample and out."""
    found = {}
    for name, measure in (("pehe", pehe), ("ate", ate_error)):
        for where, rows in (("in", inside), ("out", out)):
            found[f"{name} {where}"] = measure(units.effect[rows], effects[rows])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="all ten replications")
    parser.add_argument("--replications", type=int, default=None, help="the first so many; 3")
    parser.add_argument("--models", default=None, help="names of those to compare, by ';'")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    try:
        files = folder()
    except EnvironmentProblem as problem:
        print(problem, file=sys.stderr)
        raise SystemExit(problem.exit_code) from None
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    count = options.replications or (10 if options.full else 3)
    names = options.models.split(";") if options.models else list(METHODS)
    console, results = wide_console(), []
    for number in range(1, count + 1):
        units = load(files / f"ihdp_npci_{number}.csv")
        inside, out = split(len(units.y), seed=number)
        for name in names:
            started = time.perf_counter()
            effects = METHODS[name](units.part(inside), units.x, number)
            seconds = time.perf_counter() - started
            found = score(effects, units, inside, out)
            results.append({"replication": number, "model": name, **found, "seconds": seconds})
            told = ", ".join(f"{key} {value:.2f}" for key, value in found.items())
            console.print(f"{number} {name}: {told}; {seconds:.1f} s", highlight=False)
    about = machine("torch", "scikit-learn", "econml", "lightgbm")
    report = {
        "machine": about, "training": TRAINING, "published": PUBLISHED, "results": results
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    show(results, console)
    console.print(about, highlight=False)


def show(results: Sequence[dict[str, Any]], console: Console) -> None:
    """Means over replications with 95% t-intervals, then what was published."""
    count = len({result["replication"] for result in results})
    table = Table(title=f"IHDP, {count} replications: sqrt PEHE and error of the ATE, mean ± 95%")
    table.add_column("model", no_wrap=True)
    for column in (*MEASURES, "seconds"):
        table.add_column(column, justify="right")
    for name in dict.fromkeys(result["model"] for result in results):
        mine = [result for result in results if result["model"] == name]
        cells = [interval([result[column] for result in mine], 2) for column in MEASURES]
        table.add_row(name, *cells, f"{np.mean([result['seconds'] for result in mine]):.1f}")
    table.add_section()
    for name, told in PUBLISHED.items():
        cells = [f"{told[column]:.2f}" if column in told else "" for column in MEASURES]
        table.add_row(name, *cells, "")
    console.print(table)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
