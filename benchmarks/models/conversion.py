"""Conversion nets on a chain visit -> cart -> buy: who orders, who is calibrated, and at what cost.

The world selects: what brings units to visit keeps them from filling a cart, and a step happens to
those alone who took the one before, so that later steps are rare and never seen for most. For each
seed every net learns a fresh log at its defaults (one net, not an ensemble), picked at its best epoch by the
log-loss of held-out rows, and answers units of a third log: AUC and expected calibration error of
each step, and the error of the arm's effects, whose truth is known.

The second table is what an epoch costs as fields are added (APEM's figure 8), with the size of the net.

Run: ``python -m benchmarks.models.conversion [--full] [--parts quality,cost] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from benchmarks.machine import machine, wide_console
from models.catalog import build
from models.data import Batch, Shape
from models.inference import predict
from models.training import InMemoryBatches, TrainConfig, fit

STEPS = ("visit", "cart", "buy")
NETS: dict[str, tuple[str, dict[str, Any]]] = {
    name: (name, {})
    for name in ("single_task", "shared_bottom", "mmoe", "ple", "aitm", "esmm", "escm2")
} | {
    "escm2 (dr)": ("escm2", {"risk": "dr"}),
    "apem": ("apem", {}),
    "apem without dependence": ("apem", {"dependence": 0.0}),
    "apem with self-attention": ("apem", {"generator": False}),
}
COSTS = ("shared_bottom", "mmoe", "ple", "apem", "apem with self-attention")
NUMERIC, CATEGORIES = 8, (4, 6, 8, 12, 20, 40, 80, 160)
TEST_ROWS, BINS = 100_000, 20


@dataclass(frozen=True)
class Log:
    """Decisions with their truth.

    Attributes:
        rows: What was logged.
        truth: Chances of each step under each arm, [N, 2, 3].
    """

    rows: Batch
    truth: np.ndarray


def shape(numeric: int = NUMERIC, categories: Sequence[int] = CATEGORIES) -> Shape:
    """One treatment, three steps."""
    return Shape(numeric, tuple(categories), ((0,), (1,)), ("binary",) * 3, (0, 1, 2))


def draw(rows: int, seed: int, part: int) -> Log:
    """A log of the world ``seed``; parts are fresh units of it."""
    of_ids = np.random.default_rng([seed, 0])
    effects = [of_ids.normal(0.0, 0.5, (size, 3)) for size in CATEGORIES]
    rng = np.random.default_rng([seed, 1, part])
    x = rng.normal(size=(rows, NUMERIC))
    ids = np.stack([np.minimum(rng.zipf(1.6, rows) - 1, size - 1) for size in CATEGORIES], axis=1)
    liked = sum(effect[ids[:, place]] for place, effect in enumerate(effects)) / 2.0
    keen = 0.9 * x[:, 0] + 0.5 * x[:, 1] * (x[:, 2] > 0)
    logits = np.stack(
        [
            -1.3 + keen + liked[:, 0],
            -0.9 - 0.8 * keen + 0.6 * x[:, 3] + liked[:, 1],
            -0.7 - 0.5 * x[:, 3] + 0.5 * np.abs(x[:, 4]) + liked[:, 2],
        ],
        axis=1,
    )
    pushed = np.stack(
        [0.8 / (1 + np.exp(-2 * x[:, 5])), 0.5 * (x[:, 6] > 0) - 0.2, 0.0 * x[:, 0]], axis=1
    )
    conditional = 1 / (1 + np.exp(-np.stack([logits, logits + pushed], axis=1)))
    arm = rng.integers(0, 2, rows)
    given = conditional[np.arange(rows), arm]
    y = np.cumprod(rng.random((rows, 3)) < given, axis=1).astype(float)
    return Log(Batch.of(x, ids, arm, y, np.full(rows, 0.5)), conditional.cumprod(axis=2))


def calibration_error(chances: np.ndarray, y: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: mean distance of outcomes from chances, in bins of equal size."""
    order = np.argsort(chances, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [abs(chances[part].mean() - y[part].mean()) * len(part) for part in parts]
    return float(sum(gaps) / len(y))


def score(chances: np.ndarray, log: Log) -> dict[str, float]:
    """AUC and calibration of each step under the arm given, error of the effects; [N, 2, 3]."""
    arm, y = log.rows.arm.numpy(), log.rows.y.numpy()
    given = chances[np.arange(len(arm)), arm]
    found = {f"auc {s}": float(roc_auc_score(y[:, k], given[:, k])) for k, s in enumerate(STEPS)}
    found |= {f"ece {s}": calibration_error(given[:, k], y[:, k]) for k, s in enumerate(STEPS)}
    error = (chances[:, 1] - chances[:, 0]) - (log.truth[:, 1] - log.truth[:, 0])
    found |= {f"pehe {s}": float(np.sqrt((error[:, k] ** 2).mean())) for k, s in enumerate(STEPS)}
    return found


def answered(name: str, log: Log, held_out: Log, test: Log, training: TrainConfig) -> np.ndarray:
    """Chances that a net, trained on a log, gives the units of another, [N, 2, 3]."""
    net: Any = build(NETS[name][0], shape(), NETS[name][1], seed=training.seed)
    net.start_from(log.rows.y.mean(0).tolist())
    rows = held_out.rows

    def validate(net: Any) -> dict[str, float]:
        outcomes = net.potential_outcomes(rows.x_num, rows.x_cat)
        given = outcomes[torch.arange(len(rows)), rows.arm].clamp(1e-7, 1 - 1e-7)
        return {"loss": float(functional.binary_cross_entropy(given, rows.y))}

    fit(net, InMemoryBatches(log.rows, training.batch_size, training.seed), validate, training)
    return predict(net, test.rows.x_num.numpy(), test.rows.x_cat.numpy())


def quality(
    names: Sequence[str], rows: int, seeds: int, epochs: int, console: Console
) -> list[dict[str, Any]]:
    """Every net on every seed."""
    results = []
    for seed in range(seeds):
        log, held_out = draw(rows, seed, 0), draw(rows // 4, seed, 1)
        test = draw(TEST_ROWS, seed, 2)
        training = TrainConfig(epochs=epochs, batch_size=512, seed=seed, device="cpu")
        for name in ("truth", *names):
            started = time.perf_counter()
            known = name == "truth"
            chances = test.truth if known else answered(name, log, held_out, test, training)
            seconds = time.perf_counter() - started
            found = {**score(chances, test), "seconds": seconds}
            results.append({"seed": seed, "model": name, **found})
            told = ", ".join(f"{s} {found[f'auc {s}']:.4f}" for s in STEPS)
            console.print(f"seed {seed} {name}: AUC {told}; {seconds:.1f} s", highlight=False)
    return results


def cost(fields: Sequence[int], rows: int, console: Console) -> list[dict[str, Any]]:
    """Seconds an epoch of ``rows`` takes, from the median step, by the number of fields."""
    results = []
    batch_size, steps = 1024, 5
    for count in fields:
        each = shape(count - count // 2, [20] * (count // 2))
        rng = np.random.default_rng(count)
        x, ids = (
            rng.normal(size=(batch_size, each.numeric)),
            rng.integers(0, 20, (batch_size, count // 2)),
        )
        y = np.cumprod(rng.random((batch_size, 3)) < 0.5, axis=1).astype(float)
        batch = Batch.of(x, ids, rng.integers(0, 2, batch_size), y)
        for name in COSTS:
            net = build(NETS[name][0], each, NETS[name][1], seed=0)
            optimizer = torch.optim.AdamW(net.parameters())
            seconds = []
            for _ in range(steps + 1):
                started = time.perf_counter()
                optimizer.zero_grad()
                net(batch)["loss"].backward()
                optimizer.step()
                seconds.append(time.perf_counter() - started)
            epoch = float(np.median(seconds[1:])) * rows / batch_size
            weights = sum(parameter.numel() for parameter in net.parameters())
            results.append({"fields": count, "model": name, "seconds": epoch, "weights": weights})
        told = ", ".join(f"{r['model']} {r['seconds']:.1f} s" for r in results[-len(COSTS) :])
        console.print(f"{count} fields: {told}", highlight=False)
    return results


KINDS = {
    "auc": ("AUC", 1, 4),
    "ece": ("expected calibration error, percent", 100, 2),
    "pehe": ("error of the effects (PEHE), percent", 100, 2),
}  # name of a measure, what it is told in, digits


def show_quality(results: Sequence[dict[str, Any]], console: Console) -> None:
    """A table a measure: means over seeds with 95% intervals."""
    seeds = len({result["seed"] for result in results})
    for kind, (title, scale, digits) in KINDS.items():
        table = Table(title=f"{title}, mean over {seeds} seeds ± 95%")
        table.add_column("model", no_wrap=True)
        for column in (*STEPS, "seconds"):
            table.add_column(column, justify="right", no_wrap=True)
        for name in dict.fromkeys(result["model"] for result in results):
            mine = [result for result in results if result["model"] == name]
            values = [[result[f"{kind} {step}"] * scale for result in mine] for step in STEPS]
            cells = [interval(each, digits) for each in values]
            table.add_row(name, *cells, interval([result["seconds"] for result in mine], 1))
        console.print(table)


def interval(values: Sequence[float], digits: int) -> str:
    """The mean, and half the width of its 95% t-interval where there are several values."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def show_cost(results: Sequence[dict[str, Any]], rows: int, console: Console) -> None:
    """Seconds an epoch, thousands of weights beside them."""
    table = Table(title=f"seconds an epoch of {rows:,} rows (thousands of weights), by fields")
    table.add_column("model", no_wrap=True)
    counts = list(dict.fromkeys(result["fields"] for result in results))
    for count in counts:
        table.add_column(str(count), justify="right", no_wrap=True)
    for name in dict.fromkeys(result["model"] for result in results):
        mine = {r["fields"]: r for r in results if r["model"] == name}
        table.add_row(
            name, *(f"{mine[c]['seconds']:.1f} ({mine[c]['weights'] / 1e3:.0f})" for c in counts)
        )
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="more rows, seeds and fields")
    parser.add_argument("--rows", type=int, default=None, help="logged decisions")
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument("--models", default=",".join(list(NETS)[:-1]))
    parser.add_argument("--parts", default="quality,cost", help="quality, cost or both")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    console = wide_console()
    report: dict[str, Any] = {"machine": machine("torch", "numpy")}
    rows = options.rows or (100_000 if options.full else 20_000)
    if "quality" in options.parts.split(","):
        names = options.models.split(",")
        seeds = options.seeds or (5 if options.full else 2)
        results = quality(names, rows, seeds, 10, console)
        report |= {"rows": rows, "quality": results}
        show_quality(results, console)
    if "cost" in options.parts.split(","):
        fields = (10, 20, 40, 80, 160, 320) if options.full else (10, 20, 40, 80)
        report["cost"] = cost(fields, rows, console)
        show_cost(report["cost"], rows, console)
    console.print(report["machine"], highlight=False)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
