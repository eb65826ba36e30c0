"""What a training is told: read by Ray Train's workers and by the trials of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from campaigns.spec import Campaign
from campaigns.storage import absolute
from models.catalog import build, build_learner, entry
from models.dataset import Recipe, count_rows, fit_recipe, fits_in_memory
from models.learners.base import Learner
from models.nets.base import Net
from models.space import configure
from models.split import SHARES, TRAIN
from models.training import EpochReport, TrainConfig, sized


@dataclass(frozen=True)
class Plan:
    """All that a worker needs to know, some kilobytes: it reads the frame by itself.

    Attributes:
        source: Path or URI of the frame.
        recipe: How its rows become tensors.
        name, config: The net or learner.
        training: How to train.
        cpus: Logical CPUs that a worker reserves, and threads that it computes on.
        streamed: Whether the training rows stream through Ray Data.
        rows: About how many rows to take of the frame; None for all.
    """

    source: str
    recipe: Recipe
    name: str
    config: dict[str, Any]
    training: TrainConfig
    cpus: int = 1
    streamed: bool = False
    rows: int | None = None

    def net(self) -> nn.Module:
        """The net as it starts; from the seed, so that every worker has the same.

        Raises:
            CampaignError: It can't serve the campaign.
        """
        net = build(self.name, self.recipe.shape, self.config, seed=self.training.seed)
        if isinstance(net, Net):
            net.start_from(self.recipe.scaler.start)
        return net

    def learner(self) -> Learner:
        """The learner before it is fit.

        Raises:
            CampaignError: It can't serve the campaign.
            EnvironmentProblem: A library that it needs is missing.
        """
        learner = build_learner(self.name, self.recipe.shape, self.config)
        learner.check_installed()
        return learner


def make_plan(
    source: str | Path,
    campaign: Campaign,
    config: Mapping[str, Any],
    training: TrainConfig,
    cpus: int = 1,
    streamed: bool | None = None,
) -> Plan:
    """Fit the encoder and settle what is left open (see :func:`models.distributed.train`)."""
    name = campaign.model.name
    full = asdict(configure(entry(name).config, config, f"model '{name}'"))
    place = absolute(source)
    recipe = fit_recipe(place, campaign, seed=training.seed)
    recipe = replace(recipe, randomized=bool(getattr(entry(name).net, "randomized", False)))
    streamed = not fits_in_memory(place, recipe) if streamed is None else streamed
    training = sized(training, count_rows(place) * SHARES[TRAIN], recipe.shape.features)
    return Plan(place, recipe, name, full, training, cpus, streamed)


def train_config(name: str, training: Mapping[str, Any], **ours: Any) -> TrainConfig:
    """What a user wrote about training, checked.

    Args:
        name: The net's, for defaults of its own.
        training: Settings of :class:`TrainConfig` by name.
        ours: Settings that aren't the user's to choose.

    Raises:
        CampaignError: An unknown setting or a bad value.
    """
    return configure(TrainConfig, {**entry(name).training, **training, **ours}, "training")


def figures(epoch: EpochReport) -> dict[str, Any]:
    """What is reported of an epoch, in numbers alone."""
    return {
        "epoch": epoch.epoch,
        "best_epoch": epoch.best_epoch,
        "train": epoch.train,
        "validation": epoch.validation,
    }
