"""Limits of an allocation beside its budget, as a user writes them: a file of its own, YAML.

.. code-block:: yaml

    limits:
      - {kind: stock, arm: skin, at_most: 500}
      - {kind: budget, name: europe, amount: 200, where: {region: europe}}
      - {kind: share, at_least: 0.1, where: {region: [asia, latam]}, arms: [coins]}
      - {kind: guardrail, outcome: plays_more_7d, at_most: 10}
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from campaigns.errors import CampaignError, choices
from campaigns.loading import _StrictLoader
from campaigns.part import NotNegative, Part, Share, text

BUDGET = "budget"  # the allocation's own, a name that no other limit may have


def _listed(value: Any) -> Any:
    return [text(each) for each in (value if isinstance(value, list) else [value])]


Values = Annotated[list[str], BeforeValidator(_listed)]
Where = Annotated[
    dict[str, Values],
    Field(description="Column of the unit table to the values that count; default: everybody."),
]


class StockLimit(Part):
    """At most so many units get an arm."""

    kind: Literal["stock"]
    arm: str
    at_most: NotNegative

    @property
    def title(self) -> str:
        return f"stock of {self.arm}"


class BudgetLimit(Part):
    """What some units may cost."""

    kind: Literal["budget"]
    name: str
    amount: NotNegative
    where: Where

    @property
    def title(self) -> str:
        return self.name


class ShareLimit(Part):
    """At least this share of some units gets one of some arms (default: any but control)."""

    kind: Literal["share"]
    at_least: Share
    where: Where = {}
    arms: list[str] | None = None

    @property
    def title(self) -> str:
        who = " and ".join(f"{key} {'/'.join(values)}" for key, values in self.where.items())
        what = "/".join(self.arms) if self.arms else "a treatment"
        return f"share of {who or 'everybody'} with {what}"


class GuardrailLimit(Part):
    """An outcome may fall by no more than this in total, as predicted."""

    kind: Literal["guardrail"]
    outcome: str
    at_most: NotNegative

    @property
    def title(self) -> str:
        return f"guardrail of {self.outcome}"


AnyLimit = StockLimit | BudgetLimit | ShareLimit | GuardrailLimit


class Limits(Part):
    """The file."""

    limits: list[Annotated[AnyLimit, Field(discriminator="kind")]] = Field(min_length=1)


def load_limits(path: Path) -> list[AnyLimit]:
    """Read and check a file of limits.

    Raises:
        CampaignError: It is missing, is no YAML or says something wrong: one line a mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CampaignError(
            f"{path}: can't be read ({error.strerror}); give the path of a file of limits"
        ) from error
    except UnicodeDecodeError as error:
        raise CampaignError(f"{path}: is not UTF-8 text; limits are a YAML file") from error
    return parse_limits(text, str(path))


def parse_limits(text: str, where: str) -> list[AnyLimit]:
    """As :func:`load_limits`, for the text itself."""
    try:
        found = Limits.model_validate(yaml.load(text, Loader=_StrictLoader)).limits
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise CampaignError(f"{where}: is not valid YAML: {reason}") from error
    except ValidationError as error:
        lines = [f"{where}: {_sentence(item)}" for item in error.errors()]
        raise CampaignError("\n".join(dict.fromkeys(lines))) from error
    names = [BUDGET, *(limit.title for limit in found)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CampaignError(f"{where}: limits: {choices(twice)} comes twice; name each differently")
    return found


def _sentence(item: Any) -> str:
    location = [str(part) for part in item["loc"]]
    if location[:1] != ["limits"]:
        return "a file of limits starts with 'limits:', and a list below it"
    kinds: dict[str, type[Part]] = {"stock": StockLimit, "budget": BudgetLimit, "share": ShareLimit}
    kind = (kinds | {"guardrail": GuardrailLimit}).get(location[2]) if len(location) > 2 else None
    path = ".".join(location[:2] + (location[3:] if kind else location[2:]))
    if item["type"] == "extra_forbidden" and kind:
        return f"{path}: unknown key; the keys here are {choices(kind.model_fields)}"
    if item["type"].startswith("union_tag"):
        return f"{path}.kind: choose from {choices([*kinds, 'guardrail'])}"
    if item["type"] == "missing":
        return f"{path}: is missing"
    return f"{path}: {item['msg'][0].lower()}{item['msg'][1:]} (seen: {item['input']!r})"
