"""Answers of 400 and above, all of one form: ``{"error": ..., "problems": [{"field", "message"}]}``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse

from serving.inputs import MAX_PROBLEMS
from serving.schemas import FieldProblem

MAX_SHOWN = 300  # characters of what an outsider sent


class Ascii(JSONResponse):
    """JSON in ASCII: what an outsider sent may be no Unicode text, and is repeated in errors."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=True, allow_nan=False).encode("ascii")


def refusal(status: int, error: str, problems: Sequence[FieldProblem] = ()) -> Ascii:
    """An answer that says what is wrong."""
    shown = [problem.model_dump() for problem in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        error = f"{error} (the first {MAX_PROBLEMS} of {len(problems)} problems are listed)"
    return Ascii({"error": error, "problems": shown}, status_code=status)


def validation_problems(errors: Sequence[Any]) -> list[FieldProblem]:
    """Pydantic's findings as fields and sentences."""
    problems = []
    for error in errors:
        place = [str(part) for part in error["loc"]]
        field = ".".join(place[1:] if place[:1] == ["body"] else place) or "body"
        message = str(error["msg"]).removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = "is no field here"
        elif error["type"] == "missing":
            message = "is missing"
        elif error["type"] == "json_invalid":
            field, message = "body", "is no JSON"
        problems.append(FieldProblem(field=field[:MAX_SHOWN], message=message[:MAX_SHOWN]))
    return problems
