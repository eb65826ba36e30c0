"""Search a net's settings, and how fast it learns, with Ray Tune: Optuna proposes, ASHA stops early.

Trials train on a sample for a few epochs and are compared by how well they expect the outcomes of
held-out rows (``score`` of ``models/selection.py``). The first trial is what the campaign would train without a
search, so the result is never worse than that by the search's own measure.

The caller has connected to Ray already; nothing here starts or stops it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search.optuna import OptunaSearch

from campaigns.errors import CampaignError
from campaigns.spec import Campaign
from campaigns.storage import absolute
from models.capacity import free_cpus, require
from models.catalog import entry
from models.dataset import Prepared, count_rows, load
from models.distributed import run_storage
from models.interrupt import interruptible
from models.journal import SCORE, Journal
from models.plan import make_plan, train_config
from models.progress import Say, quiet
from models.selection import Validation
from models.space import Config, OneOf, configure, knobs, searched
from models.split import SHARES, TRAIN
from models.training import TrainConfig
from models.trial import run_trial

ROWS = 24_000  # of the sample, in both folds together (about)
LEAST_BATCH = 256
LOSSES = 8  # how often a trial begins again; Tune may count the loss of one node more than once
DRIVER = 0.5  # logical CPUs of a trial that only waits for its workers


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        config: The net's settings to train with, what the campaign fixes included.
        training: Settings of :class:`TrainConfig`, likewise.
        score: The best trial's (``models/selection.py``); more is better.
        default_score: That of the first trial, which nothing was changed for.
        table: A row a trial, in the order they were proposed: trial, its settings (``net.width``,
            ...), score (of its best epoch), scores (of all), epochs, seconds, status (finished,
            stopped early, failed) and error.
    """

    config: dict[str, Any]
    training: dict[str, Any]
    score: float
    default_score: float
    table: pd.DataFrame


def search(
    source: str | Path,
    campaign: Campaign,
    *,
    trials: int | None = None,
    concurrent: int | None = None,
    workers: int = 1,
    cpus_per_trial: int = 1,
    gpu: bool = False,
    rows: int = ROWS,
    epochs: int = 3,
    seed: int = 0,
    storage: str | Path,
    run: str | None = None,
    say: Say = quiet,
) -> SearchResult:
    """Search the settings of the campaign's net that the campaign leaves open.

    Seeds are fixed, and with one trial at a time, or at most ten, so is what is tried; which trials
    stop early depends on which are ahead when several run at once.

    Args:
        source: Path or URI of a decision frame (Parquet).
        campaign: With ``'*'`` among its features expanded. Settings under ``model.config`` and
            ``model.training`` stay as they are.
        trials: How many; None: ``model.trials``.
        concurrent: How many at once; None: two, or one where CPUs for two aren't free.
        workers: Data-parallel workers of a trial; one trains in the trial's own process, as a
            learner always does.
        cpus_per_trial: Logical CPUs of a trial (of each worker, where there are several).
        gpu: One GPU a trial (a worker).
        rows: About how many rows to sample.
        epochs: At most, of a trial; a learner's has one.
        seed: Of the sample, the proposals, the weights and the batches.
        storage: Folder or URI for what Ray writes.
        run: The search's folder there.
        say: Told of every trial that ends, in a sentence.

    Raises:
        CampaignError: An unknown setting, a net that can't serve the campaign, or nothing to search.
        DataError: The frame is wrong.
        EnvironmentProblem: The trials at once need more CPUs or GPUs than are free.
        UpdraftError: Every trial failed: why the first one did.
    """
    fixed = {"net": dict(campaign.model.config), "training": dict(campaign.model.training)}
    chosen = entry(campaign.model.name)
    if chosen.learner:  # fit once, in one process
        workers, epochs, gpu = 1, 1, False
    space = search_space(chosen.config, fixed, training=not chosen.learner)
    own = cpus_per_trial if workers == 1 else DRIVER
    each = own if workers == 1 else own + workers * cpus_per_trial
    trials = trials or campaign.model.trials
    concurrent = min(concurrent or (2 if free_cpus() >= 2 * each else 1), trials)
    require(
        concurrent * each,
        f"{concurrent} trial(s) at once, {each:g} CPU(s) each",
        gpus=concurrent * workers if gpu else 0,
    )
    ours = {"epochs": epochs, "patience": epochs, "metric": "score", "mode": "max", "seed": seed}
    settings = train_config(
        campaign.model.name, fixed["training"], **ours, device="cuda" if gpu else "cpu"
    )
    plan = make_plan(source, campaign, fixed["net"], settings, cpus_per_trial, streamed=False)
    if chosen.learner:
        plan.learner()
    else:
        plan.net()  # a net that can't serve the campaign is refused here
    sample = load(plan.source, plan.recipe, rows=rows, seed=seed)
    steps: dict[str, Any] = _steps(plan.training, source, sample)
    one = {name: 1 for name in ("members", "bags") if name in plan.config}  # suits them all
    trainable = tune.with_parameters(
        run_trial,
        plan=replace(
            plan, config=plan.config | one, training=replace(settings, **steps), rows=rows
        ),
        rows=sample.train,
        validation=Validation.of(sample),
        workers=workers,
        storage=absolute(storage),
    )
    journal = Journal(trials, epochs, _aloud(say))
    with _silence(), interruptible():
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": own, "gpu": int(gpu and workers == 1)}),
            tune_config=_strategy(space, trials, concurrent, epochs, seed, alone=workers == 1),
            run_config=tune.RunConfig(
                name=run or f"{campaign.name}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}",
                **run_storage(storage),
                failure_config=tune.FailureConfig(max_failures=LOSSES),
                verbose=0,
                callbacks=[journal],
            ),
        ).fit()
    best, first = journal.best(), journal.records[0]
    found = {part: fixed[part] | best.config.get(part, {}) for part in fixed}
    return SearchResult(found["net"], found["training"], best.score, first.score, journal.table())


@dataclass(frozen=True)
class Space:
    """Where to search and where to begin, by setting: ``net/width``, ``training/learning_rate``."""

    where: dict[str, BaseDistribution]
    start: dict[str, Any]


def search_space(
    net: type[Config], fixed: Mapping[str, Mapping[str, Any]], *, training: bool = True
) -> Space:
    """What a net's config and :class:`TrainConfig` leave open beside what is fixed.

    Args:
        net: The config of a net or a learner.
        fixed: What the campaign fixes, ``{"net": {...}, "training": {...}}``.
        training: False for a learner, which :class:`TrainConfig` says nothing to.

    Raises:
        CampaignError: Nothing; or an unknown setting is fixed.
    """
    space = Space({}, {})
    parts: list[tuple[str, type[Config]]] = [("net", net), ("training", TrainConfig)]
    for part, config in parts if training else parts[:1]:
        default = configure(config, fixed[part], f"model.{part}")
        for name in searched(config):
            if name not in fixed[part]:
                space.start[f"{part}/{name}"] = getattr(default, name)
                space.where[f"{part}/{name}"] = _distribution(config, name, getattr(default, name))
    if not space.where:
        raise CampaignError(
            "model.search: the campaign fixes every setting that could be searched; "
            "say 'search: false', or leave some out of model.config and model.training"
        )
    return space


def _strategy(
    space: Space, trials: int, concurrent: int, epochs: int, seed: int, *, alone: bool
) -> tune.TuneConfig:
    """What is proposed and what is stopped early, for trials that train in a process of their own.

    Processes that train ``alone`` stay for the next trial (seconds each). A trial with workers
    runs to its end, for to stop it is to kill it, and its workers' reservation would stay.
    """
    best = {"metric": SCORE, "mode": "max"}
    early = ASHAScheduler(max_t=epochs, grace_period=1, reduction_factor=2)
    return tune.TuneConfig(
        **best,
        num_samples=trials,
        max_concurrent_trials=concurrent,
        search_alg=OptunaSearch(space.where, points_to_evaluate=[space.start], seed=seed, **best),
        scheduler=early if alone else FIFOScheduler(),
        reuse_actors=alone,
    )


def _distribution(config: type[Config], name: str, default: Any) -> BaseDistribution:
    """The setting's search space, widened where its default lies outside."""
    where = searched(config)[name]
    if isinstance(where, OneOf):
        return CategoricalDistribution(tuple(dict.fromkeys([*where.options, default])))
    low, high = min(where.low, default), max(where.high, default)
    if knobs(config)[name].kind == "integer":
        return IntDistribution(int(low), int(high), log=where.log)
    return FloatDistribution(low, high, log=where.log)


def _steps(settings: TrainConfig, source: str | Path, sample: Prepared) -> dict[str, int]:
    """A batch and a warm-up for the sample: as many steps an epoch as on the whole frame."""
    share = len(sample.train) / max(count_rows(source) * SHARES[TRAIN], 1.0)
    batch = max(round(settings.batch_size * min(share, 1.0)), LEAST_BATCH)
    batch = min(batch, settings.batch_size)
    steps = settings.epochs * -(-len(sample.train) // batch)
    return {"batch_size": batch, "warmup_steps": min(settings.warmup_steps, steps // 10)}


@contextmanager
def _silence() -> Iterator[None]:
    """Keep Tune and Optuna off the console; what there is to say goes through ``say``."""
    logger, level = logging.getLogger("ray.tune"), logging.getLogger("ray.tune").level
    verbosity = optuna.logging.get_verbosity()
    logger.setLevel(logging.CRITICAL)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with redirect_stdout(StringIO()):  # Tune prints a table even when told to be silent
            yield
    finally:
        logger.setLevel(level)
        optuna.logging.set_verbosity(verbosity)


def _aloud(say: Say) -> Say:
    """The same, to where it would speak now, whatever is silenced later."""
    console = sys.stdout

    def speak(sentence: str) -> None:
        with redirect_stdout(console):
            say(sentence)

    return speak
