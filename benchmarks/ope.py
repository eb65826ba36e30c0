"""Does one policy's log tell what another policy earned?

Open Bandit (Saito et al. 2020, "Open Bandit Dataset and Pipeline"), the campaign 'men' of its sample:
10,000 impressions of a fashion shop where a lot chose one of 34 items uniformly (random), and 10,000
of the same week where Bernoulli Thompson sampling did (bts). The reward is a click. Each policy's
mean click is estimated from the other's log by every estimator and set beside the mean of its own.

Bernoulli TS learnt on, so its propensities change by the hour. As a policy to estimate it is its
mean over the week: the share of every item at each of the three positions, counted in its own log
(items alone, no clicks). q is one ridge regression an item on position and the user's features, its
penalty chosen by leave-one-out, cross-fitted. A seed draws the folds: estimators without q don't
depend on it.

Run: ``python -m benchmarks.ope [--seeds 5] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import RidgeCV

from benchmarks.machine import machine, wide_console
from campaigns.errors import EnvironmentProblem
from models.metrics import cross_fit_outcome_model, normal_interval, policy_value
from models.metrics.ope_estimators import ESTIMATORS

ROOT = Path(__file__).resolve().parents[1]
PENALTIES = np.logspace(0, 6, 13)
FEATURES = ["position", "user_feature_0", "user_feature_1", "user_feature_2", "user_feature_3"]
PAIRS = (("bts", "random"), ("random", "bts"))  # the policy, and the log that it is estimated from


@dataclass(frozen=True)
class BanditLog:
    """Impressions: click, item, propensity, position (0 to 2) [N], and features [N, F]."""

    click: np.ndarray
    item: np.ndarray
    propensity: np.ndarray
    position: np.ndarray
    x: np.ndarray


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    logs = {name: read(name) for name in ("random", "bts")}
    results = [measure(*pair, logs, seed) for pair in PAIRS for seed in range(options.seeds)]
    report = {"machine": machine("numpy", "scikit-learn"), "results": results}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))
    show(report, wide_console())


def read(policy: str) -> BanditLog:
    """The log of 'random' or 'bts'.

    Raises:
        EnvironmentProblem: The file isn't there; what to do.
    """
    data = os.environ.get("UPDRAFT_SHARED_DATA")
    home = Path(data) if data else ROOT.parent / "shared" / "data"
    source = home / "obd" / f"{policy}_men.csv"
    if not source.exists():
        raise EnvironmentProblem(
            f"Open Bandit is left out: there is no {source}; put {policy}/men/men.csv of its sample "
            f"as {policy}_men.csv into a folder 'obd', and give the folder that holds it as "
            "UPDRAFT_SHARED_DATA"
        )
    table = pd.read_csv(source, index_col=0)
    return BanditLog(
        click=table["click"].to_numpy(np.float64),
        item=table["item_id"].to_numpy(np.int64),
        propensity=table["propensity_score"].to_numpy(np.float64),
        position=table["position"].to_numpy(np.int64) - 1,
        x=pd.get_dummies(table[FEATURES].astype(str)).to_numpy(np.float64),
    )


def mean_policy(policy: str, logs: dict[str, BanditLog], position: np.ndarray) -> np.ndarray:
    """Probabilities [N, 34] of every item at these positions [N]."""
    items = 1 + max(int(log.item.max()) for log in logs.values())
    if policy == "random":
        return np.full((len(position), items), 1 / items)
    own = logs[policy]
    count = np.zeros((3, items))
    np.add.at(count, (own.position, own.item), 1.0)
    return (count / count.sum(axis=1, keepdims=True))[position]


def measure(policy: str, source: str, logs: dict[str, BanditLog], seed: int) -> dict[str, Any]:
    """Every estimator's value of ``policy`` from the log of ``source``, and its own mean."""
    log, own = logs[source], logs[policy].click
    chosen = mean_policy(policy, logs, log.position)
    q_hat = cross_fit_outcome_model(
        log.x, log.item, log.click, log.propensity,
        arms=chosen.shape[1], seed=seed, model=RidgeCV(PENALTIES),
    )  # fmt: skip
    error = float(own.std(ddof=1) / np.sqrt(len(own)))
    truth = normal_interval(float(own.mean()), error)
    found = {}
    for name in ESTIMATORS:
        value = policy_value(
            chosen, log.click, log.item, log.propensity, q_hat=q_hat, estimator=name
        )
        estimate = value.interval
        half = (estimate.high - estimate.low) / 2 / 1.959964
        found[name] = asdict(estimate) | {
            "errors_apart": (estimate.estimate - truth.estimate) / float(np.hypot(half, error)),
            "effective_rows": value.effective_rows,
            "mean_ratio": value.mean_ratio,
            "warning": value.warning,
        }
    return {
        "policy": policy,
        "log": source,
        "seed": seed,
        "rows": len(log.click),
        "own_mean": asdict(truth),
        "estimates": found,
    }


def show(report: dict[str, Any], console: Console) -> None:
    """Clicks in a hundred impressions, means over the seeds."""
    for policy, source in PAIRS:
        runs = [r for r in report["results"] if (r["policy"], r["log"]) == (policy, source)]
        own = runs[0]["own_mean"]
        table = Table(
            title=f"clicks in 100 impressions: {policy}, from the log of {source};"
            f" its own log: {_told([own])}",
            caption=report["machine"],
        )
        for column in ("estimator", "estimate", "errors apart", "effective rows"):
            table.add_column(column)
        for name in ESTIMATORS:
            some = [run["estimates"][name] for run in runs]
            table.add_row(
                name,
                _told(some),
                f"{np.mean([each['errors_apart'] for each in some]):+.1f}",
                f"{some[0]['effective_rows']:,.0f}",
            )
        console.print(table)


def _told(intervals: list[dict[str, Any]]) -> str:
    estimate, low, high = (
        100 * np.mean([each[key] for each in intervals]) for key in ("estimate", "low", "high")
    )
    return f"{estimate:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
