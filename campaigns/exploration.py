"""How a campaign explores: how much is decided at random, and whom that falls on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from campaigns.part import Part, Share

if TYPE_CHECKING:
    from campaigns.spec import Campaign

COMMITTEE = ("directed", "thompson")  # strategies that ask the members of an ensemble


class Schedule(Part):
    """How epsilon falls, epoch by epoch."""

    end: Share = Field(0.01, description="Epsilon never falls below it.")
    half: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        14.0, description="Epochs after which half of epsilon is left."
    )


class Exploration(Part):
    """How much is decided at random, so that effects stay known."""

    strategy: Literal["epsilon_greedy", "schedule", "directed", "thompson"] = "epsilon_greedy"
    epsilon: Share = Field(0.05, description="Share of decisions drawn at random.")
    schedule: Schedule | None = Field(None, description="Of strategy 'schedule'.")
    floor: Share = Field(
        0.005,
        description="Of 'directed' and 'thompson': least propensity of every eligible arm.",
    )
    max_spend_share: Share = Field(0.10, description="Share of the budget that may go to them.")
    holdout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of units never treated."
    )
    salt: str = Field(
        "", description="Key of the draws; change it to draw anew (default: the name)."
    )

    @property
    def asks_members(self) -> bool:
        """Whether draws follow the members of an ensemble."""
        return self.strategy in COMMITTEE


def exploration_problems(campaign: Campaign) -> Iterator[str]:
    """What is wrong with how a campaign explores, a sentence each."""
    rules, arms = campaign.exploration, len(campaign.arm_table)
    if rules.strategy == "schedule" and rules.schedule is None:
        yield "exploration.schedule: is missing; say how epsilon falls: {end: 0.01, half: 14}"
    if rules.schedule is not None and rules.strategy != "schedule":
        yield f"exploration.schedule: goes with strategy 'schedule', not {rules.strategy!r}"
    if rules.schedule is not None and rules.schedule.end > rules.epsilon:
        yield (
            f"exploration.schedule.end: {rules.schedule.end:g} is above epsilon, "
            f"{rules.epsilon:g}, from which it falls"
        )
    if rules.asks_members and 0 < rules.epsilon < rules.floor * arms:
        yield (
            f"exploration.floor: {rules.floor:g} for each of {arms} arms is more than epsilon, "
            f"{rules.epsilon:g}; give at most {rules.epsilon / arms:.4g}"
        )
