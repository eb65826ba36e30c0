"""The report: one file that needs nothing else, says what was found, and takes parts that are missing."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from campaigns.errors import DataError
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.worlds import world
from models.catalog import build
from models.checks.drift import DriftVerdict
from models.checks.srm import SampleRatio
from models.dataset import fit_recipe
from models.gate import Verdict
from models.hidden_confounding import ArmConfounding, Confounding
from models.metrics import EValue, Interval, Sensitivity, UpliftRow
from models.report import CampaignFacts, PolicyRow, RunReport, parts_densities, render
from models.report.data import read_as
from models.report.figures import calibration
from models.report.page import interval, number, share
from models.uplift_deciles import Deciles
from models.uplift_evaluation import Band, UpliftEvaluation
from models.uplift_model import UpliftModel

GAME = load_campaign(Path(__file__).parents[3] / "campaigns" / "game_bonus.yaml")
GRID = np.linspace(0, 1, 41)
VOID = {"meta", "br", "link", "img", "input", "hr"}


HIDDEN = Sensitivity(
    1,
    Interval(0.1, 0.08, 0.12, 0.95),
    1.4567,
    1.2345,
    EValue(Interval(1.5, 1.2, 1.8, 0.95), 2.366, 1.69),
)


def evaluation(arms: list[str], outcomes: list[str]) -> UpliftEvaluation:
    pairs = [(arm, outcome) for arm in arms for outcome in outcomes]
    curve = (0.1 * np.sqrt(GRID)).tolist()
    low, high = (0.08 * np.sqrt(GRID)).tolist(), (0.12 * np.sqrt(GRID)).tolist()
    kinds = ("uplift", "qini", "cost")
    bins = np.linspace(-0.1, 0.2, 10)
    return UpliftEvaluation(
        rows=24_021,
        table=[
            UpliftRow(a, o, name, told, Interval(0.1, 0.08, 0.12, 0.95), 5, 5)
            for name, told in (("ate", "mean treated - mean control"), ("calibration_error", "root"))
            for a, o in pairs
        ],
        bands=[Band(kind, a, o, GRID.tolist(), curve, low, high) for a, o in pairs for kind in kinds],
        deciles=[
            Deciles(
                a, o, bins.tolist(), bins.tolist(), (bins - 0.05).tolist(), (bins + 0.05).tolist(),
                [-0.2, 0.0, 0.3], [-5.0, 0.1, 0.1],
            )
            for a, o in pairs
        ],
        confounding=Confounding("estimate", 24_021, [ArmConfounding(a, o, HIDDEN) for a, o in pairs]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def report() -> RunReport:
    drift = DriftVerdict(
        drifted=True,
        share=0.5,
        columns={"games_7d": 0.41, "device": 0.02, "friends is missing": None},
        drifted_features=["games_7d"],
        method="psi",
        threshold=0.2,
        share_threshold=0.3,
        rows=(20_000, 9_000),
        periods=(
            ("2026-01-01T00:00", "2026-01-21T00:00"),
            ("2026-01-21T00:00", "2026-01-28T00:00"),
        ),
        outcomes={"login_next_day": (0.68, 0.61), "spend": (None, 2.0)},
    )
    return RunReport(
        campaign=CampaignFacts.of(GAME),
        run={"run": "20260129-0810"},
        policies=[
            PolicyRow("nobody", Interval(1.108, 1.085, 1.131, 0.95), 0.0, [1.0, 0.0, 0.0], truth=1.11),
            PolicyRow(
                "challenger", Interval(1.203, 1.18, 1.227, 0.95), 0.0817, [0.73, 0.263, 0.007],
                gain=Interval(0.0953, 0.077, 0.114, 0.95), truth=1.19, warning="Few rows.",
            ),
        ],
        budget_per_unit=0.0817,
        verdict=Verdict(True, Interval(0.0953, 0.077, 0.114, 0.95), "its gain is +0.0953"),
        evaluation=evaluation(["coins", "skin"], ["login_next_day", "plays_more_7d"]),
        sample_ratio=SampleRatio(0.128, {"none": 40_257}, {"none": 40_000.0}, True, 0.001, "chi-square"),
        drift=drift,
        drift_link="drift.html",
        notes=["champion v1 can't be compared"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(report: RunReport, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("run") / "new" / "report.html"
    render(report, path)
    return path.read_text(encoding="utf-8")


class Balanced(HTMLParser):
    """Collects tags; fails where one isn't closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.seen.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return parser


def test_the_page_is_whole_and_needs_nothing_else(page: str) -> None:
    found = parsed(page)
    assert not {"script", "link", "img", "iframe"} & set(found.seen)
    links = {value for name, value in found.attributes if name in ("href", "src", "xlink:href")}
    assert {link for link in links if not link.startswith("#")} == {"drift.html"}
    assert "@import" not in page
    assert "url(http" not in page


def test_every_chart_is_small_and_so_is_the_page(page: str) -> None:
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.S)
    assert len(charts) == 1 + 4 * 4  # the policies, and four for each arm and outcome
    assert max(map(len, charts)) < 150_000
    assert len(page) < 3_000_000
    assert all('aria-label="' in chart for chart in charts)


def test_it_says_what_was_found(page: str) -> None:
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    for sentence in (
        "Which login bonus, if any, to offer each player today.",
        "✓ The challenger decides from now on",
        "Its gain is +0.0953.",
        "champion v1 can&#39;t be compared",
        "+0.095 [+0.077, +0.114]",
        "1.203 [1.180, 1.227]",
        "100% of 0.0817",
        "On 24,021 held-out rows",
        "as designed",
        "40,257 40,000",
        "50% of the features drifted (games_7d): the data has drifted",
        "games_7d 0.410 drifted",
        "login_next_day 0.680 0.610",
        "challenger: Few rows.",
        "Predicted effects of this arm on plays_more_7d are off by 0.100 [0.080, 0.120]",
        "Nobody logged how the arms were chosen (propensity: estimate)",
        "skin login_next_day +0.100 [+0.080, +0.120] 1.46 1.23 2.37 Something hidden would have to "
        "change a unit&#39;s odds of its arm 1.46 times to explain the effect away, and 1.23 times to "
        "make it uncertain; or be linked to both arm and outcome by risk ratios of 2.37 (E-value).",
    ):
        assert sentence in text


def test_a_trial_has_no_hidden_confounding_to_show(report: RunReport, tmp_path: Path) -> None:
    sound = replace(report.evaluation, confounding=Confounding("design", 24_021, []))
    render(replace(report, evaluation=sound), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "there is no hidden confounding of these effects" in page
    assert "E-value" not in page
    endless = replace(HIDDEN, breakdown=float("inf"), breakdown_interval=float("nan"), e_value=None)
    odd = Confounding("policy", 10, [ArmConfounding("coins", "a", endless)])
    render(
        replace(report, evaluation=replace(report.evaluation, confounding=odd)), tmp_path / "r.html"
    )
    text = " ".join(re.sub(r"<[^>]+>", " ", (tmp_path / "r.html").read_text()).split())
    assert "∞ – – No hidden confounder of any strength" in text


def test_a_map_is_a_line_among_the_tenths(report: RunReport) -> None:
    each = report.evaluation.deciles[0]
    drawn, bare = calibration(each), calibration(replace(each, map_from=[], map_to=[]))
    assert "#e69f00" in drawn.lower()
    assert "#e69f00" not in bare.lower()
    ticks = re.findall(r">([−0-9.]+)</text>", drawn)
    assert ticks == re.findall(r">([−0-9.]+)</text>", bare)  # the map's far end moves no axis


def test_parts_that_are_missing_are_left_out(tmp_path: Path) -> None:
    render(RunReport(CampaignFacts.of(GAME)), tmp_path / "bare.html")
    page = (tmp_path / "bare.html").read_text()
    parsed(page)
    assert "game_bonus" in page
    for heading in (
        "What each policy",
        "How well",
        "hidden confounding",
        "trial sound",
        "units changed",
    ):
        assert heading not in page


def test_what_cannot_be_drawn_is_not_drawn(report: RunReport, tmp_path: Path) -> None:
    found = report.evaluation
    nothing = [replace(band, y=[float("nan")] * 41) for band in found.bands]
    empty = [replace(each, predicted=[], observed=[], low=[], high=[]) for each in found.deciles]
    undefined = Interval(float("nan"), float("nan"), float("nan"), 0.95)
    table = [replace(row, interval=undefined) for row in found.table]
    odd = replace(found, bands=nothing, deciles=empty, table=table)
    render(replace(report, evaluation=odd), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert len(re.findall("<svg", page)) == 1
    assert ">nan" not in page


def test_many_arms_stay_within_the_size(report: RunReport, tmp_path: Path) -> None:
    many = evaluation([f"arm{i}" for i in range(12)], ["a", "b", "c", "d"])
    render(replace(report, evaluation=many), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert len(page) < 3_000_000
    assert "36 more pairs of arm and outcome are in the table only" in page


def test_names_are_shown_as_they_are_and_run_nothing(report: RunReport, tmp_path: Path) -> None:
    nasty = '<script>alert("$x$")</script> & co'
    facts = replace(report.campaign, name=nasty, arms={"none": 0.0, nasty: 1.0, "折扣": 2.0})
    policies = [replace(row, name=nasty) for row in report.policies]
    bands = evaluation([nasty, "折扣"], [nasty])
    render(
        replace(report, campaign=facts, policies=policies, evaluation=bands), tmp_path / "r.html"
    )
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script" not in page
    parsed(page)
    assert "折扣" in page


def test_json_and_back(report: RunReport) -> None:
    assert RunReport.from_json(report.to_json()) == report
    with pytest.raises(DataError, match="SampleRatio: p_value"):
        read_as(SampleRatio, {**asdict(report.sample_ratio), "p_value": "none"})


def test_the_same_report_is_the_same_file(report: RunReport, page: str, tmp_path: Path) -> None:
    render(report, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_numbers_are_written_as_people_write_them() -> None:
    assert [number(x) for x in (0.0, 0.081666, 1234.5, -0.5, 2.0, None, float("nan"))] == [
        "0", "0.0817", "1,234", "−0.500", "2.00", "–", "–",
    ]  # fmt: skip
    assert (
        interval(Interval(0.0421, 0.0254, 0.0588, 0.95), signed=True) == "+0.042 [+0.025, +0.059]"
    )
    assert interval(Interval(1234.0, 1200.0, 1268.0, 0.95)) == "1,234 [1,200, 1,268]"
    assert [share(x) for x in (0.0, 0.007, 0.263, 1.0)] == ["0%", "0.7%", "26%", "100%"]


def test_parts_of_a_model_that_decomposes_its_effects() -> None:
    frame = decision_frame(world("game_bonus").log(2000, seed=5), GAME, "world")
    recipe = fit_recipe(frame, GAME)

    def model(net: str) -> UpliftModel:
        made = build(net, recipe.shape, seed=1).eval()
        return UpliftModel(net, {}, recipe.shape, recipe.encoder, recipe.scaler, made, GAME)

    parts = parts_densities(model("mtmt"), frame, max_rows=500)
    assert [part.outcome for part in parts] == list(GAME.outcomes)
    for part in parts:
        assert list(part.incremental) == ["coins", "skin"]
        width = part.base.x[1] - part.base.x[0]
        assert sum(part.base.y) * width == pytest.approx(1.0)  # a density
    assert parts_densities(model("s_learner"), frame) == []
    assert parts_densities(model("mtmt"), frame.iloc[:0]) == []
