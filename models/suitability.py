"""Can the campaign's net serve the campaign's shape? Said before any work is done."""

from __future__ import annotations

from campaigns.errors import CampaignError, choices
from campaigns.spec import Campaign
from models.catalog import catalog, check_supports, entry
from models.data import Shape


def check_campaign(campaign: Campaign) -> None:
    """Refuse a campaign that its net can't serve.

    Raises:
        CampaignError: Why it can't, and the nets that can.
    """
    name = campaign.model.name
    dosed = [factor for factor, spec in campaign.treatments.items() if spec.dose]
    if dosed and not entry(name).supports.dose:
        able = [other for other, each in catalog().items() if each.supports.dose]
        raise CampaignError(
            f"model '{name}' can't serve a dose (treatments.{dosed[0]}); "
            + (f"give {choices(able)}" if able else "no model can: use levels instead")
        )
    check_supports(name, _shape(campaign))


def _shape(campaign: Campaign) -> Shape:
    """The campaign's shape before anything is known of its data."""
    features, outcomes = campaign.features, campaign.outcomes
    return Shape(
        numeric=len(features.numeric),
        categories=tuple(2 for _ in features.categorical),
        levels=tuple(map(tuple, campaign.arm_table.levels.tolist())),
        outcomes=tuple(outcome.kind for outcome in outcomes.values()),
        sequence=tuple(list(outcomes).index(name) for name in campaign.sequence),
    )
