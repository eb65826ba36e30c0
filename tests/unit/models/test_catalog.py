"""Nets by name: what a user's mistakes are answered with, and what a search may try."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import optuna
import pytest
import torch

from campaigns.errors import CampaignError
from models import catalog as catalogue
from models.catalog import Entry, Supports, build, catalog, check_supports, lacks
from models.data import Shape
from models.nets.mtmt import MTMTConfig
from models.plan import train_config
from models.space import (
    Config,
    OneOf,
    Span,
    choice,
    configure,
    defaults,
    flag,
    integer,
    knobs,
    real,
    searched,
    suggest,
    text,
)
from models.training import TrainConfig

SHAPE = Shape(2, (), ((0,), (1,), (2,)), ("binary", "binary"))


@dataclass(frozen=True)
class Toy(Config):
    width: int = integer(8, 1, 64, "Width.", search=OneOf(4, 8))
    depth: int = integer(2, 1, 9, "Depth.", search=Span(1, 3))
    rate: float = real(0.1, 0.0, 1.0, "Rate.", search=Span(0.01, 0.5, log=True))
    kind: str = choice("a", ("a", "b"), "Kind.")
    on: bool = flag(True, "On?", search=True)
    name: str = text("x", "Name.")


def test_the_first_nets_are_there():
    assert {"mtmt", "s_learner", "t_learner"} <= set(catalog())


def test_a_net_may_have_training_defaults_of_its_own_which_a_campaign_can_change() -> None:
    own = {name: each.training for name, each in catalog().items() if each.training}
    assert "mtmt" in own
    for name, training in own.items():
        assert not set(training) & set(searched(TrainConfig)), name
        found = asdict(train_config(name, {}))
        assert found == asdict(TrainConfig()) | dict(training)
    assert train_config("mtmt", {"epochs": 3}).epochs == 3
    assert train_config("s_learner", {}) == TrainConfig()


@pytest.mark.parametrize("name", sorted(catalog()))
def test_every_entry_is_whole(name):
    entry = catalog()[name]
    assert entry.name == name
    assert entry.paper
    assert entry.answers in ("outcomes", "scores")
    assert entry.config() == configure(entry.config, {}, name), "defaults are allowed values"
    assert all(knob.about.endswith(".") for knob in knobs(entry.config).values())
    assert entry.net.__doc__


def test_an_unknown_model_lists_the_models():
    with pytest.raises(
        CampaignError, match=r"no model 'mtnt' \(did you mean 'mtmt'\?\); give .*'s_"
    ):
        build("mtnt", SHAPE)


def test_an_unknown_setting_lists_the_settings():
    with pytest.raises(CampaignError) as caught:
        build("mtmt", SHAPE, {"expert": 3})
    assert str(caught.value).startswith(
        "model 'mtmt': unknown key 'expert' (did you mean 'experts'?); give 'members', 'share', "
    )


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("experts", 0, "a whole number from 1 to 64"),
        ("experts", 2.5, "a whole number"),
        ("experts", True, "a whole number"),
        ("dropout", "much", "a number from 0 to 0.9"),
        ("dropout", float("nan"), "a number"),
        ("encoder", "vit", "'mmoe', 'ple', 'apem', 'resnet' or 'mlp'"),
        ("centre", "yes", "true or false"),
    ],
)
def test_a_bad_value_says_what_would_be_right(key, value, wanted):
    with pytest.raises(CampaignError, match=f"model 'mtmt', {key}: .*; give {wanted}"):
        build("mtmt", SHAPE, {key: value})
    with pytest.raises(CampaignError, match=f"MTMTConfig.{key}"):
        MTMTConfig(**{key: value})


def test_a_whole_number_will_do_for_a_real_one():
    assert configure(Toy, {"rate": 1}, "toy").rate == 1.0


def test_a_net_that_cannot_serve_names_those_that_can(monkeypatch):
    toy = Entry("toy", torch.nn.Module, Toy, Supports(), "none")
    monkeypatch.setattr(catalogue, "catalog", lambda: {**catalog(), "toy": toy})
    with pytest.raises(CampaignError) as caught:
        check_supports("toy", SHAPE)
    assert str(caught.value).startswith(
        "model 'toy' can't serve this campaign: the campaign has 2 treated arms and it takes one; "
        "the campaign has 2 outcomes and it takes one; give "
    )
    assert "'mtmt'" in str(caught.value)
    assert "'toy'" not in str(caught.value).split("give")[1]


def test_needs_and_kinds_are_checked():
    chained = Supports(arms=True, outcomes=True, sequence=True, needs=("sequence",))
    assert lacks(chained, SHAPE) == ["it needs a sequence of outcomes"]
    assert lacks(chained, Shape(2, (), SHAPE.levels, SHAPE.outcomes, (0, 1))) == []
    assert lacks(Supports(arms=True, outcomes=True, needs=("factors",)), SHAPE) == [
        "it needs several factors"
    ]
    dosed = replace(SHAPE, doses=((0.0, 0.5, 1.0),))
    doses = Supports(arms=True, outcomes=True, dose=True, needs=("dose",))
    assert (lacks(doses, dosed), lacks(doses, SHAPE)) == ([], ["it needs a dose"])
    levels = Supports(arms=True, outcomes=True)
    assert lacks(levels, dosed) == ["the campaign has a dose and it takes levels only"]
    counts = Shape(2, (), ((0,), (1,)), ("count",))
    assert lacks(Supports(kinds=("binary",)), counts) == ["it takes 'binary' outcomes, not 'count'"]


def test_a_seed_fixes_the_weights_and_leaves_the_random_state():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (build("mtmt", SHAPE, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = list(zip(one.parameters(), same.parameters(), other.parameters()))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


def test_one_declaration_gives_default_check_and_search():
    assert defaults(Toy) == {
        "width": 8, "depth": 2, "rate": 0.1, "kind": "a", "on": True, "name": "x",
    }  # fmt: skip
    assert set(searched(Toy)) == {"width", "depth", "rate", "on"}


@pytest.mark.parametrize("config", [Toy, *(entry.config for entry in catalog().values())])
def test_what_a_search_suggests_is_allowed(config):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        suggestion = suggest(study.ask(), config)
        assert set(suggestion) == set(searched(config))
        configure(config, suggestion, "search")
