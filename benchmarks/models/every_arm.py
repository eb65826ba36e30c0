"""How fast do boosted trees answer many units under every arm, beside scikit-learn's own walk?

On each world an S-learner of trees (``s_boost``) is fit on a log, then asked about fresh units under every
arm: by scikit-learn's ``predict`` on the table of all units and arms, and by ``models/learners/every_arm.py``.
Both on one thread, in turn; seconds are the processor's, of the fastest of some rounds. The answers must be
equal to the last bit. The floor is one look at a table of 1 KiB for each unit, tree and feature that the
tree splits on, as NumPy's ``take`` does it here: less can't tell the leaf of a unit this way.

Run: ``python -m benchmarks.models.every_arm [--units 100000] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.machine import machine, wide_console
from benchmarks.models.decisions import fit_model
from benchmarks.models.worlds import WORLDS, case
from models.learners.boosting import Model, answer, features, limited
from models.learners.every_arm import ROWS, EveryArm
from models.learners.s_boost import SBoost

COLUMNS = ("arms", "trees", "features a tree", "scikit-learn, s", "ours, s", "ratio", "floor, s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000, help="of the log")
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worlds", default=",".join(["bonus", *WORLDS]))
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    console = wide_console()
    found = {
        world: measured(world, options.rows, options.units, options.rounds)
        for world in options.worlds.split(",")
    }
    table = Table(title=f"{options.units:,} units; {machine('numpy', 'scikit-learn')}")
    for column in ("world", *COLUMNS):
        table.add_column(column, justify="left" if column == "world" else "right")
    for world, figures in found.items():
        table.add_row(world, *(f"{figures[column]:,.3g}" for column in COLUMNS))
    console.print(table)
    if options.json:
        report = {"machine": machine("numpy", "scikit-learn"), "units": options.units}
        options.json.write_text(json.dumps({**report, "results": found}, indent=1))


def measured(world: str, rows: int, units: int, rounds: int) -> dict[str, float]:
    """The columns' figures of all models that a world's log gives."""
    made = case(world, rows, 0, units)
    fitted = fit_model(made.frame, made.campaign, "s_boost", {"bags": 1}, seed=0)
    learner = fitted.net
    assert isinstance(learner, SBoost)
    columns = {name: made.units[name].to_numpy() for name in made.campaign.features.names}
    x = features(*fitted.encoder.encode(columns), learner.grid)
    levels = np.array(fitted.shape.levels, np.float64)
    models: list[Model] = [
        model
        for parts in learner.models
        for model in (*parts["mean"], *parts["chance"])
        if not isinstance(model, float)
    ]
    splits = [_splits(tree.nodes, x.shape[1]) for m in models for (tree,) in m._predictors]

    def walked() -> list[np.ndarray]:
        table = EveryArm(x, learner.grid, levels).table
        return [answer(model, table).reshape(len(x), len(levels)) for model in models]

    def at_once() -> list[np.ndarray]:
        asked = EveryArm(x, learner.grid, levels)
        return [asked.answer(model) for model in models]

    with limited(1):
        (theirs, slow), (ours, fast) = [_fastest(work, rounds) for work in (walked, at_once)]
    for one, two in zip(theirs, ours):
        np.testing.assert_array_equal(one, two)
    return {
        "arms": len(levels),
        "trees": len(splits),
        "features a tree": float(np.mean(splits)),
        "scikit-learn, s": slow,
        "ours, s": fast,
        "ratio": slow / fast,
        "floor, s": _look() * units * sum(splits),
    }


def _fastest(work: Callable[[], Any], rounds: int) -> tuple[Any, float]:
    """What some work gives, and the least processor seconds that it took."""
    took = []
    for _ in range(rounds):
        started = time.process_time()
        found = work()
        took.append(time.process_time() - started)
    return found, min(took)


def _splits(nodes: np.ndarray, features: int) -> int:
    """How many features, the arm's levels aside, a tree splits on; ids come first, so by their number."""
    inner = nodes[nodes["is_leaf"] == 0]
    return min(len(np.unique(inner["feature_idx"])), features)


def _look() -> float:
    """Seconds of one look at a table of 1 KiB."""
    rng = np.random.default_rng(0)
    table, places = rng.integers(0, 9, 256).astype(np.uint32), rng.integers(0, 256, ROWS)
    took = _fastest(lambda: [table.take(places) for _ in range(1000)], 3)[1]
    return took / 1000 / ROWS


if __name__ == "__main__":
    main()
