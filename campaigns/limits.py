"""Limits beside the budget, as a user writes them: in the campaign file, or in a file of their own.

.. code-block:: yaml

    limits:
      - {kind: eligibility, arms: [skin], where: {games_7d: {at_least: 3}}}
      - {kind: stock, arm: skin, at_most: 500, per: total}
      - {kind: budget, name: europe, amount: 200, where: {region: europe}}
      - {kind: budget, name: bonuses, amount: 900, factor: bonus, per: week}
      - {kind: share, at_least: 0.1, where: {region: [asia, latam]}, arms: [coins]}
      - {kind: guardrail, outcome: plays_more_7d, at_most: 10}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from campaigns.errors import choices
from campaigns.part import Finite, NotNegative, Part, Share, text

if TYPE_CHECKING:
    from campaigns.spec import Campaign

BUDGET = "budget"  # the campaign's own, a name that no other limit may have


class Between(Part):
    """Numbers from ``at_least`` on, up to but without ``below``."""

    at_least: Finite | None = None
    below: Finite | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.at_least is None and self.below is None:
            raise ValueError("give at_least, below, or both")
        if self.at_least is not None and self.below is not None and self.below <= self.at_least:
            raise ValueError(f"below ({self.below:g}) must be above at_least ({self.at_least:g})")
        return self


def _words(value: Any) -> Any:
    listed = value if isinstance(value, list) else [value]
    return [str(each) if isinstance(each, bool) else text(each) for each in listed]


def _form(value: Any) -> str:
    return "range" if isinstance(value, dict | Between) else "values"


Words = Annotated[list[str], BeforeValidator(_words), Field(min_length=1)]
Word = Annotated[str, BeforeValidator(text)]
Wanted = Annotated[
    Annotated[Words, Tag("values")] | Annotated[Between, Tag("range")], Discriminator(_form)
]
Where = Annotated[
    dict[str, Wanted],
    Field(description="Column to the values that count, or to a range; default: everybody."),
]
Levels = Annotated[
    dict[str, Word], Field(description="A factor to its level: every arm that has it.")
]
Per = Annotated[
    Literal["hour", "day", "week", "month", "total"] | None,
    Field(description="For how long it holds (UTC); default: the budget's period."),
]


class Eligibility(Part):
    """Some arms are for some units only."""

    kind: Literal["eligibility"]
    arms: Words | None = None
    level: Levels = {}
    where: Where = Field(min_length=1)

    @model_validator(mode="after")
    def _arms_or_level(self) -> Self:
        _one_of("arms", self.arms, self.level)
        return self

    @property
    def title(self) -> str:
        return f"eligibility of {_named(self.arms, self.level)}"


class StockLimit(Part):
    """At most so many units get an arm, or a level."""

    kind: Literal["stock"]
    arm: Word | None = None
    level: Levels = {}
    at_most: NotNegative
    per: Per = None

    @model_validator(mode="after")
    def _arm_or_level(self) -> Self:
        _one_of("arm", self.arm, self.level)
        return self

    @property
    def title(self) -> str:
        return f"stock of {_named(None if self.arm is None else [self.arm], self.level)}"


class BudgetLimit(Part):
    """What some units may cost, or one factor's levels."""

    kind: Literal["budget"]
    name: str
    amount: NotNegative
    factor: str | None = None
    where: Where = {}
    per: Per = None

    @property
    def title(self) -> str:
        return self.name

    @property
    def at_most(self) -> float:
        return self.amount


class ShareLimit(Part):
    """At least this share of some units gets one of some arms (default: any but control)."""

    kind: Literal["share"]
    at_least: Share
    where: Where = {}
    arms: Words | None = None

    @property
    def title(self) -> str:
        who = " and ".join(
            f"{key} {'/'.join(wanted) if isinstance(wanted, list) else 'in range'}"
            for key, wanted in self.where.items()
        )
        what = "/".join(self.arms) if self.arms else "a treatment"
        return f"share of {who or 'everybody'} with {what}"


class GuardrailLimit(Part):
    """An outcome may fall by no more than this in total, as predicted."""

    kind: Literal["guardrail"]
    outcome: str
    at_most: NotNegative
    per: Per = None

    @property
    def title(self) -> str:
        return f"guardrail of {self.outcome}"


Counted = StockLimit | BudgetLimit | GuardrailLimit  # what the ledger keeps, decision by decision
AnyLimit = Annotated[
    Eligibility | StockLimit | BudgetLimit | ShareLimit | GuardrailLimit,
    Field(discriminator="kind"),
]
KINDS = ("eligibility", "stock", "budget", "share", "guardrail")


class Limits(Part):
    """A file of them."""

    limits: list[AnyLimit] = Field(min_length=1)


def counted(limits: Sequence[AnyLimit]) -> list[Counted]:
    """Those that are sums over the decisions of a period."""
    return [limit for limit in limits if isinstance(limit, Counted)]


def limit_problems(campaign: Campaign, *, columns: bool = True) -> Iterator[str]:
    """What is wrong with a campaign's limits, a sentence each.

    Args:
        campaign: With the limits.
        columns: Whether ``where`` must name features (a unit table may have more columns).
    """
    for place, limit in enumerate(campaign.limits):
        where = f"limits.{place}"
        yield from (f"{where}.{problem}" for problem in _unknown(limit, campaign))
        if columns and not isinstance(limit, StockLimit | GuardrailLimit):
            yield from (f"{where}.where: {problem}" for problem in _columns(limit, campaign))
        if isinstance(limit, ShareLimit):
            yield from (f"{where}.at_least: {problem}" for problem in _too_much(limit, campaign))
    sums = [limit for limit in campaign.limits if not isinstance(limit, Eligibility)]
    titles = [BUDGET, *(limit.title for limit in sums)]
    for title in sorted({name for name in titles if titles.count(name) > 1}):
        yield f"limits: '{title}' comes twice; name each differently, or make them one"


def _unknown(limit: AnyLimit, campaign: Campaign) -> Iterator[str]:
    """Arms, levels, factors and outcomes that aren't the campaign's."""
    arms = campaign.arm_table.names
    if isinstance(limit, GuardrailLimit):
        if limit.outcome not in campaign.outcomes:
            known = choices(campaign.outcomes)
            yield f"outcome: {limit.outcome!r} is no outcome; choose from {known}"
        return
    if isinstance(limit, BudgetLimit):
        if limit.factor is not None and limit.factor not in campaign.treatments:
            known = choices(campaign.treatments)
            yield f"factor: {limit.factor!r} is no factor; choose from {known}"
        if limit.factor is not None and campaign.cost_outcome is not None:
            yield "factor: costs are an outcome's here, and no factor's; leave it out"
        return
    key = "arm" if isinstance(limit, StockLimit) else "arms"
    named = [limit.arm] if isinstance(limit, StockLimit) else limit.arms
    for arm in named or []:
        if arm is not None and arm not in arms[1:]:
            yield f"{key}: {arm!r} is no treated arm; choose from {choices(arms[1:])}"
    if isinstance(limit, ShareLimit):
        return
    for factor, level in limit.level.items():
        if factor not in campaign.treatments:
            yield f"level: {factor!r} is no factor; choose from {choices(campaign.treatments)}"
        elif level not in campaign.treatments[factor].ordered_levels[1:]:
            known = choices(campaign.treatments[factor].ordered_levels[1:])
            yield f"level.{factor}: {level!r} is no treated level; choose from {known}"


def _columns(limit: Eligibility | BudgetLimit | ShareLimit, campaign: Campaign) -> Iterator[str]:
    features = campaign.features
    for column, wanted in limit.where.items():
        if column not in features.names and "*" not in features.names:
            yield f"{column!r} is no feature; choose from {choices(features.names)}"
        elif isinstance(wanted, Between) and column in features.categorical:
            yield f"{column!r} holds words, which have no range; list the values that count"


def _too_much(limit: ShareLimit, campaign: Campaign) -> Iterator[str]:
    """Shares that can't be, whoever comes."""
    held = campaign.exploration.holdout
    if limit.at_least > 1 - held:
        yield f"{limit.at_least:g} can't be: a holdout of {held:g} leaves {1 - held:g}"
    mine = set(limit.arms or campaign.arm_table.names[1:])
    total = limit.at_least
    for other in campaign.limits:
        if other is limit or not isinstance(other, ShareLimit) or other.where != limit.where:
            continue
        theirs = set(other.arms or campaign.arm_table.names[1:])
        if not mine & theirs:
            mine |= theirs
            total += other.at_least
    if total > 1 + 1e-9 and limit.at_least <= 1 - held:
        yield f"shares of the same units add up to {total:g}; a unit gets one arm, so at most 1"


def _one_of(key: str, arms: object, level: dict[str, str]) -> None:
    if (arms is None) == (not level):
        seen = f"neither {key} nor level" if arms is None else f"both {key} and level"
        raise ValueError(f"names {seen}; give one of them")


def _named(arms: list[str] | None, level: dict[str, str]) -> str:
    return "/".join(arms) if arms else " and ".join(f"{f} {name}" for f, name in level.items())
