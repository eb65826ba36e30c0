"""The experiment's file: what it says, and every mistake in it as one sentence."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from campaigns.errors import CampaignError
from campaigns.experiment import load_experiment, parse_experiment
from campaigns.loading import load_campaign

GAME = load_campaign(Path(__file__).parents[3] / "campaigns" / "game_bonus.yaml")
TEXT = """\
name: models
start: 2026-12-01
variants:
  random: {share: 0.25, policy: random}
  efin: {share: 0.75, policy: model, model: 3}
"""


def test_a_file_says_who_decides_on_which_share() -> None:
    found = parse_experiment(TEXT, GAME, "it")
    assert found.names == ["random", "efin"]
    assert found.shares.tolist() == [0.25, 0.75]
    assert found.variants["efin"].model == "3"
    assert (found.salt, found.reference, found.units) == ("models", "random", None)
    assert found.start == datetime(2026, 12, 1, tzinfo=UTC)


def test_shares_of_a_third_are_whole() -> None:
    thirds = "name: a\nstart: 2026-12-01T08:00:00+02:00\nreference: c\nvariants:\n"
    for name in "abc":
        thirds += f"  {name}: {{share: {1 / 3!r}, policy: nobody}}\n"
    found = parse_experiment(thirds, GAME, "it")
    assert found.start == datetime(2026, 12, 1, 6, tzinfo=UTC)
    assert found.reference == "c"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("0.25", "0.2", "variants: the shares sum to 0.95; they must sum to 1"),
        ("0.25", "0", "variants.random.share: input should be greater than 0"),
        ("0.25", ".nan", "variants.random.share: input should be a finite number"),
        ("policy: random", "policy: lucky", "'lucky' is no policy; choose from 'nobody', 'random'"),
        ("policy: random", "policy: random, arm: coins", "policy 'random' takes no 'arm'"),
        ("policy: random", "policy: arm", "variants.random: policy 'arm' needs 'arm': say which"),
        (
            "policy: random",
            "policy: arm, arm: gold",
            "'gold' is no arm; choose from 'none', 'coins'",
        ),
        (", model: 3", "", "variants.efin: policy 'model' needs 'model': say which"),
        ("model: 3", "modle: 3", "variants.efin.modle: unknown key; the keys here are 'share'"),
        ("efin:", "random:", "line 5: is not valid YAML: key 'random' is given twice"),
        ("efin:", "E fin:", "'E fin' is no name"),
        ("name: models", "name: models\nsalt: game_bonus_2026", "the key of the campaign's explor"),
        ("name: models", "name: models\nreference: mtmt", "reference: 'mtmt' is no variant"),
        ("name: models", "name: models\nunits: 0", "units: input should be greater than or equal"),
        ("name: models", "name: models\nend: 2027-01-01", "end: unknown key; the keys here are"),
        ("name: models\n", "", "name: is missing"),
        ("2026-12-01", "2026-12-01T08:00:00", "has no time zone; write UTC"),
        ("2026-12-01", "soon", "start: input should be a valid datetime"),
        ("  efin: {share: 0.75, policy: model, model: 3}\n", "", "compares at least 2"),
        (TEXT, "- random", "is no experiment; one starts with 'name: ...'"),
        (TEXT, "", "is no experiment"),
        ("variants:", "variants: [", "is not valid YAML"),
    ],
)
def test_every_mistake_is_one_sentence(old: str, new: str, words: str) -> None:
    with pytest.raises(CampaignError) as raised:
        parse_experiment(TEXT.replace(old, new, 1), GAME, "it")
    assert words in str(raised.value)
    assert str(raised.value).startswith("it")
    assert "\n" not in str(raised.value)


def test_variants_as_a_list_are_refused_with_the_right_form() -> None:
    listed = TEXT.replace("  random: {", "  - {name: random, ").replace("  efin: {", "  - {")
    with pytest.raises(CampaignError, match="is no mapping; write 'a name: "):
        parse_experiment(listed, GAME, "it")


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="can't be read"):
        load_experiment(tmp_path / "none.yaml", GAME)
