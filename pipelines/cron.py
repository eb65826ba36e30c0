"""Cron as Kubeflow Pipelines reads it: six fields, seconds first."""

from __future__ import annotations

from campaigns.errors import CampaignError

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_DAYS = "sun mon tue wed thu fri sat".split()

# (name, lowest, highest, names): the bounds of robfig/cron v1, which KFP reads schedules with.
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("second", 0, 59, {}),
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, start=1)}),
    ("day of week", 0, 6, {name: number for number, name in enumerate(_DAYS)}),
)
_NICKNAMES = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}


def checked_cron(text: str) -> str:
    """The schedule with single spaces between its six fields, if KFP reads it as it is meant.

    KFP takes five fields as seconds to month, without a word: ``0 3 * * *`` would run every hour, at
    three minutes past. So five are refused. Times are in the time zone of KFP, UTC unless it is set.

    Raises:
        CampaignError: Says what is wrong and, where it can be told, the mended schedule.

    >>> checked_cron("0 30  3 * * MON-FRI")
    '0 30 3 * * MON-FRI'
    """
    fields = text.split()
    example = "'0 0 3 * * *' is 3:00 every day"
    if text.strip().lower() in _NICKNAMES:
        mended = _NICKNAMES[text.strip().lower()]
        raise CampaignError(f"cron {text!r}: KFP wants six fields; write '{mended}'")
    if len(fields) == 5:
        mended = " ".join(["0", *fields])
        checked_cron(mended)
        raise CampaignError(
            f"cron {text!r}: has five fields; KFP wants six, seconds first: write '{mended}'"
        )
    if len(fields) != 6:
        raise CampaignError(
            f"cron {text!r}: has {len(fields)} fields; KFP wants six: second, minute, hour, "
            f"day of month, month and day of week, so that {example}"
        )
    for value, field in zip(fields, _FIELDS):
        problem = _problem(value, *field)
        if problem:
            raise CampaignError(f"cron {text!r}: {problem} ({example})")
    return " ".join(fields)


def _problem(value: str, name: str, low: int, high: int, names: dict[str, int]) -> str | None:
    """What is wrong with a field: a list of ``*``, ``?``, ``5``, ``1-5`` or ``mon-fri``, each with ``/2``."""
    for part in value.split(","):
        span, slash, step = part.partition("/")
        if slash and (not _is_number(step) or int(step) == 0):
            return f"{name} {part!r} has no step after the slash; write one such as */15"
        if span in ("*", "?"):
            continue
        ends = [_number(end, names) for end in span.split("-")]
        if len(ends) > 2 or any(end is None for end in ends):
            return f"{name} {part!r} is no number, range or *"
        first, last = ends[0], ends[-1]
        outside = next((end for end in ends if end is not None and not low <= end <= high), None)
        if outside is not None:
            sunday = "; Sunday is 0" if name == "day of week" else ""
            return f"{name} {outside} is not within {low}-{high}{sunday}"
        if first is not None and last is not None and first > last:
            return f"{name} {part!r} runs backwards; write it as two, with a comma"
    return None


def _number(text: str, names: dict[str, int]) -> int | None:
    if _is_number(text):
        return int(text)
    return names.get(text.lower())


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
