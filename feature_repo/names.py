"""What things are called inside Feast."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

ENTITY = "unit"
LOG_SOURCE = "feature_log"
PUSH_SOURCE = "fresh_features"
VIEW = "unit_features"
SERVICE = "decision_features"

UNIT = "unit_id"
TIME = "event_timestamp"
CREATED = "created_timestamp"
ROW = "decision_row"

# Names that we or Feast's point-in-time joins need for other columns.
_TAKEN = frozenset(
    {UNIT, TIME, CREATED, ROW, "entity_row_id", "event_expire_timestamp", "rn", "__log_date"}
)
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def field_names(features: Sequence[str]) -> dict[str, str]:
    """The name in Feast of each feature: its own wherever every store takes it.

    A name with spaces or other signs, with a leading digit, that only differs from another by case
    (DuckDB can't tell the two apart), or that Feast uses otherwise (``*_y`` is dropped in its joins,
    ``*__ts`` are times online) becomes a plain one with six hex digits of its hash; the field's tag
    ``column`` keeps the original.
    """
    count = Counter(name.lower() for name in features)
    return {name: _field(name, unique=count[name.lower()] == 1) for name in features}


def _field(name: str, *, unique: bool) -> str:
    plain = _PLAIN.fullmatch(name) and not name.lower().endswith(("_y", "__ts"))
    if plain and unique and name.lower() not in _TAKEN:
        return name
    words = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:40]
    if not words[:1].isalpha():
        words = f"f_{words}".rstrip("_")
    return f"{words}_{hashlib.sha256(name.encode()).hexdigest()[:6]}"
