"""An experiment: which policies are compared, on which shares of the units. A file of its own, YAML.

.. code-block:: yaml

    name: bonus_models
    start: 2026-12-01
    units: 200000
    variants:
      random: {share: 0.25, policy: random}
      efin: {share: 0.25, policy: model, model: 3}
      single: {share: 0.25, policy: model, model: 4}
      multi: {share: 0.25, policy: model, model: champion}
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from pydantic import BeforeValidator, Field, field_validator, model_validator

from campaigns.errors import CampaignError, choices
from campaigns.part import Name, Part, text
from campaigns.spec import Campaign
from campaigns.yaml_file import parse, read_text, validated

Kind = Literal["nobody", "random", "best_arm", "arm", "model"]
KEYS = {"arm": "arm", "model": "model"}  # the key that a policy needs, by its kind


def _moment(value: Any) -> Any:
    """A day is its first moment, UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC)
    if isinstance(value, datetime) and value.tzinfo is None:
        if value.time() == time():
            return value.replace(tzinfo=UTC)
        raise ValueError(f"{value.isoformat()} has no time zone; write UTC, such as {value}Z")
    return value


class Variant(Part):
    """A policy, and the share of the units that it decides on."""

    share: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
    policy: Kind = Field(
        description="'nobody', 'random' (any arm alike), 'best_arm' (the log's), 'arm' or 'model'."
    )
    arm: str | None = Field(None, description="With policy 'arm': the arm that everybody gets.")
    model: Annotated[str | None, BeforeValidator(text)] = Field(
        None, description="With policy 'model': a version or alias of the registry, or a folder."
    )

    @model_validator(mode="after")
    def _what_the_policy_needs(self) -> Self:
        for kind, key in KEYS.items():
            given = getattr(self, key) is not None
            if given and self.policy != kind:
                raise ValueError(f"policy {self.policy!r} takes no {key!r}; leave it out")
            if not given and self.policy == kind:
                raise ValueError(f"policy {kind!r} needs {key!r}: say which")
        return self


class Experiment(Part):
    """The file.

    Attributes:
        salt: Key of the draw of buckets.
        start: The first moment that counts, UTC.
        units: How many are planned; what always-valid intervals are narrowest at.
        reference: The variant that the others are compared with; default: the first.
        variants: By name, in the order of the file.
    """

    name: Name
    salt: str = Field("", description="Key of the draw of buckets (default: the name).")
    start: Annotated[datetime, BeforeValidator(_moment)]
    units: int | None = Field(None, ge=1, description="How many units are planned.")
    reference: str = Field("", description="What the others are compared with; default: the first.")
    variants: dict[Name, Variant] = Field(min_length=2)

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        variants = data.get("variants")
        first = next(iter(variants), "") if isinstance(variants, dict) else ""
        filled = {"salt": data.get("salt") or str(data.get("name", ""))}
        filled["reference"] = data.get("reference") or first
        return data | filled

    @field_validator("variants", mode="before")
    @classmethod
    def _written_as_a_mapping(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("is no mapping; write 'a name: {share: ..., policy: ...}' a line")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = math.fsum(self.shares)
        if abs(total - 1) > 1e-9:
            raise ValueError(f"variants: the shares sum to {total:.10g}; they must sum to 1")
        if self.reference not in self.variants:
            raise ValueError(
                f"reference: {self.reference!r} is no variant; choose from {choices(self.variants)}"
            )
        return self

    @property
    def names(self) -> list[str]:
        """The variants, in the order of the file."""
        return list(self.variants)

    @property
    def shares(self) -> np.ndarray:
        """Of the variants [V]; they sum to 1."""
        return np.array([variant.share for variant in self.variants.values()])


def load_experiment(path: Path, campaign: Campaign) -> Experiment:
    """Read and check a file of an experiment.

    Raises:
        CampaignError: It is missing, is no YAML or says something wrong, one line a mistake; or it
            draws its buckets with the key of the campaign's exploration, or names another's arm.
    """
    return parse_experiment(read_text(path, "an experiment's file"), campaign, str(path))


def parse_experiment(content: str, campaign: Campaign, where: str) -> Experiment:
    """As :func:`load_experiment`, for the text itself."""
    data = parse(content, where)
    if not isinstance(data, dict):
        raise CampaignError(f"{where}: is no experiment; one starts with 'name: ...'")
    experiment = validated(Experiment.model_validate, data, where, _sentence)
    if problems := _against(experiment, campaign):
        raise CampaignError("\n".join(f"{where}: {problem}" for problem in problems))
    return experiment


def _against(experiment: Experiment, campaign: Campaign) -> list[str]:
    """What doesn't fit the campaign."""
    problems = []
    if experiment.salt == (campaign.exploration.salt or campaign.name):
        problems.append(
            f"salt: {experiment.salt!r} is the key of the campaign's exploration; an experiment has "
            "its own, so that its buckets have nothing to do with who is explored"
        )
    arms = campaign.arm_table.names
    problems += [
        f"variants.{name}.arm: {variant.arm!r} is no arm; choose from {choices(arms)}"
        for name, variant in experiment.variants.items()
        if variant.arm is not None and variant.arm not in arms
    ]
    return problems


def _sentence(item: Any) -> str:
    """One finding of pydantic as a sentence."""
    parts = [str(part) for part in item["loc"] if part != "[key]"]
    path, kind = ".".join(parts), item["type"]
    if kind == "extra_forbidden":
        keys = Variant.model_fields if parts[0] == "variants" else Experiment.model_fields
        return f"{path}: unknown key; the keys here are {choices(keys)}"
    if kind == "missing":
        return f"{path}: is missing"
    if kind == "literal_error":
        return f"{path}: {item['input']!r} is no policy; choose from {choices(get_args(Kind))}"
    if kind == "string_pattern_mismatch":
        return f"{path}: {item['input']!r} is no name; use lower-case letters, digits and _"
    if kind == "too_short":
        return f"{path}: has {len(item['input'])}; an experiment compares at least 2"
    if kind == "value_error":
        told = str(item["ctx"]["error"])
        return f"{path}: {told}" if path else told
    return f"{path}: {item['msg'][0].lower()}{item['msg'][1:]} (seen: {item['input']!r})"
