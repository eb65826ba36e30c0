"""One trial of a search, in a process of Tune's. Its own module, for that process to import little."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from ray import tune

from models.batches import InMemoryBatches
from models.catalog import entry
from models.data import Batch
from models.plan import Plan, figures
from models.selection import Validation
from models.training import fit


def run_trial(
    config: dict[str, Any],
    *,
    plan: Plan,
    rows: Batch,
    validation: Validation,
    workers: int,
    storage: str,
) -> None:
    """Train with a trial's settings and report every epoch to Tune.

    Args:
        config: The settings, ``{"net": {...}, "training": {...}}``.
        plan: What they change.
        rows, validation: The sample; several workers read theirs by themselves.
        workers: One trains here; several are a Ray Train run of their own. A learner is fit here,
            and reports once.
        storage: For that run.
    """
    plan = replace(
        plan,
        config=plan.config | config.get("net", {}),
        training=replace(plan.training, **config.get("training", {})),
    )
    if entry(plan.name).learner:
        from models.fitting import fit_here

        tune.report(fit_here(plan, rows, validation).figures)
        return
    if workers > 1:
        from ray.tune.integration.ray_train import TuneReportCallback

        from models.distributed import launch

        launch(plan, workers, storage, tune.get_context().get_trial_id(), [TuneReportCallback()])
        return
    torch.set_num_threads(plan.cpus)
    device = plan.training.device
    fit(
        plan.net(),
        InMemoryBatches(rows.to(device), plan.training.batch_size, plan.training.seed),
        replace(validation, rows=validation.rows.to(device)),
        plan.training,
        on_epoch=lambda epoch: tune.report(figures(epoch)),
    )
