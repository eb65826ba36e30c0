"""A campaign that its model can't serve is refused before any work is done."""

from __future__ import annotations

from pathlib import Path

import pytest

import campaigns
from campaigns.errors import CampaignError
from campaigns.loading import load_campaign
from models.suitability import check_campaign

DISCOUNT = load_campaign(Path(campaigns.__file__).with_name("discount.yaml"))
BONUS = load_campaign(Path(campaigns.__file__).with_name("game_bonus.yaml"))


def test_a_dose_is_refused_by_name_of_those_that_take_one() -> None:
    check_campaign(DISCOUNT)
    other = DISCOUNT.model.model_copy(update={"name": "mtmt"})
    with pytest.raises(CampaignError) as caught:
        check_campaign(DISCOUNT.model_copy(update={"model": other}))
    assert str(caught.value) == (
        "model 'mtmt' can't serve this campaign: the campaign has a dose and it takes levels only; "
        "give 'dose_response', 'm3e2' or 's_learner'"
    )


def test_a_model_of_doses_is_refused_where_there_is_none() -> None:
    check_campaign(BONUS)
    other = BONUS.model.model_copy(update={"name": "dose_response"})
    with pytest.raises(CampaignError, match=r"it needs a dose; give .*'mtmt'"):
        check_campaign(BONUS.model_copy(update={"model": other}))


@pytest.mark.parametrize("strategy", ["directed", "thompson"])
def test_exploration_by_members_needs_a_model_that_has_some(strategy: str) -> None:
    rules = BONUS.exploration.model_copy(update={"strategy": strategy, "epsilon": 0.2})
    asks = BONUS.model_copy(update={"exploration": rules})
    for name in ("s_learner", "t_boost", "direct_ranking"):
        alone = BONUS.model.model_copy(update={"name": name})
        with pytest.raises(CampaignError, match="would have none; give model.config members"):
            check_campaign(asks.model_copy(update={"model": alone}))
    several = BONUS.model.model_copy(update={"name": "s_learner", "config": {"members": 3}})
    check_campaign(asks.model_copy(update={"model": several}))
