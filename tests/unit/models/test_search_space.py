"""Where a search looks, where it begins, and what it keeps of its trials."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from campaigns.errors import CampaignError, CheckFailed, EnvironmentProblem
from models.catalog import catalog, entry
from models.journal import Journal
from models.search import search_space
from models.training import TrainConfig

OPEN: dict[str, dict[str, Any]] = {"net": {}, "training": {}}


@pytest.mark.parametrize("name", sorted(catalog()))
def test_a_search_of_any_net_begins_with_its_defaults(name: str) -> None:
    learner = entry(name).learner
    space = search_space(entry(name).config, OPEN, training=not learner)
    assert set(space.start) == set(space.where)
    for setting, where in space.where.items():
        assert where._contains(where.to_internal_repr(space.start[setting])), setting
    trained = {"training/learning_rate": TrainConfig().learning_rate}
    assert trained.items() <= space.start.items() or learner
    assert not learner or all(setting.startswith("net/") for setting in space.where)


def test_what_the_campaign_fixes_is_not_searched() -> None:
    fixed = {"net": {"width": 8}, "training": {"learning_rate": 0.01}}
    space = search_space(entry("mtmt").config, fixed)
    assert "net/width" not in space.where
    assert "training/learning_rate" not in space.where
    assert "net/experts" in space.where


def test_a_default_outside_the_searched_range_widens_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import dataclass

    from models.space import Config, OneOf, Span, integer, real

    @dataclass(frozen=True)
    class Odd(Config):
        rate: float = real(0.5, 0.0, 1.0, "Outside.", search=Span(0.0, 0.3))
        size: int = integer(7, 1, 100, "Not an option.", search=OneOf(8, 16))

    space = search_space(Odd, {"net": {}, "training": {}})
    assert space.where["net/rate"].high == space.start["net/rate"] == 0.5
    assert space.where["net/size"].choices == (8, 16, 7)


def test_nothing_left_to_search_is_said() -> None:
    space = search_space(entry("s_learner").config, OPEN)
    fixed: dict[str, dict[str, Any]] = {"net": {}, "training": {}}
    for setting, value in space.start.items():
        part, name = setting.split("/")
        fixed[part][name] = value
    with pytest.raises(CampaignError, match=r"fixes every setting .*search: false"):
        search_space(entry("s_learner").config, fixed)


def test_an_unknown_fixed_setting_is_refused() -> None:
    with pytest.raises(CampaignError, match="unknown key 'wdith'"):
        search_space(entry("mtmt").config, {"net": {"wdith": 8}, "training": {}})


class Trials:
    """Two trials as Tune shows them to a callback."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.journal = Journal(2, 3, self.told.append)
        self.all = [
            SimpleNamespace(trial_id=name, config={"net": {"width": width}})
            for name, width in (("a", 8), ("b", 16))
        ]

    def report(self, trial: int, *values: float) -> None:
        for value in values:
            result = {"validation": {"score": value}}
            self.journal.on_trial_result(0, self.all, self.all[trial], result)

    def start(self, trial: int) -> None:
        self.journal.on_trial_start(0, self.all, self.all[trial])

    def end(self, trial: int) -> None:
        self.journal.on_trial_complete(0, self.all, self.all[trial])

    def begin_again(self, trial: int, error: Exception | None) -> None:
        self.all[trial].get_error = lambda: error
        self.journal.on_trial_recover(
            0, [*self.all[:trial], *self.all[trial + 1 :]], self.all[trial]
        )

    def fail(self, trial: int, error: Exception | None) -> None:
        self.all[trial].get_error = lambda: error
        self.journal.on_trial_error(0, self.all, self.all[trial])


def test_the_journal_keeps_the_best_epoch_and_the_order_of_proposal() -> None:
    trials = Trials()
    trials.start(1)
    trials.report(1, 0.1)
    trials.end(1)
    trials.start(0)
    trials.report(0, 0.1, 0.4, 0.3)
    trials.end(0)
    table = trials.journal.table()
    assert list(table["net.width"]) == [8, 16]
    assert list(table["score"]) == [0.4, 0.1]
    assert list(table["status"]) == ["finished", "stopped"]
    assert list(table["epochs"]) == [3, 1]
    assert trials.journal.best().config == {"net": {"width": 8}}
    assert trials.told == [
        "trial 2 of 2: score 0.1 after 1 epoch, the best so far",
        "trial 1 of 2: score 0.4 after 3 epochs, the best so far",
    ]


def test_a_failed_trial_is_kept_with_its_reason() -> None:
    trials = Trials()
    trials.start(0)
    trials.fail(0, CheckFailed("the loss is nan"))
    trials.start(1)
    trials.report(1, 0.2)
    trials.end(1)
    table = trials.journal.table()
    assert list(table["status"]) == ["failed", "stopped"]
    assert table["error"][0] == "the loss is nan"
    assert trials.journal.best().config == {"net": {"width": 16}}


def test_a_trial_whose_node_was_lost_begins_again_from_nothing() -> None:
    trials = Trials()
    trials.start(0)
    trials.report(0, 0.9)
    trials.begin_again(0, None)  # Tune keeps no error of a process that is gone
    trials.all.reverse()  # and makes it the last of its list
    trials.start(0)
    trials.report(1, 0.1, 0.2, 0.3)
    trials.end(1)
    trials.fail(1, None)  # its process went after it had ended
    table = trials.journal.table()
    assert list(table["net.width"]) == [8, 16]
    assert table["scores"][0] == [0.1, 0.2, 0.3]
    assert table["status"][0] == "finished"
    assert trials.told == [
        "trial 1 of 2: begins again (its process or its node was lost)",
        "trial 1 of 2: score 0.3 after 3 epochs, the best so far",
    ]


def test_a_trial_that_failed_by_itself_is_tried_once_more_only() -> None:
    trials = Trials()
    trials.start(0)
    trials.all[0].max_failures = 3
    trials.begin_again(0, RayTaskError("run", "Traceback", CheckFailed("the loss is nan")))
    assert trials.all[0].max_failures == 0
    assert trials.told == ["trial 1 of 2: begins again (the loss is nan)"]


def test_where_every_trial_failed_the_first_reason_is_raised() -> None:
    trials = Trials()
    for trial, reason in enumerate(("the loss is nan", "the loss is inf")):
        trials.start(trial)
        trials.fail(trial, RayTaskError("run", "Traceback", CheckFailed(reason)))
    with pytest.raises(CheckFailed, match="the loss is nan"):
        trials.journal.best()
    other = Trials()
    for trial in (0, 1):
        other.start(trial)
        other.fail(trial, ValueError("no luck"))
    with pytest.raises(EnvironmentProblem, match="every trial .* no luck"):
        other.journal.best()


def test_a_search_that_was_interrupted_has_no_best() -> None:
    trials = Trials()
    trials.start(0)
    trials.report(0, 0.3)
    trials.end(0)
    with pytest.raises(KeyboardInterrupt):  # the second never began
        trials.journal.best()
    trials.start(1)
    with pytest.raises(KeyboardInterrupt):
        trials.journal.best()
