"""What goes over HTTP, and which of it is refused before anybody thinks about it."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    WithJsonSchema,
    model_validator,
)

from serving.records import Decision

MAX_UNITS = 1_000
MAX_OUTCOMES = 10_000
MAX_ID = 200


def _identifier(value: object) -> str:
    """Text, or a whole number as text: 5 and "5" are the same unit."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("must be text or a whole number")
    text = value if isinstance(value, str) else _digits(value)
    if not 0 < len(text) <= MAX_ID:
        raise ValueError(f"has {len(text)} characters; it has 1 to {MAX_ID}")
    if not text.isprintable():
        raise ValueError("has control characters, or is no Unicode text")
    return text


def _digits(value: int) -> str:
    if value.bit_length() > 600:
        raise ValueError(f"is a number of more than {MAX_ID} digits")
    return str(value)


def _number(value: object) -> float:
    """A finite number; true and false count as 1 and 0."""
    if not isinstance(value, bool | int | float):
        raise ValueError("must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("must be finite")
    return number


Identifier = Annotated[
    str,
    BeforeValidator(_identifier),
    WithJsonSchema({"type": ["string", "integer"], "maxLength": MAX_ID}),
]
Number = Annotated[float, BeforeValidator(_number)]


class Message(BaseModel):
    """Unknown keys are refused: a misspelt one would be silently ignored otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class UnitRequest(Message):
    """Who is to be decided on."""

    unit_id: Identifier
    features: dict[str, Any] = Field(
        {}, description="Features of the unit; those left out are read from the feature store."
    )
    arms: list[str] | None = Field(
        None,
        max_length=1_000,
        description="The arms that it may get (control always is); default: all.",
    )


class DecisionRequest(Message):
    """One unit or many. ``{"unit_id": ...}`` alone is short for a list of one."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"request_id": "7f3a", "units": [{"unit_id": "p42", "features": {"games_7d": 3}}]}
            ]
        }
    )

    request_id: Identifier | None = Field(
        None, description="Repeat it, and you get the same decisions; good for retries."
    )
    units: list[UnitRequest] = Field(min_length=1, max_length=MAX_UNITS)

    @model_validator(mode="before")
    @classmethod
    def _one(cls, data: Any) -> Any:
        if isinstance(data, dict) and "units" not in data and "unit_id" in data:
            rest = {key: value for key, value in data.items() if key != "request_id"}
            request = {"request_id": data["request_id"]} if "request_id" in data else {}
            return {**request, "units": [rest]}
        return data

    @property
    def body(self) -> str:
        """A hash of what is asked."""
        text = json.dumps(self.model_dump(exclude={"request_id"}), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class DecisionAnswer(BaseModel):
    """One decision, already on disk."""

    decision_id: str
    unit_id: str
    arm: int = Field(description="The arm's index; 0 is control.")
    arm_name: str
    levels: dict[str, str] = Field(description="The level of each treatment factor.")
    propensity: float = Field(description="Probability of this arm when it was given.")
    explored: bool = Field(description="Drawn at random, not chosen.")
    holdout: bool = Field(description="The unit is never treated.")
    model_version: str | None
    policy_version: str | None
    decided_at: datetime

    @classmethod
    def of(cls, decision: Decision) -> Self:
        return cls(
            decision_id=decision.decision_id,
            unit_id=decision.unit_id,
            arm=decision.arm,
            arm_name=decision.arm_name,
            levels=dict(decision.levels),
            propensity=decision.propensity,
            explored=decision.explored,
            holdout=decision.holdout,
            model_version=decision.model_version,
            policy_version=decision.policy_version,
            decided_at=decision.decided_at,
        )


class DecisionsAnswer(BaseModel):
    campaign: str
    decisions: list[DecisionAnswer] = Field(description="In the order of the units.")


class OutcomeItem(Message):
    """What was observed after a decision."""

    decision_id: Identifier
    outcome: Identifier
    value: Number
    observed_at: AwareDatetime | None = Field(None, description="Default: now.")
    correct: StrictBool = Field(False, description="Replace what was reported before.")


class OutcomesRequest(Message):
    """One outcome or many. A bare outcome, or a bare list of them, is fine too."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"outcomes": [{"decision_id": "0198...", "outcome": "login_next_day", "value": 1}]}
            ]
        }
    )

    outcomes: list[OutcomeItem] = Field(min_length=1, max_length=MAX_OUTCOMES)

    @model_validator(mode="before")
    @classmethod
    def _one(cls, data: Any) -> Any:
        if isinstance(data, list):
            return {"outcomes": data}
        if isinstance(data, dict) and "outcomes" not in data and "decision_id" in data:
            return {"outcomes": [data]}
        return data


class FieldProblem(BaseModel):
    field: str = Field(description="Where, such as units.0.features.games_7d.")
    message: str


class Refusal(BaseModel):
    """Every answer of 400 and above."""

    error: str
    problems: list[FieldProblem] = []


class OutcomesAnswer(BaseModel):
    stored: int
    repeated: int = Field(
        description="Of those: reported before, so that they don't change what counts."
    )
    problems: list[FieldProblem] = Field([], description="What was refused; the others are stored.")


class RollbackAnswer(BaseModel):
    campaign: str
    model_version: str
