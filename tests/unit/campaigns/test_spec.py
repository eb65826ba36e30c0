"""The campaign file: what it accepts, and what it says of a mistake."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from campaigns.errors import CampaignError
from campaigns.loading import load_campaign, parse_campaign
from campaigns.objective import budget_per_unit, realised, value_and_cost
from campaigns.spec import Campaign

GOOD: dict[str, Any] = {
    "name": "bonus",
    "unit": "player_id",
    "source": {"kind": "csv", "path": "log.csv"},
    "timestamp": "at",
    "features": {"numeric": ["games"], "categorical": ["device"]},
    "treatments": {
        "bonus": {
            "column": "bonus",
            "control": "none",
            "levels": {"coins": {"cost": 0.3}, "none": {}, "skin": {"cost": 0.55}},
        }
    },
    "outcomes": {
        "login": {"kind": "binary", "value": 1.0},
        "plays": {"kind": "binary", "value": 2.0},
    },
    "budget": {"per": "day", "amount": 100.0},
}


def campaign(**changes: Any) -> Campaign:
    return parse_campaign(yaml.safe_dump({**GOOD, **changes}))


def refusal(**changes: Any) -> str:
    with pytest.raises(CampaignError) as caught:
        campaign(**changes)
    return str(caught.value)


def test_control_is_arm_zero_whatever_the_order_of_the_levels() -> None:
    arms = campaign().arm_table
    assert arms.names == ("none", "coins", "skin")
    assert arms.costs.tolist() == [0.0, 0.3, 0.55]
    assert arms.levels.tolist() == [[0], [1], [2]]


DOSE = {"column": "discount", "dose": {"min": 0, "max": 30, "steps": 4, "cost": 0.1}}


def test_a_dose_is_decided_on_over_an_even_grid() -> None:
    arms = campaign(treatments={"discount": {**DOSE, "control": 0}}).arm_table
    assert arms.names == ("0", "10", "20", "30")
    assert arms.costs == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert arms.levels.tolist() == [[0], [1], [2], [3]]
    assert arms.doses == (pytest.approx((0, 1 / 3, 2 / 3, 1)),)
    assert campaign().arm_table.doses == ((),)


def test_doses_cost_what_they_are_above_control_and_are_named_as_people_write_them() -> None:
    heat = {"column": "heat", "dose": {"min": -0.1, "max": 0.5, "steps": 7, "cost": 2}}
    arms = campaign(treatments={"heat": heat}).arm_table
    assert arms.names == ("-0.1", "0", "0.1", "0.2", "0.3", "0.4", "0.5")
    assert arms.costs == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2])


def test_a_dose_beside_levels_and_arms_of_doses_by_number() -> None:
    both = {**GOOD["treatments"], "discount": DOSE}
    arms = campaign(treatments=both, arms=[{"discount": 10}, {"bonus": "skin", "discount": 30.0}])
    table = arms.arm_table
    assert table.names == ("control", "10", "skin+30")
    assert table.levels.tolist() == [[0, 0], [0, 1], [2, 3]]
    assert table.doses == ((), pytest.approx((0, 1 / 3, 2 / 3, 1)))
    assert table.costs == pytest.approx([0.0, 1.0, 3.55])
    some = campaign(treatments={"discount": DOSE}, arms=[20])
    assert some.arm_table.names == ("0", "20")


def test_several_factors_give_their_combinations_and_costs_add() -> None:
    two = {
        **GOOD["treatments"],
        "mail": {"column": "mail", "control": "no", "levels": {"no": {}, "yes": {"cost": 0.1}}},
    }
    arms = campaign(treatments=two).arm_table
    assert len(arms) == 6
    assert arms.names[0] == "control"
    assert arms.costs[arms.index(("skin", "yes"))] == pytest.approx(0.65)
    some = campaign(treatments=two, arms=[{"bonus": "coins"}, {"bonus": "skin", "mail": "yes"}])
    assert some.arm_table.names == ("control", "coins", "skin+yes")


def test_yaml_words_stay_words() -> None:
    """A level called ``no`` or ``off`` is no boolean."""
    text = yaml.safe_dump(GOOD).replace("none", "off")
    assert parse_campaign(text).arm_table.names[0] == "off"


def test_hash_follows_what_is_decided_not_where_the_data_lies() -> None:
    assert campaign().hash == campaign(source={"kind": "parquet", "path": "/elsewhere"}).hash
    assert campaign().hash != campaign(budget={"per": "day", "amount": 101.0}).hash


def test_it_survives_json() -> None:
    assert Campaign.model_validate_json(campaign().model_dump_json()) == campaign()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"propensty": "p"}, "propensty: unknown key; did you mean 'propensity'?"),
        ({"name": "My Campaign"}, "name: 'My Campaign' is no name"),
        (
            {"budget": {"per": "dy", "amount": 1}},
            "budget.per: 'dy' is not allowed; choose from 'hour'",
        ),
        ({"budget": {"per": "day", "amount": -1}}, "budget.amount: "),
        ({"budget": {"per": "day", "amount": float("inf")}}, "budget.amount: "),
        ({"source": {"kind": "excel", "path": "x"}}, "source.kind: 'excel' is not allowed"),
        ({"source": {"kind": "csv", "path": "x", "sheet": 1}}, "source.sheet: unknown key"),
        ({"outcomes": {"login": {"kind": "binary"}}}, "none has a value"),
        (
            {"sequence": ["visit"]},
            "sequence: 'visit' is no outcome; choose from 'login' or 'plays'",
        ),
        ({"features": {"numeric": []}}, "names no feature"),
        (
            {"features": {"numeric": ["login"]}},
            "column 'login' is claimed by features and outcomes.login",
        ),
        ({"features": {"numeric": ["arm"]}}, "'arm' is a name that Updraft keeps for itself"),
        (
            {"arms": ["gold"]},
            "'gold' is no level of 'bonus'; choose from 'none', 'coins' or 'skin'",
        ),
        ({"arms": ["none"]}, "allows control only"),
        ({"exploration": {"epsilon": 1.5}}, "exploration.epsilon: "),
        (
            {
                "treatments": {
                    "bonus": {"column": "b", "control": "no", "levels": {"a": {}, "b": {}}}
                }
            },
            "control is 'no'; it must be one of the levels: 'a' or 'b'",
        ),
        (
            {
                "treatments": {
                    "bonus": {"column": "b", "control": "a", "levels": {"a": {"cost": 1}, "b": {}}}
                }
            },
            "control costs 0",
        ),
        (
            {"treatments": {"discount": {**DOSE, "dose": {"min": 5, "max": 5}}}},
            "treatments.discount.dose: max (5) must be above min (5)",
        ),
        (
            {"treatments": {"discount": {**DOSE, "dose": {"min": 0, "max": 5, "steps": 1}}}},
            "treatments.discount.dose.steps: input should be greater than or equal to 2 (seen: 1)",
        ),
        (
            {"treatments": {"discount": {**DOSE, "dose": {"min": 0, "max": float("inf")}}}},
            "treatments.discount.dose.max: input should be a finite number",
        ),
        (
            {"treatments": {"discount": {**DOSE, "control": 10}}},
            "control is '10'; a dose's control is its min: 0",
        ),
        (
            {"treatments": {"discount": {**DOSE, "levels": ["a", "b"], "control": "a"}}},
            "needs either 'levels' (with their costs) or 'dose' (min, max)",
        ),
        (
            {"treatments": {"discount": DOSE}, "arms": [15]},
            "'15' is no level of 'discount'; choose from '0', '10', '20' or '30'",
        ),
    ],
)
def test_each_mistake_gets_its_sentence(changes: dict[str, Any], told: str) -> None:
    assert told in refusal(**changes)


def test_all_mistakes_are_told_at_once_with_the_file(tmp_path: Any) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(
        yaml.safe_dump({**GOOD, "propensty": "p", "budget": {"per": "dy", "amount": 1}})
    )
    with pytest.raises(CampaignError) as caught:
        load_campaign(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all(line.startswith(str(path)) for line in lines)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("- a\n- b\n", "is a list"),
        ("name: [", "is not valid YAML"),
        ("name: a\nname: b\n", "line 2: is not valid YAML: key 'name' is given twice"),
    ],
)
def test_text_that_is_no_campaign(text: str, told: str) -> None:
    with pytest.raises(CampaignError, match=told):
        parse_campaign(text)


def test_missing_file_is_named() -> None:
    with pytest.raises(CampaignError, match="nowhere.yaml: can't be read"):
        load_campaign("nowhere.yaml")


def test_budget_per_unit_counts_the_periods_that_had_decisions() -> None:
    days = pd.to_datetime(
        ["2026-01-01T08:00Z", "2026-01-01T09:00Z", "2026-01-02T08:00Z", "2026-11-01T00:00Z"]
    )
    assert budget_per_unit(campaign(), pd.Series(days)) == pytest.approx(100 * 3 / 4)
    fixed = campaign(budget={"per": "unit", "amount": 0.2})
    assert budget_per_unit(fixed, pd.Series(days)) == 0.2
    once = campaign(budget={"per": "total", "amount": 8})
    assert budget_per_unit(once, pd.Series(days)) == 2.0


def test_value_and_cost_are_over_control() -> None:
    predicted = np.array([[[0.2, 0.1], [0.3, 0.2], [0.1, 0.1]]])
    value, cost = value_and_cost(predicted, campaign())
    assert value[0] == pytest.approx([0.0, 0.3, -0.1])
    assert cost[0].tolist() == [0.0, 0.3, 0.55]


def test_an_observed_cost_replaces_the_unit_cost() -> None:
    outcomes = {**GOOD["outcomes"], "spend": {"kind": "continuous", "role": "cost"}}
    spec = campaign(outcomes=outcomes)
    predicted = np.array([[[0.0, 0.0, 0.1], [1.0, 0.0, 0.4], [0.0, 0.0, 0.05]]])
    _, cost = value_and_cost(predicted, spec)
    assert cost[0] == pytest.approx([0.0, 0.3, 0.0])
    worth, spent = realised(np.array([[1.0, 1.0, 0.7]]), np.array([1]), spec)
    assert (worth[0], spent[0]) == (3.0, 0.7)
