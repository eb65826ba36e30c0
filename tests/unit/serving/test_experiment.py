"""An experiment's decisions: everybody's variant, within one budget a unit, with true propensities; and their log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from campaigns.errors import CampaignError, DataError
from campaigns.experiment import parse_experiment
from campaigns.loading import load_campaign
from campaigns.objective import value_and_cost
from campaigns.spec import Campaign
from campaigns.worlds import world
from serving.events import EventStore
from serving.experiment import Prepared, Ready, deal, prepare
from serving.experiment_log import joined, unit_log
from serving.experiment_record import record
from serving.policy.allocation import allocate
from serving.policy.exploration import held_out
from serving.records import OutcomeRecord

WORLD = world("game_bonus")
GAME = load_campaign(Path(__file__).parents[3] / "campaigns" / "game_bonus.yaml")
NOW = datetime(2026, 12, 2, 8, tzinfo=UTC)
UNITS, BUDGET = 4000, 320.0
UNIT_TABLE = WORLD.units(UNITS, seed=3)
EXPERIMENT = parse_experiment(
    """\
name: policies
start: 2026-12-01
variants:
  random: {share: 0.4, policy: random}
  nobody: {share: 0.2, policy: nobody}
  skins: {share: 0.2, policy: arm, arm: skin}
  knowing: {share: 0.2, policy: model, model: 7}
""",
    GAME,
    "it",
)


class Knowing:
    """A model that answers the truth."""

    campaign, price = GAME, 1.0

    def predict(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        columns_of = [WORLD.outcomes.index(name) for name in GAME.outcomes]
        return WORLD.truth(pd.DataFrame(columns))[:, :, columns_of]


READY = {
    "random": Ready(),
    "nobody": Ready(),
    "skins": Ready(arm=2),
    "knowing": Ready(Knowing(), "7"),
}


def prepared(units: pd.DataFrame = UNIT_TABLE, **changes: object) -> Prepared:
    campaign = changes.get("campaign", GAME)
    return prepare(EXPERIMENT, campaign, units, READY, GAME.arm_table.costs)


@pytest.fixture(scope="module")
def made() -> pd.DataFrame:
    return deal(prepared(), BUDGET, NOW)


def test_everybody_but_the_held_out_has_a_variant(made: pd.DataFrame) -> None:
    rules = GAME.exploration
    held = held_out(UNIT_TABLE["player_id"], salt=rules.salt, holdout=rules.holdout)
    assert list(made["unit_id"]) == list(UNIT_TABLE["player_id"])
    assert (made["holdout"] == held).all()
    assert made["variant"].isna().equals(made["holdout"])
    assert (made["arm"][held] == 0).all()
    shares = made["variant"].value_counts(normalize=True)
    assert shares["random"] == pytest.approx(0.4, abs=0.03)
    assert made["decision_id"].is_unique
    names = np.array(GAME.arm_table.names, dtype=object)
    assert (made["arm_name"] == names[made["arm"]]).all()
    assert (made["bonus"] == made["arm_name"]).all()


def test_every_variant_spends_the_same_for_a_unit_and_no_more(made: pd.DataFrame) -> None:
    part = made[~made["holdout"]]
    assert part["cost"].sum() <= BUDGET * (1 + 1e-9)
    each = part.groupby("variant")["cost"].mean()
    limit = BUDGET / len(part)
    assert (each <= limit * (1 + 1e-9)).all()
    assert each["nobody"] == 0
    for name in ("random", "skins", "knowing"):
        assert each[name] > 0.98 * limit
    assert (part["cost"] == GAME.arm_table.costs[part["arm"]]).all()


def test_the_model_decides_as_it_would_alone(made: pd.DataFrame) -> None:
    mine = made["variant"] == "knowing"
    value, cost = value_and_cost(Knowing().predict(UNIT_TABLE[mine]), GAME)
    limit = BUDGET * mine.sum() / (~made["holdout"]).sum()
    alone = allocate(value, cost, limit, min_return=1.0)
    assert (made["arm"][mine].to_numpy() == alone.arm).all()
    assert made["value"][mine].sum() == pytest.approx(value[np.arange(mine.sum()), alone.arm].sum())
    assert (made["propensity"][mine] == 1.0).all()
    assert set(made["model_version"][mine]) == {"7"}
    assert set(made["policy_version"][mine]) == {"policies/knowing"}


def test_propensities_of_lotteries_are_true() -> None:
    """Over many epochs each arm comes as often, for any unit, as its propensity says."""
    few = UNIT_TABLE.iloc[:60]
    ready, times = prepared(few), 300
    given = np.zeros((60, 3))
    stated = np.full((60, 3), np.nan)
    for day in range(times):
        made = deal(ready, 3.0, NOW + timedelta(days=day))
        arm, p = made["arm"].to_numpy(), made["propensity"].to_numpy()
        given[np.arange(60), arm] += 1
        seen = stated[np.arange(60), arm]
        assert (np.isnan(seen) | (np.abs(seen - p) < 1e-12)).all()  # the same every time
        stated[np.arange(60), arm] = p
    for name in ("random", "skins"):
        rows = (made["variant"] == name).to_numpy()
        p = np.nan_to_num(stated[rows])
        assert p.sum(axis=1) == pytest.approx(1.0)
        error = np.sqrt(p * (1 - p) / times)
        assert (np.abs(given[rows] / times - p) < 4 * error + 1e-9).all()
    explored = made["explored"].to_numpy()
    assert (explored == (made["variant"] == "random").to_numpy()).all()


def limited(*limits: dict) -> Campaign:
    return Campaign.model_validate(GAME.model_dump(mode="json") | {"limits": list(limits)})


def test_arms_that_are_closed_to_a_unit_are_never_given() -> None:
    closed = {"kind": "eligibility", "arms": ["skin"], "where": {"device": ["pc"]}}
    made = deal(prepared(campaign=limited(closed)), BUDGET, NOW)
    pc = (UNIT_TABLE["device"] == "pc").to_numpy()
    assert not (made["arm"][~pc] == 2).any()
    part = made[~made["holdout"]]
    for name in ("random", "skins", "knowing"):
        assert ((part["variant"] == name) & (part["arm"] == 2)).any()
    assert part["cost"].sum() <= BUDGET
    skins = made[made["variant"] == "skins"]
    outside = ~pc[skins.index]
    assert (skins["propensity"][outside] == 1).all()
    given = (skins["arm"] == 2)[~outside]
    assert np.allclose(skins["propensity"][~outside][given], given.mean())
    assert not made["explored"][~pc].any()
    random = made[(made["variant"] == "random") & pc]
    assert random["explored"].all()
    assert (1 / random["propensity"] * (random["arm"] == 1)).mean() == pytest.approx(1, abs=0.3)


def test_limits_that_variants_would_have_to_share_are_refused() -> None:
    with pytest.raises(CampaignError, match="limits: 'stock of skin' can't be shared out"):
        prepared(campaign=limited({"kind": "stock", "arm": "skin", "at_most": 5}))


def test_lots_stay_within_an_epoch_and_buckets_for_good(made: pd.DataFrame) -> None:
    drop = ["decision_id", "decided_at"]
    same_day = deal(prepared(), BUDGET, NOW + timedelta(hours=3))
    assert same_day.drop(columns=drop).equals(made.drop(columns=drop))
    next_day = deal(prepared(), BUDGET, NOW + timedelta(days=1))
    assert next_day["variant"].equals(made["variant"])
    mine = made["variant"] == "random"
    assert (next_day["arm"][mine] != made["arm"][mine]).any()


def test_combinations_of_factors_are_given_and_read() -> None:
    mail = {"column": "mail", "control": "no", "levels": {"no": {"cost": 0}, "yes": {"cost": 0.05}}}
    plain = GAME.model_dump(mode="json")
    campaign = Campaign.model_validate(plain | {"treatments": plain["treatments"] | {"mail": mail}})
    variants = "{x: {share: 0.5, policy: random}, y: {share: 0.5, policy: arm, arm: coins+yes}}"
    text = f"name: both\nstart: 2026-12-01\nvariants: {variants}"
    experiment = parse_experiment(text, campaign, "it")
    arms = list(campaign.arm_table.names)
    ready = {"x": Ready(), "y": Ready(arm=arms.index("coins+yes"))}
    table = prepare(experiment, campaign, UNIT_TABLE, ready, campaign.arm_table.costs)
    made = deal(table, BUDGET, NOW)
    assert set(made["arm_name"]) == set(arms)
    given = made[(made["variant"] == "y") & (made["arm"] > 0)]
    assert set(zip(given["bonus"], given["mail"])) == {("coins", "yes")}
    assert made["cost"].sum() <= BUDGET
    answered = made.drop(columns=["arm", "arm_name"]).assign(login_next_day=1.0, plays_more_7d=0.0)
    assert unit_log(answered, experiment, campaign, "it").cost.sum() == pytest.approx(
        made["cost"].sum()
    )


def test_bad_budgets_tables_and_models_are_refused() -> None:
    with pytest.raises(CampaignError, match="budget: is 0, and every arm costs something"):
        deal(prepared(), 0.0, NOW)
    with pytest.raises(DataError, match="has no rows"):
        prepared(UNIT_TABLE[:0])
    with pytest.raises(DataError, match="comes twice"):
        prepared(pd.concat([UNIT_TABLE, UNIT_TABLE[:1]]))

    class Broken(Knowing):
        def predict(self, columns: dict[str, np.ndarray]) -> np.ndarray:
            return super().predict(columns) * np.nan

    with pytest.raises(DataError, match="variants.knowing: its model answers .* what is no number"):
        prepare(
            EXPERIMENT, GAME, UNIT_TABLE, READY | {"knowing": Ready(Broken())}, GAME.arm_table.costs
        )


def test_ten_units_get_decisions_within_a_budget_of_one() -> None:
    made = deal(prepared(UNIT_TABLE[:10]), 1.0, NOW)
    assert len(made) == 10
    assert made["cost"].sum() <= 1.0


@pytest.fixture
def store(tmp_path: Path):
    opened = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    yield opened
    opened.close()


def test_what_is_recorded_is_charged_once_and_read_back(store: EventStore) -> None:
    made, repeated = record(prepared(), store, budget=BUDGET, request_id="day 1", now=NOW)
    assert not repeated
    assert not made["holdout"].any()
    assert store.ledger("game_bonus").spend == pytest.approx(made["cost"].sum())
    again, repeated = record(prepared(), store, budget=BUDGET, request_id="day 1", now=NOW)
    assert repeated
    shared = ["decision_id", "unit_id", "variant", "arm", "propensity", "cost", "bonus", "region"]
    assert again[shared].equals(made[shared])
    with pytest.raises(DataError, match="nobody is left"):
        record(prepared(), store, now=NOW)
    more = WORLD.units(UNITS + 100, seed=3)
    late, _ = record(prepared(more), store, budget=5.0, now=NOW)
    assert set(late["unit_id"]).isdisjoint(made["unit_id"])
    assert 0 < len(late) <= 100
    with pytest.raises(CampaignError, match="start: is 2026-12-01"):
        record(prepared(), store, now=NOW - timedelta(days=2))

    outcomes = [
        OutcomeRecord(one, name, 1.0, NOW)
        for one in made["decision_id"][:50]
        for name in GAME.outcomes
    ]
    store.record_outcomes(outcomes)
    later = NOW + timedelta(days=8)  # attribution's window has passed
    frame = store.decisions_frame(GAME, now=later)
    frame["variant"] = frame["policy_version"].str.partition("/")[2]
    log = unit_log(frame, EXPERIMENT, GAME, "the event store")
    assert len(log.variant) == len(made) + len(late)
    assert log.outcomes["login_next_day"].sum() == 50
    assert log.cost.sum() == pytest.approx(made["cost"].sum() + late["cost"].sum())
    trial = frame[frame["explored"]]
    assert (trial["explored_propensity"] == trial["propensity"]).all()


def with_outcomes(made: pd.DataFrame) -> pd.DataFrame:
    drawn = WORLD.respond(UNIT_TABLE, made["arm"].to_numpy(), seed=1)
    names = {name: drawn[:, WORLD.outcomes.index(name)] for name in GAME.outcomes}
    return made.assign(**names)


def test_a_log_has_a_row_a_unit_whatever_the_order(made: pd.DataFrame) -> None:
    frame = with_outcomes(made)
    log = unit_log(frame, EXPERIMENT, GAME, "it")
    part = frame[~frame["holdout"]]
    assert len(log.variant) == log.decisions == len(part)
    assert np.bincount(log.variant).tolist() == [
        (part["variant"] == name).sum() for name in EXPERIMENT.names
    ]
    assert log.worth.sum() == pytest.approx(part[list(GAME.outcomes)].to_numpy().sum(0) @ [1, 2])
    shuffled = unit_log(frame.sample(frac=1, random_state=0), EXPERIMENT, GAME, "it")
    for one, other in zip(log.outcomes.values(), shuffled.outcomes.values()):
        assert np.array_equal(one, other)
    assert np.array_equal(log.variant, shuffled.variant)
    by_id = unit_log(frame.drop(columns=["variant", "arm_name"]), EXPERIMENT, GAME, "it")
    assert np.array_equal(log.variant, by_id.variant)
    levels = unit_log(frame.drop(columns=["arm", "arm_name"]), EXPERIMENT, GAME, "it")
    assert np.array_equal(log.cost, levels.cost)


def test_several_decisions_on_a_unit_are_added_up(made: pd.DataFrame) -> None:
    frame = with_outcomes(made)
    day = frame.assign(decided_at=frame["decided_at"] + pd.Timedelta(days=1))
    twice = unit_log(pd.concat([day, frame]), EXPERIMENT, GAME, "it")
    once = unit_log(frame, EXPERIMENT, GAME, "it")
    assert np.array_equal(twice.outcomes["plays_more_7d"], 2 * once.outcomes["plays_more_7d"])
    assert np.allclose(twice.cost, 2 * once.cost)
    assert np.array_equal(twice.variant, once.variant)
    assert any("added up" in note for note in twice.notes)
    versions = pd.concat([day.assign(model_version="8"), frame])
    notes = unit_log(versions, EXPERIMENT, GAME, "it").notes
    assert any("model versions '7' or '8'" in note for note in notes)


def test_decisions_from_before_the_start_do_not_count(made: pd.DataFrame) -> None:
    frame = with_outcomes(made)
    early = frame[:500].assign(decided_at=pd.Timestamp("2026-11-30", tz="UTC"))
    log = unit_log(pd.concat([early, frame[500:]]), EXPERIMENT, GAME, "it")
    assert len(log.variant) == (~frame["holdout"][500:]).sum()
    assert "left out" in log.notes[0]


def test_outcomes_are_joined_by_decision_or_unit(made: pd.DataFrame) -> None:
    whole = with_outcomes(made)
    outcomes = whole[["decision_id", *GAME.outcomes]].sample(frac=1, random_state=1)
    found = joined(made, outcomes, GAME)
    assert found[list(GAME.outcomes)].equals(whole[list(GAME.outcomes)])
    by_unit = whole[["unit_id", *GAME.outcomes]].rename(columns={"unit_id": "player_id"})
    assert joined(made, by_unit, GAME)["plays_more_7d"].equals(whole["plays_more_7d"])
    some = joined(made, outcomes[:100], GAME)
    assert (some["login_next_day"] == 0).sum() >= UNITS - 100
    waiting = GAME.attribution.model_copy(update={"absent": "unknown"})
    unknown = joined(made, outcomes[:100], GAME.model_copy(update={"attribution": waiting}))
    assert unknown["login_next_day"].isna().sum() == UNITS - 100


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t[:0], "has no rows"),
        (lambda t: t.drop(columns="unit_id"), "'player_id' missing"),
        (lambda t: t.drop(columns="plays_more_7d"), "'plays_more_7d' missing"),
        (lambda t: t.assign(plays_more_7d=np.inf), "is no finite number"),
        (lambda t: t.assign(plays_more_7d="often"), "'often' is no finite number"),
        (
            lambda t: t.assign(plays_more_7d=np.nan, login_next_day=np.nan),
            "no decision has an outc",
        ),
        (lambda t: t.assign(arm_name="gold"), "gives what is no arm of game_bonus"),
        (lambda t: t.assign(variant="control"), "'control' is none of the experiment's"),
        (lambda t: t.assign(variant="random"), "made by another variant than the unit's own"),
        (lambda t: t.assign(decided_at="soon"), "'soon' is no time"),
        (lambda t: t.assign(decided_at=pd.Timestamp(0, tz="UTC")), "no decision since 2026-12-01"),
        (lambda t: t.assign(unit_id=None), "rows have no unit_id"),
    ],
)
def test_bad_logs_are_one_sentence(made: pd.DataFrame, change, words: str) -> None:
    with pytest.raises(DataError) as raised:
        unit_log(change(with_outcomes(made)), EXPERIMENT, GAME, "log.parquet")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_outcomes_that_fit_nothing_are_refused(made: pd.DataFrame) -> None:
    outcomes = with_outcomes(made)[["decision_id", *GAME.outcomes]]
    with pytest.raises(DataError, match="decision_id .* comes twice"):
        joined(made, pd.concat([outcomes, outcomes[:1]]), GAME)
    with pytest.raises(DataError, match="'login_next_day' missing"):
        joined(made, outcomes.drop(columns="login_next_day"), GAME)
    days = pd.concat([made, made]).drop(columns="decision_id")
    with pytest.raises(DataError, match="a unit comes twice; outcomes then need a decision_id"):
        joined(days, outcomes, GAME)


def test_another_salt_is_noticed(made: pd.DataFrame) -> None:
    other = EXPERIMENT.model_copy(update={"salt": "another"})
    with pytest.raises(DataError, match="must stay as they were at the start"):
        unit_log(with_outcomes(made), other, GAME, "it")
