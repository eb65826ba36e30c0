"""Limits in the campaign file: what is read, and a sentence for every mistake."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from campaigns.errors import CampaignError
from campaigns.frame import expand_features
from campaigns.limits import Between, Eligibility, StockLimit
from campaigns.loading import load_campaign, parse_campaign, parse_limits

FILE = Path(__file__).resolve().parents[3] / "campaigns" / "game_bonus.yaml"


def with_limits(*limits: str) -> str:
    return FILE.read_text() + "limits:\n" + "".join(f"  - {limit}\n" for limit in limits)


def test_a_campaign_states_limits_and_a_file_of_them_reads_the_same() -> None:
    written = (
        "{kind: eligibility, arms: skin, where: {games_7d: {at_least: 3}, region: asia}}",
        "{kind: stock, level: {bonus: skin}, at_most: 500, per: total}",
        "{kind: budget, name: rest, amount: 20, factor: bonus, where: {region: [asia, latam]}}",
        "{kind: share, at_least: 0.1, arms: [coins]}",
        "{kind: guardrail, outcome: plays_more_7d, at_most: 10}",
    )
    campaign = parse_campaign(with_limits(*written))
    assert campaign.limits == parse_limits("limits:\n- " + "\n- ".join(written), "file")
    first, second = campaign.limits[:2]
    assert isinstance(first, Eligibility)
    assert first.arms == ["skin"]
    assert first.where == {"games_7d": Between(at_least=3), "region": ["asia"]}
    assert isinstance(second, StockLimit)
    assert second.title == "stock of bonus skin"
    assert load_campaign(FILE).limits == []
    assert campaign.hash != load_campaign(FILE).hash
    assert type(campaign).model_validate_json(campaign.model_dump_json()) == campaign


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("{kind: stock, arm: gold, at_most: 1}", "0.arm: 'gold' is no treated arm; choose from"),
        ("{kind: stock, arm: none, at_most: 1}", "0.arm: 'none' is no treated arm"),
        ("{kind: stock, arm: coins, at_most: -1}", "0.at_most: input should be greater than or"),
        ("{kind: stock, at_most: 1}", "0: names neither arm nor level; give one of them"),
        ("{kind: stock, arm: skin, level: {bonus: skin}, at_most: 1}", "0: names both arm and"),
        ("{kind: stock, level: {bonus: gold}, at_most: 1}", "level.bonus: 'gold' is no treated"),
        ("{kind: stock, level: {boni: skin}, at_most: 1}", "0.level: 'boni' is no factor"),
        ("{kind: stock, arm: skin, at_most: 1, per: year}", "0.per: 'year' is not allowed"),
        ("{kind: stock, arm: skin, most: 1, at_most: 1}", "0.most: unknown key; did you mean"),
        ("{kind: stack, arm: skin}", "0.kind: 'stack' is not allowed; choose from 'eligibility'"),
        ("{arm: skin, at_most: 1}", "0.kind: is missing; choose from 'eligibility', 'stock'"),
        ("{kind: budget, name: a, amount: 1, factor: x}", "0.factor: 'x' is no factor"),
        ("{kind: budget, name: budget, amount: 1}", "'budget' comes twice"),
        ("{kind: budget, name: a, amount: 1, where: {land: x}}", "where: 'land' is no feature"),
        ("{kind: eligibility, arms: [skin]}", "0.where: is missing"),
        ("{kind: eligibility, arms: [skin], where: {region: {below: 3}}}", "'region' holds words"),
        ("{kind: eligibility, arms: [skin], where: {friends: {}}}", "give at_least, below, or"),
        ("{kind: eligibility, arms: [skin], where: {friends: {at_lest: 1}}}", "at_lest: unknown"),
        ("{kind: share, at_least: 2}", "0.at_least: input should be less than or equal to 1"),
        ("{kind: share, at_least: 1.0}", "0.at_least: 1 can't be: a holdout of 0.01 leaves"),
        ("{kind: guardrail, outcome: x, at_most: 1}", "0.outcome: 'x' is no outcome"),
    ],
)
def test_a_mistake_is_one_sentence(limit: str, words: str) -> None:
    with pytest.raises(CampaignError) as caught:
        parse_campaign(with_limits(limit), where="mine.yaml")
    (line,) = str(caught.value).splitlines()
    assert line.startswith("mine.yaml: limits")
    assert words in line


def test_shares_of_the_same_units_cannot_add_up_to_more_than_everybody() -> None:
    one = "{kind: share, at_least: 0.6, where: {region: asia}, arms: [coins]}"
    with pytest.raises(CampaignError, match=r"add up to 1\.2; a unit gets one arm"):
        parse_campaign(with_limits(one, one.replace("coins", "skin")))
    other = one.replace("coins", "skin").replace("asia", "latam")
    assert len(parse_campaign(with_limits(one, other)).limits) == 2


def test_columns_are_looked_for_once_the_features_are_spelled_out() -> None:
    data = FILE.read_text()
    start, end = data.index("  numeric:"), data.index("treatments:")
    anything = data[:start] + "  numeric: ['*']\n" + data[end:]
    campaign = parse_campaign(
        anything + "limits: [{kind: eligibility, arms: [skin], where: {land: x}}]\n"
    )
    with pytest.raises(CampaignError, match="'land' is no feature; choose from 'games'"):
        expand_features(campaign, pd.DataFrame({"games": [1.0]}))
