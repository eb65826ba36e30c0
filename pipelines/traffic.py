"""A day of a simulated world, played over HTTP: units ask for decisions, then their outcomes come in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pandas as pd

from campaigns.errors import CampaignError, RemoteError
from campaigns.settings import Settings
from campaigns.spec import Campaign, SimulatorSource
from campaigns.worlds import world
from feature_repo.store import FeatureRepository
from serving.token import token

UNITS_A_REQUEST = 10
OUTCOMES_A_REQUEST = 500
CLIENTS = 4


@dataclass
class Played:
    """What the traffic saw.

    Attributes:
        decisions: Decisions answered over HTTP.
        outcomes: Outcomes accepted over HTTP.
        by_arm: Decisions of each arm.
        explored: How many were drawn at random.
        spend: What their arms cost.
        trial: Outcomes' decisions that came from the sampled trial.
    """

    decisions: int = 0
    outcomes: int = 0
    by_arm: dict[str, int] = field(default_factory=dict)
    explored: int = 0
    spend: float = 0.0
    trial: int = 0


def play(
    campaign: Campaign,
    url: str,
    settings: Settings,
    *,
    decisions: int,
    day: int,
    seed: int,
    trial: pd.DataFrame | None = None,
    say: Callable[[str, float | None], None] = lambda message, done: None,
) -> Played:
    """Ask for decisions, answer with the world's outcomes; the trial's units respond as well.

    Args:
        campaign: With a simulator as its source.
        url: Where the campaign is served.
        settings: For the token and the online store.
        decisions: How many to ask for, each for another unit.
        day: The world's day: features are as of then.
        seed: Of the units' responses.
        trial: Decisions of the sampled trial, whose outcomes come in too.
        say: Told what happens, and how much of it is done.

    Raises:
        CampaignError: The campaign isn't simulated.
        RemoteError: The service refused something or is away.
    """
    source = campaign.source
    if not isinstance(source, SimulatorSource):
        raise CampaignError("only a simulated campaign can be played: its world answers")
    truth = world(source.world, **source.options)
    units = truth.units(decisions, seed=source.seed, day=day)
    say("pushing today's features", 0.0)
    _push(campaign, units, settings)
    played = Played()
    with _client(url, settings) as client:
        answers = _decide(client, campaign, units[campaign.unit].tolist(), say)
        _count(played, answers, campaign)
        arms = np.array([answer["arm"] for answer in answers])
        responses = truth.respond(units, arms, seed=seed, day=day)
        ids = [answer["decision_id"] for answer in answers]
        names = list(truth.outcomes)
        played.outcomes += _report(client, campaign, ids, responses, names, say)
        if trial is not None and len(trial):
            given = trial["arm"].to_numpy()
            responses = truth.respond(trial, given, seed=seed + 1, day=day)
            ids = trial["decision_id"].tolist()
            played.outcomes += _report(client, campaign, ids, responses, names, say)
            played.trial = len(trial)
    return played


def _push(campaign: Campaign, units: pd.DataFrame, settings: Settings) -> None:
    """The day's features, pushed to the online store as an application would."""
    now = pd.Timestamp.now(tz="UTC").floor("us")
    fresh = units[campaign.features.names].assign(
        unit_id=units[campaign.unit].astype(str), event_timestamp=now
    )
    FeatureRepository(campaign, settings).push(fresh)


def _client(url: str, settings: Settings) -> httpx.Client:
    bearer = {"Authorization": f"Bearer {token(settings)}"}
    return httpx.Client(base_url=url, headers=bearer, timeout=60.0)


def _decide(
    client: httpx.Client,
    campaign: Campaign,
    units: Sequence[str],
    say: Callable[[str, float | None], None],
) -> list[dict[str, Any]]:
    path = f"/v1/campaigns/{campaign.name}/decisions"
    chunks = [units[i : i + UNITS_A_REQUEST] for i in range(0, len(units), UNITS_A_REQUEST)]

    def ask(chunk: Sequence[str]) -> list[dict[str, Any]]:
        body = {"units": [{"unit_id": unit} for unit in chunk]}
        decided: list[dict[str, Any]] = _post(client, path, body)["decisions"]
        return decided

    answers: list[dict[str, Any]] = []
    with ThreadPoolExecutor(CLIENTS) as pool:
        for part in pool.map(ask, chunks):
            answers += part
            say(f"{len(answers):,} of {len(units):,} decisions", len(answers) / len(units))
    return answers


def _report(
    client: httpx.Client,
    campaign: Campaign,
    ids: Sequence[str],
    responses: np.ndarray,
    names: Sequence[str],
    say: Callable[[str, float | None], None],
) -> int:
    """Send every outcome of every decision; returns how many were taken."""
    wanted = [(column, name) for column, name in enumerate(names) if name in campaign.outcomes]
    records = [
        {"decision_id": decision, "outcome": name, "value": float(row[column])}
        for decision, row in zip(ids, responses)
        for column, name in wanted
    ]
    taken = 0
    for start in range(0, len(records), OUTCOMES_A_REQUEST):
        part = records[start : start + OUTCOMES_A_REQUEST]
        taken += int(_post(client, "/v1/outcomes", {"outcomes": part})["stored"])
        say(f"{start + len(part):,} of {len(records):,} outcomes", None)
    return taken


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        response = client.post(path, json=body)
    except httpx.HTTPError as error:
        raise RemoteError(f"{client.base_url}{path}: no answer ({error})") from error
    if response.is_error:
        raise RemoteError(f"{client.base_url}{path}: {response.status_code} {response.text[:300]}")
    answer: dict[str, Any] = response.json()
    return answer


def _count(played: Played, answers: list[dict[str, Any]], campaign: Campaign) -> None:
    names, costs = campaign.arm_table.names, campaign.arm_table.costs
    for answer in answers:
        played.decisions += 1
        arm = names[answer["arm"]]
        played.by_arm[arm] = played.by_arm.get(arm, 0) + 1
        played.explored += bool(answer["explored"])
        played.spend += float(costs[answer["arm"]])
