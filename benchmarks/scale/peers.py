"""What one would do without Updraft: pandas, EconML's T-learner over LightGBM, scikit-uplift's metrics.

``python -m benchmarks.scale.peers FOLDER ROWS FEATURES`` reads the same log, joins features as of each
decision with ``merge_asof``, counts the arms, fits on 60% of the users, and computes Qini, AUUC and
LIFT@30 on 20%, without intervals: scikit-uplift has none. Parts are timed apart.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.scale.watch import own_peak


def main(folder: str, rows: str, features: str) -> None:
    """Do it all, and leave ``peer.json``."""
    from econml.metalearners import TLearner
    from lightgbm import LGBMRegressor
    from scipy.stats import chisquare
    from sklift.metrics import qini_auc_score, uplift_at_k, uplift_auc_score

    began = time.time()
    place, names = Path(folder), [f"f{number}" for number in range(int(features))]
    parts: dict[str, float] = {}

    def timed(part: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        found = work()
        parts[part] = time.perf_counter() - started
        return found

    def joined() -> pd.DataFrame:
        log = pd.read_parquet(place / "log.parquet")
        known = log[["user", "at", *names]]
        return pd.merge_asof(log.drop(columns=names), known, on="at", by="user")

    frame = timed("retrieval", joined)
    timed("validation", lambda: chisquare(*_counts(frame)))
    fold = np.random.default_rng(0).random(len(frame))
    treated, outcome = (frame["ad"] == "shown").to_numpy(), frame["visit"].to_numpy()
    learn, test = fold < 0.6, fold >= 0.8
    x = frame[names].to_numpy()
    learner = TLearner(models=LGBMRegressor(n_estimators=100, n_jobs=1, verbose=-1))
    timed("learning", lambda: learner.fit(outcome[learn], treated[learn], X=x[learn]))

    def evaluated() -> list[float]:
        score = learner.effect(x[test])
        data = outcome[test], score, treated[test].astype(int)
        lift = uplift_at_k(*data, strategy="overall", k=0.3)
        return [float(qini_auc_score(*data)), float(uplift_auc_score(*data)), float(lift)]

    values = timed("evaluation", evaluated)
    found = {
        "began": began,
        "ended": time.time(),
        "seconds": sum(parts.values()),
        "parts": parts,
        "values": values,
        "peak": own_peak(),
    }
    (place / "peer.json").write_text(json.dumps(found))


def _counts(frame: pd.DataFrame) -> tuple[list[float], list[float]]:
    came = int((frame["ad"] == "shown").sum())
    return [came, len(frame) - came], [0.85 * len(frame), 0.15 * len(frame)]


if __name__ == "__main__":
    main(*sys.argv[1:])
