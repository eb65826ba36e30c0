"""One declaration a setting: its default, its allowed range, a word about it and its search space.

A config is a frozen dataclass over :class:`Config` whose fields come from the helpers here:

    @dataclass(frozen=True)
    class MyConfig(Config):
        width: int = integer(32, 4, 512, "Width of every layer.", search=OneOf(16, 32, 64))
        dropout: float = real(0.0, 0.0, 0.9, "Dropout rate.", search=Span(0.0, 0.3))

Values are checked when the object is made, whoever makes it. :func:`suggest` reads the searched
fields as an Optuna trial, :func:`tune_space` as Ray Tune domains.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, TypeVar

from campaigns.errors import CampaignError, choices

C = TypeVar("C", bound="Config")


@dataclass(frozen=True)
class Span:
    """Search between two ends, both included; ``log`` searches the exponent."""

    low: float
    high: float
    log: bool = False


class OneOf:
    """Search over a handful of values."""

    def __init__(self, *options: Any) -> None:
        self.options = options


@dataclass(frozen=True)
class Knob:
    """What is known about one setting.

    Attributes:
        kind: ``integer``, ``real``, ``choice``, ``flag`` or ``text``.
        about: One sentence for people.
        low, high: Ends of the allowed range, both included (numbers only).
        options: The allowed values (choices only).
        search: Where a search looks, a part of what is allowed; None where it is left alone.
    """

    kind: str
    about: str
    low: float = -math.inf
    high: float = math.inf
    options: tuple[str, ...] = ()
    search: Span | OneOf | None = None

    def check(self, value: Any, where: str) -> Any:
        """The value in its own type, or a CampaignError that says what would be right."""
        if not self._allows(value):
            raise CampaignError(f"{where}: {value!r} won't do; give {self.wanted}")
        if self.kind == "integer":
            return int(value)
        return float(value) if self.kind == "real" else value

    def _allows(self, value: Any) -> bool:
        if self.kind == "choice":
            return value in self.options
        if self.kind == "flag":
            return isinstance(value, bool)
        if self.kind == "text":
            return isinstance(value, str) and value != ""
        number: Any = Integral if self.kind == "integer" else Real
        if not isinstance(value, number) or isinstance(value, bool):
            return False
        return bool(self.low <= value <= self.high)

    @property
    def wanted(self) -> str:
        """What is allowed, in words."""
        if self.kind == "choice":
            return choices(self.options)
        if self.kind == "flag":
            return "true or false"
        if self.kind == "text":
            return "a word"
        noun = "a whole number" if self.kind == "integer" else "a number"
        return f"{noun} from {self.low:g} to {self.high:g}"


def _field(default: Any, knob: Knob) -> Any:
    return field(default=default, metadata={"knob": knob})


def integer(
    default: int, low: int, high: int, about: str, *, search: Span | OneOf | None = None
) -> int:
    """A whole number in [low, high]."""
    return _field(default, Knob("integer", about, low, high, search=search))


def real(
    default: float, low: float, high: float, about: str, *, search: Span | OneOf | None = None
) -> float:
    """A number in [low, high]."""
    return _field(default, Knob("real", about, low, high, search=search))


def choice(
    default: str, options: tuple[str, ...], about: str, *, search: OneOf | None = None
) -> str:
    """One of a few words."""
    return _field(default, Knob("choice", about, options=options, search=search))


def flag(default: bool, about: str, *, search: bool = False) -> bool:
    """True or false; ``search=True`` lets a search try both."""
    return _field(default, Knob("flag", about, search=OneOf(True, False) if search else None))


def text(default: str, about: str) -> str:
    """A word that isn't one of a fixed few."""
    return _field(default, Knob("text", about))


@dataclass(frozen=True)
class Config:
    """Base of every config: each value is checked, and put into its own type, as it is made."""

    def __post_init__(self) -> None:
        for name, knob in knobs(type(self)).items():
            value = knob.check(getattr(self, name), f"{type(self).__name__}.{name}")
            object.__setattr__(self, name, value)


def knobs(config: type[Config]) -> dict[str, Knob]:
    """Every setting of a config, by name, in order."""
    return {f.name: f.metadata["knob"] for f in fields(config)}


def configure(config: type[C], values: Mapping[str, object] | None, where: str) -> C:
    """Make a config from what a user wrote; what is left out keeps its default.

    Args:
        config: The config's class.
        values: Settings by name, such as ``model.config`` of a campaign.
        where: What to call them in an error, such as ``model 'mtmt'``.

    Raises:
        CampaignError: An unknown key (the keys there are, and the nearest) or a bad value.
    """
    known = knobs(config)
    for name in values or {}:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise CampaignError(f"{where}: unknown key '{name}'{hint}; give {choices(known)}")
    return config(
        **{name: known[name].check(v, f"{where}, {name}") for name, v in (values or {}).items()}
    )


def searched(config: type[Config]) -> dict[str, Span | OneOf]:
    """The settings that a search moves, with where it looks."""
    return {name: k.search for name, k in knobs(config).items() if k.search is not None}


def defaults(config: type[Config]) -> dict[str, Any]:
    """Every setting's default, by name."""
    return {f.name: f.default for f in fields(config) if f.default is not MISSING}


def suggest(trial: Any, config: type[Config]) -> dict[str, Any]:
    """Ask an Optuna trial for each searched setting."""
    return {
        name: _suggest(trial, name, knobs(config)[name].kind, search)
        for name, search in searched(config).items()
    }


def _suggest(trial: Any, name: str, kind: str, search: Span | OneOf) -> Any:
    if isinstance(search, OneOf):
        return trial.suggest_categorical(name, list(search.options))
    if kind == "integer":
        return trial.suggest_int(name, int(search.low), int(search.high), log=search.log)
    return trial.suggest_float(name, search.low, search.high, log=search.log)


def tune_space(config: type[Config]) -> dict[str, Any]:
    """The searched settings as Ray Tune domains (imports Ray)."""
    from ray import tune

    def domain(kind: str, search: Span | OneOf) -> Any:
        if isinstance(search, OneOf):
            return tune.choice(list(search.options))
        if kind == "integer":
            draw = tune.lograndint if search.log else tune.randint
            return draw(int(search.low), int(search.high) + 1)
        return (tune.loguniform if search.log else tune.uniform)(search.low, search.high)

    return {name: domain(knobs(config)[name].kind, s) for name, s in searched(config).items()}
