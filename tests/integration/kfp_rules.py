"""What the API server of Kubeflow Pipelines takes in a body, and what it refuses.

Bodies are checked against the models of ``kfp_server_api`` (unknown fields, types, enumerations), and
then as the server does it. Stricter in one point: a cron of five fields is refused, which KFP takes as
seconds to month (robfig/cron v1), so that the schedule would silently be another.
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

import kfp_server_api.models as models
import yaml

Json = dict[str, Any]


class Refused(Exception):
    """An answer other than 200, with the server's words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def stored(table: dict[str, Json], key: str, item: Json) -> Json:
    """The item with an id and a time, kept."""
    made = {**item, key: str(uuid.uuid4()), "created_at": datetime.now(UTC).isoformat()}
    table[made[key]] = made
    return made


def required(body: Json, name: str, at_most: int = 256) -> str:
    value = body.get(name)
    if not value:
        raise Refused(400, f"Invalid input error: {name} is empty. Please specify a valid value")
    if len(value) > at_most:
        raise Refused(400, f"Invalid input error: {name} length cannot exceed {at_most}")
    return str(value)


def conforms(value: Any, kind: str, where: str = "body") -> None:
    """Refuse what a field of this openapi type can't hold."""
    if kind.startswith("list["):
        checked(isinstance(value, list), where, value, kind)
        for index, item in enumerate(value):
            conforms(item, kind[5:-1], f"{where}[{index}]")
    elif kind.startswith("dict("):
        checked(isinstance(value, dict), where, value, kind)
        for key, item in value.items():
            conforms(item, kind[5:-1].split(", ", 1)[1], f"{where}.{key}")
    elif kind == "str":  # protojson takes a 64-bit integer as text or as a number
        checked(isinstance(value, str) or type(value) is int, where, value, kind)
    elif kind in ("int", "bool", "float"):
        checked(type(value).__name__ == kind, where, value, kind)
    elif kind == "datetime":
        checked(isinstance(value, str) and bool(datetime.fromisoformat(value)), where, value, kind)
    elif kind != "object":
        _conforms_to_model(value, getattr(models, kind), where)


def _conforms_to_model(value: Any, model: Any, where: str) -> None:
    if hasattr(model, "allowable_values"):
        checked(value in model.allowable_values, where, value, str(model.allowable_values))
        return
    checked(isinstance(value, dict), where, value, model.__name__)
    types = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
    for key, item in value.items():
        if key not in types:
            raise Refused(400, f'proto: {where}: unknown field "{key}"')
        conforms(item, types[key], f"{where}.{key}")


def list_key(kind: str) -> str:
    """The key of the items in a list's answer; they don't all follow one custom (recurringRuns)."""
    model = getattr(models, f"V2beta1List{kind}Response")
    (name,) = [name for name, held in model.openapi_types.items() if held.startswith("list[")]
    return str(model.attribute_map[name])


def checked(good: bool, where: str, value: Any, kind: str) -> None:
    if not good:
        raise Refused(400, f"proto: {where}: invalid value {value!r} for {kind}")


def filtered(items: list[Json], text: str) -> list[Json]:
    """The items that meet a filter's EQUALS predicates."""
    if not text:
        return items
    wanted = json.loads(unquote_plus(text))  # the real one decodes once more, too
    conforms({key: [] for key in wanted}, "V2beta1Filter")
    for predicate in wanted["predicates"]:
        value = predicate.get("stringValue", predicate.get("string_value"))
        if predicate["operation"] not in ("EQUALS", 1) or value is None:
            raise Refused(400, "Invalid input error: this predicate is not supported here")
        if predicate["key"] not in ("name", "display_name"):
            raise Refused(400, f"no support for filtering on unrecognized field {predicate['key']}")
        items = [item for item in items if item.get(predicate["key"]) == value]
    return items


def pipeline_spec(text: str) -> Json:
    """The pipeline's part of a package."""
    try:
        documents = [d for d in yaml.load_all(text, Loader=yaml.CSafeLoader) if d]
        spec = next(d for d in documents if "pipelineInfo" in d)
    except (yaml.YAMLError, StopIteration, TypeError) as error:
        raise Refused(400, "Invalid input error: no pipeline spec is provided") from error
    if (
        spec.get("schemaVersion") != "2.1.0"
        or "root" not in spec
        or not spec["pipelineInfo"]["name"]
    ):
        raise Refused(400, "Invalid input error: invalid v2 pipeline spec")
    return dict(spec)


def check_parameters(spec: Json, values: Json) -> None:
    """As the API server's validatePipelineJobInputs."""
    wanted = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name in set(values) - set(wanted):
        raise Refused(400, f"parameter {name} provided is not required by pipeline")
    kinds: dict[str, Any] = {
        "NUMBER_DOUBLE": (int, float), "NUMBER_INTEGER": (int, float), "STRING": str,
        "BOOLEAN": bool, "LIST": list, "STRUCT": dict,
    }  # fmt: skip
    for name, parameter in wanted.items():
        if name not in values:
            if not parameter.get("isOptional") and "defaultValue" not in parameter:
                raise Refused(
                    400, f"parameter {name} is not optional, yet has neither default value"
                )
            continue
        kind = kinds[parameter["parameterType"]]
        wrong_bool = isinstance(values[name], bool) and kind is not bool
        if not isinstance(values[name], kind) or wrong_bool:
            raise Refused(400, f"input parameter {name} requires type {parameter['parameterType']}")


def check_cron(cron: str) -> None:
    """Six fields within their bounds."""
    fields = cron.split()
    if len(fields) != 6:
        raise Refused(400, f"Schedule cron is not a supported format. Error: {len(fields)} fields")
    for value, high in zip(fields, (59, 59, 23, 31, 12, 6)):
        for number in value.replace("/", "-").replace(",", "-").split("-"):
            if number.isdigit() and int(number) > high:
                raise Refused(
                    400, f"Schedule cron is not a supported format. Error: {number} above {high}"
                )
