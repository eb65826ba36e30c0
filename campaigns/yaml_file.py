"""What users write in YAML: read as it stands, or told what keeps it from being read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from campaigns.errors import CampaignError

T = TypeVar("T")


def read_text(path: Path, what: str) -> str:
    """The text of a file.

    Args:
        path: Where it is.
        what: What it should be, such as "a campaign file".

    Raises:
        CampaignError: It can't be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CampaignError(
            f"{path}: can't be read ({error.strerror}); give the path of {what}"
        ) from error
    except UnicodeDecodeError as error:
        raise CampaignError(f"{path}: is not UTF-8 text; {what} is YAML") from error


def parse(text: str, where: str) -> Any:
    """What YAML says.

    Raises:
        CampaignError: It is none: where, and why.
    """
    try:
        return yaml.load(text, Loader=StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise CampaignError(f"{where}{line}: is not valid YAML: {problem}") from error


def validated(make: Callable[[Any], T], data: Any, where: str, sentence: Callable[[Any], str]) -> T:
    """What a model makes of data, or everything that is wrong with them.

    Args:
        make: A pydantic model's ``model_validate``.
        data: As parsed.
        where: The file.
        sentence: Tells one finding of pydantic.

    Raises:
        CampaignError: One line a mistake.
    """
    try:
        return make(data)
    except ValidationError as error:
        lines = [f"{where}: {sentence(item)}" for item in error.errors()]
        raise CampaignError("\n".join(dict.fromkeys(lines))) from error


class StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key given twice and keeps ``off`` and ``no`` as the words they are (YAML 1.2)."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":bool")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
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


StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|false|True|False)$"), list("tfTF")
)
StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
