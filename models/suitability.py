"""Can the campaign's net serve the campaign's shape? Said before any work is done."""

from __future__ import annotations

from campaigns.errors import CampaignError
from campaigns.spec import Campaign, ModelChoice
from models.catalog import check_supports, entry
from models.data import Shape
from models.learners.base import Learner
from models.nets.base import NetConfig
from models.space import configure


def check_campaign(campaign: Campaign) -> None:
    """Refuse a campaign that its net can't serve.

    Raises:
        CampaignError: Why it can't, and the nets that can.
    """
    check_supports(campaign.model.name, _shape(campaign))
    if campaign.exploration.asks_members and not _has_members(campaign.model):
        raise CampaignError(
            f"exploration.strategy: {campaign.exploration.strategy!r} asks the members of an ensemble, "
            f"and model {campaign.model.name!r} would have none; give model.config members of at least "
            "2, or choose 'epsilon_greedy' or 'schedule'"
        )


def _has_members(model: ModelChoice) -> bool:
    """Whether the model will answer as several members, or draws of a posterior."""
    chosen = entry(model.name)
    if chosen.answers != "outcomes":
        return False
    if chosen.learner:
        own = getattr(chosen.net, "member_outcomes", None)
        return own is not None and own is not getattr(Learner, "member_outcomes", None)
    settings = configure(chosen.config, model.config, f"model '{model.name}'")
    return isinstance(settings, NetConfig) and max(settings.members, settings.trees) > 1


def _shape(campaign: Campaign) -> Shape:
    """The campaign's shape before anything is known of its data."""
    features, outcomes = campaign.features, campaign.outcomes
    return Shape(
        numeric=len(features.numeric),
        categories=tuple(2 for _ in features.categorical),
        levels=tuple(map(tuple, campaign.arm_table.levels.tolist())),
        outcomes=tuple(outcome.kind for outcome in outcomes.values()),
        sequence=tuple(list(outcomes).index(name) for name in campaign.sequence),
        doses=campaign.arm_table.doses,
    )
