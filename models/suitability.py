"""Can the campaign's net serve the campaign's shape? Said before any work is done."""

from __future__ import annotations

from campaigns.spec import Campaign
from models.catalog import check_supports
from models.data import Shape


def check_campaign(campaign: Campaign) -> None:
    """Refuse a campaign that its net can't serve.

    Raises:
        CampaignError: Why it can't, and the nets that can.
    """
    check_supports(campaign.model.name, _shape(campaign))


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
