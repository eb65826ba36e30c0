"""A request's features and arms against the campaign: every mistake by the field's name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from campaigns.errors import UpdraftError, choices
from campaigns.spec import Campaign
from serving.decider import Unit
from serving.records import Feature
from serving.schemas import DecisionRequest, FieldProblem, UnitRequest

MAX_WORD = 1_000
MAX_PROBLEMS = 20  # in one answer


class Refused(UpdraftError):
    """A request that gets no answer: HTTP status and what is wrong with which field."""

    def __init__(
        self, status: int, message: str, problems: list[FieldProblem] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.problems = status, problems or []


def read_units(request: DecisionRequest, campaign: Campaign) -> list[Unit]:
    """The request's units, their features by the campaign's types.

    Only the features that were given are there; the others are still to be read from the store.

    Raises:
        Refused: 422, with every feature or arm that is wrong.
    """
    problems: list[FieldProblem] = []
    units = []
    for index, unit in enumerate(request.units):
        where = f"units.{index}"
        features = {
            name: _feature(f"{where}.features.{name}", name, value, campaign, problems)
            for name, value in unit.features.items()
        }
        units.append(Unit(unit.unit_id, features, _arms(where, unit, campaign, problems)))
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise Refused(422, "the request doesn't fit the campaign", problems)
    return units


def complete(unit: Unit, campaign: Campaign, fresh: Mapping[str, Feature]) -> Unit:
    """The unit with every feature of the campaign: as given, else fresh from the store, else missing."""
    given = unit.features
    names = campaign.features.names
    features = {name: given[name] if name in given else fresh.get(name) for name in names}
    return Unit(unit.unit_id, features, unit.arms)


def _feature(
    where: str, name: str, value: Any, campaign: Campaign, problems: list[FieldProblem]
) -> Feature:
    problem = None
    if name in campaign.features.numeric:
        number, problem = _number(value)
        if problem is None:
            return number
    elif name in campaign.features.categorical:
        word, problem = _word(value)
        if problem is None:
            return word
    else:
        problem = f"is no feature; choose from {choices(campaign.features.names)}"
    problems.append(FieldProblem(field=where[:200], message=problem))
    return None


def _number(value: Any) -> tuple[float | None, str | None]:
    if value is None:
        return None, None
    if not isinstance(value, bool | int | float):
        return None, "must be a number or null"
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    return (
        (number, None) if math.isfinite(number) else (None, "must be finite, or null where unknown")
    )


def _word(value: Any) -> tuple[str | None, str | None]:
    if value is None:
        return None, None
    if not isinstance(value, bool | int | str):
        return None, "must be text or null"
    try:
        word = str(value)
        word.encode()
    except ValueError:  # a lone surrogate, or a number of thousands of digits
        return None, "must be Unicode text"
    if len(word) > MAX_WORD:
        return None, f"has {len(word)} characters; at most {MAX_WORD} are allowed"
    return word, None


def _arms(
    where: str, unit: UnitRequest, campaign: Campaign, problems: list[FieldProblem]
) -> tuple[str, ...] | None:
    if unit.arms is None:
        return None
    names = campaign.arm_table.names
    problems += [
        FieldProblem(
            field=f"{where}.arms.{index}", message=f"is no arm; choose from {choices(names)}"
        )
        for index, arm in enumerate(unit.arms)
        if arm not in names
    ]
    return tuple(unit.arms)
