"""What MTMT says of its effects: its figures 4 and 5, on a world whose truth is known.

MTMT learns a log of game_bonus at its default settings. Drawn are, for every outcome,

* the distributions of the base effect (what any bonus does) and of each bonus's increment over the
  units (figure 4), beside the true ones. The true base effect is the mean of the bonuses' effects,
  as ``centre`` defines it;
* how much attention each treatment pays each feature (figure 5): the mean over units of eq. 6's weights.

Does attention tell what an effect depends on? A feature matters to a true effect as far as the effect
moves (root mean square) when the feature's values are dealt anew among the units. Printed is Spearman's
rank correlation of that with the attention, over the features, and what a net gives whose weights are
random: the same attention before training.

Run: ``python -m benchmarks.models.tiers [--rows 100000] [--figure out.png] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks.machine import machine, wide_console
from benchmarks.models.decisions import fit_model
from benchmarks.models.worlds import Case, case
from campaigns.worlds import world
from models.catalog import build
from models.uplift_model import UpliftModel

COLOURS = ("#2563eb", "#d97706", "#059669")
BASE = "base"
FLAG = " is missing"


def main() -> None:
    """Train, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--units", type=int, default=20_000, help="fresh ones, to look at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, default=None, help="where to draw (.png or .svg)")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    made = case("bonus", options.rows, options.seed, options.units)
    model = fit_model(made.frame, made.campaign, "mtmt", seed=options.seed)
    untrained = build("mtmt", model.shape, {"members": 1}, seed=options.seed + 1)
    parts, chance = (parts_of(net, model, made) for net in (model.net, untrained))
    true = true_parts(made.truth)
    matters = importance(made, features(model), options.seed)
    found = compare(parts, chance, true, matters, made)
    show(found, wide_console())
    if options.figure:
        draw(parts, true, features(model), made, options.figure)
    if options.json:
        report = {"machine": machine("torch", "numpy"), "rows": options.rows, "results": found}
        options.json.write_text(json.dumps(report, indent=1))


def parts_of(net: Any, model: UpliftModel, made: Case) -> dict[str, np.ndarray]:
    """MTMT's decomposition of fresh units, by name."""
    columns = {name: made.units[name].to_numpy() for name in made.units}
    x_num, x_cat = (torch.from_numpy(part) for part in model.encoder.encode(columns))
    net.eval()
    with torch.no_grad():
        parts = {name: part.numpy() for name, part in net.parts(x_num, x_cat).items()}
    of = [name.removesuffix(FLAG) for name in model.encoder.names]  # flags count for their feature
    belongs = np.array([[name == feature for feature in features(model)] for name in of], float)
    return {**parts, "attention": parts["attention"] @ belongs}


def features(model: UpliftModel) -> list[str]:
    """What the units' columns are called, in the order of the tokens."""
    return [name for name in model.encoder.names if not name.endswith(FLAG)]


def true_parts(truth: np.ndarray) -> dict[str, np.ndarray]:
    """Base [N, K] and increments [N, A - 1, K] of expected outcomes [N, A, K]."""
    effects = truth[:, 1:] - truth[:, :1]
    base = effects.mean(axis=1)
    return {"base": base, "incremental": effects - base[:, None]}


def importance(made: Case, names: list[str], seed: int) -> dict[str, np.ndarray]:
    """How far true effects move when a feature is dealt anew: base [T, K], increments [T, A - 1, K]."""
    simulated, rng = world("game_bonus"), np.random.default_rng(seed)
    moved: dict[str, list[np.ndarray]] = {"base": [], "incremental": []}
    true = true_parts(made.truth)
    for name in names:
        dealt = made.units.assign(**{name: rng.permutation(made.units[name].to_numpy())})
        other = true_parts(simulated.truth(dealt)[:, :, : made.truth.shape[2]])
        for part, each in moved.items():
            each.append(np.sqrt(np.mean((other[part] - true[part]) ** 2, axis=0)))
    return {part: np.stack(each) for part, each in moved.items()}


def compare(
    parts: dict[str, np.ndarray],
    chance: dict[str, np.ndarray],
    true: dict[str, np.ndarray],
    matters: dict[str, np.ndarray],
    made: Case,
) -> list[dict[str, Any]]:
    """A record for each treatment (the base one and every arm's) and outcome."""
    results = []
    for k, outcome in enumerate(made.campaign.outcomes):
        for place, treatment in enumerate(treatments(made)):
            if place == 0:
                mine, real, moved = parts["base"][:, k], true["base"][:, k], matters["base"][:, k]
            else:
                mine, real = (each["incremental"][:, place - 1, k] for each in (parts, true))
                moved = matters["incremental"][:, place - 1, k]
            attention, random = (each["attention"][:, place, k].mean(0) for each in (parts, chance))
            results.append(
                {
                    "outcome": outcome,
                    "treatment": treatment,
                    "mean": float(mine.mean()),
                    "true mean": float(real.mean()),
                    "spread": float(mine.std()),
                    "true spread": float(real.std()),
                    "correlation": float(np.corrcoef(mine, real)[0, 1]),
                    "attention": float(stats.spearmanr(attention, moved).statistic),
                    "untrained": float(stats.spearmanr(random, moved).statistic),
                }
            )
    return results


def treatments(made: Case) -> list[str]:
    """The base treatment's name, then the treated arms'."""
    (factor,) = made.campaign.treatments.values()
    return [BASE, *(level for level in factor.levels if level != factor.control)]


def show(results: list[dict[str, Any]], console: Console) -> None:
    """One table."""
    table = Table(
        title="MTMT's tiers beside the truth; rank correlation of attention and importance"
    )
    columns = list(results[0])
    for column in columns:
        table.add_column(column, justify="left" if column in ("outcome", "treatment") else "right")
    for record in results:
        table.add_row(
            *(f"{value:.3f}" if isinstance(value, float) else value for value in record.values())
        )
    console.print(table)


def draw(
    parts: dict[str, np.ndarray],
    true: dict[str, np.ndarray],
    names: list[str],
    made: Case,
    path: Path,
) -> None:
    """Top: densities (dashed: the truth). Bottom: attention, a row a treatment."""
    from matplotlib.figure import Figure

    outcomes, rows = list(made.campaign.outcomes), treatments(made)
    drawing = Figure(figsize=(5 * len(outcomes), 6.4), layout="constrained", dpi=110)
    axes = drawing.subplots(2, len(outcomes), squeeze=False)
    for k, outcome in enumerate(outcomes):
        top, bottom = axes[:, k]
        for kind, dashes in ((true, "--"), (parts, "-")):
            each = [kind["base"][:, k], *kind["incremental"][:, :, k].T]
            for values, name, colour in zip(each, rows, COLOURS):
                low, high = np.quantile(values, [0.002, 0.998])
                along = np.linspace(low, high, 200)
                density = stats.gaussian_kde(values[:5000])(along)
                label = name if dashes == "-" else None
                top.plot(along, density / density.max(), dashes, color=colour, lw=1.4, label=label)
        top.axvline(0, color="#6b7280", lw=0.6)
        top.set(title=outcome, xlabel="effect on a unit (dashed: true)", yticks=[])
        top.spines[["top", "right", "left"]].set_visible(False)
        top.legend(frameon=False, fontsize="small")
        heat = parts["attention"][:, : len(rows), k].mean(0)
        picture = bottom.imshow(heat, aspect="auto", cmap="Blues", vmin=0.0)
        bottom.set(yticks=range(len(rows)), yticklabels=rows, xticks=range(len(names)))
        bottom.set_xticklabels(names, rotation=60, ha="right", fontsize="x-small")
        drawing.colorbar(picture, ax=bottom, label="attention", shrink=0.8)
    drawing.savefig(path)


if __name__ == "__main__":
    main()
