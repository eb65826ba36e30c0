"""Who finds the effects of treatments given at the same time, with confounders seen through proxies?

The settings a-e of M3E2 (Aoki, Chen and Ester, table 1 and figure 4) on two simulated worlds, by the
mean absolute error of the effects (its equation 3), over seeds, with time and memory. Effects are on
the outcome's own scale: what one unit more of a treatment adds to the mean outcome.

Worlds, and how we fill their gaps:

* GWAS (Wang and Blei 2019; Aoki and Ester 2021): binary columns drawn from two ancestry coordinates;
  the last columns are treatments; a unit's hidden group moves the outcome. The papers take ancestry
  from the 1000 Genomes; ours is a mixture of three normal groups through a logistic function.
  Effects, groups and noise share the outcome's variance 0.4, 0.4 and 0.2.
* Copula (Zheng et al. 2021): four Gaussian treatments and a binary outcome moved by one confounder.
  M3E2 gives s covariates of which the first principal component is the confounder; of independent
  normals that is any direction, so ours is their scaled sum.

Methods: M3E2 and the deconfounder, one model for all treatments (a factor model of treatments and
covariates, then a linear outcome model, as M3E2 runs it); Dragonnet and CEVAE, a model a treatment with
the other treatments among its features, a continuous treatment split at its median and the contrast
divided by the difference in means; least squares on the treatments alone as a yardstick.

Run: ``python -m benchmarks.models.simultaneous [--full] [--json out.json] [--figure out.png]``
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import special, stats
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.machine import machine, wide_console
from models.catalog import build, catalog
from models.data import Batch, Shape
from models.nets.deconfounder import FactorModel
from models.nets.m3e2 import M3E2Config, M3E2Core
from models.training import InMemoryBatches, TrainConfig, fit, predict

# Table 1: world, then (rows, treatments, covariates) of each point; what varies; small ones first.
SETTINGS: dict[str, tuple[str, str, list[tuple[int, int, int]], list[tuple[int, int, int]]]] = {
    "a": ("gwas", "rows", [(1000, 5, 95), (4000, 5, 95)], [(n, 5, 995) for n in (2500, 5000, 10000)]),
    "b": ("gwas", "covariates", [(2000, 5, 50), (2000, 5, 200)],
          [(10000, 5, c) for c in (100, 500, 1000)]),
    "c": ("gwas", "treatments", [(2000, 3, 95), (2000, 9, 95)], [(10000, k, 1000) for k in (3, 6, 9)]),
    "d": ("copula", "rows", [(1000, 4, 10), (4000, 4, 10)],
          [(n, 4, 10) for n in (2500, 5000, 10000)]),
    "e": ("copula", "covariates", [(2000, 4, 5), (2000, 4, 100)],
          [(10000, 4, c) for c in (5, 100, 500, 1000)]),
}  # fmt: skip
LATENT = 5
COPULA_LOADING = np.array([2.0, 0.5, -0.4, 0.2])
COPULA_EFFECT = np.array([3.0, -1.0, 1.0, -0.06])
COPULA_SQUARE, COPULA_CONFOUNDING = -4.0, 2.8


@dataclass(frozen=True)
class World:
    """A simulated data set: covariates [N, F], treatments [N, L], outcome [N] and truth [L]."""

    x: np.ndarray
    t: np.ndarray
    y: np.ndarray
    tau: np.ndarray
    continuous: bool  # the treatments; the outcome is then binary

    @property
    def kind(self) -> str:
        """Kind of the outcome."""
        return "binary" if self.continuous else "continuous"


def gwas(rows: int, treatments: int, covariates: int, seed: int) -> World:
    """Binary genes under two ancestry coordinates; three hidden groups move the outcome."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, rows)
    centres = np.array([[-2.0, 0.0], [1.0, -2.0], [1.0, 2.0]])
    ancestry = special.expit(centres[group] + 0.5 * rng.normal(size=(rows, 2)))
    columns = covariates + treatments
    rate = ancestry @ rng.uniform(0, 0.2, (2, columns)) + 0.05
    genes = (rng.random((rows, columns)) < rate).astype(float)
    tau = 0.5 * rng.normal(size=treatments)
    effect = genes[:, covariates:] @ tau
    noise = (
        rng.normal(size=rows) * np.sqrt(stats.invgamma(3, scale=1).rvs(3, random_state=rng))[group]
    )
    y = effect + group * effect.std() / group.std()
    y = y + noise / noise.std() * effect.std() * np.sqrt(0.5)
    return World(genes[:, :covariates], genes[:, covariates:], y, tau, continuous=False)


def copula(rows: int, treatments: int, covariates: int, seed: int) -> World:
    """Gaussian treatments and a binary outcome with one common cause among the covariates."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, covariates))
    u = x.sum(1) / np.sqrt(covariates)
    t = u[:, None] * COPULA_LOADING + rng.normal(size=(rows, treatments))

    def latent(t: np.ndarray) -> np.ndarray:
        bent = t.copy()
        bent[:, 2] = np.where(bent[:, 2] > 0, bent[:, 2], 0.7 * bent[:, 2])
        return bent @ COPULA_EFFECT + COPULA_SQUARE * t[:, 0] ** 2 + COPULA_CONFOUNDING * u

    at = stats.norm.cdf(latent(t))
    more = [stats.norm.cdf(latent(t + step)) for step in np.eye(treatments)]
    tau = np.array([(each - at).mean() for each in more])
    y = (rng.random(rows) < at).astype(float)
    return World(x, t, y, tau, continuous=True)


WORLDS: dict[str, Callable[..., World]] = {"gwas": gwas, "copula": copula}


class Joint(nn.Module):
    """A model of all treatments: trained on batches whose ``x_num`` is [T, X]."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.treatments, self.binary = world.t.shape[1], world.kind == "binary"

    def split(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """T [B, L] and X [B, F]."""
        return batch.x_num[:, : self.treatments], batch.x_num[:, self.treatments :]

    def links(self, t: Tensor, x: Tensor, given: Tensor) -> Tensor:
        """Outcomes' links [B] under treatments t of units that were given others."""
        raise NotImplementedError

    def fit_of(self, links: Tensor, batch: Batch) -> Tensor:
        """Mean loss of the outcome, a scalar."""
        if self.binary:
            return functional.binary_cross_entropy_with_logits(links, batch.y[:, 0])
        return (links - batch.y[:, 0]).square().mean()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.loss(batch)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """``loss``, to minimise."""
        raise NotImplementedError

    @torch.no_grad()
    def effects(self, rows: Batch) -> np.ndarray:
        """What one unit more of each treatment adds to the mean outcome, [L]."""
        t, x = self.split(rows)
        found = []
        for step in torch.eye(self.treatments):
            pair = [self.links(each, x, t) for each in (t + step, t)]
            more, now = (each.sigmoid() for each in pair) if self.binary else pair
            found.append(float((more - now).mean()))
        return np.array(found)


class JointM3E2(Joint):
    """M3E2 as the paper has it: X2 = X, X1 = {}, constant tau."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        config = M3E2Config(heterogeneous=False, beta=1.0, gamma=1.0, weights="balanced")
        continuous = [world.continuous] * self.treatments
        self.core = M3E2Core(0, world.x.shape[1], continuous, 1, config)

    def links(self, t: Tensor, x: Tensor, given: Tensor) -> Tensor:
        h, _ = self.core.represent(x[:, :0], x)
        return self.core.predict(h, t)[:, 0]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        t, x = self.split(batch)
        h, rebuilt = self.core.represent(x[:, :0], x)
        outcome = self.fit_of(self.core.predict(h, t)[:, 0], batch)
        return self.core.total(outcome[None], self.core.terms(h, t, x, rebuilt, batch.weight))


class JointDeconfounder(Joint):
    """A factor model of [T, X], then a linear model of the outcome on T, X and the factors."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        columns = self.treatments + world.x.shape[1]
        family = "gaussian" if world.continuous else "bernoulli"
        self.factors = FactorModel(columns, LATENT, family=family)
        self.outcome = nn.Linear(columns + LATENT, 1)
        nn.init.zeros_(self.outcome.weight)

    def links(self, t: Tensor, x: Tensor, given: Tensor) -> Tensor:
        z = self.factors.posterior(torch.cat([given, x], dim=1)).detach()
        return self.outcome(torch.cat([t, x, z], dim=1))[:, 0]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        t, x = self.split(batch)
        bound = self.factors.bound(batch.x_num).mean() / batch.x_num.shape[1]
        return {"loss": self.fit_of(self.links(t, x, t), batch) - bound}


def train(net: nn.Module, rows: Batch, steps: int, seed: int) -> None:
    """Fit on four fifths of the rows, keep the epoch that is best on the rest."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    cut = len(rows) * 4 // 5
    inside, held = rows.select(order[:cut]), rows.select(order[cut:])
    batches = InMemoryBatches(inside, 128)
    epochs = -(-steps // max(1, cut // 128))  # effects are learned by steps, however few the rows
    config = TrainConfig(epochs=epochs, batch_size=128, learning_rate=1e-2, seed=seed, patience=10)
    fit(net, batches, lambda net: {"loss": float(net(held)["loss"])}, config)


def scaled(world: World) -> tuple[np.ndarray, float]:
    """The outcome as trained on [N, 1], and the scale that gives its unit back."""
    if world.kind == "binary":
        return world.y[:, None], 1.0
    scale = float(world.y.std())
    return (world.y[:, None] - world.y.mean()) / scale, scale


def joint(model: type[Joint], world: World, steps: int, seed: int) -> np.ndarray:
    """Effects [L] by one model of all treatments."""
    y, scale = scaled(world)
    nothing = np.zeros((len(y), 0))
    rows = Batch.of(np.hstack([world.t, world.x]), nothing, np.zeros(len(y)), y)
    torch.manual_seed(seed)
    net = model(world)
    train(net, rows, steps, seed)
    return net.eval().effects(rows) * scale


def separate(name: str, world: World, steps: int, seed: int) -> np.ndarray:
    """Effects [L] by a model of the catalogue for each treatment."""
    y, scale = scaled(world)
    nothing, found = np.zeros((len(y), 0)), []
    shape = Shape(world.x.shape[1] + world.t.shape[1] - 1, (), ((0,), (1,)), (world.kind,))
    # propensities are not logged here; CEVAE's own bound is for logs that were not randomized
    settings: dict[str, dict[str, object]] = {
        "dragonnet": {"propensity": "learned", "alpha": 1.0},
        "cevae": {"kl": 1.0},
    }
    for place, dose in enumerate(world.t.T):
        given = dose > np.median(dose) if world.continuous else dose > 0.5
        x = np.hstack([world.x, np.delete(world.t, place, axis=1)])
        net = build(name, shape, settings[name], seed=seed)
        net.start_from([float(y.mean())])  # type: ignore[operator]
        train(net, Batch.of(x, nothing, given.astype(int), y), steps, seed)
        outcomes = predict(net, x, nothing)[:, :, 0]
        distance = dose[given].mean() - dose[~given].mean()
        found.append((outcomes[:, 1] - outcomes[:, 0]).mean() / distance)
    return np.array(found) * scale


def least_squares(world: World, steps: int, seed: int) -> np.ndarray:
    """Effects [L] without a look at the covariates."""
    design = np.column_stack([np.ones(len(world.y)), world.t])
    return np.linalg.lstsq(design, world.y, rcond=None)[0][1:]


def methods() -> dict[str, Callable[[World, int, int], np.ndarray]]:
    """What is compared, by name; what the catalogue lacks is left out."""
    found: dict[str, Callable[[World, int, int], np.ndarray]] = {
        "M3E2": lambda *given: joint(JointM3E2, *given),
        "Deconfounder": lambda *given: joint(JointDeconfounder, *given),
    }
    for label, name in (("Dragonnet", "dragonnet"), ("CEVAE", "cevae")):
        if name in catalog():
            found[label] = lambda *given, name=name: separate(name, *given)
    return found | {"least squares on T": least_squares}


def measure(
    method: str, kind: str, size: tuple[int, int, int], steps: int, seed: int
) -> dict[str, float]:
    """One method on one data set: ``mae``, ``seconds`` and ``mib`` above what it started with."""
    torch.set_num_threads(1)
    world = WORLDS[kind](*size, seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    found = methods()[method](world, steps, seed)
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mae = float(np.abs(found - world.tau).mean())
    return {"mae": mae, "seconds": seconds, "mib": (after - before) / 1024}


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the paper's sizes, in hours")
    parser.add_argument("--seeds", type=int, default=None, help="data sets a point; 2, full: 8")
    parser.add_argument("--steps", type=int, default=None, help="of training; 800, full: 4000")
    parser.add_argument("--settings", default="abcde", help="which of the settings a-e")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    parser.add_argument("--figure", type=Path, default=None, help="where to draw (.png or .svg)")
    options = parser.parse_args()
    if unknown := sorted(set(options.settings) - set(SETTINGS)):
        parser.error(f"--settings: no setting {', '.join(unknown)}; give some of abcde")
    seeds = options.seeds or (8 if options.full else 2)
    steps = options.steps or (4000 if options.full else 800)
    console, results = wide_console(), []
    names = list(methods())
    if "Dragonnet" not in names:
        console.print("the catalogue has no 'dragonnet': left out")
    # a process of its own for each run: its peak memory is its own, too
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        for setting in options.settings:
            kind, _, small, full = SETTINGS[setting]
            for size in full if options.full else small:
                for name in names:
                    runs = [
                        pool.apply(measure, (name, kind, size, steps, seed))
                        for seed in range(seeds)
                    ]
                    results.append({"setting": setting, "size": size, "method": name, "runs": runs})
                    console.print(f"{setting} {size} {name}: {_span(runs)}", highlight=False)
    about = machine("torch", "numpy")
    report = {"machine": about, "seeds": seeds, "steps": steps, "results": results}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))
    show(results, console, about)
    if options.figure:
        draw(results, options.figure, console)


def interval(runs: list[dict[str, float]]) -> tuple[float, float]:
    """Mean error over seeds and half the width of its 95% interval."""
    errors = np.array([run["mae"] for run in runs])
    if len(errors) < 2:
        return float(errors.mean()), float("nan")
    spread = errors.std(ddof=1) / len(errors) ** 0.5
    return float(errors.mean()), float(stats.t.ppf(0.975, len(errors) - 1) * spread)


def _span(runs: list[dict[str, float]]) -> str:
    mean, half = interval(runs)
    return f"{mean:.3f} ± {half:.3f}"


def show(results: list[dict[str, Any]], console: Console, about: str) -> None:
    """The table: a row for each point and method."""
    table = Table(title="mean absolute error of the effects, 95% over seeds", caption=about)
    for column in ("", "rows, T, X", "method", "MAE", "s", "MiB"):
        table.add_column(column, no_wrap=True)
    for found in results:
        seconds, mib = (np.mean([run[key] for run in found["runs"]]) for key in ("seconds", "mib"))
        size = ", ".join(map(str, found["size"]))
        span = _span(found["runs"])
        table.add_row(found["setting"], size, found["method"], span, f"{seconds:.1f}", f"{mib:.0f}")
    console.print(table)


def draw(results: list[dict[str, Any]], path: Path, console: Console) -> None:
    """Figure 4: error against what varies, a panel a setting."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        console.print("matplotlib is not installed: no figure")
        return
    settings = sorted({found["setting"] for found in results})
    figure = Figure(figsize=(4 * len(settings), 3.5), layout="constrained")
    for axes, setting in zip(np.ravel(figure.subplots(1, len(settings))), settings):
        kind, varies, *_ = SETTINGS[setting]
        place = ("rows", "treatments", "covariates").index(varies)
        own = [found for found in results if found["setting"] == setting]
        for name in dict.fromkeys(found["method"] for found in own):
            points = [found for found in own if found["method"] == name]
            at = np.array([found["size"][place] for found in points])
            mean, half = np.array([interval(found["runs"]) for found in points]).T
            axes.plot(at, mean, marker="o", label=name)
            axes.fill_between(at, mean - half, mean + half, alpha=0.15)
        axes.set(title=f"{setting}: {kind}", xlabel=varies, ylabel="MAE")
    axes.legend(fontsize="small")
    figure.savefig(path)
    console.print(f"drew {path}")


if __name__ == "__main__":
    main()
