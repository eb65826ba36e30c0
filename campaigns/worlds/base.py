"""What a simulated world answers, how to get one by name, and what worlds share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

import numpy as np
import pandas as pd

from campaigns.errors import CampaignError, DataError, choices

START = datetime(2026, 1, 1, tzinfo=UTC)  # day 0 of every world
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECONDS_A_DAY = 86_400_000_000

FeaturesAt = Callable[[np.ndarray, np.ndarray], pd.DataFrame]  # (unit index [N], day [N]) -> frame
Respond = Callable[[pd.DataFrame, np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


class World(Protocol):
    """A population that responds to treatments, with its truth. Same seed, same numbers.

    N units, A arms (0 is control), K outcomes. Days count from the world's ``start``; a unit's
    identity doesn't change with the day, its features do, slowly. What a unit was given one day has
    no effect on another day.
    """

    name: str
    unit: str  # the column of unit ids
    factor: str  # the column of the level that was given
    arms: tuple[str, ...]
    outcomes: tuple[str, ...]
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]

    def units(self, n: int, *, seed: int, day: int = 0) -> pd.DataFrame:
        """The first ``n`` units of population ``seed``: the unit column and the features of ``day``.

        An id (it holds the seed) is the same unit on every day, for every ``n``, and in the log.
        """
        ...

    def log(
        self, rows: int, *, seed: int, days: int = 28, start: datetime = START, first_day: int = 0
    ) -> pd.DataFrame:
        """A uniform randomized trial of ``rows`` decisions, in the order of time.

        Covers days ``first_day`` to ``first_day + days - 1``; a unit is decided on at most once a day.
        Columns: decision_id (UUIDv7), the unit, event_timestamp (datetime64[us, UTC]), features as
        seen then, the factor's level, propensity (1/A), explored (True), the outcomes (float64).
        """
        ...

    def truth(self, features: pd.DataFrame, *, day: int | np.ndarray = 0) -> np.ndarray:
        """Expected potential outcomes given the features, [N, A, K]; ``day`` is one, or [N]."""
        ...

    def respond(
        self, features: pd.DataFrame, arm: np.ndarray, *, seed: int, day: int = 0
    ) -> np.ndarray:
        """Outcomes drawn for the arms given ([N], indices), [N, K].

        The noise depends on the seed, the day and the row's place only: asked again with other arms,
        the same rows answer with the same luck (common random numbers).
        """
        ...


def known_worlds() -> dict[str, Callable[..., World]]:
    """Every world by its name."""
    from campaigns.worlds.discount import Discount
    from campaigns.worlds.game_bonus import GameBonus

    return {each.name: each for each in (GameBonus, Discount)}


def world(name: str, **options: float) -> World:
    """The world of that name.

    Args:
        name: One of the names in the error below.
        options: The world's own options, such as ``effect_drift=0.02``.

    Raises:
        CampaignError: Unknown name, unknown option or a value out of range; lists the choices.
    """
    worlds = known_worlds()
    if name not in worlds:
        raise CampaignError(f"world {name!r} does not exist; choose from {choices(worlds)}")
    known = list(inspect.signature(worlds[name]).parameters)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise CampaignError(
            f"world {name!r} has no option {unknown[0]!r}; its options are {choices(known)}"
        )
    return worlds[name](**options)


def require_at_least(minimum: int, **numbers: int) -> None:
    """Refuse a number below ``minimum``, by its name.

    Raises:
        CampaignError: One is.
    """
    for name, number in numbers.items():
        if number < minimum:
            raise CampaignError(f"{name} is {number}; it must be at least {minimum}")


def require_columns(frame: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Refuse a frame that lacks a feature.

    Raises:
        DataError: It does; names what is missing.
    """
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise DataError(f"features: {choices(missing)} missing; the world needs {choices(columns)}")


def require_arms(arm: np.ndarray, units: int, arms: int) -> np.ndarray:
    """The arms as indices, [N].

    Raises:
        DataError: Not one integer of 0 .. ``arms`` - 1 for each unit.
    """
    arm = np.asarray(arm)
    if arm.shape != (units,) or not np.issubdtype(arm.dtype, np.integer):
        raise DataError(
            f"arm: has shape {arm.shape} of {arm.dtype}; give one integer for each of {units} units"
        )
    if units and (arm.min() < 0 or arm.max() >= arms):
        raise DataError(f"arm: has {arm.min()} to {arm.max()}; arms are 0 to {arms - 1}")
    return arm


def uniform_trial(
    simulated: World,
    features_at: FeaturesAt,
    respond: Respond,
    rows: int,
    *,
    seed: int,
    days: int,
    start: datetime,
    first_day: int,
) -> pd.DataFrame:
    """The log of :meth:`World.log`, from a world's features and responses.

    The population is as large as needed for a unit to come about every fourth day at most; each day
    takes a fresh sample of it without replacement.
    """
    require_at_least(1, rows=rows, days=days)
    require_at_least(0, seed=seed, first_day=first_day)
    if start.tzinfo is None:
        raise CampaignError(f"start is {start}, without a time zone; give UTC")
    rng = np.random.default_rng([seed, 1, first_day])
    a_day = np.full(days, rows // days)
    a_day[: rows % days] += 1
    population = max(rows // 4, int(a_day[0]))
    index = np.concatenate([rng.permutation(population)[:count] for count in a_day])
    offset = rng.integers(0, MICROSECONDS_A_DAY, rows)
    day = np.repeat(np.arange(first_day, first_day + days), a_day)
    order = np.lexsort((offset, day))
    index, offset = index[order], offset[order]  # day is sorted already

    features = features_at(index, day)
    arm = rng.integers(0, len(simulated.arms), rows)
    outcomes = respond(features, arm, day, rng)
    begin = (start - EPOCH) // timedelta(microseconds=1)
    micros = begin + day * MICROSECONDS_A_DAY + offset
    features.insert(0, "decision_id", decision_ids(micros, rng))
    features.insert(2, "event_timestamp", pd.DatetimeIndex(micros.view("M8[us]"), tz="UTC"))
    features[simulated.factor] = np.array(simulated.arms, dtype=object)[arm]
    features["propensity"] = 1.0 / len(simulated.arms)
    features["explored"] = True
    for k, name in enumerate(simulated.outcomes):
        features[name] = outcomes[:, k]
    return features


def decision_ids(micros: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """UUIDv7 (RFC 9562) for moments in microseconds since 1970, [N] str; random bits from ``rng``."""
    raw = rng.integers(0, 256, (len(micros), 16), dtype=np.uint8)
    millis = (micros // 1000).astype(">u8").view(np.uint8).reshape(-1, 8)
    raw[:, :6] = millis[:, 2:]
    raw[:, 6] = raw[:, 6] & 0x0F | 0x70  # version 7
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80  # variant of RFC 9562
    digits = np.frombuffer(raw.tobytes().hex().encode(), dtype=np.uint8).reshape(-1, 32)
    text = np.full((len(micros), 36), ord("-"), dtype=np.uint8)
    text[:, [i for i in range(36) if i not in (8, 13, 18, 23)]] = digits
    return text.view("S36").ravel().astype(str).astype(object)
