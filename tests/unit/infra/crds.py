"""Objects against the schemas of their custom resource definitions, as strictly as server-side apply."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

Object = dict[str, Any]


def schemas(folder: Path) -> dict[tuple[str, str], Object]:
    """(apiVersion, kind) to openAPIV3Schema, of every definition in the folder's YAML files."""
    found = {}
    for file in sorted(folder.rglob("*.yaml")):
        for each in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if each and each.get("kind") == "CustomResourceDefinition":
                for version in each["spec"]["versions"]:
                    name = f"{each['spec']['group']}/{version['name']}"
                    schema = version["schema"]["openAPIV3Schema"]
                    found[name, each["spec"]["names"]["kind"]] = closed(schema)
    return found


def closed(schema: Object) -> Object:
    """The same schema, refusing fields that it doesn't name: the API server refuses them too."""
    schema = copy.deepcopy(schema)
    schema["properties"]["metadata"] = {}  # checked by the API server itself, not by the definition
    _close(schema)
    return schema


def _close(schema: Any) -> None:
    if isinstance(schema, list):
        for each in schema:
            _close(each)
    if not isinstance(schema, dict):
        return
    named = isinstance(schema.get("properties"), dict)
    open_ended = (
        schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    )
    if named and schema.get("type") == "object" and not open_ended:
        schema["additionalProperties"] = False
    if schema.get("nullable") and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    for each in schema.values():
        _close(each)


def problems(each: Object, schema: Object) -> list[str]:
    """What the schema refuses. Rules in CEL are left to the API server."""
    errors = Draft202012Validator(schema).iter_errors(each)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]
