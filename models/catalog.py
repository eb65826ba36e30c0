"""The catalogue of nets and learners: what there is, what each can serve, and one made by its name.

A net joins by being a module in ``models/nets`` with an ``ENTRY``, a learner by being one in
``models/learners``; nothing else lists it.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import nn

from campaigns.errors import CampaignError, choices
from models.data import KINDS, Shape
from models.ensemble import Ensemble
from models.learners.base import Learner
from models.nets.base import Net, NetConfig
from models.space import Config, configure


@dataclass(frozen=True)
class Supports:
    """What a net can serve beyond one treatment, one factor and one outcome.

    Attributes:
        arms: Several treated arms.
        factors: Several treatment factors (simultaneous treatments).
        outcomes: Several outcomes.
        dose: A continuous factor, by its number.
        sequence: Models outcomes as a chain (others take them side by side).
        cost: Uses what arms cost.
        kinds: The kinds of outcome it takes.
        needs: What of ``arms``, ``factors``, ``outcomes``, ``dose``, ``sequence`` it makes no sense
            without.
    """

    arms: bool = False
    factors: bool = False
    outcomes: bool = False
    dose: bool = False
    sequence: bool = False
    cost: bool = False
    kinds: tuple[str, ...] = KINDS
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A net or a learner of the catalogue.

    Attributes:
        name: What a campaign's ``model.name`` says.
        net: The class, made as ``net(shape, config)``: a torch module, or a learner.
        config: Its settings.
        supports: What it can serve.
        paper: Where it is from.
        answers: ``outcomes`` (``potential_outcomes``) or ``scores`` (a ranking net).
        training: Defaults of ``model.training`` that a net has of its own; none that a search tries.
    """

    name: str
    net: type[nn.Module] | type[Learner]
    config: type[Config]
    supports: Supports
    paper: str
    answers: str = "outcomes"
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def learner(self) -> bool:
        """Whether it is a learner, fit as a whole, rather than a net, trained by epochs."""
        return issubclass(self.net, Learner)


@cache
def catalog() -> Mapping[str, Entry]:
    """Every net and learner, by name."""
    from models import learners, nets

    loaded = [
        importlib.import_module(f"{package.__name__}.{name}")
        for package in (nets, learners)
        for name in sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    ]
    entries = [module.ENTRY for module in loaded if hasattr(module, "ENTRY")]
    if len({entry.name for entry in entries}) != len(entries):
        raise ValueError(f"two models share a name: {sorted(entry.name for entry in entries)}")
    return MappingProxyType({entry.name: entry for entry in entries})


def entry(name: str) -> Entry:
    """A net or learner of the catalogue by its name.

    Raises:
        CampaignError: There is none; lists those there are.
    """
    try:
        return catalog()[name]
    except KeyError:
        near = difflib.get_close_matches(name, catalog(), n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise CampaignError(f"no model '{name}'{hint}; give {choices(catalog())}") from None


def lacks(supports: Supports, shape: Shape) -> list[str]:
    """Why a net can't serve a shape, a phrase each; empty where it can."""
    has = {
        "arms": (shape.arms > 2, f"{shape.arms - 1} treated arms", "one"),
        "factors": (shape.factors > 1, f"{shape.factors} treatment factors", "one"),
        "outcomes": (shape.outcome_count > 1, f"{shape.outcome_count} outcomes", "one"),
        "dose": (bool(shape.dosed), "a dose", "levels only"),
    }
    reasons = [
        f"the campaign has {seen} and it takes {limit}"
        for trait, (several, seen, limit) in has.items()
        if several and not getattr(supports, trait)
    ]
    several = {trait: found for trait, (found, *_) in has.items()}
    several["sequence"] = bool(shape.sequence)
    wants = {"sequence": "a sequence of outcomes", "dose": "a dose"}
    reasons += [
        f"it needs {wants.get(trait, f'several {trait}')}"
        for trait in supports.needs
        if not several[trait]
    ]
    if foreign := sorted(set(shape.outcomes) - set(supports.kinds)):
        reasons.append(f"it takes {choices(supports.kinds)} outcomes, not {choices(foreign)}")
    return reasons


def check_supports(name: str, shape: Shape) -> None:
    """Refuse a net that can't serve a campaign.

    Raises:
        CampaignError: Why it can't, and the nets that can; or no net has that name.
    """
    if not (reasons := lacks(entry(name).supports, shape)):
        return
    able = [other for other, each in catalog().items() if not lacks(each.supports, shape)]
    raise CampaignError(
        f"model '{name}' can't serve this campaign: {'; '.join(reasons)}; "
        + (f"give {choices(able)}" if able else "no model can")
    )


def build(
    name: str,
    shape: Shape,
    config: Mapping[str, object] | None = None,
    *,
    seed: int | None = None,
) -> nn.Module:
    """Make a net.

    Args:
        name: A name of the catalogue.
        shape: The campaign's shape.
        config: Settings by name; what is left out keeps its default.
        seed: Draw the first weights from this seed, the caller's random state untouched.

    Raises:
        CampaignError: Unknown name or setting, a value out of range, a shape it can't serve; each
            with what would be right. Or the name is a learner's.
    """
    chosen, settings = _checked(name, shape, config)
    if chosen.learner:
        raise CampaignError(f"model '{name}' is a learner, not a net: it has no weights to train")
    if seed is None:
        return _make(chosen, shape, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _make(chosen, shape, settings)


def build_learner(name: str, shape: Shape, config: Mapping[str, object] | None = None) -> Learner:
    """Make a learner; arguments and errors as for :func:`build`."""
    chosen, settings = _checked(name, shape, config)
    if not chosen.learner:
        raise CampaignError(f"model '{name}' is a net, not a learner: it is trained by epochs")
    return cast(Learner, chosen.net(shape, settings))


def _checked(name: str, shape: Shape, config: Mapping[str, object] | None) -> tuple[Entry, Config]:
    chosen = entry(name)
    settings = configure(chosen.config, config, f"model '{name}'")
    check_supports(name, shape)
    return chosen, settings


def _make(chosen: Entry, shape: Shape, settings: Config) -> nn.Module:
    if not isinstance(settings, NetConfig) or settings.members == 1:
        return cast(nn.Module, chosen.net(shape, settings))
    nets = [cast(Net, chosen.net(shape, settings)) for _ in range(settings.members)]
    return Ensemble(nets, share=settings.share == "trunk", bootstrap=settings.bootstrap)
