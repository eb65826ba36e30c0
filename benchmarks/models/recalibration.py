"""Would it pay to recalibrate a model's effects on the validation fold before they decide?

Each model is trained as in ``decisions``. From the validation fold's explored rows, a map of every arm
and outcome from predicted to pseudo-effects (doubly robust, with the model's own answers) is then fit:

* ``isotonic``  the rising map (van der Laan et al., ICML 2023); a tilt of 1e-6 keeps the order in steps.
* ``binned``    the same, through the means of twenty equal bins, which no single row can bend.
* ``linear``    a straight line.
* ``shift``     the mean error taken off.

Told are the share of the oracle's value, and the root mean square of predicted less true effects on the
value over fifty bins of the prediction, on units that are in no log. The validation fold has also said
when to stop, as it would in a run.

Run: ``python -m benchmarks.models.recalibration [--rows 20000] [--seeds 2] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from benchmarks.machine import machine, wide_console
from benchmarks.models.decisions import score
from benchmarks.models.worlds import WORLDS, Case, case
from campaigns.objective import value_and_cost
from models.catalog import build, build_learner, entry
from models.dataset import prepare
from models.inference import predict
from models.metrics import IsotonicUplift, pseudo_effects
from models.plan import train_config
from models.selection import Validation
from models.split import VALIDATION, folds
from models.training import InMemoryBatches, fit, sized

BINS, FEW_BINS, TILT = 50, 20, 1e-6
Map = Callable[[np.ndarray], np.ndarray]  # predicted effects -> recalibrated ones


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--worlds", default=",".join(["bonus", *WORLDS]))
    parser.add_argument("--models", default="s_learner,x_boost")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    for world in options.worlds.split(","):
        for seed in range(options.seeds):
            made = case(world, options.rows, seed, units=50_000)
            for name in options.models.split(","):
                for how, found in compare(made, name, seed).items():
                    results.append(
                        {"world": world, "seed": seed, "model": name, "map": how, **found}
                    )
    show(results)
    if options.json:
        report = {"machine": machine("torch", "numpy"), "rows": options.rows, "results": results}
        options.json.write_text(json.dumps(report, indent=1))


def compare(made: Case, name: str, seed: int) -> dict[str, dict[str, float]]:
    """A model's scores as it is, and by each map."""
    answer = trained(made, name, seed)
    frame = made.frame
    held = frame[
        (folds(frame["unit_id"], made.campaign.name) == VALIDATION) & frame["explored"].to_numpy()
    ]
    outcomes, known = answer(made.units), answer(held)
    true = value_and_cost(made.truth, made.campaign)[0]
    found = {}
    for how in ("as it is", *MAPS):
        mapped = outcomes if how == "as it is" else recalibrated(outcomes, known, held, made, how)
        believed = value_and_cost(mapped, made.campaign)[0]
        found[how] = {**score(believed, made), "calibration": calibration(believed, true)}
    return found


def trained(made: Case, name: str, seed: int) -> Callable[[Any], np.ndarray]:
    """A model of the catalogue with its defaults: features -> expected outcomes [N, A, K]."""
    prepared = prepare(made.frame, made.campaign, seed=seed)
    recipe = prepared.recipe
    model: Any
    if entry(name).learner:
        model = build_learner(name, recipe.shape)
        model.fit(prepared.train, validation=prepared.validation, seed=seed)
    else:
        settings = sized(
            train_config(name, {}, seed=seed, device="cpu"),
            len(prepared.train),
            prepared.recipe.shape.features,
        )
        model = build(name, recipe.shape, seed=seed)
        model.start_from(recipe.scaler.start)
        batches = InMemoryBatches(prepared.train, settings.batch_size, seed)
        fit(model, batches, Validation.of(prepared), settings)

    def answer(units: Any) -> np.ndarray:
        columns = {column: units[column].to_numpy() for column in made.campaign.features.names}
        outcomes = predict(model, *recipe.encoder.encode(columns))
        return recipe.scaler.restore(outcomes.astype(np.float64))

    return answer


def recalibrated(
    outcomes: np.ndarray, known: np.ndarray, held: Any, made: Case, how: str
) -> np.ndarray:
    """Outcomes [N, A, K] whose effects went through maps that the held rows' answers gave."""
    mapped = outcomes.copy()
    y = held[list(made.campaign.outcomes)].to_numpy(np.float64)
    arm, propensity = held["arm"].to_numpy(), held["explored_propensity"].to_numpy()
    for a in range(1, outcomes.shape[1]):
        for k in range(outcomes.shape[2]):
            seen = np.isfinite(y[:, k])
            answers = known[seen, :, k]
            effect = pseudo_effects(
                y[seen, k], arm[seen], propensity[seen], q_hat=answers, treated=a
            )
            through = MAPS[how](answers[:, a] - answers[:, 0], effect)
            mapped[:, a, k] = outcomes[:, 0, k] + through(outcomes[:, a, k] - outcomes[:, 0, k])
    return mapped


def isotonic(predicted: np.ndarray, effect: np.ndarray) -> Map:
    """The rising map that is nearest to the effects."""
    fitted = IsotonicUplift.fit(predicted, effect)
    return lambda t: fitted.apply(t) + TILT * t


def binned(predicted: np.ndarray, effect: np.ndarray) -> Map:
    """The rising map through bins' means."""
    parts = np.array_split(np.argsort(predicted, kind="stable"), FEW_BINS)
    return isotonic(
        np.array([predicted[rows].mean() for rows in parts]),
        np.array([effect[rows].mean() for rows in parts]),
    )


def linear(predicted: np.ndarray, effect: np.ndarray) -> Map:
    """Least squares."""
    slope = np.cov(predicted, effect)[0, 1] / max(predicted.var(ddof=1), 1e-12)
    return lambda t: effect.mean() + slope * (t - predicted.mean())


def shift(predicted: np.ndarray, effect: np.ndarray) -> Map:
    """The mean error taken off."""
    return lambda t: t + (effect - predicted).mean()


MAPS = {"isotonic": isotonic, "binned": binned, "linear": linear, "shift": shift}


def calibration(believed: np.ndarray, true: np.ndarray) -> float:
    """Root mean square over bins and arms of mean believed less mean true effects on the value."""
    errors = [
        mine[rows].mean() - exact[rows].mean()
        for mine, exact in zip(believed[:, 1:].T, true[:, 1:].T)
        for rows in np.array_split(np.argsort(mine, kind="stable"), BINS)
    ]
    return float(np.sqrt(np.mean(np.square(errors))))


def show(results: list[dict[str, Any]]) -> None:
    """Means over worlds, seeds and models, and in how many a map did better than none."""
    plain = {(r["world"], r["seed"], r["model"]): r for r in results if r["map"] == "as it is"}
    table = Table(title=f"means over {len(plain)} pairs of log and model")
    for column in ("map", "at 20%", "better", "calibration error", "better"):
        table.add_column(column, justify="left" if column == "map" else "right")
    for how in ("as it is", *MAPS):
        mine = [r for r in results if r["map"] == how]
        base = [plain[r["world"], r["seed"], r["model"]] for r in mine]
        cells = []
        for key, sign in (("at 20%", 1), ("calibration", -1)):
            better = sum(sign * (r[key] - b[key]) > 0 for r, b in zip(mine, base))
            cells += [f"{np.mean([r[key] for r in mine]):.3f}", f"{better} of {len(mine)}"]
        table.add_row(how, *cells)
    wide_console().print(table)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
