"""What the steps have Ray do: the same functions in the local Ray and in a RayJob.

Each takes the step's parameters, ``training_frame`` as a path or URI that every node reads, other
artifacts as local paths, and the folder or URI for what Ray itself writes; it returns metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaigns.spec import Campaign
from components.step import Step

Json = dict[str, Any]


def search(
    step: Step,
    storage: str,
    *,
    campaign: str,
    training_frame: str,
    hyperparameters: str,
    trials: str,
    seed: int,
) -> Json:
    """Search the net's configuration; write the best, and every trial."""
    from models.search import search

    spec = Campaign.model_validate_json(campaign)
    result = search(training_frame, spec, seed=seed, storage=storage, say=step.say)
    chosen = {"config": result.config, "training": result.training}
    Path(hyperparameters).write_text(json.dumps(chosen))
    result.table.to_parquet(trials, index=False)
    return {}


def train(
    step: Step,
    storage: str,
    *,
    campaign: str,
    training_frame: str,
    hyperparameters: str,
    model: str,
    workers: int,
    gpu: bool,
    seed: int,
    run: str | None = None,
) -> Json:
    """Train the campaign's net in that configuration, and save it."""
    from models.distributed import train

    spec = Campaign.model_validate_json(campaign)
    chosen = json.loads(Path(hyperparameters).read_text())
    trained = train(
        training_frame,
        spec,
        config=chosen["config"],
        training={**chosen["training"], "seed": seed},
        workers=workers,
        gpu=gpu,
        storage=storage,
        run=run,
        say=step.say,
    )
    trained.model.save(Path(model))
    return {"net": trained.model.name, "epochs": len(trained.history)}


TASKS: dict[str, Callable[..., Json]] = {"search": search, "train": train}
