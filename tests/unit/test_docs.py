"""The documentation says what the code does: every key, command, variable, route and example in it is checked."""

from __future__ import annotations

import doctest
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import click
import pytest
import typer
import yaml
from pydantic import BaseModel, ValidationError

from campaigns import errors
from campaigns.experiment import parse_experiment
from campaigns.limits import Between
from campaigns.loading import load_campaign, parse_campaign, parse_limits
from campaigns.part import Part
from campaigns.settings import Settings
from campaigns.spec import Campaign
from campaigns.yaml_file import parse
from models.metrics import METRICS
from pipelines.cli import INTERRUPTED, app
from pipelines.commands.upkeep import OURS
from serving import schemas
from serving.status import CampaignStatus

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GAME_BONUS = ROOT / "campaigns" / "game_bonus.yaml"


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    where: str
    language: str
    text: str


def blocks(*languages: str) -> list[Block]:
    found = []
    for path in PAGES:
        for match in re.finditer(r"^```(\w+)\n(.*?)^```", path.read_text(), re.M | re.S):
            if match[1] in languages:
                line = path.read_text()[: match.start()].count("\n") + 1
                found.append(Block(f"{path.relative_to(ROOT)}:{line}", match[1], match[2]))
    return found


def prose(path: Path) -> list[str]:
    """A page's lines outside fenced blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S).splitlines()


def rows(text: str) -> list[list[str]]:
    """Cells of every table row."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def written(value: Any) -> str:
    """A default as the tables write it."""
    text = value if isinstance(value, str) and value else json.dumps(value)
    return f"`{text}`"


def named(block: Block) -> str:
    return block.where


# Campaign files


PLACEHOLDERS = {"treatments": "<factor>", "levels": "<level>", "outcomes": "<outcome>"}


def campaign_keys(model: type[Part] = Campaign, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of the file, dotted, with its field."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", field
        if name == "limits":  # a list of kinds, each with keys of its own
            continue
        several = f".{PLACEHOLDERS[name]}" if name in PLACEHOLDERS else ""
        for part in parts(field.annotation):
            yield from campaign_keys(part, f"{prefix}{name}{several}.")


def parts(annotation: Any) -> list[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    return [part for argument in get_args(annotation) for part in parts(argument)]


def test_every_key_of_a_campaign_is_documented_with_its_default() -> None:
    table = {row[0].strip("`"): row[1] for row in rows(page("docs/campaign.md"))}
    keys = dict(campaign_keys())
    leaves = {key for key in keys if not any(other.startswith(f"{key}.") for other in keys)}
    assert leaves <= set(table), sorted(leaves - set(table))
    for key, default in table.items():
        if key in ("key", "---"):
            continue
        assert key in keys, f"docs/campaign.md: {key} is no key"
        if key == "exploration.salt":
            assert default == "the name"
            continue
        field = keys[key]
        assert default == ("" if field.is_required() else written(field.default)), key


@pytest.mark.parametrize("kind", parts(Campaign.model_fields["limits"].annotation))
def test_every_kind_of_limit_is_documented_with_its_keys(kind: type[Part]) -> None:
    if kind is Between:
        return
    (name,) = get_args(kind.model_fields["kind"].annotation)
    (keys, _), *_ = [row[1:] for row in rows(page("docs/allocation.md")) if row[0] == f"`{name}`"]
    assert set(re.findall(r"`(\w+)`", keys)) == set(kind.model_fields) - {"kind"}


@pytest.mark.parametrize("block", blocks("yaml"), ids=named)
def test_every_campaign_in_the_docs_parses(block: Block) -> None:
    data = parse(block.text, "docs")
    if "variants" in data:
        parse_experiment(block.text, load_campaign(GAME_BONUS), block.where)
        return
    if set(data) == {"limits"}:
        parse_limits(block.text, where=block.where)
    if "name" not in data:  # a fragment: the rest is game_bonus
        data = parse(GAME_BONUS.read_text(), "docs") | data
    parse_campaign(yaml.safe_dump(data), where=block.where)


def test_the_readme_shows_a_part_of_game_bonus_as_it_is() -> None:
    (excerpt,) = [block for block in blocks("yaml") if block.where.startswith("README")]
    assert len(excerpt.text.splitlines()) == 5
    base = parse(GAME_BONUS.read_text(), "docs")
    merged = parse_campaign(yaml.safe_dump(base | parse(excerpt.text, "docs")), where="README")
    assert merged == load_campaign(GAME_BONUS)


# Commands


@cache
def root() -> Any:
    return typer.main.get_command(app)


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words after ``updraft`` name, and the words that are left."""
    command = root()
    while hasattr(command, "commands") and words:
        assert words[0] in command.commands, f"there is no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts} | {"--help"}


def command_lines() -> list[tuple[str, str]]:
    return [
        (block.where, line)
        for block in blocks("console")
        for line in block.text.replace("\\\n", " ").splitlines()
        if line.startswith("updraft ")
    ]


@pytest.mark.parametrize(("where", "line"), command_lines())
def test_every_command_line_in_the_docs_is_taken(where: str, line: str) -> None:
    command, words = command_of(shlex.split(line, comments=True)[1:])
    command.make_context("updraft", list(words))  # parses, and runs nothing


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_and_option_that_is_mentioned_exists(path: Path) -> None:
    everything = set().union(*(options_of(command_of(name.split())[0]) for name in all_commands()))
    for line in prose(path):
        command = None
        for span in re.findall(r"`([^`]+)`", line):
            if span.startswith("updraft "):
                command, words = command_of(
                    [w for w in span.split()[1:] if w not in ("NAME", "FILE")]
                )
                used = {word for word in words if word.startswith("--")}
            elif span.startswith("--"):
                used = {span.split()[0]}
            else:
                continue
            known = options_of(command) if command else everything
            assert used <= known, f"{path.name}: {span!r} has no {used - known}"


def all_commands() -> list[str]:
    groups = {name: getattr(each, "commands", {"": each}) for name, each in root().commands.items()}
    return [f"{name} {one}".strip() for name, group in groups.items() for one in group]


def test_every_command_is_documented() -> None:
    text = page("docs/operations.md")
    for name in all_commands():
        assert f"`updraft {name}" in text, name


def test_every_make_target_that_is_mentioned_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", page("Makefile"), re.M))
    code = [block.text for block in blocks("console")]
    for path in PAGES:
        code += re.findall(r"`([^`\n]+)`", "\n".join(prose(path)))
    used = {target for text in code for target in re.findall(r"\bmake ([a-z-]+)", text)}
    assert {"demo", "test"} <= used <= targets


# Settings, exit codes, folders


def test_every_environment_variable_is_documented_with_its_default() -> None:
    table = {
        row[0].strip("`"): row[1]
        for row in rows(page("docs/operations.md"))
        if row[0].startswith("`UPDRAFT_")
    }
    assert set(table) == {f"UPDRAFT_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, bool | int | Path) or (isinstance(default, str) and default):
            text = str(default) if isinstance(default, Path) else default
            assert table[f"UPDRAFT_{name.upper()}"] == written(text), name


def test_no_other_environment_variable_is_named() -> None:
    known = {f"UPDRAFT_{name.upper()}" for name in Settings.model_fields}
    for path in PAGES:
        used = set(re.findall(r"UPDRAFT_[A-Z_]*[A-Z]", path.read_text()))
        assert used <= known, (path.name, used - known)


def test_every_exit_code_is_documented() -> None:
    table = {row[0] for row in rows(page("docs/operations.md")) if row[0].isdigit()}
    kinds: list[type[errors.UpdraftError]] = [errors.UpdraftError]
    kinds += errors.UpdraftError.__subclasses__()
    ours = {kind.exit_code for kind in kinds if kind.__module__ == errors.__name__}
    assert table == {str(code) for code in ours | {0, INTERRUPTED}}


def test_every_folder_of_the_home_is_documented() -> None:
    text = page("docs/architecture.md").split("## Where state lives")[1].split("\n## ")[0]
    assert {row[0].strip("`") for row in rows(text)} - {"folder", "---"} == OURS


# The HTTP service


def test_every_route_is_documented(tmp_path: Path) -> None:
    from serving.app import create_app
    from serving.events import EventStore
    from serving.service import Service

    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    service = Service(store, lambda name, version: pytest.fail("nothing is served"), token="t")
    try:
        routes: Any = create_app(service).routes
        ours = ("/v1/", "/healthz", "/metrics")
        there = {
            (method, route.path)
            for route in routes
            if route.path.startswith(ours)
            for method in route.methods - {"HEAD"}
        }
    finally:
        service.close()
    table = {
        (found[1], found[2]): row[2]
        for row in rows(page("docs/serving.md"))
        if (found := re.fullmatch(r"`(GET|POST) (\S+)`", row[0]))
    }
    assert set(table) == there
    for (method, path), needs_token in table.items():
        assert (needs_token == "yes") == (method == "POST"), path


REQUESTS: tuple[type[BaseModel], ...] = (schemas.DecisionRequest, schemas.OutcomesRequest)
ANSWERS: tuple[type[BaseModel], ...] = (
    schemas.DecisionsAnswer,
    schemas.OutcomesAnswer,
    schemas.Refusal,
    CampaignStatus,
)


def is_a(model: type[BaseModel], data: Any) -> bool:
    """A request is what the service takes; an answer has every field, and no other."""
    try:
        read = model.model_validate(data)
    except ValidationError:
        return False
    return model in REQUESTS or read.model_dump(mode="json") == data


@pytest.mark.parametrize("block", blocks("json"), ids=named)
def test_every_json_example_is_a_request_or_an_answer(block: Block) -> None:
    fitting = [m.__name__ for m in (*REQUESTS, *ANSWERS) if is_a(m, json.loads(block.text))]
    assert len(fitting) == 1, fitting


def test_curl_sends_a_good_request() -> None:
    bodies = [body for block in blocks("console") for body in re.findall(r"-d '(.*?)'", block.text)]
    assert bodies
    for body in bodies:
        schemas.DecisionRequest.model_validate_json(body)


# Models and metrics


FAMILIES = sorted((ROOT / "docs" / "models").glob("*.md"))


def tables(text: str) -> list[list[list[str]]]:
    """Every table, its header first."""
    found = re.findall(r"(?:^\| .*\n)+", text, re.M)
    return [[row for row in rows(table) if row[0] != "---"] for table in found]


def documented(text: str) -> dict[str, dict[str, str]]:
    """Each model's settings and defaults, as the tables of a page give them.

    A table's columns are headed by models; an empty cell is a setting that a model doesn't have. A
    row of several settings gives one default for all, or one for each.
    """
    found: dict[str, dict[str, str]] = {}
    for (first, *columns, about), *body in tables(text):
        if first != "setting":
            continue
        assert about == ""
        for name, *cells, words in body:
            settings = re.findall(r"`(\w+)`", name)
            assert words.endswith("."), name
            for column, cell in zip(columns, cells, strict=True):
                values = cell.split(", ") if cell else []
                if len(values) == 1:
                    values *= len(settings)
                assert len(values) in (0, len(settings)), name
                own = found.setdefault(column.strip("`"), {})
                assert not set(own) & set(settings), f"{column}: {name} twice"
                own |= zip(settings, values)
    return found


def searched_in(text: str) -> dict[str, set[str]]:
    """What is said to be searched, by model: `Searched.`, or `Searched, not for ...`."""
    found: dict[str, set[str]] = {}
    for (first, *columns, _), *body in tables(text):
        for name, *cells, words in body if first == "setting" else []:
            said = re.search(r"Searched(?:, not for ([^.]*))?\.", words)
            for column, cell in zip(columns, cells):
                if said and cell and column not in (said[1] or ""):
                    found.setdefault(column.strip("`"), set()).update(re.findall(r"`(\w+)`", name))
    return found


def test_every_model_and_setting_is_documented_with_its_default() -> None:
    from models.catalog import catalog
    from models.nets.base import NetConfig
    from models.space import defaults, searched

    shared = {name: written(value) for name, value in defaults(NetConfig).items()}
    pages = [path.read_text(encoding="utf-8") for path in FAMILIES]
    found = {name: own for text in pages for name, own in documented(text).items()}
    assert sum(len(documented(text)) for text in pages) == len(found), "a model on two pages"
    assert set(found) == set(catalog())
    moved = {name: own for text in pages for name, own in searched_in(text).items()}
    for name, entry in catalog().items():
        wanted = {key: written(value) for key, value in defaults(entry.config).items()}
        if issubclass(entry.config, NetConfig):  # those as of every net are in docs/models.md
            assert set(shared) <= set(wanted)
            wanted = {k: v for k, v in wanted.items() if shared.get(k) != v}
        assert found[name] == wanted, name
        assert moved.get(name, set()) == set(searched(entry.config)), name


def test_settings_of_every_net_and_of_training_are_documented_with_their_defaults() -> None:
    from models.nets.base import NetConfig
    from models.space import defaults, searched
    from models.training import TrainConfig

    sections = {part.partition("\n")[0]: part for part in page("docs/models.md").split("\n## ")[1:]}
    for config, section in ((NetConfig, "Ensembles"), (TrainConfig, "Training")):
        wanted = {name: written(value) for name, value in defaults(config).items()}
        assert documented(sections[section])["default"] == wanted, section
        moved = searched_in(sections[section]).get("default", set())
        assert moved == set(searched(config)), section


def test_every_model_is_in_the_index_with_what_it_serves() -> None:
    from models.catalog import catalog

    (index,) = (each for each in tables(page("docs/models.md")) if each[0][0] == "model")
    traits = index[0][2:]
    assert traits == ["arms", "factors", "outcomes", "dose", "sequence", "cost"]
    listed = {}
    for cell, _, *can in index[1:]:
        link = re.fullmatch(r"\[`(\w+)`\]\((models/[\w-]+\.md)#([\w-]+)\)", cell)
        assert link, cell
        assert link[1] in documented(page(f"docs/{link[2]}")), f"{cell}: not on that page"
        listed[link[1]] = dict(zip(traits, can, strict=True))
    assert set(listed) == set(catalog())
    for name, entry in catalog().items():
        for trait, said in listed[name].items():
            yes, no = ("yes", "no") if trait in ("dose", "sequence", "cost") else ("several", "one")
            able = yes if getattr(entry.supports, trait) else no
            assert said == ("needed" if trait in entry.supports.needs else able), (name, trait)


def test_models_that_the_guide_names_exist() -> None:
    from models.catalog import catalog

    text = page("docs/models.md").split("## How to choose one")[1].split("\n## ")[0]
    advised = {word for row in tables(text)[0][1:] for word in re.findall(r"`(\w+)`", row[1])} - {
        "members"
    }
    assert len(advised) > 5
    assert advised <= set(catalog())


def test_the_example_of_a_net_works() -> None:
    import torch

    from models import catalog, data, layers, space
    from models.nets import base

    (example,) = blocks("python")
    names: dict[str, Any] = {"dataclass": dataclass, "Tensor": torch.Tensor, "__name__": "example"}
    for module in (catalog, data, layers, space, base):
        names |= vars(module)
    exec(compile(example.text.replace("...", "a paper"), example.where, "exec", 0, True), names)
    entry = names["ENTRY"]
    shape = data.Shape(2, (3,), ((0,), (1,), (2,)), ("binary", "count"))
    net = entry.net(shape, entry.config())
    answer = net.potential_outcomes(torch.zeros(4, 2), torch.zeros(4, 1, dtype=torch.int64))
    assert answer.shape == (4, 3, 2)


def test_what_the_examples_print_is_what_the_page_says() -> None:
    examples = blocks("pycon")
    pages = {block.where.partition(":")[0] for block in examples}
    assert "docs/experiments.md" in pages
    for name in pages:
        text = "\n".join(b.text for b in examples if b.where.partition(":")[0] == name)
        told = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
        assert doctest.DocTestRunner().run(told).failed == 0, name


def test_every_metric_is_documented() -> None:
    table = {row[0].strip("`") for row in rows(page("docs/metrics.md")) if len(row) == 3}
    assert table - {"name", "---"} == {*METRICS, "lift@30"}


# The pages themselves


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = [line.lstrip("#").strip() for line in prose(path) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", "\n".join(prose(path))):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def test_the_readme_has_a_place_for_the_demo() -> None:
    text = page("README.md")
    assert text.index("<!-- demo-output -->") < text.index("<!-- /demo-output -->")


def test_the_picture_needs_nothing_from_outside() -> None:
    picture = ElementTree.parse(ROOT / "docs" / "loop.svg").getroot()
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    links = [name for node in picture.iter() for name in node.attrib if name.endswith("href")]
    assert not links
