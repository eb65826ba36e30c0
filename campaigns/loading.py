"""From a YAML file to a campaign, or to everything that is wrong with it at once."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from campaigns.errors import CampaignError, choices
from campaigns.limits import KINDS, AnyLimit, Limits
from campaigns.spec import Campaign


def load_campaign(path: str | Path) -> Campaign:
    """Read and check a campaign file.

    Raises:
        CampaignError: It is missing, is no YAML or says something wrong: one line a mistake, each with
            the file, the key, what was seen and what would be right.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CampaignError(
            f"{path}: can't be read ({error.strerror}); give the path of a campaign file"
        ) from error
    except UnicodeDecodeError as error:
        raise CampaignError(f"{path}: is not UTF-8 text; a campaign is a YAML file") from error
    return parse_campaign(text, where=str(path))


def parse_campaign(text: str, where: str = "campaign") -> Campaign:
    """As :func:`load_campaign`, for the text itself."""
    try:
        data = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise CampaignError(f"{where}{line}: is not valid YAML: {problem}") from error
    if not isinstance(data, dict):
        seen = "empty" if data is None else f"a {type(data).__name__}"
        raise CampaignError(
            f"{where}: is {seen}; a campaign starts with 'name: ...' "
            "('updraft init' writes one from a table)"
        )
    try:
        return Campaign.model_validate(data)
    except ValidationError as error:
        lines = [f"{where}: {_sentence(item)}" for item in error.errors()]
        raise CampaignError("\n".join(dict.fromkeys(lines))) from error


def load_limits(path: Path) -> list[AnyLimit]:
    """Read a file of limits, and check what can be checked without a campaign.

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
        data = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise CampaignError(f"{where}: is not valid YAML: {reason}") from error
    if not isinstance(data, dict) or set(data) != {"limits"}:
        raise CampaignError(
            f"{where}: a file of limits starts with 'limits:', and a list below it is all it has"
        )
    try:
        return Limits.model_validate(data).limits
    except ValidationError as error:
        lines = [f"{where}: {_sentence(item)}" for item in error.errors()]
        raise CampaignError("\n".join(dict.fromkeys(lines))) from error


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key given twice and keeps ``off`` and ``no`` as the words they are (YAML 1.2)."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":bool")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = key_node.value
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is given twice", key_node.start_mark
            )
        seen.add(key)
    loader.flatten_mapping(node)
    return {
        # A level called 'no' or 'on' is a word to its author, not a boolean.
        (
            key_node.value
            if isinstance(key_node, yaml.ScalarNode)
            else loader.construct_object(key_node)
        ): loader.construct_object(value_node, deep=True)
        for key_node, value_node in node.value
    }


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|false|True|False)$"), list("tfTF")
)
_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


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
