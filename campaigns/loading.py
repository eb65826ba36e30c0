"""From a YAML file to a campaign, or to everything that is wrong with it at once."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from campaigns.errors import CampaignError, choices
from campaigns.limits import KINDS, AnyLimit, Limits
from campaigns.spec import Campaign
from campaigns.yaml_file import parse, read_text, validated


def load_campaign(path: str | Path) -> Campaign:
    """Read and check a campaign file.

    Raises:
        CampaignError: It is missing, is no YAML or says something wrong: one line a mistake, each with
            the file, the key, what was seen and what would be right.
    """
    path = Path(path)
    return parse_campaign(read_text(path, "a campaign file"), where=str(path))


def parse_campaign(text: str, where: str = "campaign") -> Campaign:
    """As :func:`load_campaign`, for the text itself."""
    data = parse(text, where)
    if not isinstance(data, dict):
        seen = "empty" if data is None else f"a {type(data).__name__}"
        raise CampaignError(
            f"{where}: is {seen}; a campaign starts with 'name: ...' "
            "('updraft init' writes one from a table)"
        )
    return validated(Campaign.model_validate, data, where, _sentence)


def load_limits(path: Path) -> list[AnyLimit]:
    """Read a file of limits, and check what can be checked without a campaign.

    Raises:
        CampaignError: It is missing, is no YAML or says something wrong: one line a mistake.
    """
    return parse_limits(read_text(path, "a file of limits"), str(path))


def parse_limits(text: str, where: str) -> list[AnyLimit]:
    """As :func:`load_limits`, for the text itself."""
    data = parse(text, where)
    if not isinstance(data, dict) or set(data) != {"limits"}:
        raise CampaignError(
            f"{where}: a file of limits starts with 'limits:', and a list below it is all it has"
        )
    return validated(Limits.model_validate, data, where, _sentence).limits


def _sentence(item: Any) -> str:
    """One pydantic finding as a sentence: key path, what is wrong, what would be right."""
    path = ".".join(_readable(item["loc"]))
    kind, context, seen = item["type"], item.get("ctx", {}), item["input"]
    if kind == "extra_forbidden":
        known = _keys_at(item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"the keys here are {choices(known)}"
        return f"{path}: unknown key; {hint}"
    if kind == "missing":
        return f"{path}: is missing"
    if kind == "literal_error":
        return f"{path}: {seen!r} is not allowed; choose from {context['expected']}"
    if kind == "union_tag_invalid":
        tags = str(context["expected_tags"])
        return f"{path}.kind: {context['tag']!r} is not allowed; choose from {tags}"
    if kind == "union_tag_not_found":
        kinds = KINDS if path.startswith("limits") else ("simulator", "parquet", "csv", "events")
        return f"{path}.kind: is missing; choose from {choices(kinds)}"
    if kind == "string_pattern_mismatch":
        return (
            f"{path}: {seen!r} is no name; use lower-case letters, digits and _, "
            "starting with a letter, at most 63"
        )
    if kind == "value_error":
        return f"{path}: {context['error']}" if path else str(context["error"])
    message = item["msg"][0].lower() + item["msg"][1:]
    return f"{path}: {message} (seen: {_short(seen)})"


def _readable(location: tuple[Any, ...]) -> list[str]:
    """The key path as the file has it, without the union branches that pydantic puts in."""
    parts = [str(part) for part in location]
    if parts[:1] == ["source"] and len(parts) > 1:
        del parts[1]  # the source's kind
    if parts[:1] == ["limits"] and len(parts) > 2:
        del parts[2]  # the limit's kind
        parts = [part for part in parts if part not in ("values", "range")]
    branches = ("literal[", "list[", "dict[", "function-", "[key]")
    return [part for part in parts if not part.startswith(branches)]


def _keys_at(location: tuple[Any, ...]) -> list[str]:
    """The keys that the campaign knows at a place."""
    model: Any = Campaign
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel):
            field = model.model_fields.get(str(part))
            model = field.annotation if field else model
        candidates = [model, *_flatten(model)]
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        tagged = [m for m in models if _tag(m) == part]
        model = (tagged or models or [model])[0] if len(models) < 2 or tagged else model
    if isinstance(model, type) and issubclass(model, BaseModel):
        return list(model.model_fields)
    return []


def _flatten(annotation: Any) -> list[Any]:
    found = []
    for argument in get_args(annotation):
        found += [argument, *_flatten(argument)]
    return found


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    literals = get_args(field.annotation) if field else ()
    return literals[0] if len(literals) == 1 else None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
