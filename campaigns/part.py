"""What every part of the campaign file is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Part(BaseModel):
    """A part of the campaign file: unknown keys are refused, values don't change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def text(value: Any) -> Any:
    """A number as levels are named (0.1, not 0.1000000001; 6, not 6.0); else the value itself."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value + 0.0:.12g}" if number else value
